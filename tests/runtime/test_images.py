"""Images: every kind of source gives the right pixels, every bad one a named error."""

from __future__ import annotations

import base64
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pocketvlm import _core
from pocketvlm.errors import InputError
from pocketvlm.images import ImageSource, load_image

COLOURS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def load_array(source: ImageSource, **options: Any) -> NDArray[np.uint8]:
    """load_image of what becomes an array."""
    pixels = load_image(source, **options)
    assert isinstance(pixels, np.ndarray)
    return pixels


def assert_readable(array: NDArray[np.uint8]) -> None:
    """The core takes it."""
    assert _core.kernels.unpack("scalar", array).shape == (3, *array.shape[:2])


PNG = encode(Image.fromarray(COLOURS), "PNG")


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    path.write_bytes(PNG)
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    sources = [path, str(path), path.as_uri(), PNG, bytearray(PNG), memoryview(PNG), url, COLOURS]
    for source in [*sources, Image.fromarray(COLOURS), Image.open(io.BytesIO(PNG))]:
        pixels = load_array(source)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, COLOURS)


@pytest.mark.parametrize(
    "array",
    [
        COLOURS,
        COLOURS[1:, 2:5],
        COLOURS[::2],
        COLOURS[:1][::-1],
        COLOURS[:, :1],
        COLOURS[:, 1:2][::3],
        COLOURS[1:, :, 0].copy(),
        COLOURS.reshape(4, 18)[1:, 2:9],
        np.zeros((4, 6, 4), np.uint8)[:, 1:],
    ],
)
def test_an_array_with_contiguous_rows_is_taken_as_it_is(array: NDArray[np.uint8]) -> None:
    assert load_image(array) is array
    assert_readable(array)


@pytest.mark.parametrize(
    "array",
    [
        COLOURS[::-1],
        COLOURS[:, ::-1],
        COLOURS[:, ::2],
        COLOURS[:, :, ::-1],
        COLOURS[:, :, 0],
        COLOURS.transpose(1, 0, 2),
        np.broadcast_to(COLOURS[:1], (5, 6, 3)),
        np.asfortranarray(COLOURS),
    ],
)
def test_any_other_array_becomes_contiguous(array: NDArray[np.uint8]) -> None:
    pixels = load_array(array)
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, array)
    assert_readable(pixels)


def test_alpha_of_an_array_is_composited_as_that_of_a_file() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (20, 30, 4), np.uint8)
    from_array = _core.kernels.unpack("scalar", load_image(noise))
    from_file = load_array(encode(Image.fromarray(noise), "PNG"))
    np.testing.assert_array_equal(from_array.transpose(1, 2, 0), from_file)


def test_grey_of_an_array_is_that_of_a_file() -> None:
    grey = np.ascontiguousarray(COLOURS[..., 1])
    from_array = _core.kernels.unpack("scalar", load_image(grey))
    np.testing.assert_array_equal(
        from_array.transpose(1, 2, 0), load_array(encode(Image.fromarray(grey), "PNG"))
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.fromarray(COLOURS)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(load_image(encode(stored, "PNG", exif=exif)), COLOURS)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_alpha_is_composited_over_white(mode: str) -> None:
    image = Image.new(mode, (3, 1))
    image.putalpha(Image.fromarray(np.array([[255, 0, 51]], np.uint8)))
    assert image.mode == {"RGB": "RGBA", "L": "LA", "P": "PA"}[mode]
    np.testing.assert_array_equal(load_image(image), [[[0] * 3, [255] * 3, [204] * 3]])


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_alpha_is_composited_too(mode: str) -> None:
    image = Image.new("LA" if mode == "La" else "RGBA", (1, 1), (0, 51) if mode == "La" else (0, 0, 0, 51))
    np.testing.assert_array_equal(load_image(image.convert(mode)), [[[204] * 3]])


def test_a_transparent_palette_entry_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    pixels = load_image(encode(image, "PNG", transparency=1))
    np.testing.assert_array_equal(pixels, [[[10, 20, 30], [255, 255, 255]]])


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV"])
def test_other_modes_become_rgb_as_pillow_converts_them(mode: str) -> None:
    image = Image.fromarray(COLOURS).convert(mode)
    np.testing.assert_array_equal(load_image(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_keeps_its_upper_byte(format: str) -> None:
    grey = np.array([[0, 255, 256, 0x1234, 65535]], np.uint16)
    pixels = load_image(encode(Image.fromarray(grey), format))
    np.testing.assert_array_equal(pixels[0, :, 0], grey[0] >> 8)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_pixels_are_refused(mode: str) -> None:
    with pytest.raises(InputError, match="32-bit"):
        load_image(Image.new(mode, (2, 2)))


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(load_image(content), np.full((2, 2, 3), [255, 0, 0]))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (COLOURS.astype(np.float32), r"float32 \[4, 6, 3\], expected uint8"),
        (COLOURS.astype(np.int64), "int64"),
        (COLOURS[..., :1], r"uint8 \[4, 6, 1\].*for grey, array\[:, :, 0\]"),
        (COLOURS[1:3, :, :2], r"uint8 \[2, 6, 2\], expected uint8 \[H, W, 3\], RGB, .*, grey$"),
        (COLOURS[0, :, 0], r"uint8 \[6\]"),
        (COLOURS.transpose(2, 0, 1), r"\[3, 4, 6\].*channels come last"),
        (COLOURS[None], r"\[1, 4, 6, 3\]"),
        (np.zeros((4, 6, 5), np.uint8), r"\[4, 6, 5\].*channels come last"),
        (np.zeros((0, 6), np.uint8), "6x0"),
        (np.zeros((4, 0, 4), np.uint8), "0x4"),
        (np.zeros((0, 6, 3), np.uint8), "6x0"),
        (np.zeros((4, 0, 3), np.uint8), "0x4"),
    ],
)
def test_an_array_of_another_kind_is_refused(array: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"image 7: .*{message}"):
        load_image(array, name="image 7")


def test_a_channels_first_array_with_three_columns_is_taken_as_it_is() -> None:
    ambiguous = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    np.testing.assert_array_equal(load_image(ambiguous), ambiguous)


@pytest.mark.parametrize("length", [0, 1, 8, 33, len(PNG) // 2])
def test_a_truncated_file_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(PNG[:length])
    with pytest.raises(InputError, match=r"cut\.png: "):
        load_image(path)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_half_a_file_of_any_format_is_an_input_error(format: str) -> None:
    noise = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (64, 64, 3), np.uint8)
    content = encode(Image.fromarray(noise), format)
    assert load_image(content).shape == (64, 64, 3)
    with pytest.raises(InputError, match="image: "):
        load_image(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.jpg", r"missing\.jpg: no such file"),
        (".", "is a folder"),
        ("nul\0character.png", "cannot be read"),
        (b"", "0 bytes"),
        (b"not an image", "not an image"),
        ("https://example.com/cat.jpg", "download it first"),
        ("data:image/png;base64,@@@@", "not base64"),
        ("data:image/png,abc", "base64"),
        ("data:image/png;base64", "base64"),
        (Image.new("RGB", (0, 5)), "0x5"),
        (None, "found NoneType"),
        (7, "found int"),
        ([COLOURS], "found list"),
    ],
)
def test_a_bad_source_is_an_input_error(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_image(source)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_001), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_before_decoding(width: int, height: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="pixels"):
            load_image(png_header(width, height))


def test_the_pixel_limit_is_the_callers_and_inclusive() -> None:
    assert load_image(PNG, pixel_limit=24).shape == (4, 6, 3)
    for source in (PNG, COLOURS, Image.fromarray(COLOURS)):
        with pytest.raises(InputError, match="6x4 is 24 pixels, pixel_limit is 23"):
            load_image(source, pixel_limit=23)


def test_pillows_warning_does_not_leak_between_its_limit_and_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(PNG).shape == (4, 6, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(InputError, match="MAX_IMAGE_PIXELS"):
        load_image(PNG)
