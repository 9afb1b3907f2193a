"""The resize kernels of every ISA row equal Pillow's resize, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketvlm import _core
from pocketvlm.errors import InputError, UnsupportedError

from ....golden.images import formula_image
from ...pillow_reference import Uint8Array, pillow_resize

ISAS = _core.isas()
LANCZOS, BILINEAR, BICUBIC = 1, 2, 3
FILTERS = [LANCZOS, BILINEAR, BICUBIC]

# (from, to), (height, width) each: both grow, both shrink, one each way, one pass only, single pixels,
# extremes, both sides of the rule for the order of passes, row lengths around the vectors of every ISA.
RESIZES = [
    ((24, 32), (48, 64)),
    ((100, 90), (33, 17)),
    ((50, 20), (20, 50)),
    ((20, 50), (50, 20)),
    ((37, 41), (37, 80)),
    ((37, 41), (80, 41)),
    ((1, 1), (64, 64)),
    ((64, 64), (1, 1)),
    ((1, 1), (1, 1)),
    ((1, 2000), (31, 512)),
    ((2000, 1), (512, 31)),
    ((3000, 2), (1, 300)),
    ((65535, 1), (97, 31)),
    ((1, 65535), (31, 97)),
    ((509, 251), (127, 383)),
    ((500, 400), (300, 300)),  # 200 rows and 100 columns less: horizontal first
    ((501, 400), (300, 300)),  # 201 rows less: vertical first
    *[((9, 5), (7, width)) for width in (1, 2, 3, 5, 10, 11, 15, 16, 21, 22, 32, 33, 43)],
    # Windows that fit the vectors of every ISA, of some, of none; more taps than the kernels keep at hand.
    *[((5, width), (6, 64)) for width in (65, 127, 128, 191, 192, 211, 256, 257, 300, 307, 511, 3001)],
    # Ratios of small numbers, where vectors of outputs repeat: by fours, with some left, and not to the end.
    *[((5, width), (6, target)) for width, target in ((192, 256), (330, 440), (480, 320), (640, 400))],
    *[((5, width), (6, target)) for width, target in ((1280, 320), (1060, 265), (250, 1000))],
    *[((height, 70), (5, 71)) for height in (31, 83, 167, 211, 419, 431, 997)],
]


def resize(image: Uint8Array, size: tuple[int, int], resample: int, isa: str) -> Uint8Array:
    """[H, W, 3] -> [*size, 3]; the core has channels first."""
    return _core.kernels.resize(image, size, resample, isa=isa).transpose(1, 2, 0)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize(("size", "target"), RESIZES)
def test_equals_pillow(size: tuple[int, int], target: tuple[int, int], resample: int, isa: str) -> None:
    image = formula_image(*size, seed=size[0] + target[1])
    np.testing.assert_array_equal(
        resize(image, target, resample, isa), pillow_resize(image, target, resample)
    )


@st.composite
def images(draw: st.DrawFn) -> Uint8Array:
    """Noise, or noise of black and white only, which makes the filters overshoot as far as they can."""
    height, width = draw(st.integers(1, 400)), draw(st.integers(1, 400))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
    return np.where(noise < 128, 0, 255).astype(np.uint8) if draw(st.booleans()) else noise


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=100, deadline=None)
@given(
    image=images(), height=st.integers(1, 400), width=st.integers(1, 400), resample=st.sampled_from(FILTERS)
)
def test_random_sizes_equal_pillow(
    isa: str, image: Uint8Array, height: int, width: int, resample: int
) -> None:
    size = (height, width)
    np.testing.assert_array_equal(resize(image, size, resample, isa), pillow_resize(image, size, resample))


@pytest.mark.parametrize("target", [(40, 30), (8, 9)])
def test_reads_and_writes_nothing_outside_the_image(target: tuple[int, int]) -> None:
    """The same pixels between other bytes, at every misalignment of a vector, give the same result."""
    image = formula_image(21, 19, seed=5)
    expected = pillow_resize(image, target)
    for offset in (1, 7, 31, 63):
        buffer = np.full(image.size + 128, 171, np.uint8)
        placed = buffer[offset : offset + image.size].reshape(image.shape)
        placed[:] = image
        np.testing.assert_array_equal(resize(placed, target, LANCZOS, ISAS[0]), expected)
        np.testing.assert_array_equal(placed, image)
        assert (buffer[:offset] == 171).all() and (buffer[offset + image.size :] == 171).all()


@pytest.mark.parametrize("resample", [0, 4, 5, 6, 7, -1])
def test_other_filters_are_refused_by_number(resample: int) -> None:
    with pytest.raises(UnsupportedError, match=rf"resample: found {resample}, expected .*1 \(LANCZOS\)"):
        _core.kernels.resize(np.zeros((2, 2, 3), np.uint8), (4, 4), resample)


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (2**20 + 1, 1), (2**15, 2**14)])
def test_sizes_out_of_range_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=rf"size: found {size[0]}x{size[1]} \(height x width\), expected"):
        _core.kernels.resize(np.zeros((2, 2, 3), np.uint8), size, LANCZOS)
