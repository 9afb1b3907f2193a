"""A writer of GGUF version 3: the header first, then tensors streamed in order.

Metadata that is known only when the tensors have gone by, hashes above all, is replaced afterwards. Which
keys and tensors a file holds is decided in `gguf_metadata` and `gguf_export`.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..errors import FormatError
from .quantize import ByteRows, QuantType

ALIGNMENT = 32


class ValueType(enum.IntEnum):
    """The metadata types, with their numbers in the format."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


Scalar = bool | int | float | str


@dataclass(frozen=True)
class Value:
    """A metadata value; `data` is a list when it is an array of `type`."""

    type: ValueType
    data: Scalar | Sequence[Scalar]


Metadata = Mapping[str, Value]


@dataclass(frozen=True)
class TensorInfo:
    """A line of the tensor table; `shape` has the outermost dimension first."""

    name: str
    shape: tuple[int, ...]
    type: QuantType
    nbytes: int


def uint32(value: int) -> Value:
    """A UINT32."""
    return Value(ValueType.UINT32, value)


def float32(value: float) -> Value:
    """A FLOAT32."""
    return Value(ValueType.FLOAT32, value)


def boolean(value: bool) -> Value:
    """A BOOL."""
    return Value(ValueType.BOOL, value)


def string(value: str) -> Value:
    """A STRING."""
    return Value(ValueType.STRING, value)


def array(type: ValueType, values: Sequence[Scalar]) -> Value:
    """An ARRAY of `type`."""
    return Value(type, list(values))


class GgufWriter:
    """Writes one file: construct, then `write` all bytes of all tensors in order."""

    def __init__(self, path: Path, metadata: Metadata, tensors: Sequence[TensorInfo]) -> None:
        """Creates `path` and writes its header."""
        self._tensors = tensors
        self._index = 0
        self._written = 0
        self._file = path.open("wb")
        self._file.write(encode_header(metadata, tensors))

    def __enter__(self) -> GgufWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        assert error is not None or self._index == len(self._tensors), "a tensor is missing or incomplete"

    def write(self, data: ByteRows) -> None:
        """Appends bytes of the current tensor; the last ones pad it and move on to the next."""
        tensor = self._tensors[self._index]
        self._written += data.nbytes
        assert self._written <= tensor.nbytes, f"too many bytes for {tensor.name}"
        self._file.write(data.data)
        if self._written == tensor.nbytes:
            self._file.write(b"\0" * (-tensor.nbytes % ALIGNMENT))
            self._index += 1
            self._written = 0


def replace_metadata(path: Path, old: Metadata, new: Metadata, tensors: Sequence[TensorInfo]) -> None:
    """Writes the header again with values as long as those that it has."""
    header = encode_header(new, tensors)
    assert len(header) == len(encode_header(old, tensors)), "the new metadata is not as long as the old"
    with path.open("r+b") as file:
        file.write(header)


def encode_header(metadata: Metadata, tensors: Sequence[TensorInfo]) -> bytes:
    """Returns everything before the tensor data: magic, version, counts, metadata, tensor table, padding.

    Raises:
        FormatError: A text holds half a surrogate pair, as JSON escapes allow.
    """
    header = bytearray(b"GGUF")
    header += struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        header += _encode_string(key) + _encode_value(value)
    offset = 0
    for tensor in tensors:
        header += _encode_string(tensor.name)
        header += struct.pack("<I", len(tensor.shape))
        header += struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape))
        header += struct.pack("<IQ", tensor.type.ggml_type, offset)
        offset += tensor.nbytes + -tensor.nbytes % ALIGNMENT
    header += b"\0" * (-len(header) % ALIGNMENT)
    return bytes(header)


_SCALAR_FORMATS = {
    ValueType.UINT8: "<B",
    ValueType.INT8: "<b",
    ValueType.UINT16: "<H",
    ValueType.INT16: "<h",
    ValueType.UINT32: "<I",
    ValueType.INT32: "<i",
    ValueType.FLOAT32: "<f",
    ValueType.BOOL: "<?",
    ValueType.UINT64: "<Q",
    ValueType.INT64: "<q",
    ValueType.FLOAT64: "<d",
}


def _encode_value(value: Value) -> bytes:
    if isinstance(value.data, list):
        encoded = struct.pack("<IIQ", ValueType.ARRAY, value.type, len(value.data))
        return encoded + b"".join(_encode_scalar(value.type, item) for item in value.data)
    assert isinstance(value.data, Scalar)
    return struct.pack("<I", value.type) + _encode_scalar(value.type, value.data)


def _encode_scalar(type: ValueType, value: Scalar) -> bytes:
    if type is ValueType.STRING:
        assert isinstance(value, str)
        return _encode_string(value)
    return struct.pack(_SCALAR_FORMATS[type], value)


def _encode_string(text: str) -> bytes:
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError(f"{text!r} is no Unicode text, which GGUF cannot store: {error.reason}") from error
    return struct.pack("<Q", len(raw)) + raw
