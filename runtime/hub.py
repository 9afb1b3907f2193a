"""A folder, a hub id or "demo" -> a local folder with a text + projector GGUF pair.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from . import _core
from .errors import FormatError, InputError, UnsupportedError

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


@dataclass(frozen=True)
class ModelFiles:
    """An exported model: the GGUF pair, and its folder with tokenizer.json and the configs."""

    folder: Path
    text: Path
    projector: Path

    def info(self) -> dict[str, Any]:
        """Returns names and sizes, as `Model.info` has them."""
        return {
            "text_file": self.text.name,
            "text_file_bytes": self.text.stat().st_size,
            "projector_file": self.projector.name,
            "projector_file_bytes": self.projector.stat().st_size,
        }


def resolve(source: str | os.PathLike[str], *, type: str = DEFAULT_TYPE) -> ModelFiles:
    """Returns the local files of a model, downloading and converting if that was not done before.

    Args:
        source: An exported folder (used as is), the folder of a Hugging Face checkpoint, a hub id, or "demo":
            the model that comes with the package, unless the current folder has a model of that name.
        type: What to convert a checkpoint to, one of `TYPES`.

    Raises:
        InputError: There is no such folder or repository, or no such type.
        FormatError: The folder holds neither an exported model nor a checkpoint, or cannot be converted.
        UnsupportedError: The hub cannot be reached and nothing is cached.
    """
    if type not in TYPES:
        raise InputError(f"type {type!r}: expected one of {', '.join(TYPES)}")
    folder = Path(source).expanduser()
    if source == DEMO_MODEL and not _holds_model(folder):
        return find_model_files(_DEMO_FOLDER)
    if folder.is_dir():
        if any(folder.glob("*.gguf")):
            return find_model_files(folder)
        return find_model_files(_convert_folder(folder.resolve(), type))
    if folder.exists():
        raise InputError(f"{folder}: is a file; give the folder of an exported model or of a checkpoint")
    if _HUB_ID.fullmatch(str(source)):
        return find_model_files(_convert_hub_id(str(source), type))
    raise InputError(f"{source}: no such folder, and not a hub id (owner/name)")


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


def find_model_files(folder: Path) -> ModelFiles:
    """Finds the GGUF pair of an exported folder by what the files say they are, whatever their names.

    Raises:
        FormatError: There is not exactly one text and one projector file.
    """
    found: dict[str, list[Path]] = {"llama": [], "clip": []}
    listing = []
    for path in sorted(folder.glob("*.gguf")):
        architecture = _core.GgufFile(path).require_string("general.architecture")
        found.setdefault(architecture, []).append(path)
        listing.append(f"{path.name} ({architecture})")
    texts, projectors = found["llama"], found["clip"]
    if len(texts) != 1 or len(projectors) != 1:
        raise FormatError(
            f"{folder}: found {', '.join(listing) or 'no .gguf file'}; "
            "expected one text file (architecture llama) and one projector (clip)"
        )
    return ModelFiles(folder, texts[0], projectors[0])


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


def _convert_hub_id(repo_id: str, type: str) -> Path:
    name = repo_id.replace("/", "--")
    # config.json alone tells the commit, so that a converted model needs no weights in the hub's own cache.
    snapshot = _download(repo_id, ["config.json"], revision=None)
    if snapshot is None:
        if converted := _newest_conversion(name, type):
            return converted
        raise UnsupportedError(_offline_message(repo_id))
    commit = snapshot.name
    if not _COMMIT.fullmatch(commit):
        raise FormatError(f"{snapshot}: expected a folder named after a commit of {repo_id}")
    target = _conversion_folder(name, commit, type)
    if target.is_dir():
        return target
    checkpoint = _download(repo_id, list(_CHECKPOINT_FILES), revision=commit)
    if checkpoint is None or not any(checkpoint.glob("*.safetensors")):
        raise UnsupportedError(_offline_message(repo_id))
    return _convert(checkpoint, name, commit, type)


def _download(repo_id: str, patterns: list[str], revision: str | None) -> Path | None:
    """Returns the folder of a snapshot in the hub's cache; None if it is not there, nor the hub reachable."""
    # Slow to import, and needed for hub ids only.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(repo_id, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"])
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
