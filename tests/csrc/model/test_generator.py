"""`generate` on the tiny model: several answers to a prompt that is read once, seeds, threads, logprobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvlm import _core
from pocketvlm.errors import InputError

from ...model.golden_files import open_engine

PROMPT_IDS = np.array([1, 40, 300, 77, 500, 12, 41], np.int32)
LIVELY = {"temperature": 1.5, "seed": 5}


@pytest.fixture(scope="module")
def engine(tiny_f32: Path) -> _core.Model:
    return open_engine(tiny_f32, _core.isas()[0])


def generate(
    engine: _core.Model,
    cache: _core.KVCache | None = None,
    *,
    sampling: dict[str, Any] | None = None,
    **more: Any,
) -> _core.GenerateResult:
    options: dict[str, Any] = {
        "image_token_id": -1,
        "max_new_tokens": 12,
        "stop_token_ids": [],
        "ignore_eos": True,
        "on_token": None,
        "sampling": None if sampling is None else _core.SamplingOptions(**sampling),
    }
    no_features = np.empty((0, engine.hidden_size), np.float32)
    return engine.generate(cache or engine.new_cache(), PROMPT_IDS, no_features, **options | more)


def test_greedy_is_the_default(engine: _core.Model) -> None:
    expected = generate(engine)
    assert generate(engine, sampling={}).token_ids == expected.token_ids
    assert generate(engine, sampling={"seed": 3}).token_ids == expected.token_ids
    assert (expected.logprobs, expected.alternatives) == ([], [])


@pytest.mark.parametrize(
    "options", [LIVELY, {**LIVELY, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.2}]
)
def test_a_seed_gives_the_same_tokens_on_every_number_of_threads(
    tiny_f32: Path, options: dict[str, Any]
) -> None:
    expected = generate(open_engine(tiny_f32, _core.isas()[0], 1), sampling=options).token_ids
    assert len(set(expected)) > 6
    for threads in (1, 2, 3):
        engine = open_engine(tiny_f32, _core.isas()[0], threads)
        assert generate(engine, sampling=options).token_ids == expected
    assert generate(engine, sampling={**options, "seed": 6}).token_ids != expected


def test_each_of_several_answers_is_what_it_would_be_alone(engine: _core.Model) -> None:
    """By single steps from a cache of its own, with the sampler of its number."""
    options = {**LIVELY, "presence_penalty": 0.5}
    first = generate(engine, sampling=options, n=3, logprobs=2)
    answers = [first, *first.alternatives]
    assert len({tuple(answer.token_ids) for answer in answers}) == 3
    for sequence, answer in enumerate(answers):
        sampler = _core.sampling.Sampler(
            _core.SamplingOptions(**options), PROMPT_IDS, vocab_size=engine.vocab_size, sequence=sequence
        )
        cache = engine.new_cache()
        no_features = np.empty((0, engine.hidden_size), np.float32)
        logits = engine.prefill(cache, PROMPT_IDS, no_features, -1)
        for token_id, logprobs in zip(answer.token_ids, answer.logprobs, strict=True):
            assert sampler.next(logits) == token_id
            expected = _core.sampling.log_softmax(logits, token_id, 2)
            assert logprobs.chosen == expected.chosen
            found_top = [(entry.token_id, entry.logprob) for entry in logprobs.top]
            assert found_top == [(entry.token_id, entry.logprob) for entry in expected.top]
            logits = engine.decode(cache, token_id)
        assert sequence == 0 or answer.alternatives == []
        assert answer.prefill_s == first.prefill_s > 0


def test_the_prompt_is_read_once(engine: _core.Model) -> None:
    stages: list[tuple[str, int, int]] = []
    cache = engine.new_cache()
    generate(
        engine,
        cache,
        sampling=LIVELY,
        n=3,
        on_progress=lambda stage, done, total: stages.append((stage, done, total)),
    )
    assert stages[0] == ("prefill", len(PROMPT_IDS), len(PROMPT_IDS))
    assert stages[1:] == 3 * [("decode", done, 12) for done in range(1, 13)], "every token of every answer"
    assert cache.length == len(PROMPT_IDS) + 12 - 1  # the last token of the last answer was not read


def test_the_callback_hears_every_token_and_ends_its_own_answer(engine: _core.Model) -> None:
    heard: list[tuple[int, int]] = []

    def on_token(token_id: int, sequence: int) -> bool:
        heard.append((sequence, token_id))
        return sequence == 1

    first = generate(engine, sampling=LIVELY, n=3, on_token=on_token)
    answers = [first, *first.alternatives]
    assert [answer.finish_reason for answer in answers] == ["length", "callback", "length"]
    assert [len(answer.token_ids) for answer in answers] == [12, 1, 12]
    assert heard == [(i, token) for i, answer in enumerate(answers) for token in answer.token_ids]


def test_a_stop_token_ends_its_own_answer(engine: _core.Model) -> None:
    free = generate(engine, sampling=LIVELY, n=2)
    stop = free.alternatives[0].token_ids[3]
    assert stop not in free.alternatives[0].token_ids[:3]
    stopped = generate(engine, sampling=LIVELY, n=2, stop_token_ids=[stop], ignore_eos=False)
    assert stopped.alternatives[0].token_ids == free.alternatives[0].token_ids[:4]
    assert stopped.alternatives[0].finish_reason == "stop"


def test_a_full_context_ends_every_answer(engine: _core.Model) -> None:
    """Each answer has the room that the prompt leaves, whatever the one before it used."""
    cache = engine.new_cache()
    room = 5
    filler = np.full(engine.max_position_embeddings - len(PROMPT_IDS) - room, 1, np.int32)
    engine.prefill(cache, filler, np.empty((0, engine.hidden_size), np.float32), -1)
    first = generate(engine, cache, sampling=LIVELY, n=2, max_new_tokens=100)
    for answer in (first, *first.alternatives):
        assert (len(answer.token_ids), answer.finish_reason) == (room + 1, "length")


def test_penalties_look_at_the_prompt_and_at_the_answer(engine: _core.Model) -> None:
    again = generate(engine, sampling={"repetition_penalty": 1e-6}).token_ids  # makes them far likelier
    assert set(again) <= set(PROMPT_IDS.tolist())
    assert not set(generate(engine).token_ids) <= set(PROMPT_IDS.tolist())
    same = generate(engine, sampling={"frequency_penalty": -1e6}).token_ids  # makes the first one likeliest
    assert len(set(same)) == 1
    assert len(set(generate(engine).token_ids)) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens: 0, expected at least 1"),
        ({"n": 0}, "n: 0, expected at least 1"),
        ({"logprobs": -1}, "logprobs: -1, expected 0 to"),
        ({"logprobs": 10_000}, "logprobs: 10000, expected 0 to"),
        ({"sampling": {"top_p": 2.0}}, "top_p: 2, expected"),
        ({"sampling": {"logit_bias": {10_000: 1.0}}}, "logit_bias: token 10000"),
    ],
)
def test_an_option_out_of_range_is_named_before_the_prompt_is_read(
    engine: _core.Model, options: dict[str, Any], message: str
) -> None:
    cache = engine.new_cache()
    with pytest.raises(InputError, match=message):
        generate(engine, cache, **options)
    assert cache.length == 0
