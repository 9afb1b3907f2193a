"""The types of GGUF tensors, in NumPy: float32 rows in, block bytes out, equal to the `gguf` package's.

A new type is one function and one row of `TYPES`. Which tensor gets which type is decided in `gguf_export`;
the C++ twin that reads the blocks is csrc/quant/.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatRows = npt.NDArray[np.float32]  # [rows, row_elements]
ByteRows = npt.NDArray[np.uint8]  # [rows, row_nbytes]


@dataclass(frozen=True)
class QuantType:
    """One type.

    Attributes:
        name: As in file names and options.
        ggml_type: Its number in a tensor table.
        file_type: The value of `general.file_type` for a file that is mostly of this type.
        block_size: Elements per block; rows are whole blocks.
        block_nbytes: Bytes per block.
        max_abs: The largest magnitude that it can hold.
        quantize: float32 [rows, row_elements] -> uint8 [rows, row_nbytes], for finite values up to max_abs.
    """

    name: str
    ggml_type: int
    file_type: int
    block_size: int
    block_nbytes: int
    max_abs: float
    quantize: Callable[[FloatRows], ByteRows]

    @property
    def has_blocks(self) -> bool:
        """Whether values share a scale; a float has an exponent of its own."""
        return self.block_size > 1

    def nbytes(self, num_elements: int) -> int:
        """Bytes of a whole number of blocks."""
        return num_elements // self.block_size * self.block_nbytes


def quantize_f32(rows: FloatRows) -> ByteRows:
    """Little-endian float32."""
    return np.ascontiguousarray(rows, dtype="<f4").view(np.uint8)


def quantize_f16(rows: FloatRows) -> ByteRows:
    """Little-endian float16, rounded to nearest even."""
    return rows.astype("<f2").view(np.uint8)


def quantize_bf16(rows: FloatRows) -> ByteRows:
    """Little-endian bfloat16, the high half of a float32, rounded to nearest even."""
    bits = np.ascontiguousarray(rows, dtype="<f4").view("<u4")
    rounded: npt.NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return rounded.view(np.uint8)


def quantize_q8_0(rows: FloatRows) -> ByteRows:
    """Blocks of 32: scale d = max |x| / 127 as float16, then 32 int8 of x / d, rounded half away from zero.

    x / d uses the float32 d, before it is rounded to float16: so does ggml.
    """
    blocks = rows.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    scaled = blocks * _inverse(scale)
    magnitude = np.abs(scaled)
    floor = np.floor(magnitude)
    quants = np.copysign(floor + (magnitude - floor >= np.float32(0.5)), scaled).astype(np.int8)
    packed = np.concatenate([scale.astype("<f2").view(np.uint8), quants.view(np.uint8)], axis=1)
    return packed.reshape(len(rows), -1)


def quantize_q4_0(rows: FloatRows) -> ByteRows:
    """Blocks of 32: scale d = m / -8 as float16, then 32 four-bit x / d + 8, rounded half up, at most 15.

    m is the number of largest magnitude with its sign, the first of several. Byte i holds element i in its
    low half and element i + 16 in its high half. x / d uses the float32 d, as in q8_0.
    """
    blocks = rows.reshape(-1, 32)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    scale = largest / np.float32(-8)
    # From 0.5 less a rounding error to 16.5: what is left of the fraction is cut off.
    quants = np.minimum(blocks * _inverse(scale) + np.float32(8.5), np.float32(15)).astype(np.uint8)
    halves = quants[:, :16] | quants[:, 16:] << 4
    return np.concatenate([scale.astype("<f2").view(np.uint8), halves], axis=1).reshape(len(rows), -1)


def _inverse(scale: FloatRows) -> FloatRows:
    """1 / scale; 0 where that is not finite, for such a scale is zero in float16 too."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / scale
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


_MAX_F16 = 65504.0
_MAX_BF16 = float.fromhex("0x1.fep127")

TYPES = {
    quant_type.name: quant_type
    for quant_type in (
        QuantType("f32", 0, 0, 1, 4, math.inf, quantize_f32),
        QuantType("f16", 1, 1, 1, 2, _MAX_F16, quantize_f16),
        QuantType("bf16", 30, 32, 1, 2, _MAX_BF16, quantize_bf16),
        QuantType("q8_0", 8, 7, 32, 34, 127 * _MAX_F16, quantize_q8_0),
        QuantType("q4_0", 2, 2, 32, 18, 8 * _MAX_F16, quantize_q4_0),
    )
}
