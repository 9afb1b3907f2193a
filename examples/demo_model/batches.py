"""Training batches: pictures as tiles with their labels, and questions packed behind their pictures.

One sequence holds one prompt's pictures once and several questions after them. A question sees the pictures
and itself, never another question, and counts its positions from the end of the pictures: to the model each
is asked alone, as it will be when it is used.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pocketvlm import _core
from pocketvlm.chat_template import END_OF_UTTERANCE, FAKE_TOKEN_AROUND_IMAGE
from pocketvlm.messages import parse_messages
from pocketvlm.processor import ImageSize, Processor, plan_tiles
from pocketvlm.tiles import cut_tiles

from . import scenes
from .labels import Labels, label

SINGLES, PAIRS = 8, 5  # sequences with one picture and with two, in a batch
PICTURES = SINGLES + 2 * PAIRS
PAGES = 8  # of the pictures of a tower batch, those full of signs: they take the longest to learn
TEXTS = (0.25, 0.5)  # of `scenes`: more letters that mean nothing than in the held-out pictures
SEQUENCE_LENGTH = 256
# What is asked about one picture, in random order; what does not fit is left out.
_ASKED = ("describe", "sign", "count", "colour", "where", "where")
IGNORED = -100  # the target of tokens that are not learned, as cross_entropy has it


Array = TypeVar("Array")  # NumPy's here, torch's in training


class Pictures(NamedTuple, Generic[Array]):
    """PICTURES pictures and what their patches show."""

    tiles: Array  # uint8 [PICTURES * TILES, 3, TILE, TILE]
    things: Array  # int64 [PICTURES * TILES, patches]
    characters: Array  # int64 [PICTURES * TILES, patches, HALVES]
    positions: Array  # int64 [PICTURES * TILES, patches, HALVES]


class Sequences(NamedTuple, Generic[Array]):
    """B = SINGLES + PAIRS sequences of L tokens about PICTURES pictures."""

    token_ids: Array  # int64 [B, L]
    position_ids: Array  # int64 [B, L]
    segments: Array  # int64 [B, L]: 0 the pictures, 1, 2, ... the questions, -1 padding
    targets: Array  # int64 [B, L]: the token that follows, where an answer is learned, else IGNORED


class Batches:
    """Makes the batch of any seed."""

    def __init__(self, folder: Path) -> None:
        """Prepares batches for the tokenizer and the processor of `folder`."""
        self._processor = processor = Processor(folder)
        self._pool = _core.ThreadPool(1)
        self._end = processor.tokenizer.encode(END_OF_UTTERANCE, parse_special=True)
        # It ends the stretch of a picture, and so what the questions share.
        self._last_marker = processor.tokenizer.encode(FAKE_TOKEN_AROUND_IMAGE, parse_special=True)[0]
        self._prompt = cache(self._encode_prompt)

    def tower_batch(self, seed: int) -> Pictures[NDArray[Any]]:
        """Draws pictures that nothing is asked about. The same seed gives the same batch."""
        assert seed < scenes.HELD_OUT_SEED
        rng = random.Random(seed)
        drawn = [scenes.random_page(rng, texts=TEXTS) for _ in range(PAGES)]
        drawn += [scenes.random_scene(rng, texts=TEXTS) for _ in range(PICTURES - PAGES)]
        return self._draw(drawn)

    def batch(self, seed: int) -> tuple[Pictures[NDArray[Any]], Sequences[NDArray[Any]]]:
        """Draws pictures and asks about them. The same seed gives the same batch."""
        assert seed < scenes.HELD_OUT_SEED
        rng = random.Random(seed)
        drawn: list[scenes.Scene] = []
        sequences = []
        for i in range(SINGLES + PAIRS):
            if i < SINGLES:
                pictures = [scenes.random_scene(rng, texts=TEXTS)]
                questions = [scenes.ask(pictures[0], kind, rng) for kind in rng.sample(_ASKED, len(_ASKED))]
            else:
                before, after, question = scenes.random_change(rng, texts=TEXTS)
                pictures, questions = [before, after], [question]
            drawn += pictures
            sequences.append(self._pack(questions, len(pictures)))
        rows = [np.stack(part) for part in zip(*sequences, strict=True)]
        return self._draw(drawn), Sequences(*rows)

    def _draw(self, drawn: list[scenes.Scene]) -> Pictures[NDArray[Any]]:
        tiles: list[NDArray[np.uint8]] = []
        labels: list[Labels] = []
        for scene in drawn:
            image, signs = scenes.draw(scene)
            tiles.append(self._tiles(image))
            labels.append(label(scene, signs))
        things, characters, positions = (np.concatenate(part) for part in zip(*labels, strict=True))
        return Pictures(np.concatenate(tiles), things, characters, positions)

    def _tiles(self, image: Image.Image) -> NDArray[np.uint8]:
        config = self._processor.config
        plan = plan_tiles(ImageSize(image.height, image.width), config, split=True)
        return cut_tiles([np.array(image)], [plan], config, pool=self._pool)

    def _encode_prompt(self, text: str, images: int) -> list[int]:
        plan = plan_tiles(ImageSize(256, 256), self._processor.config, split=True)
        return self._processor.encode(parse_messages(text, [b""] * images), [plan] * images)

    def _pack(self, questions: list[scenes.Question], images: int) -> tuple[NDArray[np.int64], ...]:
        """Returns token_ids, position_ids, segments and targets, each int64 [SEQUENCE_LENGTH]."""
        packed = np.zeros((4, SEQUENCE_LENGTH), np.int64)
        token_ids, position_ids, segments, targets = packed
        segments[:], targets[:] = -1, IGNORED
        start = self._prompt(questions[0].text, images)
        shared = len(start) - start[::-1].index(self._last_marker)
        token_ids[:shared] = start[:shared]
        position_ids[:shared] = np.arange(shared)
        segments[:shared] = 0
        filled = shared
        for number, question in enumerate(questions, 1):
            asked = self._prompt(question.text, images)[shared:]
            answered = (
                self._processor.tokenizer.encode(f" {question.answer}", parse_special=False) + self._end
            )
            both = [*asked, *answered]
            # The last token of an answer is learned, never read.
            length = len(both) - 1
            if filled + length > SEQUENCE_LENGTH:
                continue
            here = slice(filled, filled + length)
            token_ids[here] = both[:-1]
            position_ids[here] = np.arange(shared, shared + length)
            segments[here] = number
            targets[filled + len(asked) - 1 : filled + length] = answered
            filled += length
        return tuple(packed)
