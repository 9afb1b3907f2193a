"""_core.preprocess: every plan gives the tiles of Pillow's chain of resizes, and bad input is named."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketvlm import _core
from pocketvlm.config import ProcessorConfig
from pocketvlm.errors import Cancelled, InputError, UnsupportedError
from pocketvlm.processor import ImageSize, plan_tiles

from ...golden.images import Uint8Array, formula_image
from ..pillow_reference import pillow_resize

Size = tuple[int, int]  # height, width
LANCZOS = 1

# tile size, image, after resize 1, after resize 2, tiles; sizes as (height, width).
GOLDEN = [
    (512, (480, 640), (1536, 2048), (1536, 2048), 13),
    (512, (1080, 1920), (1152, 2048), (1536, 2048), 13),
    (512, (512, 512), (2048, 2048), (2048, 2048), 17),
    (512, (1024, 1024), (2048, 2048), (2048, 2048), 17),
    (512, (1, 1), (2048, 2048), (2048, 2048), 17),
    (512, (777, 333), (2048, 878), (2048, 1024), 9),
    (512, (2000, 100), (2048, 102), (2048, 512), 5),
    (512, (500, 3000), (342, 2048), (512, 2048), 5),
    (512, (1, 8000), (1, 2048), (512, 2048), 5),
    (384, (480, 640), (1152, 1536), (1152, 1536), 13),
    (384, (1080, 1920), (864, 1536), (1152, 1536), 13),
    (384, (1024, 1024), (1536, 1536), (1536, 1536), 17),
    (384, (777, 333), (1536, 658), (1536, 768), 9),
    (384, (2000, 100), (1536, 76), (1536, 384), 5),
    (384, (500, 3000), (256, 1536), (384, 1536), 5),
]


@pytest.fixture(scope="module")
def pool() -> _core.ThreadPool:
    return _core.ThreadPool(2)


def pillow_tiles(
    image: Uint8Array, resized: Size, split: Size | None, tile_size: int, resample: int = LANCZOS
) -> Uint8Array:
    """What the PIL image processor of the reference does, in its order. Returns uint8 [T, S, S, 3]."""
    tile = (tile_size, tile_size)
    image = pillow_resize(image, resized, resample)
    if split is None:
        return pillow_resize(image, tile, resample)[None]
    image = pillow_resize(image, split, resample)
    if split == tile:
        return image[None]
    crops = [
        image[y : y + tile_size, x : x + tile_size]
        for y in range(0, split[0], tile_size)
        for x in range(0, split[1], tile_size)
    ]
    return np.stack([*crops, pillow_resize(image, tile, resample)])


@pytest.mark.parametrize(("tile_size", "size", "resized", "split", "num_tiles"), GOLDEN)
def test_golden_sizes(
    tile_size: int, size: Size, resized: Size, split: Size, num_tiles: int, pool: _core.ThreadPool
) -> None:
    image = formula_image(*size, seed=7)
    tiles = _core.preprocess(
        image, resized=resized, split=split, tile_size=tile_size, resample=LANCZOS, pool=pool
    )
    assert tiles.shape == (num_tiles, tile_size, tile_size, 3)
    np.testing.assert_array_equal(tiles, pillow_tiles(image, resized, split, tile_size))


@pytest.mark.parametrize(("tile_size", "size", "resized"), [case[:3] for case in GOLDEN])
def test_golden_sizes_unsplit(tile_size: int, size: Size, resized: Size, pool: _core.ThreadPool) -> None:
    image = formula_image(*size, seed=8)
    tiles = _core.preprocess(
        image, resized=resized, split=None, tile_size=tile_size, resample=LANCZOS, pool=pool
    )
    np.testing.assert_array_equal(tiles, pillow_tiles(image, resized, None, tile_size))


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 3000), st.integers(1, 4000)),
    resized=st.tuples(st.integers(1, 1200), st.integers(1, 1200)),
    grid=st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)),
    tile_size=st.integers(1, 300),
    resample=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 2**16),
)
def test_random_plans(
    size: Size,
    resized: Size,
    grid: Size | None,
    tile_size: int,
    resample: int,
    seed: int,
    pool: _core.ThreadPool,
) -> None:
    image = formula_image(*size, seed=seed)
    split = grid and (grid[0] * tile_size, grid[1] * tile_size)
    tiles = _core.preprocess(
        image, resized=resized, split=split, tile_size=tile_size, resample=resample, pool=pool
    )
    np.testing.assert_array_equal(tiles, pillow_tiles(image, resized, split, tile_size, resample))


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 3000), st.integers(1, 4000)),
    shape=st.sampled_from([(512, 2048), (384, 1536)]),
    split=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_random_photos_as_the_models_take_them(
    size: Size, shape: tuple[int, int], split: bool, seed: int, pool: _core.ThreadPool
) -> None:
    """Any photo, planned with the values of the 256M and 500M or of the 2.2B, at full size."""
    tile_size, longest_edge = shape
    config = ProcessorConfig(
        longest_edge=longest_edge,
        tile_size=tile_size,
        image_seq_len=1,
        do_image_splitting=split,
        resample=LANCZOS,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        rescale_factor=1 / 255,
    )
    plan = plan_tiles(ImageSize(*size), config, split=split)
    image = formula_image(*size, seed=seed)
    tiles = _core.preprocess(
        image, resized=plan.resized, split=plan.split, tile_size=tile_size, resample=LANCZOS, pool=pool
    )
    assert len(tiles) == plan.num_tiles
    np.testing.assert_array_equal(tiles, pillow_tiles(image, plan.resized, plan.split, tile_size))


def test_one_tile_has_no_global_tile(pool: _core.ThreadPool) -> None:
    image = formula_image(50, 40, seed=1)
    tiles = _core.preprocess(
        image, resized=(60, 48), split=(64, 64), tile_size=64, resample=LANCZOS, pool=pool
    )
    assert tiles.shape == (1, 64, 64, 3)
    np.testing.assert_array_equal(tiles, pillow_tiles(image, (60, 48), (64, 64), 64))


def test_an_image_of_the_right_size_is_only_cut(pool: _core.ThreadPool) -> None:
    image = formula_image(64, 96, seed=2)
    tiles = _core.preprocess(
        image, resized=(64, 96), split=(64, 96), tile_size=32, resample=LANCZOS, pool=pool
    )
    np.testing.assert_array_equal(tiles[0], image[:32, :32])
    np.testing.assert_array_equal(tiles[5], image[32:, 64:])
    np.testing.assert_array_equal(tiles[6], pillow_resize(image, (32, 32)))


@pytest.mark.parametrize("num_threads", [1, 3, 8])
def test_the_number_of_threads_does_not_show(num_threads: int) -> None:
    image = formula_image(333, 777, seed=3)
    tiles = _core.preprocess(
        image,
        resized=(440, 1024),
        split=(512, 1024),
        tile_size=256,
        resample=LANCZOS,
        pool=_core.ThreadPool(num_threads),
    )
    np.testing.assert_array_equal(tiles, pillow_tiles(image, (440, 1024), (512, 1024), 256))


def call(pool: _core.ThreadPool, image: Any, **changes: Any) -> Uint8Array:
    """A small call that is right but for `changes`."""
    plan: dict[str, Any] = {"resized": (8, 8), "split": (8, 8), "tile_size": 4, "resample": LANCZOS}
    return _core.preprocess(image, pool=pool, **{**plan, **changes})


GOOD = np.zeros((6, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "error", "found"),
    [
        ([[[0, 0, 0]]], TypeError, "found list"),
        (GOOD.astype(np.float32), TypeError, r"found float32 \[6, 5, 3\]"),
        (GOOD.astype(np.int8), TypeError, r"found int8 \[6, 5, 3\]"),
        (GOOD[:, :, 0], InputError, r"found uint8 \[6, 5\]"),
        (GOOD[None], InputError, r"found uint8 \[1, 6, 5, 3\]"),
        (np.zeros((6, 5, 4), np.uint8), InputError, r"found uint8 \[6, 5, 4\]"),
        (np.zeros((3, 6, 5), np.uint8), InputError, r"found uint8 \[3, 6, 5\]"),
        (GOOD[::2], InputError, r"found uint8 \[3, 5, 3\] with gaps"),
        (GOOD.transpose(1, 0, 2), InputError, r"found uint8 \[5, 6, 3\] with gaps, reversed or transposed"),
    ],
)
def test_other_arrays_are_refused(
    image: Any, error: type[Exception], found: str, pool: _core.ThreadPool
) -> None:
    with pytest.raises(
        error, match=rf"image: {found}.*, expected a C-contiguous numpy array uint8 \[H, W, 3\]"
    ):
        call(pool, image)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resized": (0, 8)}, r"resized: found 0x8 \(height x width\), expected sides from 1"),
        ({"resized": (8, -3)}, "resized: found 8x-3"),
        ({"resized": (2**62, 2**62)}, "resized: found 4611686018427387904x"),
        ({"split": (8, 0)}, "split: found 8x0"),
        ({"split": (8, 10)}, r"split: found 8x10 \(height x width\), expected multiples of tile_size 4"),
        ({"split": (2**20, 2**20)}, "split: found 1048576x1048576 .* at most 268435456 pixels"),
        ({"tile_size": 0}, "tile_size: found 0x0"),
        ({"tile_size": 2**40, "split": None}, "tile_size: found 1099511627776x1099511627776"),
    ],
)
def test_plans_out_of_range_are_refused(
    changes: dict[str, Any], message: str, pool: _core.ThreadPool
) -> None:
    with pytest.raises(InputError, match=message):
        call(pool, GOOD, **changes)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0, 3)])
def test_empty_images_are_refused(shape: tuple[int, int, int], pool: _core.ThreadPool) -> None:
    with pytest.raises(InputError, match=f"image: found {shape[0]}x{shape[1]}"):
        call(pool, np.zeros(shape, np.uint8))


def test_other_filters_are_refused(pool: _core.ThreadPool) -> None:
    with pytest.raises(UnsupportedError, match="resample: found 0, expected"):
        call(pool, GOOD, resample=0)


def test_a_set_flag_stops_it(pool: _core.ThreadPool) -> None:
    stop = _core.StopFlag()
    np.testing.assert_array_equal(call(pool, GOOD, stop=stop), np.zeros((5, 4, 4, 3), np.uint8))
    stop.set()
    with pytest.raises(Cancelled):
        call(pool, GOOD, stop=stop)


def test_a_flag_set_meanwhile_stops_it_within_a_pass(pool: _core.ThreadPool) -> None:
    """The GIL is released, so that another thread can set the flag while a large image is on its way."""
    stop = _core.StopFlag()
    timer = threading.Timer(0.02, stop.set)
    timer.start()
    with pytest.raises(Cancelled):
        call(pool, np.zeros((9000, 9000, 3), np.uint8), resized=(8000, 8000), stop=stop)
    timer.join()


def test_ctrl_c_stops_it_within_a_pass(pool: _core.ThreadPool) -> None:
    timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        call(pool, np.zeros((9000, 9000, 3), np.uint8), resized=(8000, 8000))
    timer.join()
