"""Pixels as the vision encoder takes them, made with NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def patches_f32(tiles: NDArray[np.uint8], patch_size: int) -> NDArray[np.float32]:
    """Cuts tiles [T, 3, S, S] into rows of 2 p - 255: float32 [T, (S // p)^2, 3 * p^2]."""
    grid, size = tiles.shape[-1] // patch_size, patch_size
    used = tiles[:, :, : grid * size, : grid * size].reshape(-1, 3, grid, size, grid, size)
    rows = used.transpose(0, 2, 4, 1, 3, 5).reshape(-1, grid * grid, 3 * size * size)
    return rows.astype(np.float32) * np.float32(2) - np.float32(255)


def patches_bf16(tiles: NDArray[np.uint8], patch_size: int) -> NDArray[np.uint16]:
    """The same as the bits of bfloat16, which holds all of these values."""
    bits = patches_f32(tiles, patch_size).view(np.uint32)
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype(np.uint16)


def random_patches(model: Any, count: int, seed: int = 7) -> NDArray[np.uint16]:
    """Patches of `count` tiles of noise, in the sizes of a `_core.Model`."""
    shape = (count, 3, model.tile_size, model.tile_size)
    return patches_bf16(np.random.default_rng(seed).integers(0, 256, shape, np.uint8), model.patch_size)
