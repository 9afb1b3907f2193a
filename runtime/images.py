"""Anything a person may call an image -> uint8 pixels that the core reads, safely.

Decides what the pixels are (orientation, transparency, bit depth); what becomes of them is the business of
`processor` (sizes) and of the C++ core (colours of arrays, resizing).
"""

from __future__ import annotations

import base64
import binascii
import io
import threading
import urllib.parse
import urllib.request
import warnings
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from . import _core
from .camera_frame import CameraFrame
from .errors import InputError

ImageSource: TypeAlias = (
    str | PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8] | CameraFrame
)

# What `_core.preprocess` takes.
LoadedImage: TypeAlias = NDArray[np.uint8] | _core.YuvFrame

DEFAULT_PIXEL_LIMIT = 100_000_000

# warnings.catch_warnings swaps a global list; one thread at a time keeps ours from interleaving.
_decoding = threading.Lock()


def load_image(
    source: ImageSource, *, name: str = "image", pixel_limit: int = DEFAULT_PIXEL_LIMIT
) -> LoadedImage:
    """Reads one image.

    EXIF orientation is applied, transparency is composited over white, an animation gives its first frame,
    and 16-bit grey keeps its upper byte. The layout of an array is never guessed: uint8 [H, W, 3], RGB;
    [H, W, 4], RGBA, whose alpha is not premultiplied; or [H, W], grey.

    Args:
        source: A path, a `file:` or base64 `data:` URL, the bytes of an image file, a PIL image, an array,
            or a `CameraFrame`.
        name: What to call the image in errors; a path names itself.
        pixel_limit: The most pixels to accept, checked before anything is decoded. Pillow's own, larger limit
            (twice `PIL.Image.MAX_IMAGE_PIXELS`) holds as well.

    Returns:
        Of a file or a PIL image: C-contiguous uint8 RGB [H, W, 3]. An array is returned as it is, also a crop
        or one with padded rows, and must not change until it was used; only one whose rows run backwards or
        are not contiguous is copied. Of a `CameraFrame`: what the core takes in its place. The shape of each
        begins with height and width.

    Raises:
        InputError: The source is missing, unreadable, truncated, empty, too large, or of another kind.
    """
    if isinstance(source, np.ndarray):
        return _check_array(source, name, pixel_limit)
    if isinstance(source, CameraFrame):
        check_image_size(source.width, source.height, name, pixel_limit)
        return source.for_core()
    if isinstance(source, Image.Image):
        return _decode(source, name, pixel_limit)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode_bytes(bytes(source), name, pixel_limit)
    if isinstance(source, str) and source.startswith("data:"):
        return _decode_bytes(_read_data_url(source, name), name, pixel_limit)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        raise InputError(f"{name}: {source} is on the web; download it first and pass the file")
    if isinstance(source, str) and source.startswith("file:"):
        source = urllib.request.url2pathname(urllib.parse.urlsplit(source).path)
    if isinstance(source, str | PathLike):
        return _decode_file(Path(source), pixel_limit)
    raise InputError(
        f"{name}: found {_type_name(source)}, expected a path, bytes, a PIL image, a uint8 array [H, W, 3] "
        "or a CameraFrame"
    )


def _check_array(array: NDArray[Any], name: str, pixel_limit: int) -> NDArray[np.uint8]:
    found = f"{name}: found an array {array.dtype} {list(array.shape)}"
    if array.dtype != np.uint8:
        raise InputError(f"{found}, expected uint8 [H, W, 3] with values 0 to 255")
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        hint = ""
        if array.ndim == 3 and array.shape[2] == 1:
            hint = "; for grey, array[:, :, 0]"
        elif array.ndim == 3 and array.shape[0] in (3, 4):
            hint = "; channels come last: array.transpose(1, 2, 0)"
        raise InputError(f"{found}, expected uint8 [H, W, 3], RGB, [H, W, 4], RGBA, or [H, W], grey{hint}")
    check_image_size(array.shape[1], array.shape[0], name, pixel_limit)
    return array if _has_readable_rows(array) else np.ascontiguousarray(array)


def _has_readable_rows(array: NDArray[np.uint8]) -> bool:
    return array[0].flags.c_contiguous and (len(array) == 1 or array.strides[0] > 0)


def check_image_size(width: int, height: int, name: str, pixel_limit: int) -> None:
    """Raises InputError unless an image has pixels, and no more than `pixel_limit`."""
    if width < 1 or height < 1:
        raise InputError(f"{name}: {width}x{height} pixels, expected at least 1x1")
    if width * height > pixel_limit:
        raise InputError(
            f"{name}: {width}x{height} is {width * height:,} pixels, pixel_limit is {pixel_limit:,}"
        )


def _read_data_url(url: str, name: str) -> bytes:
    header, comma, payload = url.partition(",")
    if not comma or not header.endswith(";base64"):
        raise InputError(f"{name}: found {header[:60]!r}, expected a URL data:image/...;base64,...")
    try:
        return base64.b64decode(urllib.parse.unquote(payload), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{name}: the data URL is not base64: {error}") from error


def _decode_file(path: Path, pixel_limit: int) -> NDArray[np.uint8]:
    try:
        with path.open("rb") as file:
            return _decode(file, str(path), pixel_limit)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, expected an image file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read: {error}") from error


def _decode_bytes(content: bytes, name: str, pixel_limit: int) -> NDArray[np.uint8]:
    if not content:
        raise InputError(f"{name}: 0 bytes, expected the content of an image file")
    return _decode(io.BytesIO(content), name, pixel_limit)


def _decode(source: Any, name: str, pixel_limit: int) -> NDArray[np.uint8]:
    """Decodes a PIL image or a binary file object."""
    try:
        with _decoding, warnings.catch_warnings():
            # Our own limit decides; Pillow would warn from 89 megapixels on.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = source if isinstance(source, Image.Image) else Image.open(source)
            check_image_size(*image.size, name, pixel_limit)
            image.load()
            # A turned copy forgets its format, which tells what 32-bit integers are.
            return np.array(_to_rgb(ImageOps.exif_transpose(image), image.format, name))
    except (InputError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: {error} (PIL.Image.MAX_IMAGE_PIXELS)") from error
    except UnidentifiedImageError:
        raise InputError(f"{name}: not an image, or a format that Pillow does not read") from None
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly any type
        raise InputError(f"{name}: the image is damaged or truncated: {error}") from error


def _to_rgb(image: Image.Image, format: str | None, name: str) -> Image.Image:
    # Pillow clips wider samples to 255 where it should scale them.
    if image.mode.startswith("I;16") or (image.mode == "I" and format in ("PNG", "PPM")):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputError(
            f"{name}: 32-bit pixels (mode {image.mode}) have no known range; convert to 8 bits first"
        )
    if image.mode in ("La", "RGBa"):  # premultiplied: Pillow only converts these to their plain form
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if "A" in image.getbands() or "transparency" in image.info:
        foreground = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, foreground)
    return image.convert("RGB")


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
