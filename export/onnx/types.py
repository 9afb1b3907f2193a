"""The types of ONNX files: what becomes of matrices and activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Quantisation:
    """How a matrix is rounded.

    Attributes:
        bits: Per weight, 4 or 8.
        block_size: Weights that share a scale; None: all of an output channel.
        is_asymmetric: Whether blocks have a zero point of their own.
        is_normal_float: Whether the 16 levels are those of NF4, dense around 0, and not equidistant.
    """

    bits: int
    block_size: int | None
    is_asymmetric: bool = False
    is_normal_float: bool = False


@dataclass(frozen=True)
class OnnxType:
    """One type.

    Attributes:
        name: As in options, and as transformers.js calls it; `onnx_names.SUFFIXES` has what files are called.
        dtype: Of activations inside the graph, of the KV cache and of matrices that are not quantised.
        matrices: How matrices are rounded; None: they are of `dtype`.
        head: The same for the head of the language model, never under 8 bits: its rounding goes into every
            logit.
    """

    name: str
    dtype: type[np.floating[Any]]
    matrices: Quantisation | None = None
    head: Quantisation | None = None

    @property
    def bits(self) -> int | None:
        """Per weight of a quantised matrix; None: none is quantised."""
        return None if self.matrices is None else self.matrices.bits

    @property
    def cache_dtype(self) -> str:
        """The dtype of keys and values as transformers.js calls it."""
        return np.dtype(self.dtype).name


_CHANNELS = Quantisation(8, None)
_UNSIGNED_CHANNELS = Quantisation(8, None, is_asymmetric=True)
_BLOCKS = Quantisation(4, 32)
_NORMAL_FLOATS = Quantisation(4, 64, is_normal_float=True)
_HEAD_BLOCKS = Quantisation(8, 32)

TYPES = {
    onnx_type.name: onnx_type
    for onnx_type in (
        OnnxType("fp32", np.float32),
        OnnxType("fp16", np.float16),
        OnnxType("int8", np.float32, _CHANNELS, _CHANNELS),
        OnnxType("uint8", np.float32, _UNSIGNED_CHANNELS, _UNSIGNED_CHANNELS),
        OnnxType("q8", np.float32, _CHANNELS, _CHANNELS),
        OnnxType("q4", np.float32, _BLOCKS, _HEAD_BLOCKS),
        OnnxType("q4f16", np.float16, _BLOCKS, _HEAD_BLOCKS),
        OnnxType("bnb4", np.float32, _NORMAL_FLOATS, _HEAD_BLOCKS),
    )
}
