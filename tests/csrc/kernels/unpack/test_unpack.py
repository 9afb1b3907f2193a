"""The unpacking kernels of every ISA row give the pixels of their formulas and read nothing but the image.

Images lie between guard pages: reading a byte too many ends the test run with a segmentation fault.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pocketvlm import _core

from ... import guard_page
from ...guard_page import Uint8Array, guarded_rows

ISAS = _core.isas()
FORMATS = ["rgb", "rgba", "grey", "nv12", "i420"]
# Around the vectors of every ISA, whole and half.
WIDTHS = [*range(1, 35), 47, 48, 49, 62, 63, 64, 65, 66, 95, 96, 97, 127, 128, 129, 192, 193, 255, 256, 257]
YUV_KINDS = [(matrix, full_range) for matrix in ("bt601", "bt709") for full_range in (False, True)]
LUMA_FACTORS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # kr, kb


def noise(seed: int, *shape: int) -> Uint8Array:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def over_white(image: Uint8Array) -> Uint8Array:
    """[H, W, 4] -> [H, W, 3], as Pillow does it."""
    white = Image.new("RGBA", (image.shape[1], image.shape[0]), (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, Image.fromarray(image)).convert("RGB"))


def yuv_factors(matrix: str, full_range: bool) -> tuple[float, ...]:
    """The luma of black, then what y, v (for R), u and v (for G) and u (for B) count."""
    kr, kb = LUMA_FACTORS[matrix]
    kg = 1 - kr - kb
    luma, chroma = (1.0, 1.0) if full_range else (255 / 219, 255 / 224)
    r_v, b_u = 2 * (1 - kr) * chroma, 2 * (1 - kb) * chroma
    return 0.0 if full_range else 16.0, luma, r_v, -kb / kg * b_u, -kr / kg * r_v, b_u


def yuv_to_rgb(
    y: npt.NDArray[Any], u: npt.NDArray[Any], v: npt.NDArray[Any], factors: tuple[Any, ...]
) -> tuple[npt.NDArray[Any], ...]:
    """[H, W] and twice [ceil(H / 2), ceil(W / 2)] -> R, G, B, neither rounded nor clipped."""
    black, luma, r_v, g_u, g_v, b_u = factors
    cu, cv = ((c - 128).repeat(2, 0).repeat(2, 1)[: y.shape[0], : y.shape[1]] for c in (u, v))
    light = luma * (y - black)
    return light + r_v * cv, light + g_u * cu + g_v * cv, light + b_u * cu


def unpack_yuv(y: Uint8Array, u: Uint8Array, v: Uint8Array, matrix: str, full_range: bool) -> Uint8Array:
    """The kernel's formula: 13 fractional bits. Returns uint8 [3, H, W]."""
    black, *factors = yuv_factors(matrix, full_range)
    fixed = (int(black), *(round(factor * 2**13) for factor in factors))
    rgb = yuv_to_rgb(y.astype(np.int64), u.astype(np.int64), v.astype(np.int64), fixed)
    return np.stack([np.clip((channel + 2**12) >> 13, 0, 255) for channel in rgb]).astype(np.uint8)


def make_image(
    format: str, height: int, width: int, seed: int, **guard: Any
) -> tuple[Uint8Array | _core.YuvFrame, Uint8Array]:
    """An image between guard pages, every plane for itself, and its pixels, uint8 [3, H, W]."""
    if format in ("nv12", "i420"):
        y = noise(seed, height, width)
        u, v = noise(seed + 1, 2, (height + 1) // 2, (width + 1) // 2)
        matrix, full_range = YUV_KINDS[seed % 4]
        chroma = [np.stack([u, v], axis=-1)] if format == "nv12" else [u, v]
        planes = [guarded_rows(plane, **guard) for plane in (y, *chroma)]
        frame = _core.YuvFrame(*planes, matrix=matrix, full_range=full_range)
        return frame, unpack_yuv(y, u, v, matrix, full_range)
    if format == "grey":
        grey = noise(seed, height, width)
        return guarded_rows(grey, **guard), np.stack([grey] * 3)
    image = noise(seed, height, width, len(format))
    rgb = over_white(image) if format == "rgba" else image
    return guarded_rows(image, **guard), rgb.transpose(2, 0, 1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("width", WIDTHS)
def test_equals_the_formula(format: str, width: int, isa: str) -> None:
    for height, gap in [(1, 0), (2, 1), (3, 64)]:
        image, expected = make_image(format, height, width, seed=width + height, gap=gap)
        np.testing.assert_array_equal(_core.kernels.unpack(isa, image), expected, strict=True)
        image, expected = make_image(format, height, width, seed=width, gap=gap, at_start=True)
        np.testing.assert_array_equal(_core.kernels.unpack(isa, image), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", FORMATS)
@given(
    height=st.integers(1, 5), width=st.integers(1, 300), gap=st.integers(0, 70), seed=st.integers(0, 2**31)
)
def test_random_sizes(format: str, isa: str, height: int, width: int, gap: int, seed: int) -> None:
    image, expected = make_image(format, height, width, seed, gap=gap)
    np.testing.assert_array_equal(_core.kernels.unpack(isa, image), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_every_value_with_every_alpha(isa: str) -> None:
    value, alpha = np.meshgrid(np.arange(256), np.arange(256))
    image = np.stack([value, 255 - value, value[::-1], alpha], axis=-1).astype(np.uint8)
    np.testing.assert_array_equal(
        _core.kernels.unpack(isa, image), over_white(image).transpose(2, 0, 1), strict=True
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("matrix", "full_range"), YUV_KINDS)
def test_yuv_is_within_a_level_of_the_exact_formula(matrix: str, full_range: bool, isa: str) -> None:
    """Every luma with a grid of chroma that has both ends and the middle."""
    u, v = np.meshgrid(*[np.array([*range(0, 256, 5), 128])] * 2)
    factors = yuv_factors(matrix, full_range)
    for first in range(0, 256, 4):
        y = np.tile(first + np.array([[0, 1], [2, 3]]), u.shape)
        exact = np.clip(np.stack(yuv_to_rgb(y.astype(float), u, v, factors)), 0, 255)
        frame = _core.YuvFrame(
            *(plane.astype(np.uint8) for plane in (y, u, v)), matrix=matrix, full_range=full_range
        )
        # Half a level of rounding; three factors that are off by 2^-14, times 255 at most.
        np.testing.assert_allclose(_core.kernels.unpack(isa, frame), exact, rtol=0, atol=0.55)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("matrix", "full_range", "yuv", "rgb"),
    [
        ("bt601", False, (235, 128, 128), (255, 255, 255)),
        ("bt601", False, (16, 128, 128), (0, 0, 0)),
        ("bt601", False, (81, 90, 240), (254, 0, 0)),
        ("bt709", False, (63, 102, 240), (255, 1, 0)),
        ("bt709", False, (126, 128, 128), (128, 128, 128)),
        ("bt601", True, (255, 128, 128), (255, 255, 255)),
        ("bt601", True, (0, 128, 128), (0, 0, 0)),
        ("bt601", True, (150, 44, 21), (0, 255, 1)),
        ("bt709", True, (18, 255, 116), (0, 0, 254)),
    ],
)
def test_known_colours(
    matrix: str, full_range: bool, yuv: tuple[int, ...], rgb: tuple[int, ...], isa: str
) -> None:
    y, u, v = (
        np.full(shape, value, np.uint8) for shape, value in zip([(2, 2), (1, 1), (1, 1)], yuv, strict=True)
    )
    frame = _core.YuvFrame(y, u, v, matrix=matrix, full_range=full_range)
    np.testing.assert_array_equal(_core.kernels.unpack(isa, frame)[:, 1, 1], rgb)


@pytest.mark.parametrize("isa", ISAS)
def test_full_range_bt601_is_what_jpeg_uses(isa: str) -> None:
    """Pillow converts the YCbCr of JPEG, in tables of its own fixed point."""
    pixels = noise(5, 100, 100, 3)
    pixels[1::2] = pixels[::2]
    pixels[:, 1::2] = pixels[:, ::2]
    expected = np.asarray(Image.frombytes("YCbCr", (100, 100), pixels.tobytes()).convert("RGB"))
    y, u, v = (np.ascontiguousarray(plane) for plane in pixels.transpose(2, 0, 1))
    half = [np.ascontiguousarray(plane[::2, ::2]) for plane in (u, v)]
    frame = _core.YuvFrame(y, *half, matrix="bt601", full_range=True)
    difference = _core.kernels.unpack(isa, frame).astype(int) - expected.transpose(2, 0, 1)
    assert np.abs(difference).max() <= 1


def test_the_guard_page_guards() -> None:
    code = (
        "import ctypes, runpy, sys\n"
        "guarded = runpy.run_path(sys.argv[1])['guarded_bytes'](100, at_start=sys.argv[2] == 'start')\n"
        "ctypes.string_at(guarded.ctypes.data, 100)\n"
        "print('read', flush=True)\n"
        "ctypes.string_at(guarded.ctypes.data - (sys.argv[2] == 'start'), 101)\n"
    )
    for side in ("start", "end"):
        command = [sys.executable, "-c", code, guard_page.__file__, side]
        result = subprocess.run(command, check=False, capture_output=True, text=True)
        assert (result.stdout, result.returncode) == ("read\n", -signal.SIGSEGV), result.stderr
