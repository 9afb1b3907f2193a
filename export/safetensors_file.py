"""One safetensors file: a reader that proves the header before any tensor is used, and a writer's header.

The file is read with plain reads and not mapped: memory stays at what is asked for, and a file that another
program cuts short is an error instead of a signal. What the tensors mean is the business of `checkpoint`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeGuard

from ..errors import FormatError

# Bytes per element of every dtype of the format that has whole bytes.
DTYPE_SIZES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}

# The limit of the reference implementation.
_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: dtype name, shape (outermost first), first byte in the file, length in bytes."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class SafetensorsFile:
    """An open file whose header has been proved: every tensor lies inside the file and none overlap.

    Attributes:
        path: The file.
        tensors: Tensor name -> TensorEntry.
    """

    def __init__(self, path: Path) -> None:
        """Opens and proves `path`.

        Raises:
            FormatError: The file is missing or its header is not sound.
        """
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise FormatError(f"{path}: cannot be opened: {error.strerror}") from error
        try:
            self.tensors = self._read_tensor_table()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def read(self, offset: int, nbytes: int) -> bytearray:
        """Returns `nbytes` bytes from byte `offset` of the file.

        Raises:
            FormatError: The file has become shorter since it was opened.
        """
        buffer = bytearray(nbytes)
        view = memoryview(buffer)
        done = 0
        self._file.seek(offset)
        while done < nbytes:
            count = self._file.readinto(view[done:])
            if not count:
                size = os.fstat(self._file.fileno()).st_size
                raise FormatError(f"{self.path}: {size} bytes, expected {offset + nbytes} at least")
            done += count
        return buffer

    def _read_tensor_table(self) -> dict[str, TensorEntry]:
        file_size = os.fstat(self._file.fileno()).st_size
        if file_size < 8:
            raise FormatError(f"{self.path}: {file_size} bytes, a safetensors file has at least 8")
        header_size = int.from_bytes(self.read(0, 8), "little")
        if header_size > min(file_size - 8, _MAX_HEADER_BYTES):
            raise FormatError(
                f"{self.path}: header length {header_size}, the file has {file_size - 8} bytes after it "
                f"and the limit is {_MAX_HEADER_BYTES}"
            )
        header = self._parse_header(bytes(self.read(8, header_size)))
        data_start = 8 + header_size
        tensors = {
            name: self._parse_entry(name, entry, data_start)
            for name, entry in header.items()
            if name != "__metadata__"
        }
        self._prove_layout(tensors, data_start, file_size)
        return tensors

    def _parse_header(self, raw: bytes) -> dict[str, Any]:
        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            values = dict(pairs)
            if len(values) != len(pairs):
                raise ValueError("a name occurs twice")
            return values

        try:
            header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{self.path}: the header is not JSON: {error}") from error
        if not isinstance(header, dict):
            raise FormatError(
                f"{self.path}: the header is a JSON {type(header).__name__}, expected an object"
            )
        return header

    def _parse_entry(self, name: str, entry: Any, data_start: int) -> TensorEntry:
        where = f"{self.path}: tensor {name}"
        if not isinstance(entry, dict):
            raise FormatError(f"{where}: {entry!r}, expected an object with dtype, shape and data_offsets")
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if dtype not in DTYPE_SIZES:
            raise FormatError(f"{where}: dtype is {dtype!r}, expected one of {', '.join(DTYPE_SIZES)}")
        if not _is_list_of_sizes(shape):
            raise FormatError(f"{where}: shape is {shape!r}, expected a list of sizes")
        if not _is_list_of_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise FormatError(f"{where}: data_offsets is {offsets!r}, expected [begin, end]")
        begin, end = offsets
        nbytes = math.prod(shape) * DTYPE_SIZES[dtype]
        if end - begin != nbytes:
            raise FormatError(f"{where}: {end - begin} bytes, {dtype} {shape} needs {nbytes}")
        return TensorEntry(dtype, tuple(shape), data_start + begin, nbytes)

    def _prove_layout(self, tensors: Mapping[str, TensorEntry], data_start: int, file_size: int) -> None:
        """Raises FormatError unless the tensors fill the file from `data_start` on, no overlaps, no holes."""
        end, previous = data_start, "the header"
        for name, entry in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
            if entry.offset != end:
                fault = "overlaps" if entry.offset < end else "leaves a hole after"
                raise FormatError(
                    f"{self.path}: tensor {name} {fault} {previous}: "
                    f"it begins at byte {entry.offset}, expected {end}"
                )
            end, previous = end + entry.nbytes, f"tensor {name}"
        if end != file_size:
            raise FormatError(f"{self.path}: {file_size} bytes, the header describes {end}")


def encode_header(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """Returns the bytes before the data of a file that holds `tensors` (name, dtype, shape) in that order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape in tensors:
        begin, end = end, end + math.prod(shape) * DTYPE_SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def _is_list_of_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
