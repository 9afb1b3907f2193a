"""The labels of patches: what lies under the centre of a patch is what the label says."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pocketvlm.demo_model import scenes
from pocketvlm.demo_model.architecture import PATCHES, TILES
from pocketvlm.demo_model.labels import CHARACTERS, HALVES, NUM_CHARACTERS, NUM_POSITIONS, NUM_THINGS, label

GLOBAL = TILES - 1


def scene_with(*, sign: bool, shapes: int) -> scenes.Scene:
    return next(
        scene
        for scene in (scenes.random_scene(random.Random(seed)) for seed in range(10_000))
        if (scene.sign is not None) == sign and len(scene.shapes) >= shapes
    )


def colour_and_shape(thing: int) -> str:
    shape, colour = divmod(thing - 1, len(scenes.COLOURS))
    return f"{list(scenes.COLOURS)[colour]} {scenes.SHAPES[shape]}"


def test_shapes_fill_the_patches_at_their_centres() -> None:
    scene = scene_with(sign=False, shapes=5)
    things = label(scene, []).things.reshape(TILES, PATCHES, PATCHES)
    for shape in scene.shapes:
        x, y = scenes.centre(shape)
        assert colour_and_shape(things[GLOBAL, int(y * PATCHES), int(x * PATCHES)]) == str(shape)
        # The same place in the one of 2 x 2 tiles that holds it, where it is twice as large.
        tile = things[int(y * 2) * 2 + int(x * 2)]
        assert colour_and_shape(tile[int(y * 2 % 1 * PATCHES), int(x * 2 % 1 * PATCHES)]) == str(shape)


def test_an_empty_place_is_labelled_empty() -> None:
    scene = scene_with(sign=False, shapes=1)
    free = set(range(9)) - {shape.place for shape in scene.shapes}
    things = label(scene, []).things.reshape(TILES, PATCHES, PATCHES)
    for place in free:
        row, column = divmod(place, 3)
        assert things[GLOBAL, int((row + 0.5) / 3 * PATCHES), int((column + 0.5) / 3 * PATCHES)] == 0


@pytest.mark.parametrize("seed", range(40))
def test_the_global_tile_spells_the_sign(seed: int) -> None:
    scene = scenes.random_scene(random.Random(seed), sign_probability=1.0)
    assert scene.sign is not None
    found = label(scene, scenes.draw(scene)[1])
    texts, positions = found.characters[GLOBAL].ravel(), found.positions[GLOBAL].ravel()
    spelled = {int(positions[i]): CHARACTERS[texts[i] - 1] for i in np.flatnonzero(positions)}
    assert all(scene.sign.text[position - 1] == text for position, text in spelled.items())
    # Narrow characters may share a cell; the last one has it.
    assert len(spelled) >= len(scene.sign.text) - 2
    assert ((texts > 0) == (positions > 0)).all()


def test_a_tile_that_holds_part_of_a_sign_knows_no_positions() -> None:
    scene = scene_with(sign=True, shapes=0)
    characters = [scenes.Character("A", 0.3, 0.2), scenes.Character("B", 0.7, 0.2)]
    found = label(scene, [characters])
    for tile, text in ((0, "A"), (1, "B")):
        assert [CHARACTERS[i - 1] for i in found.characters[tile].ravel() if i] == [text]
        assert not found.positions[tile].any()
    assert not found.characters[2:GLOBAL].any()


def test_a_page_is_labelled_sign_by_sign() -> None:
    page = scenes.random_page(random.Random(3))
    _, signs = scenes.draw(page)
    assert page.sign is not None
    texts = [page.sign.text, *(sign.text for sign in page.more_signs)]
    assert ["".join(character.text for character in sign) for sign in signs] == texts
    found = label(page, signs)
    each = [label(page, [sign]) for sign in signs]
    assert np.array_equal(found.characters, np.sum([labels.characters for labels in each], axis=0))
    assert np.array_equal(found.positions, np.sum([labels.positions for labels in each], axis=0))


def test_classes_are_as_many_as_the_heads_have() -> None:
    largest = [0, 0, 0]
    for seed in range(300):
        scene = scenes.random_scene(random.Random(seed))
        found = label(scene, scenes.draw(scene)[1])
        assert found.things.shape == (TILES, PATCHES**2)
        assert found.characters.shape == found.positions.shape == (TILES, PATCHES**2, HALVES)
        largest = [max(a, int(np.max(b))) for a, b in zip(largest, found, strict=True)]
    assert largest[0] == NUM_THINGS - 1
    assert largest[1] < NUM_CHARACTERS
    assert largest[2] == NUM_POSITIONS - 1
