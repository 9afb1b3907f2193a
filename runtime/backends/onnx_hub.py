"""ONNX graphs of a hub repository: those of one type and their weights are downloaded, nothing else."""

from __future__ import annotations

from pathlib import Path

from .. import hub
from ..errors import FormatError, InputError, UnsupportedError
from ..onnx_names import GRAPHS, graph_file
from .onnx_files import choose_type, data_names

_CONFIGURATIONS = ("*.json", "*.jinja")
_FOLDER = "onnx"


def download_graphs(repo_id: str, type: str | None) -> Path:
    """Returns the folder of a model of the hub with its graphs of a type; downloads what is not here.

    Args:
        repo_id: owner/name.
        type: As for `find_graphs`.

    Raises:
        InputError: This is no hub id, the hub refuses it, or it has no decoder of this type.
        FormatError: It lacks a graph, or one is damaged.
        UnsupportedError: The hub cannot be reached, and not everything is cached.
    """
    repository = hub.find_repository(repo_id)
    if repository is None:
        raise UnsupportedError(_offline_message(repo_id))
    listed = repository.list_files()
    prefix = f"{_FOLDER}/"
    paths = listed if listed is not None else repository.list_downloaded()
    names = {path.removeprefix(prefix) for path in paths if path.startswith(prefix)}
    where = f"{repo_id}/{_FOLDER}"
    try:
        graphs = [graph_file(graph, choose_type(graph, names, type, where)) for graph in GRAPHS]
    except (FormatError, InputError) as error:
        if listed is not None:
            raise
        raise UnsupportedError(_offline_message(repo_id)) from error
    repository.download(_CONFIGURATIONS)
    repository.download([prefix + name for name in graphs], from_folders=True)
    folder = repository.folder / _FOLDER
    if not all((folder / name).is_file() for name in graphs):
        raise UnsupportedError(_offline_message(repo_id))
    # What the repository lacks is not asked for: `find_graphs` says what is missing or should not be named.
    data = sorted(names & {name for graph in graphs for name in data_names(folder / graph)})
    if data:
        repository.download([prefix + name for name in data], from_folders=True)
    return repository.folder


def _offline_message(repo_id: str) -> str:
    return (
        f"{repo_id}: no such folder, and the hub unreachable with not all of its graphs cached. Where there "
        f"is a network, run: hf download {repo_id} --local-dir FOLDER; then pass that folder"
    )
