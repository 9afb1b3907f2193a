"""Blocks of the types of weights, of random bytes under given scales."""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt

# Where the float16 numbers of a block lie: scales, and minima behind them.
HALVES: dict[str, tuple[int, ...]] = {
    "q8_0": (0,),
    "q4_0": (0,),
    "q5_0": (0,),
    "iq4_nl": (0,),
    "q4_1": (0, 2),
    "q5_1": (0, 2),
    "q4_k": (0, 2),
    "q5_k": (0, 2),
    "q6_k": (208,),
}


def random_blocks(
    rng: np.random.Generator, n: int, k: int, kind: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Returns the bytes of a tensor [n, k] with scales near one hundredth, and the values they stand for."""
    quant = gguf.GGMLQuantizationType[kind.upper()]
    block_size, type_size = gguf.GGML_QUANT_SIZES[quant]
    blocks = rng.integers(0, 256, (n, k // block_size, type_size), dtype=np.uint8)
    for at in HALVES[kind]:
        scales = rng.uniform(0.005, 0.015, (n, k // block_size, 1)).astype(np.float16)
        blocks[..., at : at + 2] = scales.view(np.uint8)
    stored = blocks.reshape(n, -1)
    return stored.reshape(-1), gguf.quants.dequantize(stored, quant)
