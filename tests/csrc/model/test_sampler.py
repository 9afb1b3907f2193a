"""The sampler alone, on logits of a test's own: transformers' arithmetic, random numbers, draw, refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pocketvlm import _core
from pocketvlm.errors import InputError

from ...golden.sampler.cases import ANSWER_IDS, CASES, PROMPT_IDS, VOCAB_SIZE, draw_logits

GOLDEN = Path(__file__).parents[2] / "golden" / "sampler" / "sampler.npz"
Float32Array = npt.NDArray[np.float32]


def sampler_of(options: dict[str, Any], vocab_size: int = VOCAB_SIZE, sequence: int = 0) -> Any:
    """A sampler that has seen PROMPT_IDS."""
    prompt_ids = np.array([i for i in PROMPT_IDS if i < vocab_size], np.int32)
    core_options = _core.SamplingOptions(**options)
    return _core.sampling.Sampler(core_options, prompt_ids, vocab_size=vocab_size, sequence=sequence)


def normal_logits(seed: int, size: int = VOCAB_SIZE, scale: float = 1.0) -> Float32Array:
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


def softmax(scores: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    weights = np.exp(scores.astype(np.float64) - scores.max())
    return np.asarray(weights / weights.sum())


@pytest.mark.parametrize("name", CASES)
def test_probabilities_and_choices_are_those_of_transformers(name: str) -> None:
    """Every processor in transformers' own order; the answer so far is forced by logits without a choice."""
    case = CASES[name]
    with np.load(GOLDEN) as golden:
        row = list(CASES).index(name)
        logits, scores = golden["logits"][row], golden["scores"][row]
    np.testing.assert_array_equal(logits, draw_logits(name), err_msg="cases.py is not what the golden knows")

    sampler = sampler_of(case.options)
    for token in ANSWER_IDS:
        only = np.full(VOCAB_SIZE, -1e30, np.float32)
        only[token] = 1e30
        assert sampler.next(only) == token
    chosen = sampler.next(logits)

    if "temperature" not in case.options:
        assert chosen == scores.argmax()
        return
    expected = softmax(scores)
    found = sampler.probabilities()
    np.testing.assert_array_equal(found > 0, expected > 0)
    # transformers rounds a score to float32 once more, by temperature; so does the largest, subtracted.
    largest_score = np.abs(scores[np.isfinite(scores)]).max()
    np.testing.assert_allclose(found, expected, rtol=4 * 2.0**-24 * max(largest_score, 1.0))
    assert expected[chosen] > 0


def test_the_goldens_tell_processors_apart() -> None:
    """No option is without effect on its case."""
    for name, case in CASES.items():
        with np.load(GOLDEN) as golden:
            row = list(CASES).index(name)
            logits, scores = golden["logits"][row], golden["scores"][row]
        if name in ("greedy", "top_k beyond"):
            np.testing.assert_array_equal(logits, scores)
        elif "temperature" not in case.options:
            assert logits.argmax() != scores.argmax()
        else:
            left_out = np.isneginf(scores).any()
            assert left_out or np.abs(softmax(logits) - softmax(scores)).max() > 1e-3, name
            if name == "top_k among equals":
                assert np.isfinite(scores).sum() > case.options["top_k"]


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 31, 33, 1000])
def test_greedy_takes_the_first_of_the_largest(size: int) -> None:
    for place in range(0, size, 7):
        logits = np.full(size, -3.0, np.float32)
        logits[place] = 2.5
        logits[size - 1] = 2.5
        assert sampler_of({}, size).next(logits) == place
    assert sampler_of({}, size).next(np.full(size, -0.0, np.float32)) == 0


def test_filters_keep_the_lower_id_among_equals() -> None:
    equals = np.zeros(8, np.float32)
    for top_p, kept in ((0.01, 1), (0.25, 2), (0.26, 3), (1.0, 8)):
        sampler = sampler_of({"temperature": 1.0, "top_p": top_p}, 8)
        sampler.next(equals)
        np.testing.assert_array_equal(np.flatnonzero(sampler.probabilities()), np.arange(kept))


def test_a_tiny_temperature_or_top_p_or_top_k_1_is_greedy() -> None:
    nearly = [{"temperature": 1e-300}, {"temperature": 1.0, "top_p": 1e-12}, {"temperature": 5.0, "top_k": 1}]
    for options in nearly:
        sampler = sampler_of(options)
        for seed in range(20):
            logits = normal_logits(seed)
            assert sampler.next(logits) == logits.argmax()


def test_philox_gives_the_published_answers() -> None:
    """The three of Random123's kat_vectors for philox4x32 with 10 rounds; the last are digits of pi."""
    for counter, key, expected in (
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ):
        found = _core.sampling.philox4x32(counter, key)
        assert " ".join(f"{word:08x}" for word in found) == expected


def test_uniform_numbers_are_the_documented_bits() -> None:
    seed, sequence, step = 0x123456789ABCDEF0, 3, 0x1_0000_0002
    words = _core.sampling.philox4x32([2, 1, 3, 0], [0x9ABCDEF0, 0x12345678])
    expected = ((words[1] << 32 | words[0]) >> 11) / 2**53
    assert _core.sampling.uniform(seed, sequence, step) == expected
    assert _core.sampling.uniform(0, 0, 0) == (0xE169C58D6627E8D5 >> 11) / 2**53


def test_the_draw_is_the_inverse_of_the_running_sum() -> None:
    logits = normal_logits(1, scale=2.0)
    options = {"temperature": 1.0, "seed": 99, "top_p": 0.8}
    sampler = sampler_of(options, sequence=4)
    for step in range(200):
        token = sampler.next(logits)
        running = np.cumsum(sampler.probabilities())
        u = _core.sampling.uniform(99, 4, step)
        assert running[token - 1] * (1 - 1e-12) <= u * running[-1] <= running[token] * (1 + 1e-12)


@pytest.mark.parametrize(
    "options", [{"temperature": 1.0}, {"temperature": 0.7, "top_k": 12, "top_p": 0.9, "min_p": 0.01}]
)
def test_frequencies_are_those_of_the_softmax(options: dict[str, Any]) -> None:
    """Chi-square over 20,000 draws with a fixed seed, at the 0.999 quantile (Wilson and Hilferty)."""
    draws, size = 20_000, 24
    logits = normal_logits(5, size)
    sampler = sampler_of({**options, "seed": 20}, size)
    counts = np.bincount([sampler.next(logits) for _ in range(draws)], minlength=size)
    expected = sampler.probabilities() * draws
    kept = expected > 0
    assert counts[~kept].sum() == 0
    assert expected[kept].min() > 5, "too rare for the test to hold"
    chi_square = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    freedom = int(kept.sum()) - 1
    quantile = freedom * (1 - 2 / (9 * freedom) + 3.0902 * math.sqrt(2 / (9 * freedom))) ** 3
    assert chi_square < quantile


def test_seed_and_sequence_choose_the_random_numbers() -> None:
    logits = np.zeros(VOCAB_SIZE, np.float32)

    def draws(seed: int, sequence: int) -> list[int]:
        sampler = sampler_of({"temperature": 1.0, "seed": seed}, sequence=sequence)
        return [sampler.next(logits) for _ in range(20)]

    kinds = [(0, 0), (1, 0), (0, 1), (2**32, 0), (2**64 - 1, 0), (0, 2**32)]
    assert len({tuple(draws(*kind)) for kind in kinds}) == len(kinds)
    assert draws(7, 3) == draws(7, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.5}, "temperature: -0.5, expected a finite number, 0 or more"),
        ({"temperature": math.nan}, "temperature: nan"),
        ({"temperature": math.inf}, "temperature: inf"),
        ({"top_k": -1}, "top_k: -1, expected 0"),
        ({"top_p": 0.0}, "top_p: 0, expected a number above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p: 1.5"),
        ({"top_p": math.nan}, "top_p: nan"),
        ({"min_p": -0.1}, "min_p: -0.1, expected a number from 0 to 1"),
        ({"min_p": 1.1}, "min_p: 1.1"),
        ({"min_p": math.nan}, "min_p: nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: 0, expected a finite number above 0"),
        ({"repetition_penalty": math.nan}, "repetition_penalty: nan"),
        ({"repetition_penalty": 1e-60}, "repetition_penalty: 1e-60"),
        ({"presence_penalty": math.inf}, "presence_penalty: inf"),
        ({"frequency_penalty": 1e39}, "frequency_penalty: 1e\\+39"),
        ({"logit_bias": {VOCAB_SIZE: 1.0}}, f"logit_bias: token {VOCAB_SIZE}, expected an id of 0 to 256"),
        ({"logit_bias": {-1: 1.0}}, "logit_bias: token -1"),
        ({"logit_bias": {0: math.inf}}, "logit_bias: inf, expected a finite number or -infinity"),
        ({"logit_bias": {0: math.nan}}, "logit_bias: nan"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _core.SamplingOptions(**options).check(VOCAB_SIZE)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "top_p": 0.9}, {"presence_penalty": 1.0}])
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 128, VOCAB_SIZE - 1])
def test_logits_that_are_not_finite_are_refused(options: dict[str, Any], bad: float, place: int) -> None:
    logits = normal_logits(2)
    logits[place] = bad
    with pytest.raises(InputError, match=f"logits: found -?(nan|inf) for token {place}, expected finite"):
        sampler_of(options).next(logits)


def test_scores_that_no_softmax_can_take_are_refused() -> None:
    with pytest.raises(InputError, match="logit_bias: forbids every token"):
        sampler_of({"logit_bias": dict.fromkeys(range(20), -math.inf)}, 20).next(normal_logits(3, 20))
    for options in ({"repetition_penalty": 1e-38}, {"logit_bias": {3: 3e38}}):
        logits = np.full(VOCAB_SIZE, 3e38, np.float32)
        with pytest.raises(InputError, match=r"(penalties|logit_bias): inf, expected finite scores"):
            sampler_of({"temperature": 1.0, **options}).next(logits)


def test_a_forbidden_token_never_comes() -> None:
    options = {"temperature": 3.0, "logit_bias": {i: -math.inf for i in range(10) if i != 4}}
    sampler = sampler_of(options, 10)
    assert {sampler.next(normal_logits(seed, 10)) for seed in range(50)} == {4}


@pytest.mark.parametrize("num_top", [0, 1, 5, 40])
def test_log_softmax_and_the_likeliest(num_top: int) -> None:
    logits = np.round(normal_logits(11, 40, scale=20.0))  # with equals
    found = _core.sampling.log_softmax(logits, 17, num_top)
    exact = logits.astype(np.float64)
    exact = exact - exact.max() - np.log(np.exp(exact - exact.max()).sum())
    order = sorted(range(40), key=lambda i: (-logits[i], i))[:num_top]
    assert [entry.token_id for entry in found.top] == order
    np.testing.assert_allclose([entry.logprob for entry in found.top], exact[order], rtol=1e-12)
    np.testing.assert_allclose(found.chosen, exact[17], rtol=1e-12)
