"""A folder, a GGUF file, a hub id or "demo" -> a local text + projector GGUF pair; repositories of the hub.

Checkpoints are converted once, in a child process whose memory goes back with it, into a cache that several
processes may use at a time. The conversion itself is `pocketvlm.export`, which is never imported here.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import platformdirs

from .errors import FormatError, InputError, UnsupportedError
from .gguf_files import ModelFiles, find_model_files

# What a conversion can make.
TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")
DEFAULT_TYPE = "q8_0"

# The model that comes with the package: `pocketvlm.demo_model.MODEL_FOLDER`, found by its place because the
# runtime imports none of the packages around it.
DEMO_MODEL = "demo"
_DEMO_FOLDER = Path(__file__).parent / "demo_model" / "model"

# Raise it when conversions in the caches of users must not be used any more.
_CACHE_VERSION = 1

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHECKPOINT_FILES = ("*.json", "*.jinja", "*.safetensors")

_log = logging.getLogger(__name__)


def resolve(
    source: str | os.PathLike[str],
    *,
    type: str = DEFAULT_TYPE,
    mmproj: str | os.PathLike[str] | None = None,
) -> ModelFiles:
    """Returns the local files of a model, downloading and converting if that was not done before.

    Args:
        source: A folder with a GGUF pair, or the text file of one (used as they are); the folder of a Hugging
            Face checkpoint; a hub id of either; or "demo": the model that comes with the package, unless the
            current folder has a model of that name.
        type: What to convert a checkpoint to, one of `TYPES`; of a hub repository with GGUF files, the type
            of those to take.
        mmproj: The projector file that goes with a text file; by default the one beside it.

    Raises:
        InputError: There is no such file, folder or repository, no such type, or nothing for `mmproj`.
        FormatError: The folder holds neither a GGUF pair nor a checkpoint, or cannot be converted.
        UnsupportedError: The hub cannot be reached and nothing is cached; or a file is split.
    """
    if type not in TYPES:
        raise InputError(f"type {type!r}: expected one of {', '.join(TYPES)}")
    folder = Path(source).expanduser()
    projector = None if mmproj is None else Path(mmproj).expanduser()
    if folder.is_file() and folder.suffix != ".gguf" and not _is_gguf(folder):
        raise InputError(f"{folder}: is a file, and no GGUF file; give a folder or the text file of a pair")
    if folder.is_file() or (folder.is_dir() and any(folder.glob("*.gguf"))):
        return find_model_files(folder, projector)
    if projector is not None:
        raise InputError(f"{source}: is no GGUF file and no folder of one; mmproj is for those")
    if source == DEMO_MODEL and not _holds_model(folder):
        return find_model_files(_DEMO_FOLDER)
    if folder.is_dir():
        return find_model_files(_convert_folder(folder.resolve(), type))
    if _HUB_ID.fullmatch(str(source)):
        return _resolve_hub_id(str(source), type)
    raise InputError(f"{source}: no such folder, and not a hub id (owner/name)")


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _holds_model(folder: Path) -> bool:
    """Whether a folder is meant as a model, complete or not; any other one named demo is not in the way."""
    return any(any(folder.glob(pattern)) for pattern in ("*.gguf", "*.safetensors", "config.json"))


def find_checkpoint(source: str | os.PathLike[str]) -> Path | None:
    """Returns the folder of the checkpoint that a source names, downloaded if need be; None if exported.

    Raises:
        InputError: The hub refuses the id.
        UnsupportedError: The hub cannot be reached.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir() and _HUB_ID.fullmatch(str(source)):
        downloaded = _download(str(source), list(_CHECKPOINT_FILES), revision=None)
        if downloaded is None:
            raise UnsupportedError(_offline_message(str(source)))
        folder = downloaded
    return folder.resolve() if any(folder.glob("*.safetensors")) else None


def cache_folder() -> Path:
    """Returns where conversions are kept: $POCKETVLM_CACHE, else the user's cache folder."""
    return Path(os.environ.get("POCKETVLM_CACHE") or platformdirs.user_cache_dir("pocketvlm"))


def _convert_folder(checkpoint: Path, type: str) -> Path:
    _require_weights(checkpoint)
    identity = hashlib.sha256(str(checkpoint).encode())
    for path in sorted(path for pattern in _CHECKPOINT_FILES for path in checkpoint.glob(pattern)):
        status = path.stat()
        identity.update(f"\n{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return _convert(checkpoint, checkpoint.name, identity.hexdigest()[:16], type)


def _resolve_hub_id(repo_id: str, type: str) -> ModelFiles:
    name = repo_id.replace("/", "--")
    repository = find_repository(repo_id)
    if repository is None:
        if converted := _newest_conversion(name, type):
            return find_model_files(converted)
        raise UnsupportedError(_offline_message(repo_id))
    target = _conversion_folder(name, repository.commit, type)
    if target.is_dir():
        return find_model_files(target)
    if not (repository.folder / "config.json").exists() and (names := _gguf_names(repository)):
        return _download_pair(repository, *_choose_pair(repo_id, names, type))
    checkpoint = repository.download(_CHECKPOINT_FILES)
    if checkpoint is None or not any(checkpoint.glob("*.safetensors")):
        raise UnsupportedError(_offline_message(repo_id))
    return find_model_files(_convert(checkpoint, name, repository.commit, type))


@dataclass(frozen=True)
class Repository:
    """A repository of the hub at its newest commit, of which config.json is here if it has that.

    Attributes:
        repo_id: owner/name.
        commit: 40 hex digits.
        folder: Its snapshot in the hub's cache: what was downloaded of it.
    """

    repo_id: str
    commit: str
    folder: Path

    def list_files(self) -> list[str] | None:
        """Returns its files, with "/" between folders; None if the hub cannot be reached."""
        from huggingface_hub import list_repo_files

        try:
            return sorted(list_repo_files(self.repo_id, revision=self.commit))
        except Exception:  # the network stack below, and so its errors, changes between versions of the hub
            return None

    def list_downloaded(self) -> list[str]:
        """Returns those of its files that are here, with "/" between folders."""
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        return sorted(path.relative_to(self.folder).as_posix() for path in paths)

    def download(self, patterns: Sequence[str], *, from_folders: bool = False) -> Path | None:
        """Downloads what matches any of `patterns`, at the top or, `from_folders`, anywhere.

        Returns:
            `folder`; None if the hub cannot be reached and nothing was downloaded before.

        Raises:
            InputError: The hub refuses.
            UnsupportedError: The download broke off.
        """
        return _download(self.repo_id, list(patterns), revision=self.commit, from_folders=from_folders)


def find_repository(source: str | os.PathLike[str]) -> Repository | None:
    """Returns the repository that a hub id names; None if the hub cannot be reached and nothing is cached.

    Raises:
        InputError: This is no hub id, or the hub refuses it.
        FormatError: The hub's cache is not laid out as it should be.
        UnsupportedError: The download broke off.
    """
    repo_id = str(source)
    if not _HUB_ID.fullmatch(repo_id):
        raise InputError(f"{source}: no such folder, and not a hub id (owner/name)")
    # config.json alone tells the commit, so that a converted model needs no weights in the hub's own cache.
    snapshot = _download(repo_id, ["config.json"], revision=None)
    if snapshot is None:
        return None
    if not _COMMIT.fullmatch(snapshot.name):
        raise FormatError(f"{snapshot}: expected a folder named after a commit of {repo_id}")
    return Repository(repo_id, snapshot.name, snapshot)


def _gguf_names(repository: Repository) -> list[str]:
    listed = repository.list_files()
    names = listed if listed is not None else repository.list_downloaded()
    return [name for name in names if name.endswith(".gguf") and "/" not in name]


def _choose_pair(repo_id: str, names: Sequence[str], type: str) -> tuple[str, str]:
    """Chooses text and projector file by their names: what they hold is seen when they are here."""
    projectors = [name for name in names if name.startswith("mmproj")]
    texts = [name for name in names if name not in projectors and f"-{type}." in name.lower()]
    same_type = [name for name in projectors if f"-{type}." in name.lower()]
    chosen = same_type or [name for name in projectors if "-f16." in name.lower()] or projectors
    if len(texts) != 1 or len(chosen) != 1:
        raise InputError(
            f"{repo_id}: has {', '.join(names)}; expected one text file *-{type.upper()}.gguf and "
            "one projector mmproj-*.gguf. Download the two that are meant, then name the text file"
        )
    return texts[0], chosen[0]


def _download_pair(repository: Repository, text: str, projector: str) -> ModelFiles:
    folder = repository.download([text, projector])
    if folder is None or not all((folder / name).exists() for name in (text, projector)):
        raise UnsupportedError(_offline_message(repository.repo_id))
    return find_model_files(folder / text, folder / projector)


def _download(
    repo_id: str, patterns: list[str], revision: str | None, *, from_folders: bool = False
) -> Path | None:
    """Returns the folder of a snapshot in the hub's cache; None if it is not there, nor the hub reachable."""
    # Slow to import, and needed for hub ids only.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        ignored = [] if from_folders else ["*/*"]
        return Path(
            snapshot_download(repo_id, revision=revision, allow_patterns=patterns, ignore_patterns=ignored)
        )
    except LocalEntryNotFoundError:
        return None
    except (HfHubHTTPError, HFValidationError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{repo_id}: no such folder, and the hub refuses it: {reason}") from error
    except (
        Exception
    ) as error:  # the network stack below, and so its errors, changes between versions of the hub
        raise UnsupportedError(f"{repo_id}: cannot be downloaded: {error}") from error


def _offline_message(repo_id: str) -> str:
    return (
        f"{repo_id}: no such folder, nothing cached, and the hub unreachable or without .safetensors of it. "
        f"Where there is a network, run: hf download {repo_id} --local-dir FOLDER; then pass that folder"
    )


def _require_weights(checkpoint: Path) -> None:
    missing = [pattern for pattern in ("config.json", "*.safetensors") if not any(checkpoint.glob(pattern))]
    if missing:
        names = sorted(path.name for path in checkpoint.iterdir())
        listing = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise FormatError(
            f"{checkpoint}: found {listing or 'an empty folder'}; expected a GGUF pair (an exported model), "
            "or config.json with *.safetensors (a checkpoint)"
        )


def _models_folder() -> Path:
    return cache_folder() / f"models-v{_CACHE_VERSION}"


def _conversion_folder(name: str, identity: str, type: str) -> Path:
    return _models_folder() / f"{name}--{identity}--{type}"


def _newest_conversion(name: str, type: str) -> Path | None:
    folders = [folder for folder in _models_folder().glob(f"{name}--*--{type}") if folder.is_dir()]
    return max(folders, key=lambda folder: folder.stat().st_mtime, default=None)


def _convert(checkpoint: Path, name: str, identity: str, type: str) -> Path:
    """Converts a checkpoint unless that was done before. Of several processes one does it, others wait."""
    target = _conversion_folder(name, identity, type)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{target.parent}: cannot be made: {error}; POCKETVLM_CACHE names another"
        ) from error
    with filelock.FileLock(f"{target}.lock"):
        if target.is_dir():
            return target
        _log.warning("converting %s to %s, once, into %s", checkpoint, type, target)
        # Under the lock, so what lies here was left by a process that was killed.
        staging = Path(f"{target}.partial")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            _export(checkpoint, staging, type)
            staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def _export(checkpoint: Path, out: Path, type: str) -> None:
    # -P: the folder we are started in is not a place to import from.
    export = [sys.executable, "-P", "-m", "pocketvlm.export"]
    command = [*export, "gguf", str(checkpoint), str(out), "--type", type]
    # On a terminal the child shows its progress bar; elsewhere its words go into the error.
    shown = sys.stderr is not None and sys.stderr.isatty()
    child = subprocess.run(
        command, check=False, stdout=subprocess.DEVNULL, stderr=None if shown else subprocess.PIPE, text=True
    )
    if child.returncode:
        said = (child.stderr or "").strip().splitlines()
        reason = said[-1].removeprefix("pocketvlm: error: ") if said else "see above"
        raise FormatError(f"{checkpoint}: cannot be converted (exit code {child.returncode}): {reason}")
