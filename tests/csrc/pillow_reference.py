"""Image.resize of Pillow 13 on uint8 RGB arrays, whichever Pillow is installed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

Uint8Array = npt.NDArray[np.uint8]


def pillow_resize(image: Uint8Array, size: tuple[int, int], resample: int = 1) -> Uint8Array:
    """Resizes with Pillow, in the order of passes of version 13.

    Args:
        image: uint8 [H, W, 3].
        size: (height, width).
        resample: A PIL filter number.

    Returns:
        uint8 [height, width, 3].
    """
    picture = Image.fromarray(image)
    height, width = size
    lost_rows = picture.height - height
    lost_columns = picture.width - width
    if lost_rows > 0 and lost_rows > 2 * lost_columns and int(PIL.__version__.split(".")[0]) < 13:
        # Pillow up to 12 always runs the horizontal pass first. A resize of one side is one pass everywhere.
        picture = picture.resize((picture.width, height), resample)
    return np.asarray(picture.resize((width, height), resample))
