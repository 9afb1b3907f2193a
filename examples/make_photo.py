"""Paint examples/photo.jpg: a lake below mountains at evening, with a sailing boat.

Own work of this project, made from nothing but the arithmetic below, so that the repository has a picture
of a real photo's size and detail under its own licence (Apache-2.0). Run it with NumPy and Pillow installed:

    python examples/make_photo.py examples/photo.jpg
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 1536, 1152
HORIZON = 640  # row of the far shore


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, *, octaves: int, stretch: float, start_cells: int = 3
) -> np.ndarray:
    """Sum smooth random grids, each twice as fine and half as strong: float64 [height, width] in 0 to 1."""
    total = np.zeros((height, width))
    for octave in range(octaves):
        cells = start_cells * 2**octave
        grid = rng.random((cells + 1, max(2, round(cells * stretch) + 1)), dtype=np.float32)
        smooth = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(smooth) / 2**octave
    return (total - total.min()) / (total.max() - total.min())


def blend(low: tuple[int, int, int], high: tuple[int, int, int], amount: np.ndarray) -> np.ndarray:
    """Mix two colours per pixel: amount [...] in 0 to 1 -> float64 [..., 3]."""
    return np.asarray(low) + (np.asarray(high) - np.asarray(low)) * amount[..., None]


def ridge(rng: np.random.Generator, base: float, swing: float, start_cells: int) -> np.ndarray:
    """The skyline of one mountain range: the row of its crest per column, float64 [WIDTH]."""
    crest = np.zeros(WIDTH)
    for octave in range(7):
        cells = start_cells * 2**octave
        points = rng.random(cells + 1)
        crest += np.interp(np.linspace(0, cells, WIDTH), np.arange(cells + 1), points) / 2**octave
    crest = (crest - crest.min()) / (crest.max() - crest.min())
    return base - swing * crest


def paint_sky(rng: np.random.Generator) -> np.ndarray:
    """Evening sky with thin clouds and the sun low on the right: float64 [HORIZON, WIDTH, 3]."""
    rows, columns = np.mgrid[0:HORIZON, 0:WIDTH]
    sky = blend((64, 98, 158), (255, 196, 132), (rows / HORIZON) ** 1.4)
    clouds = np.clip(smooth_noise(rng, HORIZON, WIDTH, octaves=7, stretch=0.5) * 2.2 - 1.0, 0, 1)[..., None]
    sky = sky * (1 - 0.55 * clouds) + np.asarray((255, 226, 205)) * 0.55 * clouds
    distance = np.hypot(rows - 330, columns - 1120)[..., None]
    sky = sky + np.asarray((255, 190, 110)) * 0.55 * np.exp(-distance / 150)
    disc = np.clip((46 - distance) / 2, 0, 1)
    return sky * (1 - disc) + np.asarray((255, 246, 214)) * disc


def paint_mountains(rng: np.random.Generator, land: np.ndarray) -> None:
    """Draw three ranges, the far ones bluer, over `land` [HORIZON, WIDTH, 3] in place."""
    rows = np.arange(HORIZON)[:, None]
    ranges = (
        (560.0, 300.0, 3, (118, 128, 164), (168, 158, 172)),
        (620.0, 190.0, 4, (72, 86, 112), (112, 108, 118)),
        (648.0, 90.0, 6, (34, 52, 48), (66, 76, 56)),
    )
    for base, swing, cells, shade, light in ranges:
        crest = ridge(rng, base, swing, cells)[None, :]
        rock = smooth_noise(rng, HORIZON, WIDTH, octaves=8, stretch=1.5)
        colour = blend(shade, light, np.clip(rock * 1.6 - 0.3, 0, 1))
        snow = np.clip((crest + 46 + 60 * (rock - 0.5) - rows) / 14, 0, 1) * (base < 600)
        colour = colour * (1 - snow[..., None]) + np.asarray((238, 232, 236)) * snow[..., None]
        inside = np.clip(rows - crest, 0, 1)[..., None]
        land[:] = land * (1 - inside) + colour * inside


def paint_lake(rng: np.random.Generator, above: np.ndarray) -> np.ndarray:
    """The rippled mirror image of everything above the shore: float64 [HEIGHT - HORIZON, WIDTH, 3]."""
    depth = HEIGHT - HORIZON
    rows, columns = np.mgrid[0:depth, 0:WIDTH]
    ripple = smooth_noise(rng, depth, WIDTH, octaves=4, stretch=0.2, start_cells=40) - 0.5
    source_rows = HORIZON - 1 - rows * 0.95 + ripple * (3 + rows * 0.09)
    source_columns = columns + ripple * (2 + rows * 0.05)
    mirror = above[
        np.clip(source_rows, 0, HORIZON - 1).astype(int), np.clip(source_columns, 0, WIDTH - 1).astype(int)
    ]
    water = mirror * 0.72 + np.asarray((18, 44, 66)) * 0.28
    glitter = np.exp(-(((columns - 1120) / (40 + rows * 0.25)) ** 2)) * np.clip(ripple * 5 - 0.2, 0, 1)
    return water + np.asarray((255, 214, 150)) * 0.8 * glitter[..., None]


def draw_boat(picture: Image.Image) -> None:
    """A white sailing boat with a red hull and its reflection; drawn at 4x for smooth edges."""
    scale = 4
    layer = Image.new("RGBA", (420 * scale, 560 * scale))
    pen = ImageDraw.Draw(layer)

    def shape(points: list[tuple[int, int]], colour: tuple[int, int, int]) -> None:
        pen.polygon([(x * scale, y * scale) for x, y in points], fill=(*colour, 255))

    shape([(204, 40), (210, 40), (210, 350), (204, 350)], (92, 70, 52))
    shape([(216, 48), (216, 332), (352, 332), (300, 210)], (246, 240, 228))
    shape([(198, 70), (198, 332), (96, 332)], (226, 214, 198))
    shape([(216, 48), (216, 332), (244, 332), (236, 190)], (228, 220, 208))
    shape([(66, 346), (372, 346), (340, 400), (110, 400)], (172, 46, 40))
    shape([(66, 346), (372, 346), (368, 354), (71, 354)], (238, 226, 210))
    shape([(300, 318), (318, 318), (322, 346), (296, 346)], (40, 58, 92))
    pen.ellipse([299 * scale, 298 * scale, 319 * scale, 320 * scale], fill=(196, 142, 108, 255))
    boat = layer.resize((420, 560), Image.Resampling.LANCZOS)

    reflection = boat.crop((0, 0, 420, 400)).transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((420, 230))
    reflection = reflection.filter(ImageFilter.GaussianBlur(3))
    reflection.putalpha(reflection.getchannel("A").point(lambda alpha: alpha * 2 // 5))
    picture.paste(reflection, (330, 838), reflection)
    picture.paste(boat, (330, 440), boat)


def draw_shore(rng: np.random.Generator, picture: Image.Image) -> None:
    """Reeds along the lower right corner, dark against the water."""
    pen = ImageDraw.Draw(picture)
    for _ in range(260):
        x = WIDTH - abs(rng.normal(0, 150))
        height = rng.uniform(60, 240) * (0.4 + 0.6 * x / WIDTH)
        lean = rng.normal(0, 26)
        green = int(rng.uniform(28, 70))
        stem = [(x, HEIGHT), (x + lean * 0.3, HEIGHT - height * 0.6), (x + lean, HEIGHT - height)]
        pen.line(stem, fill=(green // 2 + 10, green, 22), width=3)
        if rng.random() < 0.3:
            tip_x, tip_y = stem[-1]
            pen.ellipse([tip_x - 5, tip_y - 26, tip_x + 5, tip_y + 6], fill=(74, 46, 28))


def paint(seed: int = 2) -> Image.Image:
    """Paint the whole picture; the same seed gives the same pixels on one NumPy and Pillow version."""
    rng = np.random.Generator(np.random.Philox(seed))
    above = paint_sky(rng)
    paint_mountains(rng, above)
    canvas = np.concatenate([above, paint_lake(rng, above)])
    canvas += rng.normal(0, 2.0, (HEIGHT, WIDTH, 1))  # a little sensor grain
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    draw_boat(picture)
    draw_shore(rng, picture)
    return picture


if __name__ == "__main__":
    paint().save(sys.argv[1], quality=82, optimize=True)
