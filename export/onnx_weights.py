"""Matrices as ONNX graphs hold them: read from the checkpoint, quantised, packed and multiplied with.

Quantised ones go through MatMulNBits, which quantises activations per block of 32 to int8 (accuracy level 4)
and multiplies by VNNI where the processor has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedError
from .checkpoint import Checkpoint, row_ranges
from .equalization import Equalization
from .onnx_graph import MICROSOFT, GraphBuilder
from .onnx_types import OnnxType
from .tensor_map import TensorSpec, all_tensors

Floats = npt.NDArray[np.float32]

_MAX_F16 = 65504.0

# MatMulNBits: activations become int8.
_ACCURACY_LEVEL = 4
_BLOCK_SIZE = 32


class Weights:
    """The tensors of a checkpoint by their Hugging Face names, a whole one at a time."""

    def __init__(self, source: Checkpoint, equalization: Equalization | None = None) -> None:
        """Takes the checkpoint, and what evens out its channels if anything does."""
        self._source = source
        self._equalization = equalization
        self._specs: dict[str, TensorSpec] = {spec.hf_name: spec for spec in all_tensors(source.config)}

    def read(self, name: str) -> Floats:
        """Returns a tensor at float32 in its own shape. Raises FormatError."""
        spec = self._specs[name]
        out = np.empty(spec.shape, np.float32)
        rows = out.reshape(spec.shape[0], -1)
        for start, stop in row_ranges(spec):
            values = self._source.read_rows(spec, start, stop).values
            if self._equalization is not None:
                values = self._equalization.apply(values, name, start)
            rows[start:stop] = values
        return out

    def read_as(self, name: str, type: OnnxType) -> npt.NDArray[np.floating]:
        """Returns a tensor at the float dtype of `type`. Raises FormatError, UnsupportedError."""
        return to_dtype(self.read(name), type, name)

    def read_rows(self, names: Sequence[str]) -> Floats:
        """Returns matrices of the same width, one under the other. Raises FormatError."""
        return np.concatenate([self.read(name) for name in names])


def to_dtype(values: Floats, type: OnnxType, name: str) -> npt.NDArray[np.floating]:
    """Rounds to the float dtype of `type`. Raises UnsupportedError where a value does not fit."""
    if type.dtype is np.float16 and (largest := float(np.abs(values).max())) > _MAX_F16:
        raise UnsupportedError(
            f"tensor {name}: holds {largest:g}, float16 reaches {_MAX_F16:g}; export as fp32, int8 or q4"
        )
    return values.astype(type.dtype)


class QuantisedMatrix(NamedTuple):
    """What MatMulNBits takes. K = in features, N = out features, blocks = ceil(K / block size)."""

    quants: npt.NDArray[np.uint8]  # [N, blocks, block size * bits / 8], 2**(bits - 1) stands for 0
    scales: Floats  # [N, blocks]


def quantise(matrix: Floats, bits: int, block_size: int | None) -> QuantisedMatrix:
    """Quantises symmetrically around 0.

    Args:
        matrix: float32 [N, K].
        bits: 4 or 8. 8 bits go from -127 to 127; 4 bits from -8 to 7, the largest number of a block at -8.
        block_size: Weights that share a scale; None: a row of `matrix`, whose scale all blocks repeat.

    Returns:
        Quants in blocks of 32, the last one filled up with zeros; scales [N, 1] if a row shares one.
    """
    rows, width = matrix.shape
    padded = np.zeros((rows, -(-width // _BLOCK_SIZE) * _BLOCK_SIZE), np.float32)
    padded[:, :width] = matrix
    blocks = padded.reshape(rows, -1, block_size or padded.shape[1])
    zero = 1 << (bits - 1)
    if bits == 4:
        largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2, keepdims=True), axis=2)
        scales = largest / np.float32(-zero)
    else:
        scales = np.abs(blocks).max(axis=2, keepdims=True) / np.float32(zero - 1)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    np.multiply(blocks, inverse, out=blocks)
    np.rint(blocks, out=blocks)
    blocks += zero
    np.clip(blocks, 0, 2 * zero - 1, out=blocks)
    quants = padded.astype(np.uint8).reshape(rows, -1, _BLOCK_SIZE)
    if bits == 4:
        quants = quants[:, :, 0::2] | quants[:, :, 1::2] << np.uint8(4)
    return QuantisedMatrix(quants, scales[:, :, 0].astype(np.float32, copy=False))


def linear(
    graph: GraphBuilder, x: str, matrix: Floats, type: OnnxType, name: str, *, bits: int | None
) -> str:
    """Adds x @ matrix.T and returns its name.

    Args:
        graph: What gets the nodes and the weights.
        x: [..., K] of the dtype of `type`.
        matrix: float32 [N, K].
        type: Of the file.
        name: Of the weights.
        bits: Per weight, None for floats.
    """
    if bits is None:
        transposed = np.ascontiguousarray(to_dtype(matrix, type, name).T)
        return graph.op("MatMul", [x, graph.weight(name, transposed)])
    quants, scales = quantise(matrix, bits, type.block_size)
    scales_name = graph.weight(f"{name}_scales", to_dtype(scales, type, f"{name}, its scales"))
    if type.block_size is None:
        # Folded when a session is made: the file keeps one scale of a row, the kernel wants one of a block.
        repeated = graph.constant([1, quants.shape[1]], np.int64)
        scales_name = graph.op("Expand", [scales_name, repeated])
    return graph.op(
        "MatMulNBits",
        [x, graph.weight(f"{name}_quants", quants), scales_name],
        domain=MICROSOFT,
        K=matrix.shape[1],
        N=matrix.shape[0],
        bits=bits,
        block_size=_BLOCK_SIZE,
        accuracy_level=_ACCURACY_LEVEL,
    )


def linear_by_integers(graph: GraphBuilder, x: str, matrix: Floats, name: str) -> str:
    """Adds x @ matrix.T with int8 weights and uint8 activations that share one scale, and returns its name.

    For many rows at a time: there this is several times faster than `linear` at 8 bits, which is more exact.

    Args:
        graph: What gets the nodes and the weights.
        x: float32 [..., K].
        matrix: float32 [N, K].
        name: Of the weights.
    """
    quants, scales = quantise_rows(matrix)
    return graph.op(
        "DynamicQuantizeMatMul",
        [
            x,
            graph.weight(f"{name}_quants", np.ascontiguousarray(quants.T)),
            graph.weight(f"{name}_scales", scales),
        ],
        domain=MICROSOFT,
    )


def quantise_rows(matrix: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Returns `matrix`, float32 [N, K], as int8 from -127 to 127, and the scales of its rows, float32 [N]."""
    scales = np.abs(matrix).max(axis=1, keepdims=True) / np.float32(127)
    scaled = np.divide(matrix, scales, out=np.zeros_like(matrix), where=scales != 0)
    return np.rint(scaled, out=scaled).astype(np.int8), scales[:, 0]
