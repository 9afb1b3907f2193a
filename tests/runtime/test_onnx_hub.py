"""Hub ids on the onnx backend: the graphs of one type and what goes with them come, nothing else."""

from __future__ import annotations

import builtins
import shutil
from pathlib import Path

import huggingface_hub
import onnx
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects

import pocketvlm
from pocketvlm.errors import FormatError, InputError, UnsupportedError
from pocketvlm.export.onnx.export import export_onnx
from pocketvlm.onnx_names import GRAPHS, VISION_ENCODER, graph_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeGraphsHub:
    """Stands for the hub's client over a repository that has folders; counts what was downloaded."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.repository = repository
        self.snapshot = folder / COMMIT
        self.online = True

    @property
    def downloaded(self) -> set[str]:
        return relative_files(self.snapshot)

    def snapshot_download(
        self, repo_id: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]
    ) -> str:
        assert repo_id == "someone/tiny"
        if not self.online and not self.snapshot.exists():
            raise LocalEntryNotFoundError("offline")
        if self.online:
            assert revision in (None, COMMIT)
            names = relative_files(self.repository)
            for name in filter_repo_objects(
                names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
            ):
                target = self.snapshot / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.repository / name, target)
        return str(self.snapshot)

    def list_repo_files(self, repo_id: str, *, revision: str) -> list[str]:
        if not self.online:
            raise ConnectionError("offline")
        return list(relative_files(self.repository))


def relative_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def graphs_hub(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGraphsHub:
    """A checkpoint with graphs of three types beside it, the embedding in two of them."""
    repository = tmp_path / "repository"
    export_onnx(tiny_checkpoint, repository, types=["fp32", "int8", "q4"], threads=2)
    for path in (repository / "onnx").glob("embed_tokens_q4*"):
        path.unlink()
    (repository / "model.safetensors").touch()
    fake = FakeGraphsHub(repository, tmp_path / "snapshots")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", fake.list_repo_files)
    return fake


def graph_names(*types: str) -> set[str]:
    """Files of vision encoder, embedding and decoder at a type each."""
    names = {graph_file(graph, type) for graph, type in zip(GRAPHS, types, strict=True)}
    return {f"onnx/{name}" for name in names} | {f"onnx/{name}_data" for name in names}


def test_of_graphs_only_those_of_the_type_are_downloaded(graphs_hub: FakeGraphsHub) -> None:
    model = pocketvlm.load("someone/tiny", backend="onnx", type="q4", threads=1)
    assert len(model.generate("What?", max_new_tokens=2, ignore_eos=True).token_ids) == 2
    configurations = {
        name for name in relative_files(graphs_hub.repository) if name.endswith((".json", ".jinja"))
    }
    assert {"config.json", "tokenizer.json", "preprocessor_config.json"} <= configurations
    # int8 is the type taken first where the one that was chosen is not there.
    assert graphs_hub.downloaded == configurations | graph_names("q4", "int8", "q4")

    graphs_hub.online = False
    assert pocketvlm.load("someone/tiny", backend="onnx", type="q4", threads=1).info()["backend"] == "onnx"
    with pytest.raises(UnsupportedError, match="hf download someone/tiny"):
        pocketvlm.load("someone/tiny", backend="onnx", type="fp32")


def test_without_a_type_the_first_that_runs_well_is_downloaded(graphs_hub: FakeGraphsHub) -> None:
    pocketvlm.load("someone/tiny", backend="onnx", threads=1)
    assert {name for name in graphs_hub.downloaded if "/" in name} == graph_names("int8", "int8", "int8")


@pytest.mark.parametrize(
    ("type", "removed", "error", "message"),
    [
        ("fp16", "", InputError, "type 'fp16': someone/tiny/onnx has int8, q4, fp32 of decoder_model_merged"),
        ("q9", "", InputError, "type 'q9': expected one of fp32"),
        ("int8", "onnx/*", FormatError, "someone/tiny/onnx: found no graph; expected vision_encoder.onnx"),
        ("int8", "onnx/embed*", FormatError, "expected embed_tokens.onnx or one of its types"),
        ("int8", "onnx/*_data", FormatError, "its weights are missing: vision_encoder_int8.onnx_data"),
    ],
)
def test_a_repository_without_the_graphs_is_named(
    graphs_hub: FakeGraphsHub, type: str, removed: str, error: builtins.type[Exception], message: str
) -> None:
    for path in graphs_hub.repository.glob(removed or "nothing"):
        path.unlink()
    with pytest.raises(error, match=message):
        pocketvlm.load("someone/tiny", backend="onnx", type=type)


def test_a_graph_that_names_files_outside_gets_none_of_them(graphs_hub: FakeGraphsHub) -> None:
    path = graphs_hub.repository / "onnx" / graph_file(VISION_ENCODER, "int8")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../model.safetensors"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FormatError, match="outside its folder"):
        pocketvlm.load("someone/tiny", backend="onnx", type="int8")
    assert "model.safetensors" not in graphs_hub.downloaded


@pytest.mark.parametrize("cached", ["nothing", "*.json", "*.onnx"])
def test_offline_without_all_graphs_says_so(graphs_hub: FakeGraphsHub, cached: str) -> None:
    if cached != "nothing":
        pocketvlm.load("someone/tiny", backend="onnx", type="int8", threads=1)
        for name in graphs_hub.downloaded:
            if not Path(name).match(cached):
                (graphs_hub.snapshot / name).unlink()
    graphs_hub.online = False
    expected = "its weights are missing" if cached == "*.onnx" else "hf download someone/tiny"
    with pytest.raises((UnsupportedError, FormatError), match=expected):
        pocketvlm.load("someone/tiny", backend="onnx", type="int8")


@pytest.mark.parametrize("source", ["nowhere", "/no/where", "a/b/c", "demo"])
def test_what_is_no_folder_and_no_hub_id_is_named(source: str) -> None:
    with pytest.raises(InputError, match="no such folder, and not a hub id"):
        pocketvlm.load(source, backend="onnx")
