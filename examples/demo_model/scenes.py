"""Pictures with exact ground truth: shapes and signs on a three by three grid, and questions about them.

A seed gives one picture, or one pair of pictures that differ in one thing. The same seed gives the same
arrangement everywhere; its pixels depend on the versions of Pillow and FreeType. Everything random comes from
`random.Random(seed)`, and seeds from `HELD_OUT_SEED` on are never trained on.
"""

from __future__ import annotations

import io
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HELD_OUT_SEED = 1 << 40

COLOURS = {
    "red": (206, 32, 41),
    "orange": (245, 133, 20),
    "yellow": (243, 208, 24),
    "green": (38, 142, 62),
    "blue": (36, 84, 196),
    "purple": (134, 52, 160),
    "black": (24, 24, 26),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
PLACES = (
    *("top left", "top", "top right"),
    *("left", "centre", "right"),
    *("bottom left", "bottom", "bottom right"),
)
SIGN_ROWS = ("top", "middle", "bottom")
MAX_SIGN_LENGTH = 6
# How often a sign that is no price tag says a word, and how often letters that mean nothing; else it says a
# number. Training asks for a harder mix, so that signs are read and not guessed.
TEXTS = (0.5, 0.25)

# What is asked; the accuracy of each is reported apart.
KINDS = ("describe", "sign", "count", "colour", "where", "change")

_SIGN_COLOURS = (
    ((250, 250, 250), (20, 20, 20)),
    ((250, 214, 40), (20, 20, 20)),
    ((30, 80, 180), (250, 250, 250)),
    ((20, 120, 60), (250, 250, 250)),
    ((190, 30, 40), (250, 250, 250)),
    ((30, 30, 34), (250, 230, 120)),
)
_LONGEST_EDGES = (256, 320, 384, 512)
_ASPECTS = ((1, 1), (4, 3), (3, 4), (3, 2))
_FOLDER = Path(__file__).parent
_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono-Bold", None)  # None: Pillow's own
_COUNT_OF_PLACES = 9


@dataclass(frozen=True)
class Shape:
    """A shape in one of the nine places. Lengths are fractions of a place, 1/3 of a side of the picture."""

    name: str  # one of SHAPES
    colour: str  # one of COLOURS
    place: int  # index into PLACES
    radius: float
    shift: tuple[float, float]  # of the centre, right and down
    angle: float  # degrees, anticlockwise

    def __str__(self) -> str:
        return f"{self.colour} {self.name}"


@dataclass(frozen=True)
class Sign:
    """A sign or a price tag; it has a row of the grid to itself."""

    text: str
    is_price: bool
    row: int  # index into SIGN_ROWS
    size: float  # of the font, as a fraction of the largest that fits
    shift: tuple[float, float]  # from -1 to 1, of the room that is left, right and down
    angle: float
    colours: int  # index of (plate, text)
    font: int


@dataclass(frozen=True)
class Canvas:
    """What the things lie on, and what a camera would add."""

    width: int
    height: int
    light: tuple[int, int, int]
    dark: tuple[int, int, int]
    pattern: int  # 0: flat, 1: a gradient across, 2: one downwards, 3: clouds
    noise: float  # standard deviation, of 255
    jpeg_quality: int | None
    seed: int  # of the clouds
    noise_seed: int


@dataclass(frozen=True)
class Question:
    """A question about one picture or two, and the one right answer."""

    kind: str  # one of KINDS
    text: str
    answer: str


@dataclass(frozen=True)
class Scene:
    """One picture: what is on it, in reading order."""

    canvas: Canvas
    shapes: tuple[Shape, ...]
    sign: Sign | None
    more_signs: tuple[Sign, ...] = ()  # nobody asks about them; the vision tower learns from them


@dataclass(frozen=True)
class Character:
    """Where the centre of a character of the sign lies, as fractions of the picture's width and height."""

    text: str
    x: float
    y: float


@dataclass(frozen=True)
class Example:
    """What one is asked: pictures, a question, the answer."""

    kind: str
    images: tuple[Image.Image, ...]
    question: str
    answer: str


def held_out(count: int = 1000) -> Iterator[Example]:
    """Yields `count` examples that training never saw, the six kinds in turn.

    Each has its own seed and its own pictures, so that errors are independent.
    """
    for i in range(count):
        kind, rng = KINDS[i % len(KINDS)], random.Random(HELD_OUT_SEED + i)
        if kind == "change":
            before, after, question = random_change(rng)
            images: tuple[Image.Image, ...] = (draw(before)[0], draw(after)[0])
        else:
            scene = random_scene(rng)
            question = ask(scene, kind, rng)
            images = (draw(scene)[0],)
        yield Example(kind, images, question.text, question.answer)


def random_scene(
    rng: random.Random, *, sign_probability: float = 0.75, texts: tuple[float, float] = TEXTS
) -> Scene:
    """Makes up a scene: up to six shapes, and with `sign_probability` a sign."""
    sign = _random_sign(rng, texts) if rng.random() < sign_probability else None
    free = _free_places(sign)
    count = rng.randint(0 if sign else 1, 5 if sign else 6)
    # Few kinds in half of the scenes: otherwise there would be little to count.
    kinds = [(rng.choice(SHAPES), rng.choice(list(COLOURS))) for _ in range(rng.choice((1, 2, 6, 6)))]
    places = sorted(rng.sample(free, count))
    shapes = tuple(_random_shape(rng, *rng.choice(kinds), place) for place in places)
    return Scene(_random_canvas(rng), shapes, sign)


def random_page(rng: random.Random, *, texts: tuple[float, float] = TEXTS) -> Scene:
    """Makes up a scene of nothing but signs, one in each row."""
    first, *others = (replace(_random_sign(rng, texts), row=row) for row in range(len(SIGN_ROWS)))
    return Scene(_random_canvas(rng), (), first, tuple(others))


def random_change(
    rng: random.Random, *, sign_probability: float = 0.75, texts: tuple[float, float] = TEXTS
) -> tuple[Scene, Scene, Question]:
    """Makes up two scenes that differ in at most one thing, and the question what changed."""
    before = random_scene(rng, sign_probability=sign_probability, texts=texts)
    kinds = Counter(str(shape) for shape in before.shapes)
    unique = [shape for shape in before.shapes if kinds[str(shape)] == 1]
    free = [place for place in _free_places(before.sign) if place not in {s.place for s in before.shapes}]
    changes = ["nothing"]
    changes += ["sign"] * 2 if before.sign else []
    changes += ["added"] * 2 if free else []
    changes += ["colour", "colour", "gone", "gone"] if unique else []
    changes += ["moved"] * 2 if unique and free else []
    change, shapes, sign = rng.choice(changes), list(before.shapes), before.sign
    if change == "nothing":
        answer = "Nothing changed."
    elif change == "sign":
        assert before.sign is not None
        text = before.sign.text
        while text == before.sign.text:
            text = _random_price(rng) if before.sign.is_price else _random_text(rng, texts)
        sign = replace(before.sign, text=text)
        answer = f"The {_sign_name(sign)} now says {text}."
    elif change == "added":
        unused = [(s, c) for s in SHAPES for c in COLOURS if kinds[f"{c} {s}"] == 0]
        shapes.append(_random_shape(rng, *rng.choice(unused), rng.choice(free)))
        answer = f"{_article(str(shapes[-1])).capitalize()} was added."
    else:
        shape = rng.choice(unique)
        shapes.remove(shape)
        if change == "colour":
            colour = rng.choice([c for c in COLOURS if kinds[f"{c} {shape.name}"] == 0])
            shapes.append(replace(shape, colour=colour))
            answer = f"The {shape} is now {colour}."
        elif change == "moved":
            shapes.append(replace(shape, place=rng.choice(free)))
            answer = f"The {shape} moved to the {PLACES[shapes[-1].place]}."
        else:
            answer = f"The {shape} is gone."
    canvas = replace(before.canvas, noise=rng.uniform(0, 10), noise_seed=rng.getrandbits(32))
    after = Scene(canvas, tuple(sorted(shapes, key=lambda shape: shape.place)), sign)
    text = rng.choice(("What changed between the two pictures?", "What changed?"))
    return before, after, Question("change", text, answer)


def ask(scene: Scene, kind: str, rng: random.Random) -> Question:
    """Asks about one picture. `kind` is one of KINDS, but for "change"."""
    text, answer = {
        "describe": _ask_description,
        "sign": _ask_sign,
        "count": _ask_count,
        "colour": _ask_colour,
        "where": _ask_place,
    }[kind](scene, rng)
    return Question(kind, text, answer)


def describe(scene: Scene) -> str:
    """Says what is on the picture, in reading order, the sign last."""
    things = [_article(str(shape)) for shape in scene.shapes]
    if scene.sign:
        things.append(f"a {_sign_name(scene.sign)} that says {scene.sign.text}")
    text = ", ".join(things[:-1]) + (" and " if len(things) > 1 else "") + things[-1]
    return text[0].upper() + text[1:] + "."


def _ask_description(scene: Scene, rng: random.Random) -> tuple[str, str]:
    return rng.choice(("Describe the picture.", "What is in this picture?")), describe(scene)


def _ask_sign(scene: Scene, rng: random.Random) -> tuple[str, str]:
    if scene.sign is None:
        return "What does the sign say?", "There is no sign."
    if scene.sign.is_price and rng.random() < 0.5:
        return "How much does it cost?", scene.sign.text
    return f"What does the {_sign_name(scene.sign)} say?", scene.sign.text


def _ask_count(scene: Scene, rng: random.Random) -> tuple[str, str]:
    wanted = _some_kind(scene, rng, present=0.85)
    choice = rng.random()
    if choice < 0.25:
        return "How many shapes are there?", str(len(scene.shapes))
    if choice < 0.65:
        found = sum(shape.name == wanted.name for shape in scene.shapes)
        return f"How many {_plural(wanted.name)} are there?", str(found)
    found = sum(str(shape) == str(wanted) for shape in scene.shapes)
    return f"How many {_plural(str(wanted))} are there?", str(found)


def _ask_colour(scene: Scene, rng: random.Random) -> tuple[str, str]:
    counts = Counter(shape.name for shape in scene.shapes)
    colours = {name: {shape.colour for shape in scene.shapes if shape.name == name} for name in SHAPES}
    clear = [name for name in SHAPES if len(colours[name]) == 1]
    absent = [name for name in SHAPES if not colours[name]]
    word = rng.choice(("colour", "color"))
    if clear and (not absent or rng.random() < 0.9):
        name = rng.choice(clear)
        subject = f"is the {name}" if counts[name] == 1 else f"are the {_plural(name)}"
        return f"What {word} {subject}?", next(iter(colours[name]))
    # Six shapes at most: if all five names are there, one of them is there once, and clear.
    name = rng.choice(absent)
    return f"What {word} is the {name}?", f"There is no {name}."


def _ask_place(scene: Scene, rng: random.Random) -> tuple[str, str]:
    counts = Counter(str(shape) for shape in scene.shapes)
    single = [shape for shape in scene.shapes if counts[str(shape)] == 1]
    if scene.sign and (not single or rng.random() < 0.15):
        return f"Where is the {_sign_name(scene.sign)}?", SIGN_ROWS[scene.sign.row]
    if single and rng.random() < 0.9:
        shape = rng.choice(single)
        return f"Where is the {shape}?", PLACES[shape.place]
    wanted = _some_kind(scene, rng, present=0.0)
    return f"Where is the {wanted}?", f"There is no {wanted}."


def _some_kind(scene: Scene, rng: random.Random, *, present: float) -> Shape:
    """Picks what to ask about: with probability `present` it is on the picture, else it is not."""
    if scene.shapes and rng.random() < present:
        return rng.choice(scene.shapes)
    there = {str(shape) for shape in scene.shapes}
    absent = [(s, c) for s in SHAPES for c in COLOURS if f"{c} {s}" not in there]
    return Shape(*rng.choice(absent), place=0, radius=0, shift=(0, 0), angle=0)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _sign_name(sign: Sign) -> str:
    return "price tag" if sign.is_price else "sign"


def _free_places(sign: Sign | None) -> list[int]:
    return [place for place in range(_COUNT_OF_PLACES) if sign is None or place // 3 != sign.row]


def _random_shape(rng: random.Random, name: str, colour: str, place: int) -> Shape:
    return Shape(
        name,
        colour,
        place,
        radius=rng.uniform(0.26, 0.38),
        shift=(rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1)),
        angle=rng.uniform(-10, 10),
    )


def _random_sign(rng: random.Random, texts: tuple[float, float]) -> Sign:
    is_price = rng.random() < 0.25
    return Sign(
        _random_price(rng) if is_price else _random_text(rng, texts),
        is_price,
        row=rng.randrange(3),
        size=rng.uniform(0.55, 1.0),
        shift=(rng.uniform(-1, 1), rng.uniform(-1, 1)),
        angle=rng.uniform(-6, 6),
        colours=rng.randrange(len(_SIGN_COLOURS)),
        font=rng.randrange(len(_FONTS)),
    )


def _random_text(rng: random.Random, texts: tuple[float, float]) -> str:
    words, letters = texts
    choice, length = rng.random(), rng.randint(2, MAX_SIGN_LENGTH)
    if choice < words:
        return rng.choice(_words())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if choice < words + letters else "0123456789"
    return "".join(rng.choice(alphabet) for _ in range(length))


def _random_price(rng: random.Random) -> str:
    return f"${rng.randint(0, 99 if rng.random() < 0.5 else 9)}.{rng.randint(0, 99):02}"


@cache
def _words() -> list[str]:
    return (_FOLDER / "words.txt").read_text(encoding="ascii").split()


def _random_canvas(rng: random.Random) -> Canvas:
    longest, (across, down) = rng.choice(_LONGEST_EDGES), rng.choice(_ASPECTS)
    scale = longest / max(across, down)
    light, dark = ([rng.randint(low, low + 40) for _ in range(3)] for low in (212, 180))
    return Canvas(
        width=round(across * scale),
        height=round(down * scale),
        light=(light[0], light[1], light[2]),
        dark=(dark[0], dark[1], dark[2]),
        pattern=rng.randrange(4),
        noise=rng.uniform(0, 10),
        jpeg_quality=rng.randint(60, 95) if rng.random() < 0.5 else None,
        seed=rng.getrandbits(32),
        noise_seed=rng.getrandbits(32),
    )


def draw(scene: Scene) -> tuple[Image.Image, list[list[Character]]]:
    """Draws a scene.

    Returns:
        The picture, RGB, and where the characters of each of its signs are.
    """
    canvas = scene.canvas
    image = _background(canvas)
    pen = ImageDraw.Draw(image)
    for shape in scene.shapes:
        _draw_shape(pen, shape, image.size)
    signs = [*([scene.sign] if scene.sign else []), *scene.more_signs]
    characters = [_draw_sign(image, sign) for sign in signs]
    if canvas.noise >= 1:
        noise = np.random.default_rng(canvas.noise_seed)
        grain = noise.standard_normal((canvas.height, canvas.width, 1), np.float32) * canvas.noise
        image = Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))
    if canvas.jpeg_quality is not None:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=canvas.jpeg_quality)
        image = Image.open(file)
        image.load()
    return image, characters


def _background(canvas: Canvas) -> Image.Image:
    size = canvas.width, canvas.height
    if canvas.pattern == 0:
        return Image.new("RGB", size, canvas.light)
    rows, columns = {1: (1, 2), 2: (2, 1), 3: (5, 5)}[canvas.pattern]
    mix = (
        np.random.default_rng(canvas.seed).random((rows, columns, 1))
        if canvas.pattern == 3
        else np.linspace(0, 1, 2).reshape(rows, columns, 1)
    )
    small = mix * np.array(canvas.light) + (1 - mix) * np.array(canvas.dark)
    return Image.fromarray(small.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)


def centre(shape: Shape) -> tuple[float, float]:
    """Returns the centre of a shape, as fractions of the picture's width and height."""
    row, column = divmod(shape.place, 3)
    return (column + 0.5 + shape.shift[0]) / 3, (row + 0.5 + shape.shift[1]) / 3


def _draw_shape(pen: ImageDraw.ImageDraw, shape: Shape, size: tuple[int, int]) -> None:
    x, y = centre(shape)
    x, y, radius = x * size[0], y * size[1], shape.radius * min(size) / 3
    fill = COLOURS[shape.colour]
    if shape.name == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
        return
    turn = math.radians(shape.angle)
    corners = []
    for across, down in _OUTLINES[shape.name]:
        corners.append(
            (
                x + radius * (across * math.cos(turn) + down * math.sin(turn)),
                y + radius * (down * math.cos(turn) - across * math.sin(turn)),
            )
        )
    pen.polygon(corners, fill)


def _star() -> list[tuple[float, float]]:
    steps = [(math.pi * i / 5, 1.1 if i % 2 == 0 else 0.45) for i in range(10)]
    return [(reach * math.sin(turn), -reach * math.cos(turn)) for turn, reach in steps]


_ARM = 0.34
# Corners in units of the radius, to the right and down.
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -1), (0.95, 0.8), (-0.95, 0.8)],
    "star": _star(),
    "cross": [
        *((-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM)),
        *((_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM)),
    ],
}


@cache
def _font(index: int, size: int) -> ImageFont.FreeTypeFont:
    name = _FONTS[index]
    if name is not None:
        return ImageFont.truetype(_FOLDER / "fonts" / f"{name}.ttf", size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def _draw_sign(image: Image.Image, sign: Sign) -> list[Character]:
    """Draws the sign turned about its centre and returns where its characters came to lie."""
    width, height = image.size
    plate_colour, text_colour = _SIGN_COLOURS[sign.colours]
    reference = _font(sign.font, 100)
    # The largest plate that its row holds after turning: text, and a margin of a quarter of the font's size.
    ratio = reference.getlength(sign.text) / 100 + (1.1 if sign.is_price else 0.5)
    largest = min(width * 0.9 / ratio, height / 3 * 0.62, height * 0.16 + 12)
    size = max(round(largest * sign.size), 8)
    font = _font(sign.font, size)
    margin, hole = size * 0.25, size * 0.6 if sign.is_price else 0.0
    text_width = font.getlength(sign.text)
    plate = (round(hole + text_width + 2 * margin), round(size * 1.25))
    layer = Image.new("RGBA", plate, (*plate_colour, 0))
    pen = ImageDraw.Draw(layer)
    right, bottom = plate[0] - 1, plate[1] - 1
    if sign.is_price:
        corner = size * 0.35
        outline = [
            (corner, 0),
            (right, 0),
            (right, bottom),
            (corner, bottom),
            (0, bottom - corner),
            (0, corner),
        ]
        pen.polygon(outline, (*plate_colour, 255), (60, 60, 60, 255))
        pen.ellipse(
            (hole * 0.4, bottom / 2 - hole / 5, hole * 0.8, bottom / 2 + hole / 5), (250, 250, 250, 255)
        )
    else:
        pen.rectangle((0, 0, right, bottom), (*plate_colour, 255), (60, 60, 60, 255), max(1, size // 12))
    pen.text((hole + margin, plate[1] / 2), sign.text, (*text_colour, 255), font, anchor="lm")
    turned = layer.rotate(sign.angle, Image.Resampling.BICUBIC, expand=True)
    spare_x, spare_y = width * 0.96 - turned.width, height / 3 * 0.96 - turned.height
    x = width / 2 + sign.shift[0] * max(spare_x, 0) / 2
    y = height * (sign.row + 0.5) / 3 + sign.shift[1] * max(spare_y, 0) / 2
    image.paste(turned, (round(x - turned.width / 2), round(y - turned.height / 2)), turned)
    turn = math.radians(sign.angle)
    characters = []
    for i, text in enumerate(sign.text):
        along = hole + margin + (font.getlength(sign.text[:i]) + font.getlength(sign.text[: i + 1])) / 2
        offset = along - plate[0] / 2
        characters.append(
            Character(text, (x + offset * math.cos(turn)) / width, (y - offset * math.sin(turn)) / height)
        )
    return characters
