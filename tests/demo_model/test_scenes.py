"""The truth about the pictures is true: answers follow from what lies there, and what lies there is drawn.

`answer` and `change` below find every answer a second time, from the words of the question and the scene.
"""

from __future__ import annotations

import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from string import ascii_uppercase, digits

import numpy as np
import pytest
from numpy.typing import NDArray

from pocketvlm.demo_model import scenes
from pocketvlm.demo_model.scenes import KINDS, PLACES, SIGN_ROWS, Scene, Shape

SEEDS = range(1500)
ASKED = [kind for kind in KINDS if kind != "change"]


def some_scenes(count: int = len(SEEDS)) -> Iterator[tuple[int, Scene]]:
    """Yields seeds with their scenes; a failing test names the seed."""
    for seed in SEEDS[:count]:
        yield seed, scenes.random_scene(random.Random(seed))


def sign_name(scene: Scene) -> str:
    assert scene.sign is not None
    return "price tag" if scene.sign.is_price else "sign"


def with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def plural(name: str) -> str:
    return name + ("es" if name == "cross" else "s")


def answer(scene: Scene, question: str) -> str:
    """Answers a question about a scene. Fails if it cannot be understood or has two answers."""
    if question in ("Describe the picture.", "What is in this picture?"):
        things = [with_article(f"{shape.colour} {shape.name}") for shape in scene.shapes]
        if scene.sign:
            things.append(f"a {sign_name(scene)} that says {scene.sign.text}")
        whole = " and ".join([", ".join(things[:-1]), things[-1]]) if len(things) > 1 else things[0]
        return whole[0].upper() + whole[1:] + "."
    if match := re.fullmatch(r"What does the (sign|price tag) say\?", question):
        if scene.sign is None:
            return f"There is no {match[1]}."
        assert match[1] == sign_name(scene)
        return scene.sign.text
    if question == "How much does it cost?":
        assert sign_name(scene) == "price tag"
        assert scene.sign is not None
        return scene.sign.text
    if match := re.fullmatch(r"How many (\w+ )?(\w+) are there\?", question):
        colour, things_asked = (match[1] or "").strip(), match[2]
        names = [name for name in scenes.SHAPES if things_asked in (plural(name), "shapes")]
        assert names
        found = [shape for shape in scene.shapes if shape.name in names and colour in ("", shape.colour)]
        return str(len(found))
    if match := re.fullmatch(r"What colou?r (is|are) the (\w+)\?", question):
        found = [shape for shape in scene.shapes if match[2] in (shape.name, plural(shape.name))]
        assert len({shape.colour for shape in found}) <= 1
        assert (len(found) > 1) == (match[1] == "are") == (match[2] not in scenes.SHAPES)
        return found[0].colour if found else f"There is no {match[2]}."
    if question in ("Where is the sign?", "Where is the price tag?"):
        assert scene.sign is not None
        assert sign_name(scene) in question
        return SIGN_ROWS[scene.sign.row]
    if match := re.fullmatch(r"Where is the (\w+) (\w+)\?", question):
        found = [shape for shape in scene.shapes if (shape.colour, shape.name) == match.groups()]
        assert len(found) <= 1
        return PLACES[found[0].place] if found else f"There is no {match[1]} {match[2]}."
    raise AssertionError(f"not understood: {question}")


def change(before: Scene, after: Scene) -> str:
    """Says what differs between two scenes. Fails if it is more than one thing."""
    assert before.sign == after.sign or (before.sign and after.sign)
    if before.sign != after.sign:
        assert before.shapes == after.shapes
        assert before.sign is not None
        assert after.sign is not None
        assert after.sign == replace(before.sign, text=after.sign.text)
        return f"The {sign_name(after)} now says {after.sign.text}."
    gone = [shape for shape in before.shapes if shape not in after.shapes]
    added = [shape for shape in after.shapes if shape not in before.shapes]
    match gone, added:
        case [], []:
            return "Nothing changed."
        case [], [shape]:
            return with_article(str(shape)).capitalize() + " was added."
        case [shape], []:
            return f"The {shape} is gone."
        case [shape], [new] if new == replace(shape, colour=new.colour):
            return f"The {shape} is now {new.colour}."
        case [shape], [new] if new == replace(shape, place=new.place):
            return f"The {shape} moved to the {PLACES[new.place]}."
    raise AssertionError(f"more than one change: {gone} became {added}")


def without_camera(scene: Scene) -> Scene:
    """The scene with neither noise nor JPEG, so that colours are exact."""
    return replace(scene, canvas=replace(scene.canvas, noise=0.0, jpeg_quality=None))


def pixels(scene: Scene) -> NDArray[np.int64]:
    """Draws a scene: int64 [height, width, 3]."""
    return np.asarray(scenes.draw(scene)[0]).astype(np.int64)


@pytest.mark.parametrize("kind", ASKED)
def test_every_answer_follows_from_the_scene(kind: str) -> None:
    for seed, scene in some_scenes():
        question = scenes.ask(scene, kind, random.Random(seed))
        assert question.kind == kind
        assert question.answer == answer(scene, question.text), f"seed {seed}: {question}"


def test_two_pictures_differ_in_what_the_answer_says_and_nothing_else() -> None:
    for seed in SEEDS:
        before, after, question = scenes.random_change(random.Random(seed))
        assert question.answer == change(before, after), f"seed {seed}"
        assert after.canvas == replace(
            before.canvas, noise=after.canvas.noise, noise_seed=after.canvas.noise_seed
        )


def test_what_is_asked_about_occurs_once_or_is_said_not_to_be_there() -> None:
    """A change that is named by its shape names one: "the red circle" was alone."""
    for seed in SEEDS:
        before, _, question = scenes.random_change(random.Random(seed))
        if match := re.match(r"The (\w+ (?:circle|square|triangle|star|cross)) ", question.answer):
            assert Counter(map(str, before.shapes))[match[1]] == 1, f"seed {seed}"


def test_everything_there_is_to_see_occurs() -> None:
    """And every answer often enough that guessing the likeliest does not get far."""
    shapes = [shape for _, scene in some_scenes() for shape in scene.shapes]
    assert {shape.name for shape in shapes} == set(scenes.SHAPES)
    assert {shape.colour for shape in shapes} == set(scenes.COLOURS)
    assert {shape.place for shape in shapes} == set(range(len(PLACES)))
    signs = [scene.sign for _, scene in some_scenes() if scene.sign]
    assert {sign.row for sign in signs} == set(range(len(SIGN_ROWS)))
    assert {sign.font for sign in signs} == set(range(len(scenes._FONTS)))
    assert {sign.is_price for sign in signs} == {False, True}
    assert {len(sign.text) for sign in signs} == set(range(2, scenes.MAX_SIGN_LENGTH + 1))
    assert {len(scene.shapes) for _, scene in some_scenes()} == set(range(7))
    for kind, most in {"describe": 0.05, "sign": 0.4, "count": 0.5, "colour": 0.35, "where": 0.4}.items():
        answers = Counter(
            re.sub(r"There is no .*", "None.", scenes.ask(scene, kind, random.Random(seed)).answer)
            for seed, scene in some_scenes()
        )
        assert answers.most_common(1)[0][1] < most * len(SEEDS), answers.most_common(3)
    changes = Counter(
        " ".join(set(question.answer.split()) & {"Nothing", "says", "added.", "gone.", "moved", "is"})
        for _, _, question in (scenes.random_change(random.Random(seed)) for seed in SEEDS)
    )
    assert len(changes) == 6
    assert min(changes.values()) > 0.08 * len(SEEDS)


def test_held_out_examples_ask_the_kinds_in_turn_and_show_what_they_ask_about() -> None:
    examples = list(scenes.held_out(2 * len(KINDS)))
    assert [example.kind for example in examples] == [*KINDS, *KINDS]
    for example in examples:
        assert len(example.images) == (2 if example.kind == "change" else 1)
        assert all(image.mode == "RGB" and min(image.size) >= 128 for image in example.images)
        assert example.question
        assert example.answer == example.answer.strip() != ""
        assert (example.question + example.answer).isascii()


def test_a_longer_set_begins_with_the_shorter_one() -> None:
    """So that accuracy on a part of the set is that of pictures in the set."""
    for first, again in zip(scenes.held_out(7), scenes.held_out(8), strict=False):
        assert (first.question, first.answer) == (again.question, again.answer)
        assert [image.tobytes() for image in first.images] == [image.tobytes() for image in again.images]


def test_held_out_seeds_are_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    class Recorded(random.Random):
        def __init__(self, seed: int) -> None:
            seeds.append(seed)
            super().__init__(seed)

    monkeypatch.setattr(random, "Random", Recorded)
    count = sum(1 for _ in scenes.held_out(18))
    assert len(set(seeds)) == len(seeds) == count
    # Training counts batches from 0 and would take millions of years to get here.
    assert min(seeds) == scenes.HELD_OUT_SEED == 2**40


def test_a_seed_gives_the_same_everywhere() -> None:
    """Nothing depends on the order of a set, which differs from process to process."""
    code = (
        "import hashlib; from pocketvlm.demo_model import scenes; h = hashlib.sha256()\n"
        "for e in scenes.held_out(24): h.update(repr((e.kind, e.question, e.answer)).encode());"
        " [h.update(i.tobytes()) for i in e.images]\n"
        "print(h.hexdigest())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2", "3")
    }
    assert len(printed) == 1


def test_shapes_have_their_colour_at_their_centre() -> None:
    for seed, scene in some_scenes(300):
        drawn = pixels(without_camera(scene))
        height, width = drawn.shape[:2]
        for shape in scene.shapes:
            x, y = scenes.centre(shape)
            row, column = divmod(shape.place, 3)
            assert column < 3 * x < column + 1, f"seed {seed}"
            assert row < 3 * y < row + 1, f"seed {seed}"
            at_centre = tuple(drawn[int(y * height), int(x * width)])
            assert at_centre == scenes.COLOURS[shape.colour], f"seed {seed}: {shape}"


def test_colours_can_be_told_apart_in_what_the_camera_saw() -> None:
    palette = np.array(list(scenes.COLOURS.values()))
    for seed, scene in some_scenes(300):
        drawn = pixels(scene)
        height, width = drawn.shape[:2]
        for shape in scene.shapes:
            x, y = scenes.centre(shape)
            top, left = int(y * height) - 3, int(x * width) - 3
            seen = drawn[top : top + 7, left : left + 7].mean(axis=(0, 1))
            nearest = int(np.abs(palette - seen).sum(axis=1).argmin())
            assert list(scenes.COLOURS)[nearest] == shape.colour, f"seed {seed}: {shape}"


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("circle", math.pi),
        ("square", (2 * 0.85) ** 2),
        ("triangle", 0.95 * 1.8),
        ("star", 5 * 1.1 * 0.45 * math.sin(math.pi / 5)),
        ("cross", 2 * 2 * 0.68 - 0.68**2),
    ],
)
def test_shapes_have_the_area_of_their_form(name: str, area: float) -> None:
    """`area` is in units of the radius squared; pixels at the edge are a tenth of it at most."""
    canvas = replace(
        scenes.random_scene(random.Random(0)).canvas,
        **{"width": 512, "height": 512, "pattern": 0, "noise": 0.0, "jpeg_quality": None},
    )
    for turned in (-10.0, 0.0, 7.5):
        shape = Shape(name, "red", place=4, radius=0.35, shift=(0.05, -0.1), angle=turned)
        drawn = pixels(Scene(canvas, (shape,), None))
        found = (drawn == scenes.COLOURS["red"]).all(axis=2).sum()
        assert found == pytest.approx(area * (0.35 * 512 / 3) ** 2, rel=0.1)


def test_characters_of_a_sign_lie_on_it_in_reading_order() -> None:
    signs = 0
    for seed, seen in some_scenes(400):
        scene = without_camera(replace(seen, shapes=()))
        image, found = scenes.draw(scene)
        if scene.sign is None:
            assert found == []
            continue
        signs += 1
        (characters,) = found
        assert "".join(character.text for character in characters) == scene.sign.text
        xs = [character.x for character in characters]
        assert xs == sorted(xs), f"seed {seed}"
        assert {int(3 * character.y) for character in characters} == {scene.sign.row}, f"seed {seed}"
        on_sign = (np.asarray(image) != pixels(replace(scene, sign=None))).any(axis=2)
        for character in characters:
            top, left = int(character.y * image.height) - 2, int(character.x * image.width) - 2
            assert on_sign[top : top + 5, left : left + 5].all(), f"seed {seed}: {character}"
    assert signs > 200


def test_characters_have_their_ink_around_their_centre() -> None:
    """Where a picture changes when a character is left out, there it was."""
    for seed, seen in some_scenes(400):
        if seen.sign is None or scenes._FONTS[seen.sign.font] != "DejaVuSansMono-Bold":
            continue  # only there a blank is as wide as a letter, so that nothing else moves
        middle = len(seen.sign.text) // 2
        text = seen.sign.text[:middle] + " " + seen.sign.text[middle + 1 :]
        scene = without_camera(seen)
        image, (characters,) = scenes.draw(scene)
        blanked = replace(scene, sign=replace(seen.sign, text=text))
        rows, columns = (np.asarray(image) != pixels(blanked)).any(axis=2).nonzero()
        width = abs(characters[1].x - characters[0].x) * image.width
        assert abs(columns.mean() - characters[middle].x * image.width) < 0.3 * width + 1, f"seed {seed}"
        assert abs(rows.mean() - characters[middle].y * image.height) < 0.5 * width + 1, f"seed {seed}"


def test_the_whole_sign_is_on_the_picture_and_covers_no_shape() -> None:
    """Drawing it without the shapes changes nothing outside of them, and the shapes stay whole."""
    for seed, seen in some_scenes(200):
        if seen.sign is None:
            continue
        scene = without_camera(seen)
        empty, alone = pixels(replace(scene, shapes=(), sign=None)), pixels(replace(scene, shapes=()))
        touched = (empty != alone).any(axis=2)
        shapes = (empty != pixels(replace(scene, sign=None))).any(axis=2)
        assert not (touched & shapes).any(), f"seed {seed}"
        border = np.concatenate([touched[0], touched[-1], touched[:, 0], touched[:, -1]])
        assert not border.any(), f"seed {seed}"


def test_each_font_has_every_character_that_signs_use() -> None:
    for index in range(len(scenes._FONTS)):
        font = scenes._font(index, 40)
        missing = bytes(font.getmask("\uffff"))
        looks = {character: bytes(font.getmask(character)) for character in ascii_uppercase + digits + "$."}
        assert missing not in looks.values()
        # The letter O and the digit 0 differ too: nobody could read them apart otherwise.
        assert len(set(looks.values())) == len(looks)


def test_words_fit_on_a_sign() -> None:
    words = scenes._words()
    assert len(set(words)) == len(words) > 200
    for word in words:
        assert re.fullmatch(r"[A-Z]{2,6}", word)
