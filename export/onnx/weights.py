"""Matrices as ONNX graphs hold them: read from the checkpoint, quantised, packed and multiplied with.

Quantised ones go through MatMulNBits, which quantises activations per block of 32 to int8 (accuracy level 4)
and multiplies by VNNI where the processor has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import UnsupportedError
from ..checkpoint import Checkpoint, row_ranges
from ..equalization import Equalization
from ..tensor_map import TensorSpec, all_tensors
from .graph_builder import MICROSOFT, GraphBuilder
from .types import OnnxType, Quantisation

Floats = npt.NDArray[np.float32]

_MAX_F16 = 65504.0

# MatMulNBits: activations become int8.
_ACCURACY_LEVEL = 4
_BLOCK_SIZE = 32

# MatMulBnb4's number of NF4, and the levels that bitsandbytes gives it.
_NF4 = 1
NF4_LEVELS = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)


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
    """What MatMulNBits takes. K = in features, N = out features, blocks = ceil(K / 32)."""

    quants: npt.NDArray[np.uint8]  # [N, blocks, 32 * bits / 8]
    scales: Floats  # [N, blocks], or [N, 1] if a row shares one
    zero_points: npt.NDArray[np.uint8] | None  # as scales; None: 2**(bits - 1) stands for 0


def quantise(matrix: Floats, rule: Quantisation) -> QuantisedMatrix:
    """Quantises to levels at equal distances.

    Args:
        matrix: float32 [N, K].
        rule: 8 bits go from -127 to 127, or with zero points from the smallest number to the largest; 4 bits
            from -8 to 7, the number of largest magnitude at -8.

    Returns:
        Quants in blocks of 32, the last one filled up with zeros.
    """
    rows, width = matrix.shape
    padded = np.zeros((rows, -(-width // _BLOCK_SIZE) * _BLOCK_SIZE), np.float32)
    padded[:, :width] = matrix
    blocks = padded.reshape(rows, -1, rule.block_size or padded.shape[1])
    zeros: npt.NDArray[np.float32] | np.float32 = np.float32(1 << (rule.bits - 1))
    if rule.is_asymmetric:
        low = np.minimum(blocks.min(axis=2, keepdims=True), 0)
        scales = (np.maximum(blocks.max(axis=2, keepdims=True), 0) - low) / np.float32(255)
        zeros = np.rint(-low * _inverse(scales))
    elif rule.bits == 4:
        largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2, keepdims=True), axis=2)
        scales = largest / np.float32(-8)
    else:
        scales = np.abs(blocks).max(axis=2, keepdims=True) / np.float32(127)
    np.multiply(blocks, _inverse(scales), out=blocks)
    np.rint(blocks, out=blocks)
    np.add(blocks, zeros, out=blocks)
    np.clip(blocks, 0, (1 << rule.bits) - 1, out=blocks)
    quants = padded.astype(np.uint8).reshape(rows, -1, _BLOCK_SIZE)
    if rule.bits == 4:
        quants = quants[:, :, 0::2] | quants[:, :, 1::2] << np.uint8(4)
    zero_points = np.asarray(zeros)[:, :, 0].astype(np.uint8) if rule.is_asymmetric else None
    return QuantisedMatrix(quants, scales[:, :, 0].astype(np.float32, copy=False), zero_points)


def quantise_normal_floats(matrix: Floats, block_size: int) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Quantises to the 16 levels of NF4 times the largest magnitude of a block.

    Args:
        matrix: float32 [N, K].
        block_size: Consecutive weights that share a scale, rows one behind the other.

    Returns:
        Two levels a byte, uint8 [ceil(N * K / 2)], the first in the high half; scales float32 [blocks].
    """
    flat = matrix.reshape(-1)
    padded = np.zeros(-(-len(flat) // block_size) * block_size, np.float32)
    padded[: len(flat)] = flat
    blocks = padded.reshape(-1, block_size)
    scales = np.abs(blocks).max(axis=1, keepdims=True)
    np.multiply(blocks, _inverse(scales), out=blocks)
    # Between two levels the nearer one wins.
    borders = (NF4_LEVELS[1:] + NF4_LEVELS[:-1]) / 2
    levels = np.searchsorted(borders, padded).astype(np.uint8)
    packed = levels[0::2] << np.uint8(4) | levels[1::2]
    return packed[: (len(flat) + 1) // 2], scales[:, 0]


def _inverse(scales: Floats) -> Floats:
    """1 / scale, 0 for 0."""
    return np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)


def linear(
    graph: GraphBuilder, x: str, matrix: Floats, type: OnnxType, name: str, rule: Quantisation | None
) -> str:
    """Adds x @ matrix.T and returns its name.

    Args:
        graph: What gets the nodes and the weights.
        x: [..., K] of the dtype of `type`.
        matrix: float32 [N, K].
        type: Of the file.
        name: Of the weights.
        rule: How they are rounded; None: to the dtype of `type`.
    """
    if rule is None:
        transposed = np.ascontiguousarray(to_dtype(matrix, type, name).T)
        return graph.op("MatMul", [x, graph.weight(name, transposed)])
    sizes = {"K": matrix.shape[1], "N": matrix.shape[0]}
    if rule.is_normal_float:
        block_size = rule.block_size or matrix.shape[1]
        packed, largest = quantise_normal_floats(matrix, block_size)
        inputs = [x, graph.weight(f"{name}_quants", packed), graph.weight(f"{name}_scales", largest)]
        attributes = sizes | {"block_size": block_size, "quant_type": _NF4}
        return graph.op("MatMulBnb4", inputs, domain=MICROSOFT, **attributes)
    quants, scales, zero_points = quantise(matrix, rule)
    inputs = [
        x,
        graph.weight(f"{name}_quants", quants),
        graph.weight(f"{name}_scales", to_dtype(scales, type, f"{name}, its scales")),
    ]
    if zero_points is not None:
        inputs.append(graph.weight(f"{name}_zero_points", zero_points))
    if rule.block_size is None:
        # Folded when a session is made: the file keeps one scale of a row, the kernel wants one of a block.
        repeated = graph.constant([1, quants.shape[1]], np.int64)
        inputs[2:] = [graph.op("Expand", [shared, repeated]) for shared in inputs[2:]]
    return graph.op(
        "MatMulNBits",
        inputs,
        domain=MICROSOFT,
        **sizes,
        bits=rule.bits,
        block_size=_BLOCK_SIZE,
        accuracy_level=_ACCURACY_LEVEL,
    )


class QuantisedRows(NamedTuple):
    """Names of activations as uint8, which share one scale and one zero point."""

    values: str  # [..., K]
    scale: str
    zero_point: str


def quantise_activations(graph: GraphBuilder, x: str) -> QuantisedRows:
    """Adds what rounds float32 activations to uint8 over the range that they have."""
    rows = QuantisedRows(f"{x}_values", f"{x}_scale", f"{x}_zero_point")
    graph.node("DynamicQuantizeLinear", [x], list(rows))
    return rows


def linear_by_integers(
    graph: GraphBuilder, rows: QuantisedRows, matrix: Floats, name: str, rule: Quantisation, bias: str = ""
) -> str:
    """Adds x @ matrix.T + bias with 8-bit weights, and returns its name.

    For many rows at a time: there this is several times faster than `linear` at 8 bits, which is more exact.

    Args:
        graph: What gets the nodes and the weights.
        rows: What `quantise_activations` made of x; once for all matrices that it is multiplied with.
        matrix: float32 [N, K].
        name: Of the weights.
        rule: Whether they have zero points; else they are int8.
        bias: The name of float32 [N]; "": there is none.
    """
    quants: npt.NDArray[np.uint8] | npt.NDArray[np.int8]
    if rule.is_asymmetric:
        found = quantise(matrix, rule)
        quants = found.quants.reshape(len(matrix), -1)[:, : matrix.shape[1]]
        scales = found.scales[:, 0]
        assert found.zero_points is not None
        zero_points = graph.weight(f"{name}_zero_points", found.zero_points[:, 0])
    else:
        quants, scales = quantise_rows(matrix)
        zero_points = ""
    inputs = [
        rows.values,
        graph.weight(f"{name}_quants", np.ascontiguousarray(quants.T)),
        rows.scale,
        graph.weight(f"{name}_scales", scales),
        rows.zero_point,
        zero_points,
        bias,
    ]
    while not inputs[-1]:
        inputs.pop()
    return graph.op("MatMulIntegerToFloat", inputs, domain=MICROSOFT)


def quantise_rows(matrix: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Returns `matrix`, float32 [N, K], as int8 from -127 to 127, and the scales of its rows, float32 [N]."""
    scales = np.abs(matrix).max(axis=1, keepdims=True) / np.float32(127)
    return np.rint(matrix * _inverse(scales)).astype(np.int8), scales[:, 0]
