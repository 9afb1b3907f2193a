"""_core.preprocess: every plan gives the tiles of Pillow's chain of resizes, whatever way the image lies in
memory, and bad input is named."""

from __future__ import annotations

import os
import re
import signal
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketvlm import _core
from pocketvlm.config import ProcessorConfig
from pocketvlm.errors import Cancelled, InputError, UnsupportedError
from pocketvlm.processor import ImageSize, plan_tiles

from ...golden.images import Uint8Array, formula_image
from ...patches import patches_bf16, patches_f32
from ..guard_page import guarded_rows
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
    """What the PIL image processor of the reference does, in its order. Returns uint8 [T, 3, S, S]."""
    tile = (tile_size, tile_size)
    image = pillow_resize(image, resized, resample)
    image = pillow_resize(image, split or tile, resample)
    tiles = [
        image[y : y + tile_size, x : x + tile_size]
        for y in range(0, image.shape[0], tile_size)
        for x in range(0, image.shape[1], tile_size)
    ]
    if len(tiles) > 1:
        tiles.append(pillow_resize(image, tile, resample))
    return np.stack(tiles).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(("tile_size", "size", "resized", "split", "num_tiles"), GOLDEN)
def test_golden_sizes(
    tile_size: int, size: Size, resized: Size, split: Size, num_tiles: int, pool: _core.ThreadPool
) -> None:
    image = formula_image(*size, seed=7)
    tiles = _core.preprocess(
        image, resized=resized, split=split, tile_size=tile_size, resample=LANCZOS, pool=pool
    )
    assert tiles.shape == (num_tiles, 3, tile_size, tile_size)
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
    assert tiles.shape == (1, 3, 64, 64)
    np.testing.assert_array_equal(tiles, pillow_tiles(image, (60, 48), (64, 64), 64))


def test_an_image_of_the_right_size_is_only_cut(pool: _core.ThreadPool) -> None:
    image = formula_image(64, 96, seed=2)
    tiles = _core.preprocess(
        image, resized=(64, 96), split=(64, 96), tile_size=32, resample=LANCZOS, pool=pool
    )
    np.testing.assert_array_equal(tiles[0].transpose(1, 2, 0), image[:32, :32])
    np.testing.assert_array_equal(tiles[5].transpose(1, 2, 0), image[32:, 64:])
    np.testing.assert_array_equal(tiles[6].transpose(1, 2, 0), pillow_resize(image, (32, 32)))


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


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    resized=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    grid=st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)),
    tile_size=st.integers(1, 200),
    patch=st.integers(1, 24),
    isa=st.sampled_from(_core.isas()),
    threads=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
def test_patches_are_those_of_the_tiles(
    size: Size,
    resized: Size,
    grid: Size | None,
    tile_size: int,
    patch: int,
    isa: str,
    threads: int,
    seed: int,
) -> None:
    patch_size = min(patch, tile_size)
    image = formula_image(*size, seed=seed)
    split = grid and (grid[0] * tile_size, grid[1] * tile_size)
    tiles = pillow_tiles(image, resized, split, tile_size)

    def preprocess(layout: str) -> np.ndarray:
        return _core.preprocess(
            image,
            resized=resized,
            split=split,
            tile_size=tile_size,
            resample=LANCZOS,
            pool=_core.ThreadPool(threads),
            isa=isa,
            layout=layout,
            patch_size=patch_size,
        )

    np.testing.assert_array_equal(preprocess("tiles"), tiles)
    bf16, f32 = preprocess("patches_bf16"), preprocess("patches_f32")
    np.testing.assert_array_equal(bf16, patches_bf16(tiles, patch_size), strict=True)
    np.testing.assert_array_equal(f32, patches_f32(tiles, patch_size), strict=True)


@pytest.mark.parametrize(("tile_size", "patch_size"), [(512, 16), (384, 14)])
@pytest.mark.parametrize("isa", _core.isas())
def test_patches_in_the_sizes_of_the_models(tile_size: int, patch_size: int, isa: str) -> None:
    image = formula_image(333, 777, seed=4)
    size = (tile_size, 2 * tile_size)
    for num_threads in (1, 2, 5):
        patches = _core.preprocess(
            image,
            resized=size,
            split=size,
            tile_size=tile_size,
            resample=LANCZOS,
            pool=_core.ThreadPool(num_threads),
            isa=isa,
            layout="patches_bf16",
            patch_size=patch_size,
        )
        np.testing.assert_array_equal(
            patches, patches_bf16(pillow_tiles(image, size, size, tile_size), patch_size)
        )


class TestOut:
    """An array to write into, for frame after frame."""

    @pytest.mark.parametrize("offset", [0, 2, 30])
    def test_it_is_written_and_returned(self, pool: _core.ThreadPool, offset: int) -> None:
        """Wherever it starts: the kernels like cache lines."""
        plan: dict[str, Any] = {"resized": (64, 64), "split": (64, 64), "tile_size": 32}
        image = formula_image(40, 50, seed=9)
        patches: dict[str, Any] = {"layout": "patches_bf16", "patch_size": 16}
        expected = call(pool, image, **plan, **patches)
        out = np.zeros(expected.size + 64, np.uint16)
        start = (-out.ctypes.data % 64 + offset) // 2
        place = out[start : start + expected.size].reshape(expected.shape)
        assert call(pool, image, **plan, **patches, out=place) is place
        np.testing.assert_array_equal(place, expected)
        assert not out[:start].any() and not out[start + expected.size :].any()

    @pytest.mark.parametrize(
        ("out", "error", "message"),
        [
            (np.zeros((5, 3, 4, 4), np.uint16), TypeError, "out: found uint16"),
            (np.zeros((4, 3, 4, 4), np.uint8), InputError, r"out: found uint8 \[4, 3, 4, 4\]"),
            (np.zeros((5, 3, 4, 8), np.uint8)[..., ::2], InputError, "with gaps"),
            (np.broadcast_to(np.zeros((4, 4), np.uint8), (5, 3, 4, 4)), InputError, "with gaps"),
            ([], TypeError, "out: found list"),
        ],
    )
    def test_other_arrays_are_refused(
        self, pool: _core.ThreadPool, out: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            call(pool, GOOD, out=out)

    def test_a_read_only_one_is_refused(self, pool: _core.ThreadPool) -> None:
        out = np.zeros((5, 3, 4, 4), np.uint8)
        out.flags.writeable = False
        with pytest.raises(InputError, match="out: the array is read-only"):
            call(pool, GOOD, out=out)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"layout": "rows"}, InputError, "layout: found rows, expected one of: tiles, patches_bf16"),
        ({"layout": "patches_f32"}, InputError, "patch_size: missing, layout patches_f32 needs it"),
        ({"layout": "patches_bf16", "patch_size": 0}, InputError, "patch_size: found 0, expected 1 to 4"),
        ({"layout": "patches_bf16", "patch_size": 5}, InputError, "patch_size: found 5, expected 1 to 4"),
        ({"isa": "none"}, UnsupportedError, "isa: none is not available"),
    ],
)
def test_other_layouts_and_rows_are_refused(
    pool: _core.ThreadPool, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(pool, GOOD, **changes)


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
        (GOOD[0, :, 0], InputError, r"found uint8 \[5\]"),
        (GOOD[None], InputError, r"found uint8 \[1, 6, 5, 3\]"),
        (GOOD[..., :1], InputError, r"found uint8 \[6, 5, 1\]"),
        (GOOD[..., :2], InputError, r"found uint8 \[6, 5, 2\]"),
        (np.zeros((6, 5, 5), np.uint8), InputError, r"found uint8 \[6, 5, 5\]"),
        (np.zeros((3, 6, 5), np.uint8), InputError, r"found uint8 \[3, 6, 5\]"),
    ],
)
def test_other_arrays_are_refused(
    image: Any, error: type[Exception], found: str, pool: _core.ThreadPool
) -> None:
    expected = r"expected a numpy array uint8 \[H, W, 3\] or \[H, W, 4\] or \[H, W\], or a YuvFrame"
    with pytest.raises(error, match=f"image: {found}, {expected}"):
        call(pool, image)


@pytest.mark.parametrize(
    ("image", "found", "expected"),
    [
        (GOOD[::-1], "[-15, 3, 1]", "[1 or more, 3, 1]"),
        (GOOD[:, ::-1], "[15, -3, 1]", "[1 or more, 3, 1]"),
        (GOOD[:, :, ::-1], "[15, 3, -1]", "[1 or more, 3, 1]"),
        (GOOD[:, ::2], "[15, 6, 1]", "[1 or more, 3, 1]"),
        (GOOD[:, :, 0], "[15, 3]", "[1 or more, 1]"),
        (GOOD.transpose(1, 0, 2), "[3, 15, 1]", "[1 or more, 3, 1]"),
        (np.broadcast_to(GOOD[:1], GOOD.shape), "[0, 3, 1]", "[1 or more, 3, 1]"),
        (np.zeros((6, 5, 5), np.uint8)[..., :4], "[25, 5, 1]", "[1 or more, 4, 1]"),
    ],
)
def test_other_layouts_are_refused(
    image: Uint8Array, found: str, expected: str, pool: _core.ThreadPool
) -> None:
    with pytest.raises(
        InputError, match=re.escape(f" with strides {found}, expected contiguous rows: strides {expected}")
    ):
        call(pool, image)


def random_image(seed: int, *shape: int) -> Uint8Array:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@st.composite
def crops(draw: st.DrawFn, *channels: int) -> Uint8Array:
    """Some rows and columns of a larger image, every row or each so many-th, in uint8 [H, W, *channels]."""
    shape = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    rows, columns = (sorted(draw(st.tuples(st.integers(0, n - 1), st.integers(1, n)))) for n in shape)
    image = random_image(draw(st.integers(0, 2**16)), *shape, *channels)
    return image[rows[0] : rows[1] + 1 : draw(st.integers(1, 4)), columns[0] : columns[1] + 1]


@settings(max_examples=100, deadline=None)
@given(image=st.one_of(crops(3), crops(4), crops()))
def test_a_crop_is_its_copy(image: Uint8Array, pool: _core.ThreadPool) -> None:
    plan: dict[str, Any] = {"resized": (50, 40), "split": (64, 32), "tile_size": 32}
    np.testing.assert_array_equal(call(pool, image, **plan), call(pool, image.copy(), **plan))


@settings(max_examples=50, deadline=None)
@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    gaps=st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)),
    nv12=st.booleans(),
    matrix=st.sampled_from(["bt601", "bt709"]),
    full_range=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_a_camera_frame_is_its_pixels(
    height: int,
    width: int,
    gaps: tuple[int, int, int],
    nv12: bool,
    matrix: str,
    full_range: bool,
    seed: int,
    pool: _core.ThreadPool,
) -> None:
    """A frame whose planes lie apart, padded and beside guard pages gives the tiles of its pixels."""
    y = random_image(seed, height, width)
    u, v = random_image(seed + 1, 2, (height + 1) // 2, (width + 1) // 2)
    planes = [y, np.stack([u, v], axis=-1)] if nv12 else [y, u, v]
    kind: dict[str, Any] = {"matrix": matrix, "full_range": full_range}
    pixels = _core.kernels.unpack("scalar", _core.YuvFrame(y, u, v, **kind)).transpose(1, 2, 0).copy()
    frame = _core.YuvFrame(
        *(guarded_rows(plane, gap=gap) for plane, gap in zip(planes, gaps, strict=False)), **kind
    )
    plan: dict[str, Any] = {"resized": (50, 40), "split": (64, 32), "tile_size": 32}
    np.testing.assert_array_equal(call(pool, frame, **plan), call(pool, pixels, **plan))


@pytest.mark.parametrize("resample", [1, 2, 3])
def test_alpha_is_composited_over_white(resample: int, pool: _core.ThreadPool) -> None:
    image = random_image(1, 40, 30, 4)
    white = Image.new("RGBA", (30, 40), (255, 255, 255, 255))
    rgb = np.asarray(Image.alpha_composite(white, Image.fromarray(image)).convert("RGB"))
    tiles = call(pool, image, resized=(50, 40), split=(64, 64), tile_size=32, resample=resample)
    np.testing.assert_array_equal(tiles, pillow_tiles(rgb, (50, 40), (64, 64), 32, resample))


def test_grey_is_the_same_in_every_channel(pool: _core.ThreadPool) -> None:
    image = random_image(2, 40, 30)
    tiles = call(pool, image, resized=(50, 40), split=(64, 64), tile_size=32)
    np.testing.assert_array_equal(tiles, pillow_tiles(np.stack([image] * 3, axis=-1), (50, 40), (64, 64), 32))


@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize("channels", [(3,), (4,), ()])
@pytest.mark.parametrize("at_start", [False, True])
def test_nothing_beside_the_image_is_read(
    at_start: bool, channels: tuple[int, ...], isa: str, pool: _core.ThreadPool
) -> None:
    """Crops that end at a guard page, or begin behind one: of any width, growing and shrinking."""
    for size in [(1, 1), (3, 5), (2, 31), (7, 64), (5, 65), (40, 129), (300, 3), (67, 700)]:
        image = random_image(size[1], *size, *channels)
        for gap in (0, 1, 50):
            crop = guarded_rows(image, gap=gap, at_start=at_start)
            np.testing.assert_array_equal(
                call(pool, crop, resized=(64, 48), split=(64, 64), tile_size=32, isa=isa),
                call(pool, image, resized=(64, 48), split=(64, 64), tile_size=32, isa="scalar"),
            )


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


@pytest.mark.parametrize(
    "shape",
    [(0, 5, 3), (5, 0, 3), (0, 0, 3), (0, 5, 4), (5, 0, 4), (0, 5), (5, 0), (2**20 + 1, 1), (1, 2**21)],
)
def test_images_out_of_range_are_refused(shape: tuple[int, ...], pool: _core.ThreadPool) -> None:
    with pytest.raises(InputError, match=f"image: found {shape[0]}x{shape[1]}"):
        call(pool, np.zeros(shape, np.uint8))


def test_frames_out_of_range_are_refused(pool: _core.ThreadPool) -> None:
    empty = np.zeros((0, 0), np.uint8)
    long, half = np.zeros((1, 2**20 + 2), np.uint8), np.zeros((1, 2**19 + 1), np.uint8)
    for planes, size in [((empty, empty, empty), "0x0"), ((long, half, half), "1x1048578")]:
        frame = _core.YuvFrame(*planes, matrix="bt601", full_range=False)
        with pytest.raises(InputError, match=f"image: found {size}"):
            call(pool, frame)


PLANE = np.zeros((3, 3), np.uint8)


@pytest.mark.parametrize(
    ("planes", "error", "message"),
    [
        (([[0]], PLANE, PLANE), TypeError, r"y: found list, expected a numpy array uint8 \[H, W\]"),
        (
            (GOOD, PLANE, PLANE),
            InputError,
            r"y: found uint8 \[6, 5, 3\], expected a numpy array uint8 \[H, W\]",
        ),
        (
            (GOOD[:, :, 0], PLANE, PLANE),
            InputError,
            r"y: .* with strides \[15, 3\], expected contiguous rows",
        ),
        (
            (GOOD[..., 0].copy(), PLANE, PLANE[:2]),
            InputError,
            r"v: found uint8 \[2, 3\], expected .* \[3, 3\]",
        ),
        ((GOOD[..., 0].copy(), PLANE), InputError, r"uv: found uint8 \[3, 3\], expected .* \[3, 3, 2\]"),
        ((GOOD[..., 0].copy(), PLANE.astype(float), PLANE), TypeError, r"u: found float64 \[3, 3\]"),
    ],
)
def test_other_planes_are_refused(planes: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _core.YuvFrame(*planes, matrix="bt601", full_range=False)


def test_other_matrices_are_refused() -> None:
    with pytest.raises(InputError, match="matrix: found bt2020, expected one of: bt601, bt709"):
        _core.YuvFrame(PLANE, PLANE[:2, :2], PLANE[:2, :2], matrix="bt2020", full_range=False)


def test_other_filters_are_refused(pool: _core.ThreadPool) -> None:
    with pytest.raises(UnsupportedError, match="resample: found 0, expected"):
        call(pool, GOOD, resample=0)


def test_a_set_flag_stops_it(pool: _core.ThreadPool) -> None:
    stop = _core.StopFlag()
    np.testing.assert_array_equal(call(pool, GOOD, stop=stop), np.zeros((5, 3, 4, 4), np.uint8))
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
