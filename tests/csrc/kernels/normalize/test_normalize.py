"""The normalisation kernels of every ISA row equal the reference processor's float32 steps bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from pocketvlm import _core
from pocketvlm.errors import InputError

from ....golden.images import Uint8Array, formula_image

ISAS = _core.isas()
HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def reference(
    tile: Uint8Array, patch_size: int, rescale_factor: float, mean: Sequence[float], std: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Rescales in float64, rounds to float32, normalises in float32; then cuts patches [n * n, 3 * p * p]."""
    rescaled = (tile.astype(np.float64) * rescale_factor).astype(np.float32)
    values: npt.NDArray[np.float32] = (rescaled - np.array(mean, np.float32)) / np.array(std, np.float32)
    n, p = len(tile) // patch_size, patch_size
    used = values[: n * p, : n * p]  # [n * p, n * p, 3]
    return used.reshape(n, p, n, p, 3).transpose(0, 2, 4, 1, 3).reshape(n * n, 3 * p * p)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("mean", "std"), [(HALF, HALF), (IMAGENET_MEAN, IMAGENET_STD)])
@pytest.mark.parametrize("rescale_factor", [1 / 255, 0.00392156862745098, 1 / 127.5])
@pytest.mark.parametrize(
    ("tile_size", "patch_size"), [(512, 16), (384, 14), (1, 1), (5, 2), (31, 31), (33, 8), (70, 17)]
)
def test_equals_the_reference(
    tile_size: int,
    patch_size: int,
    rescale_factor: float,
    mean: Sequence[float],
    std: Sequence[float],
    isa: str,
) -> None:
    tile = formula_image(tile_size, tile_size, seed=patch_size)
    rows = _core.kernels.normalize(
        tile, patch_size=patch_size, rescale_factor=rescale_factor, image_mean=mean, image_std=std, isa=isa
    )
    expected = reference(tile, patch_size, rescale_factor, mean, std)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
def test_every_pixel_value_of_every_channel(isa: str) -> None:
    tile = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    rows = _core.kernels.normalize(
        tile, patch_size=16, rescale_factor=1 / 255, image_mean=HALF, image_std=HALF, isa=isa
    )
    expected = reference(tile, 16, 1 / 255, HALF, HALF)
    np.testing.assert_array_equal(rows.view(np.uint32), expected.view(np.uint32))
    assert rows.min() == -1.0 and rows.max() == 1.0


def test_pixels_beyond_the_grid_are_unused() -> None:
    tile = formula_image(384, 384, seed=1)
    changed = tile.copy()
    changed[378:] = 0
    changed[:, 378:] = 255
    both = [
        _core.kernels.normalize(t, patch_size=14, rescale_factor=1 / 255, image_mean=HALF, image_std=HALF)
        for t in (tile, changed)
    ]
    assert both[0].shape == (27 * 27, 3 * 14 * 14)
    np.testing.assert_array_equal(both[0], both[1])


@pytest.mark.parametrize("patch_size", [0, -1, 9])
def test_patch_sizes_that_do_not_fit_are_refused(patch_size: int) -> None:
    with pytest.raises(InputError, match=rf"patch_size: found {patch_size}, expected 1 to 8"):
        _core.kernels.normalize(
            np.zeros((8, 8, 3), np.uint8),
            patch_size=patch_size,
            rescale_factor=1 / 255,
            image_mean=HALF,
            image_std=HALF,
        )
