"""Images made by a formula, so that goldens name them by size and seed and every test can draw them again.

Integer arithmetic only: the same bytes on every machine and NumPy version. Used by make_golden.py and by the
tests.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Uint8Array = npt.NDArray[np.uint8]


def formula_image(height: int, width: int, seed: int) -> Uint8Array:
    """Draws an image with what resizing can get wrong: gradients, hard edges to 0 and 255, fine noise.

    Args:
        height: Rows.
        width: Columns.
        seed: Different seeds give different images of the same kind.

    Returns:
        uint8 [height, width, 3].
    """
    y, x, channel = np.meshgrid(
        np.arange(height, dtype=np.uint32),
        np.arange(width, dtype=np.uint32),
        np.arange(3, dtype=np.uint32),
        indexing="ij",
        sparse=True,
    )
    salt = np.uint32(seed % 2**16)
    gradient = (x * np.uint32(3) + y * (channel + np.uint32(2)) + salt * np.uint32(37)) >> np.uint32(2)
    # A checkerboard whose cells jump between black and white: Lanczos overshoots there and must clip.
    cells = ((x >> np.uint32(4)) ^ (y >> np.uint32(5)) ^ (salt + channel)) & np.uint32(7)
    noise = (
        (x * np.uint32(2654435761)) ^ (y * np.uint32(2246822519)) ^ ((channel + salt) * np.uint32(3266489917))
    )
    noise = ((noise ^ (noise >> np.uint32(15))) * np.uint32(668265263)) >> np.uint32(24)
    image = (gradient + (noise >> np.uint32(2))) & np.uint32(255)
    image = np.where(cells == 0, np.uint32(0), image)
    image = np.where(cells == 5, np.uint32(255), image)
    return np.ascontiguousarray(image.astype(np.uint8))


def sha256_of_array(array: npt.NDArray[np.generic]) -> str:
    """SHA-256 (hex) of an array's bytes in C order, little endian."""
    contiguous = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return hashlib.sha256(contiguous.tobytes()).hexdigest()
