"""Safetensors files as tests need them: taken apart into tensors, and written from tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketvlm.export.safetensors_file import SafetensorsFile, encode_header


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in a file."""

    dtype: str
    shape: tuple[int, ...]
    raw: bytes

    def as_float32(self) -> npt.NDArray[np.float32]:
        """The values of a bf16 tensor."""
        assert self.dtype == "BF16"
        return (np.frombuffer(self.raw, dtype="<u2").astype(np.uint32) << 16).view(np.float32)


def read_tensors(path: Path) -> dict[str, Stored]:
    """Reads a whole file."""
    with SafetensorsFile(path) as file:
        return {
            name: Stored(entry.dtype, entry.shape, bytes(file.read(entry.offset, entry.nbytes)))
            for name, entry in file.tensors.items()
        }


def write_tensors(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Writes a sound file."""
    header = encode_header((name, stored.dtype, stored.shape) for name, stored in tensors.items())
    path.write_bytes(header + b"".join(stored.raw for stored in tensors.values()))


def write_sharded(folder: Path, tensors: Mapping[str, Stored], num_files: int) -> None:
    """Writes the tensors into several files with an index, as save_pretrained does for large models."""
    names = list(tensors)
    weight_map = {}
    for i in range(num_files):
        file = f"model-{i + 1:05}-of-{num_files:05}.safetensors"
        mine = names[i::num_files]
        write_tensors(folder / file, {name: tensors[name] for name in mine})
        weight_map |= dict.fromkeys(mine, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
