"""Pictures to measure with when none is given: always the same, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (1536, 1152)  # (width, height): 13 tiles for every size of SmolVLM


def generated_picture(size: tuple[int, int] = SIZE) -> Image.Image:
    """Returns an RGB picture of (width, height) with smooth parts and sharp edges."""
    bands = (
        Image.linear_gradient("L").resize(size),
        Image.radial_gradient("L").resize(size),
        Image.effect_mandelbrot(size, (-2.0, -1.2, 1.0, 1.2), 60),
    )
    return Image.merge("RGB", bands)


def write_generated_picture(folder: Path, size: tuple[int, int] = SIZE) -> Path:
    """Writes that picture as JPEG into a folder: its path."""
    path = folder / f"picture-{size[0]}x{size[1]}.jpg"
    generated_picture(size).save(path, quality=90)
    return path


def noisy_pixels(height: int, width: int, *, seed: int) -> NDArray[np.uint8]:
    """Draws what resizing meets in a photo: slow gradients, sharp edges up to black and white, fine noise.

    Returns:
        uint8 [height, width, 3]; the same for the same seed and the same NumPy.
    """
    rng = np.random.default_rng(seed)
    down = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None, None]  # [H, 1, 1]
    across = np.linspace(0.0, 1.0, width, dtype=np.float32)[None, :, None]  # [1, W, 1]
    waves = rng.uniform(2.0, 9.0, size=(2, 3)).astype(np.float32)  # a pair for each channel
    pixels = 128.0 + 60.0 * np.sin(waves[0] * down) + 60.0 * np.cos(waves[1] * across)  # [H, W, 3]
    for _ in range(24):
        top, bottom = np.sort(rng.integers(0, height, 2, endpoint=True))
        left, right = np.sort(rng.integers(0, width, 2, endpoint=True))
        pixels[top : (top + bottom + 1) // 2, left : (left + right + 1) // 2] = rng.integers(0, 256, 3)
    pixels += 6.0 * rng.standard_normal(pixels.shape, dtype=np.float32)
    drawn: NDArray[np.uint8] = pixels.clip(0.0, 255.0).astype(np.uint8)
    return drawn
