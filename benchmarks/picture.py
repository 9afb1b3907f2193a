"""The picture that is measured with when none is given: always the same, made on the spot."""

from __future__ import annotations

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
