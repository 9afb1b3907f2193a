"""Synthetic models as GGUF pairs and ONNX graphs, made once by `pocketvlm export` and kept in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import filelock

from pocketvlm.errors import Error
from pocketvlm.export.onnx.types import TYPES as ONNX_TYPES

from .exports import is_made, make, stamp
from .subjects import onnx_bytes_per_weight

# size -> parameters
SIZES = {"256m": 256_484_928, "500m": 507_482_304, "2.2b": 2_246_272_880, "tiny": 618_688}

# type -> bytes that a parameter takes on disk, at most: embedding and head of q4_0 stay at 8 bits
TYPES = {"f32": 4.0, "bf16": 2.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 34 / 32}
_CHECKPOINT_BYTES = 2.0  # bf16
_CHECK_BYTES = 4.0  # graphs are held against a model at float32, made for it and removed
_SLACK = 1.05  # tensors that stay float32, tokenizer, metadata


class SyntheticModel(NamedTuple):
    """A size of SmolVLM with made-up weights, exported at a type of GGUF files or of ONNX graphs."""

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
        missing = [model for model in models if not is_made(work_dir / model.name)]
        sizes = list(dict.fromkeys(model.size for model in (models if keep_checkpoints else missing)))
        _require_room(missing, sizes, work_dir, keep_checkpoints)
        for size in sizes:
            checkpoint = checkpoint_folder(size, work_dir)
            try:
                if not is_made(checkpoint):
                    make(checkpoint, "synthetic", size, str(checkpoint))
                for model in missing:
                    if model.size == size:
                        out = work_dir / model.name
                        form = "onnx" if model.type in ONNX_TYPES else "gguf"
                        make(out, form, str(checkpoint), str(out), "--type", model.type)
            finally:
                if not keep_checkpoints:
                    shutil.rmtree(checkpoint, ignore_errors=True)
                    stamp(checkpoint).unlink(missing_ok=True)
    return {model: work_dir / model.name for model in models}


def checkpoint_folder(size: str, work_dir: Path) -> Path:
    """Returns where the checkpoint of a size lies while it is kept."""
    return work_dir.expanduser().resolve() / f"{size}-checkpoint"


def _require_room(
    missing: Sequence[SyntheticModel], sizes: Sequence[str], work_dir: Path, keep_checkpoints: bool
) -> None:
    """Raises Error unless all that is missing fits the disk, checkpoints of `sizes` meanwhile included."""
    exports = sum(SIZES[model.size] * _bytes_per_parameter(model.type) for model in missing)
    checks = [SIZES[model.size] * _CHECK_BYTES for model in missing if model.type in ONNX_TYPES]
    checkpoints = [
        SIZES[size] * _CHECKPOINT_BYTES for size in sizes if not is_made(checkpoint_folder(size, work_dir))
    ]
    together = sum(checkpoints) if keep_checkpoints else max(checkpoints, default=0)
    needed = (exports + together + max(checks, default=0)) * _SLACK
    free = shutil.disk_usage(work_dir).free
    if needed > free:
        names = ", ".join(model.name for model in missing) or "the checkpoint"
        raise Error(
            f"{work_dir}: {free / 1e9:.1f} GB of disk are free, making {names} needs {needed / 1e9:.1f} GB; "
            "--work-dir names another place"
        )


def _bytes_per_parameter(type: str) -> float:
    """What a parameter takes on disk, at most: graphs have embedding and head apart, at 8 bits or more."""
    if type in ONNX_TYPES:
        return 1.12 * onnx_bytes_per_weight(type) + 0.2
    return TYPES[type]
