"""Which tiles are the same, so that each is encoded once: white margins, frames that stand still."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Tiles are first told apart by every so many-th byte. A prime: samples fall on all channels and columns.
_SAMPLE_STRIDE = 997


def find_distinct_tiles(tiles: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Finds tiles that are equal byte for byte. The encoder sees a tile alone, so they have equal features.

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
