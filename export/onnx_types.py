"""The types of ONNX files: suffixes of names, and what becomes of matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class OnnxType:
    """One type.

    Attributes:
        name: As in options, and as transformers.js calls it.
        suffix: Of file names.
        dtype: Of activations inside the graph, of the KV cache and of matrices that are not quantised.
        bits: Per weight of a quantised matrix; None: none is quantised.
        head_bits: The same for the head; 8 where `bits` are fewer, since its rounding goes into every logit.
        block_size: Weights that share a scale; None: all of an output channel.
    """

    name: str
    suffix: str
    dtype: type[np.floating[Any]]
    bits: int | None = None
    block_size: int | None = None

    @property
    def head_bits(self) -> int | None:
        return None if self.bits is None else 8

    @property
    def cache_dtype(self) -> str:
        """The dtype of keys and values as transformers.js calls it."""
        return np.dtype(self.dtype).name


TYPES = {
    onnx_type.name: onnx_type
    for onnx_type in (
        OnnxType("fp32", "", np.float32),
        OnnxType("fp16", "_fp16", np.float16),
        OnnxType("int8", "_int8", np.float32, bits=8),
        OnnxType("q8", "_quantized", np.float32, bits=8),
        OnnxType("q4", "_q4", np.float32, bits=4, block_size=32),
        OnnxType("q4f16", "_q4f16", np.float16, bits=4, block_size=32),
    )
}
