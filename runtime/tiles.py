"""Tiles: cut from images as planned, and told apart, so that equal ones are encoded once.

The plans come from `processor`, the pixels from the C++ core.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from . import _core
from .config import ProcessorConfig
from .processor import TilePlan

# Tiles are first told apart by every so many-th byte. A prime: samples fall on all channels and columns.
_SAMPLE_STRIDE = 997


def cut_tiles(
    images: Iterable[NDArray[np.uint8]],
    plans: Iterable[TilePlan],
    config: ProcessorConfig,
    *,
    pool: _core.ThreadPool,
    stop: _core.StopFlag | None = None,
) -> NDArray[np.uint8]:
    """Returns the tiles of all images [H, W, 3], each with its plan: uint8 [T, tile_size, tile_size, 3].

    Raises:
        UnsupportedError: `config.resample` is a filter that is not there.
        Cancelled: `stop` was set.
    """
    none = np.empty((0, config.tile_size, config.tile_size, 3), np.uint8)
    tiles = [
        _core.preprocess(
            image,
            resized=plan.resized,
            split=plan.split,
            tile_size=config.tile_size,
            resample=config.resample,
            pool=pool,
            stop=stop,
        )
        for image, plan in zip(images, plans, strict=True)
    ]
    return tiles[0] if len(tiles) == 1 else np.concatenate([none, *tiles])


def find_distinct_tiles(tiles: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Finds tiles that are equal byte for byte: white margins, frames that stand still.

    The encoder sees each tile alone, so that equal tiles have equal features.

    Args:
        tiles: uint8 [T, tile_size, tile_size, 3], C-contiguous.

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
