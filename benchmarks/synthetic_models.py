"""Synthetic models, made once by `pocketvlm export` in child processes and kept in a folder.

What is kept is used again only by the export that made it: a change of its code makes the models anew.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import filelock

from pocketvlm.errors import Error

# size -> parameters
SIZES = {"256m": 256_484_928, "500m": 507_482_304, "2.2b": 2_246_272_880, "tiny": 618_688}

# type -> bytes that a parameter takes on disk, at most: embedding and head of q4_0 stay at 8 bits
TYPES = {"f32": 4.0, "bf16": 2.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 34 / 32}
_CHECKPOINT_BYTES = 2.0  # bf16
_SLACK = 1.05  # tensors that stay float32, tokenizer, metadata


class SyntheticModel(NamedTuple):
    """A size of SmolVLM with made-up weights, exported at a type."""

    size: str
    type: str

    @property
    def name(self) -> str:
        return f"{self.size}-{self.type}"


def make_synthetic_models(
    models: Sequence[SyntheticModel], work_dir: Path, *, keep_checkpoints: bool = False
) -> dict[SyntheticModel, Path]:
    """Makes those of `models` that `work_dir` does not have: model -> its exported folder.

    Says on stderr what it makes. Of several processes one makes, the others wait.

    Args:
        models: What is wanted.
        work_dir: Where exports are kept; created if need be.
        keep_checkpoints: Whether the checkpoints are to be there too, where `checkpoint_folder` says;
            without, they go when all is exported.

    Raises:
        Error: The disk has too little room, which is checked first, or an export failed.
    """
    work_dir = work_dir.expanduser().resolve()
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Error(f"{work_dir}: cannot be made: {error.strerror}; --work-dir names another") from error
    with filelock.FileLock(work_dir / "lock"):
        missing = [model for model in models if not _is_made(work_dir / model.name)]
        sizes = list(dict.fromkeys(model.size for model in (models if keep_checkpoints else missing)))
        _require_room(missing, sizes, work_dir, keep_checkpoints)
        for size in sizes:
            checkpoint = checkpoint_folder(size, work_dir)
            try:
                if not _is_made(checkpoint):
                    _make(checkpoint, "synthetic", size, str(checkpoint))
                for model in missing:
                    if model.size == size:
                        out = work_dir / model.name
                        _make(out, "gguf", str(checkpoint), str(out), "--type", model.type)
            finally:
                if not keep_checkpoints:
                    shutil.rmtree(checkpoint, ignore_errors=True)
                    _stamp(checkpoint).unlink(missing_ok=True)
    return {model: work_dir / model.name for model in models}


def checkpoint_folder(size: str, work_dir: Path) -> Path:
    """Returns where the checkpoint of a size lies while it is kept."""
    return work_dir.expanduser().resolve() / f"{size}-checkpoint"


def _require_room(
    missing: Sequence[SyntheticModel], sizes: Sequence[str], work_dir: Path, keep_checkpoints: bool
) -> None:
    """Raises Error unless all that is missing fits the disk, checkpoints of `sizes` meanwhile included."""
    exports = sum(SIZES[model.size] * TYPES[model.type] for model in missing)
    checkpoints = [
        SIZES[size] * _CHECKPOINT_BYTES for size in sizes if not _is_made(checkpoint_folder(size, work_dir))
    ]
    together = sum(checkpoints) if keep_checkpoints else max(checkpoints, default=0)
    needed = (exports + together) * _SLACK
    free = shutil.disk_usage(work_dir).free
    if needed > free:
        names = ", ".join(model.name for model in missing) or "the checkpoint"
        raise Error(
            f"{work_dir}: {free / 1e9:.1f} GB of disk are free, making {names} needs {needed / 1e9:.1f} GB; "
            "--work-dir names another place"
        )


def _make(out: Path, *arguments: str) -> None:
    """Runs `pocketvlm export ARGUMENTS --force`, which writes `out`, and stamps it."""
    print(f"making {out.name} in {out.parent}", file=sys.stderr)
    _stamp(out).unlink(missing_ok=True)
    # -P: the folder we are started in is not a place to import from.
    command = [sys.executable, "-P", "-m", "pocketvlm.export", *arguments, "--force"]
    # On a terminal the child shows its progress bar; elsewhere its words go into the error.
    stderr = None if sys.stderr.isatty() else subprocess.PIPE
    child = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=stderr, text=True)
    if child.returncode:
        said = (child.stderr or "see above").strip().splitlines()
        raise Error(f"{out}: cannot be made (exit code {child.returncode}): {said[-1].split('error: ')[-1]}")
    _stamp(out).write_text(_export_code())


def _is_made(out: Path) -> bool:
    return out.is_dir() and _stamp(out).is_file() and _stamp(out).read_text() == _export_code()


def _stamp(out: Path) -> Path:
    """The file that says what code made `out`; beside it, since `out` holds what an export writes alone."""
    return out.with_name(f"{out.name}.export-sha256")


def _export_code() -> str:
    """The sha256 over the sources and data of pocketvlm.export."""
    digest = hashlib.sha256()
    package = Path(str(files("pocketvlm"))) / "export"
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(package)} {path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
