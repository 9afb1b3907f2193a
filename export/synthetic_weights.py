"""Made-up bf16 weights with the statistics of a trained model, the same bytes on every machine.

Bits come from Philox, keyed by seed and tensor name; what follows is integer arithmetic and single IEEE
operations, so neither the platform nor the NumPy version can change a value. Spreads are chosen so that
activations keep their scale through the layers, and attention and logits are as peaked as in a trained model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .tensor_map import TensorSpec

CHUNK_ELEMENTS = 1 << 20

# Outlier channels of trained models: a few channels of each norm, a few rows of each up projection.
_OUTLIER_FACTOR = 20
_CHANNELS_PER_OUTLIER = 192
_MAX_OUTLIERS = 16

# The sum of four uniform 16-bit integers is close to a normal distribution with this mean and deviation.
_SUM_MEAN = 4 * 65535 // 2
_SUM_STD = math.sqrt((2**32 - 1) / 3)


@dataclass(frozen=True)
class _Distribution:
    """Values are mean + std * z; `outliers` says whether some rows are twenty times larger."""

    std: float
    mean: float = 0.0
    outliers: bool = False


def synthetic_chunks(spec: TensorSpec, seed: int, *, tied: bool = False) -> Iterator[npt.NDArray[np.uint16]]:
    """Yields the bf16 bits of a tensor in pieces of at most `CHUNK_ELEMENTS` elements, in storage order.

    Args:
        spec: The tensor.
        seed: Other seeds give other values.
        tied: Whether the token embedding is the head too. It is small then, or the model would say every
            token again.
    """
    distribution = _distribution(spec, tied)
    key = np.frombuffer(_digest(seed, spec.hf_name)[:16], dtype="<u8").astype(np.uint64)
    generator = np.random.Philox(key=key)
    scale = np.float32(distribution.std / _SUM_STD)
    mean = np.float32(distribution.mean)
    row_elements = spec.num_elements // spec.shape[0]
    outlier_rows = _outlier_rows(spec, seed) if distribution.outliers else []
    for start in range(0, spec.num_elements, CHUNK_ELEMENTS):
        count = min(CHUNK_ELEMENTS, spec.num_elements - start)
        parts = generator.random_raw(count).view(np.uint16).reshape(count, 4)
        sums = parts.sum(axis=1, dtype=np.int32) - np.int32(_SUM_MEAN)
        values = sums.astype(np.float32) * scale + mean
        for row in outlier_rows:
            begin = max(row * row_elements - start, 0)
            end = min((row + 1) * row_elements - start, count)
            if begin < end:
                values[begin:end] *= np.float32(_OUTLIER_FACTOR)
        yield to_bf16(values)


def to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Rounds finite float32 values to bf16 bits, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _distribution(spec: TensorSpec, tied: bool) -> _Distribution:
    """Returns the distribution for a tensor, from its name and shape."""
    name, fan_in = spec.hf_name, spec.num_elements // spec.shape[0]
    if name.endswith(".bias"):
        return _Distribution(std=0.05)
    if len(spec.shape) == 1:
        # The last norms feed the head and the connector, where outliers would drown everything else.
        is_last = name.endswith(("text_model.norm.weight", "post_layernorm.weight"))
        return _Distribution(mean=1.0, std=0.1, outliers=not is_last)
    if name.endswith("lm_head.weight"):
        return _Distribution(std=4.0 / math.sqrt(fan_in))
    if tied and name.endswith("embed_tokens.weight"):
        return _Distribution(std=1.0 / math.sqrt(fan_in))
    if name.endswith(("embed_tokens.weight", "position_embedding.weight")):
        return _Distribution(std=1.0)
    if name.endswith("patch_embedding.weight"):
        return _Distribution(std=2.0 / math.sqrt(fan_in))
    if name.endswith(("modality_projection.proj.weight", ".out_proj.weight", ".o_proj.weight")):
        return _Distribution(std=1.0 / math.sqrt(fan_in))
    power = fan_in + _num_outliers(fan_in) * (_OUTLIER_FACTOR**2 - 1)
    if name.endswith((".down_proj.weight", ".fc2.weight")):
        # 0.4 is about the mean square of silu(z) and gelu(z).
        return _Distribution(std=0.5 / math.sqrt(0.4 * power))
    if name.endswith((".q_proj.weight", ".k_proj.weight")):
        return _Distribution(std=1.5 / math.sqrt(power))
    return _Distribution(
        std=1.0 / math.sqrt(power), outliers=name.endswith((".up_proj.weight", ".fc1.weight"))
    )


def _num_outliers(channels: int) -> int:
    return min(max(1, channels // _CHANNELS_PER_OUTLIER), _MAX_OUTLIERS)


def _outlier_rows(spec: TensorSpec, seed: int) -> list[int]:
    """Picks the outlier rows: the same channels in every norm of a tower, as in trained models."""
    tower = spec.hf_name.split(".")[1]
    channels = spec.shape[0]
    digest = _digest(seed, f"outliers {tower} {channels}")
    picks = np.frombuffer(digest, dtype="<u2")[: _num_outliers(channels)]
    return sorted({int(pick) % channels for pick in picks})


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
