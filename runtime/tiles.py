"""Tiles: cut from images as planned, and told apart, so that equal ones are encoded once.

The plans come from `processor`, the pixels from the C++ core.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import _core
from .config import ProcessorConfig
from .images import LoadedImage
from .processor import TilePlan

# Tiles are first told apart by every so many-th value. A prime: samples fall on all channels and columns.
_SAMPLE_STRIDE = 997


@dataclass(frozen=True)
class TileLayout:
    """How tiles lie in memory: what an encoder wants to be given.

    Attributes:
        name: "tiles": pixels, uint8 [T, 3, tile_size, tile_size]. "patches_bf16" and "patches_f32": rows for
            the patch embedding, [T, patches, 3 * patch_size^2], that hold 2 p - 255 of each pixel p, with
            channels first; float32, or the bits of bfloat16 as uint16, which are as exact.
        patch_size: The side of a patch, in pixels; None for "tiles".
    """

    name: Literal["tiles", "patches_bf16", "patches_f32"] = "tiles"
    patch_size: int | None = None

    def array_type(self, tile_size: int) -> tuple[tuple[int, ...], type[np.generic]]:
        """Returns shape and dtype of one tile."""
        if self.patch_size is None:
            return (3, tile_size, tile_size), np.uint8
        shape = ((tile_size // self.patch_size) ** 2, 3 * self.patch_size**2)
        return shape, np.float32 if self.name == "patches_f32" else np.uint16

    def tile_bytes(self, tile_size: int) -> int:
        """Returns the bytes of one tile."""
        shape, dtype = self.array_type(tile_size)
        return int(np.prod(shape)) * np.dtype(dtype).itemsize


PIXELS = TileLayout()


def cut_tiles(
    images: Iterable[LoadedImage],
    plans: Iterable[TilePlan],
    config: ProcessorConfig,
    *,
    layout: TileLayout = PIXELS,
    pool: _core.ThreadPool,
    stop: _core.StopFlag | None = None,
) -> NDArray[Any]:
    """Returns the tiles of all images, each with its plan, one behind the other.

    Raises:
        UnsupportedError: `config.resample` is a filter that is not there.
        Cancelled: `stop` was set.
    """
    shape, dtype = layout.array_type(config.tile_size)
    none = np.empty((0, *shape), dtype)
    tiles = [
        _core.preprocess(
            image,
            resized=plan.resized,
            split=plan.split,
            tile_size=config.tile_size,
            resample=config.resample,
            pool=pool,
            stop=stop,
            layout=layout.name,
            patch_size=layout.patch_size,
        )
        for image, plan in zip(images, plans, strict=True)
    ]
    return tiles[0] if len(tiles) == 1 else np.concatenate([none, *tiles])


def find_distinct_tiles(tiles: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Finds tiles that are equal byte for byte: white margins, frames that stand still.

    The encoder sees each tile alone, so that equal tiles have equal features.

    Args:
        tiles: [T, ...], in any layout, C-contiguous.

    Returns:
        `first` [D], the indices of the distinct tiles in ascending order, and `places` [T]: tile i equals
        tile `first[places[i]]`.
    """
    first: list[int] = []
    places = np.empty(len(tiles), np.intp)
    places_by_sample: dict[bytes, list[int]] = {}
    for i, tile in enumerate(tiles):
        # The sample only finds candidates: whether tiles are equal is seen from all their bytes.
        candidates = places_by_sample.setdefault(tile.reshape(-1)[::_SAMPLE_STRIDE].tobytes(), [])
        place = next((place for place in candidates if np.array_equal(tiles[first[place]], tile)), None)
        if place is None:
            place = len(first)
            first.append(i)
            candidates.append(place)
        places[i] = place
    return np.array(first, np.intp), places
