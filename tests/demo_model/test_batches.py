"""Training batches: every packed question is the prompt that the engine would build for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pocketvlm.chat_template import END_OF_UTTERANCE
from pocketvlm.demo_model import scenes
from pocketvlm.demo_model.architecture import TILE, TILES, checkpoint_files
from pocketvlm.demo_model.batches import IGNORED, PAIRS, PICTURES, SINGLES, Batches, Pictures, Sequences
from pocketvlm.messages import parse_messages
from pocketvlm.processor import ImageSize, Processor, plan_tiles


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name, content in checkpoint_files().items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def batch(folder: Path) -> tuple[Pictures[NDArray[Any]], Sequences[NDArray[Any]]]:
    return Batches(folder).batch(7)


@pytest.fixture(scope="module")
def sequences(batch: tuple[Pictures[NDArray[Any]], Sequences[NDArray[Any]]]) -> Sequences[NDArray[Any]]:
    return batch[1]


def answers_of(batch: Sequences[NDArray[Any]], row: int) -> list[tuple[list[int], list[int]]]:
    """The (prompt, answer) token ids of every question packed into a row."""
    shared = batch.token_ids[row][batch.segments[row] == 0].tolist()
    found = []
    for number in range(1, batch.segments[row].max() + 1):
        here = batch.segments[row] == number
        token_ids, targets = batch.token_ids[row][here], batch.targets[row][here]
        learned = targets != IGNORED
        asked = token_ids[: int(learned.argmax()) + 1].tolist()
        found.append((shared + asked, targets[learned].tolist()))
        assert batch.position_ids[row][here].tolist() == list(
            range(len(shared), len(shared) + len(token_ids))
        )
    return found


def test_packed_prompts_are_those_of_the_engine(sequences: Sequences[NDArray[Any]], folder: Path) -> None:
    processor = Processor(folder)
    plan = plan_tiles(ImageSize(300, 400), processor.config, split=True)
    assert plan.num_tiles == TILES
    tokenizer, seen = processor.tokenizer, 0
    end = tokenizer.encode(END_OF_UTTERANCE, parse_special=True)
    for row in range(SINGLES + PAIRS):
        images = 1 if row < SINGLES else 2
        for prompt, answer in answers_of(sequences, row):
            # Markers have no bytes: what is left ends in "\n", the question, "\nAssistant:".
            text = b"".join(tokenizer.decode_bytes(id) for id in prompt).decode()
            question = text.split("\n")[-2]
            assert question.endswith(("?", "."))
            assert prompt == processor.encode(parse_messages(question, [b""] * images), [plan] * images)
            assert answer[-1:] == end
            assert tokenizer.decode_bytes(answer[0]).startswith(b" ")
            seen += 1
    assert seen > 5 * SINGLES


def test_shapes(batch: tuple[Pictures[NDArray[Any]], Sequences[NDArray[Any]]], folder: Path) -> None:
    pictures, sequences = batch
    for found in (pictures, Batches(folder).tower_batch(7)):
        assert found.tiles.shape == (PICTURES * TILES, 3, TILE, TILE)
        assert len(found.things) == len(found.characters) == len(found.positions) == PICTURES * TILES
    image_token = Processor(folder).image_token_id
    assert (sequences.token_ids == image_token).sum() == PICTURES * TILES * 16


def test_a_seed_gives_one_batch(
    batch: tuple[Pictures[NDArray[Any]], Sequences[NDArray[Any]]], folder: Path
) -> None:
    batches = Batches(folder)
    again, other = batches.batch(7), batches.batch(8)
    for part, same in zip(batch, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(part, same, strict=True))
    assert not np.array_equal(batch[1].token_ids, other[1].token_ids)
    tower = [batches.tower_batch(seed).tiles for seed in (7, 7, 8)]
    assert np.array_equal(tower[0], tower[1])
    assert not np.array_equal(tower[0], tower[2])


def test_held_out_seeds_are_refused(folder: Path) -> None:
    with pytest.raises(AssertionError):
        Batches(folder).batch(scenes.HELD_OUT_SEED)
    with pytest.raises(AssertionError):
        Batches(folder).tower_batch(scenes.HELD_OUT_SEED)
