"""The centring kernels of every ISA row give 2 p - 255 of every pixel, in patches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm import _core

from ....golden.images import Uint8Array
from ....patches import patches_bf16, patches_f32

ISAS = _core.isas()
# Around the vectors of every ISA; 14 and 16 are those of the models.
SIZES = [1, 2, 7, 8, 9, 14, 15, 16, 17, 31, 32, 33, 40, 64, 65]


def patches_of(rows: Uint8Array, type: str) -> np.ndarray:
    """One row of patches, [size, count * size], by NumPy: [count, size^2]."""
    size = len(rows)
    padded = np.zeros((1, 3, rows.shape[1], rows.shape[1]), np.uint8)
    padded[0, 0, :size] = rows
    cut = patches_bf16 if type == "bf16" else patches_f32
    count = rows.shape[1] // size
    return cut(padded, size)[0, :count, : size * size]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("type", ["bf16", "f32"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_equals_the_formula(size: int, count: int, type: str, isa: str) -> None:
    rows = np.random.default_rng(size).integers(0, 256, (size, count * size), np.uint8)
    np.testing.assert_array_equal(
        _core.kernels.center_patches(isa, rows, type), patches_of(rows, type), strict=True
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("type", ["bf16", "f32"])
@given(size=st.integers(1, 70), count=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_random_sizes(type: str, isa: str, size: int, count: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 256, (size, count * size), np.uint8)
    np.testing.assert_array_equal(_core.kernels.center_patches(isa, rows, type), patches_of(rows, type))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("type", ["bf16", "f32"])
def test_every_pixel_value(type: str, isa: str) -> None:
    rows = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = _core.kernels.center_patches(isa, rows, type)
    values = (found.astype(np.uint32) << 16).view(np.float32) if type == "bf16" else found
    np.testing.assert_array_equal(values.reshape(-1), np.arange(-255, 256, 2, dtype=np.float32))
