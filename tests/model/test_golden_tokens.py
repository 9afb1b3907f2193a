"""The tiny models' greedy tokens: transformers' own at f32 on every ISA row; the same bits for any number of
threads.

The goldens' margins make this exact: no step's choice is closer than 100 tolerances.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pocketvlm import _core

from .golden_files import Prompt, open_engine
from .tiny_models import TinyModel, generations

GENERATIONS = generations()


def prefill(engine: _core.Model, prompt: Prompt) -> tuple[_core.KVCache, npt.NDArray[np.float32]]:
    cache = engine.new_cache()
    return cache, engine.prefill(cache, prompt.token_ids, prompt.features(engine), prompt.image_token_id)


@pytest.mark.parametrize(("tiny", "generation"), GENERATIONS, indirect=["tiny"])
def test_greedy_tokens(isa: str, tiny: TinyModel, generation: str) -> None:
    prompt = tiny.prompt(generation)
    engine = open_engine(tiny.f32, isa)
    expected = tiny.expected(generation)
    result = engine.generate(
        engine.new_cache(),
        prompt.token_ids,
        prompt.features(engine),
        image_token_id=prompt.image_token_id,
        max_new_tokens=len(expected),
        stop_token_ids=[],
        ignore_eos=True,
        on_token=None,
    )
    assert result.token_ids == expected


@pytest.mark.parametrize(("tiny", "generation"), GENERATIONS, indirect=["tiny"])
def test_single_steps_give_the_same_tokens(isa: str, tiny: TinyModel, generation: str) -> None:
    engine = open_engine(tiny.f32, isa)
    cache, logits = prefill(engine, tiny.prompt(generation))
    expected = tiny.expected(generation)
    found = []
    for _ in expected:
        found.append(int(logits.argmax()))
        logits = engine.decode(cache, found[-1])
    assert found == expected


def test_threads_do_not_change_a_bit(isa: str, tiny: TinyModel) -> None:
    prompt = tiny.prompt("split")
    one = open_engine(tiny.f32, isa, 1)
    cache, logits = prefill(one, prompt)
    step = one.decode(cache, int(logits.argmax()))
    for threads in (2, 3):
        engine = open_engine(tiny.f32, isa, threads)
        assert np.array_equal(prompt.features(engine), prompt.features(one))
        other_cache, other_logits = prefill(engine, prompt)
        assert np.array_equal(other_logits, logits)
        assert np.array_equal(engine.decode(other_cache, int(logits.argmax())), step)


def test_swapped_tiles_are_noticed(isa: str, tiny: TinyModel) -> None:
    """The golden says at which step the reference's tokens part when the first two tiles change places."""
    prompt = tiny.prompt("split")
    order = [1, 0, *range(2, len(prompt.tiles))]
    swapped = Prompt(prompt.token_ids, np.ascontiguousarray(prompt.tiles[order]), prompt.image_token_id)
    engine = open_engine(tiny.f32, isa)
    cache, logits = prefill(engine, swapped)
    expected = tiny.expected("split")
    step = tiny.golden.facts["faults"]["two tiles swapped"]["first_other_token"]
    found = []
    for _ in range(step + 1):
        found.append(int(logits.argmax()))
        logits = engine.decode(cache, found[-1])
    assert found[:step] == expected[:step]
    assert found[step] != expected[step]
