"""Images -> float32 pixel values, as the processor of transformers makes them: for use with another engine.

Our own engine takes patches of pixels, and has normalisation folded into its first weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import _core
from .arguments import read_integer
from .config import ProcessorConfig
from .image_modes import Tiles, read_image_modes
from .images import DEFAULT_PIXEL_LIMIT, ImageSource, load_image
from .processor import ImageSize
from .tiles import cut_tiles


def preprocess(
    image: ImageSource,
    config: str | Path | ProcessorConfig,
    *,
    tiles: Tiles = "auto",
    upscale: bool = True,
    split_images: bool | None = None,
    threads: int | None = None,
    pixel_limit: int = DEFAULT_PIXEL_LIMIT,
) -> NDArray[np.float32]:
    """Makes the `pixel_values` of one image.

    By default they equal, to the bit, those of transformers' PIL image processor (Idefics3ImageProcessorPil,
    SmolVLMImageProcessorPil) for the decoded image. The torchvision processor resizes otherwise.

    Args:
        image: A path, bytes, a PIL image, a uint8 array [H, W, 3], [H, W, 4] or [H, W], or a CameraFrame.
        config: The folder of a model or of a checkpoint, or the configuration that was read from it.
        tiles: "auto": as the reference. "single": the whole image as one tile. A number: at most so many, the
            global one included, in a coarser grid where the reference would take more.
        upscale: False: a smaller image is only enlarged to whole tiles, not to the longest edge as the
            reference does.
        split_images: False is tiles="single"; True splits even where the checkpoint says not to.
        threads: Threads to compute with; by default as many as this process may use.
        pixel_limit: The most pixels to accept.

    Returns:
        float32 [num_tiles, 3, tile_size, tile_size]: tiles row by row, and last, if there are several, the
        global one.

    Raises:
        InputError: The image or an argument cannot be used.
        FormatError: The folder has no sound processor configuration.
        UnsupportedError: The configuration asks for a step or a filter that is not there.
    """
    modes = read_image_modes(tiles=tiles, upscale=upscale, split_images=split_images)
    num_threads = (
        read_integer("threads", threads, at_least=1) if threads is not None else _core.default_threads()
    )
    pixel_limit = read_integer("pixel_limit", pixel_limit, at_least=1)
    if not isinstance(config, ProcessorConfig):
        config = ProcessorConfig.from_folder(config)
    pixels = load_image(image, pixel_limit=pixel_limit)
    plan = modes.plan(ImageSize(*pixels.shape[:2]), config)
    return normalize(cut_tiles([pixels], [plan], config, pool=_core.ThreadPool(num_threads)), config)


def normalize(tiles: NDArray[np.uint8], config: ProcessorConfig) -> NDArray[np.float32]:
    """uint8 -> float32, both [T, 3, S, S], by a table of what becomes of each of the 256 values."""
    # As the reference: x * rescale_factor in float64, rounded; then (x - mean) / std in float32.
    rescaled = (np.arange(256) * config.rescale_factor).astype(np.float32)
    mean = np.array(config.image_mean, np.float32)[:, None]
    std = np.array(config.image_std, np.float32)[:, None]
    table = (rescaled - mean) / std  # [3, 256]
    pixel_values = np.empty(tiles.shape, np.float32)
    for channel in range(3):
        np.take(table[channel], tiles[:, channel], out=pixel_values[:, channel])
    return pixel_values
