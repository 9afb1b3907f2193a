"""Sampling as a person meets it: options read and refused, several answers, logprobs, the command line."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

import pocketvlm
from pocketvlm.engine import Model
from pocketvlm.errors import InputError
from pocketvlm.sampling import SamplingOptions, read_sampling

Scripted: TypeAlias = Callable[[str], tuple[Model, Any]]

GREY = np.full((5, 8, 3), 128, np.uint8)
END = "<end_of_utterance>"


def test_the_defaults_are_greedy_without_penalties(scripted: Scripted) -> None:
    model, backend = scripted(f"x{END}")
    model.generate("What?")
    assert dataclasses.replace(backend.sampling, seed=0) == SamplingOptions()
    assert SamplingOptions().temperature == 0
    assert backend.logprobs is None


def test_options_reach_the_backend_as_given(scripted: Scripted) -> None:
    model, backend = scripted(f"x{END}")
    options: dict[str, Any] = {
        "temperature": 0.7,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "logit_bias": {5: -math.inf},
        "seed": 2**64 - 1,
    }
    assert set(options) == {option.name for option in dataclasses.fields(SamplingOptions)}
    model.generate("What?", **options)
    assert backend.sampling == SamplingOptions(**options)
    list(model.stream("What?", logprobs=3, **options))
    assert backend.sampling == SamplingOptions(**options)
    assert backend.logprobs == 3
    model.generate("What?", **dict.fromkeys(options))  # type: ignore[arg-type]
    assert dataclasses.replace(backend.sampling, seed=0) == SamplingOptions()


def test_numbers_of_numpy_are_numbers() -> None:
    options = SamplingOptions(
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        top_k=np.int64(3),  # type: ignore[arg-type]
        logit_bias={np.int32(4): np.float64(1.5)},  # type: ignore[dict-item]
    )
    options.for_core(100)


def test_without_a_seed_every_call_has_another() -> None:
    assert read_sampling({"temperature": 1.0}).seed != read_sampling({"temperature": 1.0}).seed
    assert read_sampling({"seed": 0}).seed == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature: -1, expected"),
        ({"temperature": "hot"}, "temperature is 'hot', expected a number"),
        ({"temperature": "1.0"}, r"temperature is '1\.0', expected a number"),
        ({"temperature": math.nan}, "temperature: nan"),
        ({"temperature": 1.0, "top_p": 0}, "top_p: 0, expected a number above 0 and at most 1"),
        ({"temperature": 1.0, "top_k": -1}, "top_k is -1, expected an integer from 0"),
        ({"temperature": 1.0, "top_k": 2.5}, r"top_k is 2\.5"),
        ({"temperature": 1.0, "min_p": 2}, "min_p: 2"),
        ({"repetition_penalty": 0}, "repetition_penalty: 0"),
        ({"presence_penalty": [1]}, r"presence_penalty is \[1\], expected a number"),
        ({"frequency_penalty": 10**400}, "frequency_penalty is 1000"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616, expected an integer from 0 to"),
        ({"logit_bias": [5]}, r"logit_bias is \[5\], expected a dict"),
        ({"logit_bias": {"5": 1.0}}, "a token of logit_bias is '5'"),
        ({"logit_bias": {2**40: 1.0}}, "a token of logit_bias is 1099511627776"),
        ({"logit_bias": {49280: 1.0}}, "logit_bias: token 49280, expected an id of 0 to 49279"),
        ({"logit_bias": {5: "1"}}, "logit_bias of token 5 is '1'"),
        ({"logit_bias": {5: math.inf}}, "logit_bias: inf"),
        ({"logprobs": -1}, "logprobs is -1, expected an integer from 0 to 49280"),
        ({"logprobs": 49281}, "logprobs is 49281"),
        ({"top_k": 5}, "top_k is 5, but without a temperature the likeliest token is always taken"),
        ({"top_p": 0.5}, r"top_p is 0\.5, but without a temperature"),
        ({"min_p": 0.5}, r"min_p is 0\.5, but without a temperature"),
    ],
)
def test_a_bad_option_is_named_before_anything_is_encoded(
    scripted: Scripted, options: dict[str, Any], message: str
) -> None:
    model, backend = scripted(f"x{END}")
    for call in (model.generate, model.stream):
        with pytest.raises(InputError, match=message):
            call("What?", images=[GREY], **options)
    assert backend.tiles == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0, "temperature": 1.0}, "n is 0, expected an integer of at least 1"),
        ({"n": 2}, "n is 2, but without a temperature all answers would be the same"),
        ({"n": 2, "temperature": 0.0}, "n is 2, but without a temperature"),
    ],
)
def test_a_number_of_answers_that_makes_no_sense(
    scripted: Scripted, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        scripted(f"x{END}")[0].generate("What?", **options)


def test_filters_at_temperature_0_are_greedy(scripted: Scripted) -> None:
    """As clients send it that always send all options."""
    model, backend = scripted(f"x{END}")
    model.generate("What?", temperature=0, top_p=0.9, top_k=40)
    assert backend.sampling.temperature == 0


def test_several_answers_have_each_their_own_text(scripted: Scripted) -> None:
    model, backend = scripted(f" one two three four{END}")
    first = model.generate("What?", images=[GREY], split_images=False, n=3, temperature=1.0, stop=["four"])
    answers = [first, *first.alternatives]
    assert [answer.text for answer in answers] == [" one two three ", " two three ", " three "]
    assert [answer.finish_reason for answer in answers] == ["stop"] * 3
    assert [answer.token_ids for answer in answers] == [backend.answer[i:-1] for i in range(3)]
    assert all(answer.alternatives == [] for answer in first.alternatives)
    assert all(answer.prompt_tokens == first.prompt_tokens for answer in answers)
    assert backend.tiles == [1]
    values = first.to_dict()
    assert [answer["text"] for answer in values["alternatives"]] == [" two three ", " three "]
    assert "alternatives" not in values["alternatives"][0]


def test_logprobs_belong_to_the_tokens(tiny_f32: Path) -> None:
    model = pocketvlm.load(tiny_f32, threads=1)
    result = model.generate("Hm?", max_new_tokens=6, ignore_eos=True, logprobs=3)
    assert result.logprobs is not None
    assert [entry.token_id for entry in result.logprobs] == result.token_ids
    for entry in result.logprobs:
        assert len(entry.top) == 3
        assert (entry.top[0].token_id, entry.top[0].logprob) == (entry.token_id, entry.logprob)  # greedy
        assert 0 > entry.top[0].logprob >= entry.top[1].logprob >= entry.top[2].logprob
    as_json = json.loads(json.dumps(result.to_dict()))["logprobs"][0]
    assert as_json.keys() == {"token_id", "logprob", "top"}
    assert as_json["top"][1].keys() == {"token_id", "logprob"}
    chosen_only = model.generate("Hm?", max_new_tokens=6, ignore_eos=True, logprobs=0).logprobs
    assert chosen_only is not None
    assert [(entry.logprob, entry.top) for entry in chosen_only] == [
        (entry.logprob, []) for entry in result.logprobs
    ]
    assert model.generate("Hm?", max_new_tokens=1).logprobs is None


def test_a_seed_makes_answers_repeatable(tiny_f32: Path) -> None:
    options: dict[str, Any] = {"max_new_tokens": 12, "ignore_eos": True, "temperature": 1.5}
    one, two = pocketvlm.load(tiny_f32, threads=1), pocketvlm.load(tiny_f32, threads=2)
    first = one.generate("Hm?", seed=4, n=3, **options)
    texts = [first.text, *(answer.text for answer in first.alternatives)]
    assert len(set(texts)) == 3
    again = two.generate("Hm?", seed=4, n=2, **options)
    assert [again.text, again.alternatives[0].text] == texts[:2]
    assert "".join(two.stream("Hm?", seed=4, **options)) == first.text
    assert one.generate("Hm?", seed=5, **options).text != first.text
    assert len({one.generate("Hm?", **options).text for _ in range(3)}) == 3


def describe(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "pocketvlm", "describe", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_the_command_line_has_the_same_options(tiny_f32: Path, photo: Path) -> None:
    common = [photo, "-m", tiny_f32, "-p", "Hm?", "--no-split", "--max-new-tokens", "8", "--ignore-eos"]
    sampling = ["--temp", "1.5", "--top-k", "200", "--top-p", "0.98", "--min-p", "0.0001", "-s", "9"]
    penalties = ["--repeat-penalty", "1.1", "--presence-penalty", "0.1", "--frequency-penalty", "0.2"]
    rest = ["--logit-bias", "900+1.5", "--logit-bias", "901-inf"]
    options: dict[str, Any] = {"max_new_tokens": 8, "ignore_eos": True, "split_images": False}
    expected = pocketvlm.load(tiny_f32).generate(
        "Hm?",
        images=[photo],
        n=2,
        temperature=1.5,
        top_k=200,
        top_p=0.98,
        min_p=0.0001,
        seed=9,
        repetition_penalty=1.1,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logit_bias={900: 1.5, 901: -math.inf},
        **options,
    )
    result = describe(*common, *sampling, *penalties, *rest, "--json", "--logprobs", "1", "--answers", "2")
    assert (result.returncode, result.stderr) == (0, "")
    values = json.loads(result.stdout)
    assert values["token_ids"] == expected.token_ids
    assert values["alternatives"][0]["token_ids"] == expected.alternatives[0].token_ids
    assert len(values["logprobs"]) == 8
    one = describe(*common, *sampling, *penalties, *rest)
    assert one.stdout == expected.text.lstrip() + "\n"
    two = describe(*common, *sampling, *penalties, *rest, "--answers", "2")
    second = expected.alternatives[0].text
    assert two.stdout == f"[1] {expected.text.lstrip()}\n[2] {second.lstrip()}\n"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--temp", "-1"], 1, "error: temperature: -1, expected"),
        (["--top-p", "0.5"], 1, "error: top_p is 0.5, but without a temperature"),
        (["--logprobs", "2"], 1, "error: --logprobs shows in --json alone"),
        (["--logit-bias", "x"], 2, "--logit-bias: 'x', expected a token id, + or -, and a number"),
        (["--logit-bias", "5+nan"], 2, "--logit-bias: '5+nan'"),
        (["--temperature", "warm"], 2, "invalid float value: 'warm'"),
    ],
)
def test_the_command_line_names_a_bad_option(
    tiny_f32: Path, photo: Path, arguments: list[str], exit_code: int, message: str
) -> None:
    result = describe(photo, "-m", tiny_f32, *arguments)
    assert (result.returncode, result.stdout) == (exit_code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
