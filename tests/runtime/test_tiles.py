"""Equal tiles are found, and only those: a byte makes a difference, wherever it is."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pocketvlm.tiles import find_distinct_tiles

SIZE = 64  # 12,288 bytes a tile, of which a dozen are sampled


def tiles_of(*seeds: int) -> NDArray[np.uint8]:
    return np.stack(
        [np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8) for seed in seeds]
    )


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_each_tile_is_equal_to_the_first_of_its_kind(seeds: list[int]) -> None:
    first, places = find_distinct_tiles(tiles_of(*seeds))
    assert [seeds.index(seed) for seed in dict.fromkeys(seeds)] == first.tolist()
    assert [seeds[first[place]] for place in places] == seeds


def test_tiles_that_differ_in_one_byte_are_different() -> None:
    tile = tiles_of(7)[0]
    for byte in (0, 1, 996, 997, 998, 5000, tile.size - 1):
        other = tile.copy()
        other.reshape(-1)[byte] ^= 1
        first, places = find_distinct_tiles(np.stack([tile, other, tile, other]))
        assert (first.tolist(), places.tolist()) == ([0, 1], [0, 1, 0, 1])


def test_without_tiles_there_is_nothing() -> None:
    first, places = find_distinct_tiles(np.empty((0, SIZE, SIZE, 3), np.uint8))
    assert (first.tolist(), places.tolist()) == ([], [])
