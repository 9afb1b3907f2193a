"""What every patch of every tile shows: the targets of the heads that teach the vision tower.

The heads exist only in training. Their targets come from where `scenes` put things, so they cost nothing.
"""

from __future__ import annotations

import string
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .architecture import GRID, PATCHES, TILES
from .scenes import COLOURS, MAX_SIGN_LENGTH, SHAPES, Character, Scene, centre

CHARACTERS = string.ascii_uppercase + string.digits + "$."
# A patch may hold the centres of two characters: each half has targets of its own.
HALVES = 2
NUM_THINGS = 1 + len(SHAPES) * len(COLOURS)  # 0: none
NUM_CHARACTERS = 1 + len(CHARACTERS)  # 0: no character's centre is here
NUM_POSITIONS = 1 + MAX_SIGN_LENGTH  # 0: none, or unknown because the sign reaches into another tile

# Inside this part of its radius, a shape fills its patches.
_CORE = 0.8


class Labels(NamedTuple):
    """The targets of one picture's tiles, row by row and the global tile last; int64."""

    things: NDArray[np.int64]  # [TILES, PATCHES * PATCHES]
    characters: NDArray[np.int64]  # [TILES, PATCHES * PATCHES, HALVES]
    positions: NDArray[np.int64]  # [TILES, PATCHES * PATCHES, HALVES], in the text of the sign, from 1


def label(scene: Scene, signs: list[list[Character]]) -> Labels:
    """Labels the patches of a scene, given where `scenes.draw` put the characters of its signs."""
    things = np.zeros((TILES, PATCHES, PATCHES), np.int64)
    texts = np.zeros((TILES, PATCHES, PATCHES, HALVES), np.int64)
    positions = np.zeros_like(texts)
    # (left, top, side) of each tile, as fractions of the picture
    views = [(column / GRID, row / GRID, 1 / GRID) for row in range(GRID) for column in range(GRID)]
    views.append((0.0, 0.0, 1.0))
    steps = (np.arange(PATCHES) + 0.5) / PATCHES
    for tile, (left, top, side) in enumerate(views):
        x, y = left + side * steps[None, :], top + side * steps[:, None]
        for shape in scene.shapes:
            centre_x, centre_y = centre(shape)
            reach = _CORE * shape.radius * min(scene.canvas.width, scene.canvas.height) / 3
            across = (x - centre_x) * scene.canvas.width / reach
            down = (y - centre_y) * scene.canvas.height / reach
            kind = 1 + SHAPES.index(shape.name) * len(COLOURS) + list(COLOURS).index(shape.colour)
            things[tile][across**2 + down**2 <= 1] = kind
        for sign in signs:
            inside = [left <= c.x < left + side and top <= c.y < top + side for c in sign]
            for i, character in enumerate(sign):
                if inside[i]:
                    column = int((character.x - left) / side * PATCHES * HALVES)
                    row = int((character.y - top) / side * PATCHES)
                    cell = tile, row, column // HALVES, column % HALVES
                    texts[cell] = 1 + CHARACTERS.index(character.text)
                    positions[cell] = i + 1 if all(inside) else 0
    flat = PATCHES * PATCHES
    return Labels(
        things.reshape(TILES, flat),
        texts.reshape(TILES, flat, HALVES),
        positions.reshape(TILES, flat, HALVES),
    )
