"""What the engine decides around a model, where that model is sure of its answers: the demo model as shipped.

Every token of the golden's answers has a probability of 0.9 or more at f32; with random weights none has.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pocketvlm
from pocketvlm.demo_model import MODEL_FOLDER
from pocketvlm.engine import Model

from ..model.demo_golden import Case, case_of, names

DESCRIBE = ("describe 1", "describe 2")


@pytest.fixture(scope="module")
def model() -> Model:
    return pocketvlm.load(MODEL_FOLDER, threads=2)


@pytest.fixture
def long() -> Case:
    """A question with an answer of several things."""
    return max(map(case_of, DESCRIBE), key=lambda case: len(case.token_ids))


@pytest.mark.parametrize("name", names())
def test_each_token_is_likely(model: Model, name: str) -> None:
    entries = case_of(name).ask(model, logprobs=2).logprobs
    assert entries is not None
    for entry in entries:
        likeliest, second = (math.exp(top.logprob) for top in entry.top)
        assert likeliest > 0.85
        assert likeliest + second <= 1 + 1e-6


@pytest.mark.parametrize(("question", "picture"), [DESCRIBE, DESCRIBE[::-1]])
def test_the_answer_is_about_this_picture(model: Model, question: str, picture: str) -> None:
    """Both questions ask for a description, so the answer is that of the picture."""
    case_of(question).ask(model)
    result = model.generate(case_of(question).question, images=case_of(picture).images)
    assert result.text == case_of(picture).answer


@pytest.mark.parametrize("name", ["change 1", "change 2"])
def test_the_order_of_pictures_counts(model: Model, name: str) -> None:
    case, swapped = case_of(name), case_of(f"{name} swapped")
    before, after = case.images
    question = {"type": "text", "text": case.question}
    for first, second, expected in ((before, after, case), (after, before, swapped)):
        pictures = [{"type": "image", "image": first}, {"type": "image", "image": second}]
        result = model.generate([{"role": "user", "content": [*pictures, question]}])
        assert result.text == expected.answer
    assert case.answer != swapped.answer


def test_every_source_of_a_picture_gives_the_same_answer(model: Model) -> None:
    case = case_of("sign 1")
    (path,) = case.images
    for source in (str(path), path.read_bytes(), Image.open(path), np.array(Image.open(path))):
        assert model.generate(case.question, images=source).token_ids == case.token_ids


def test_pieces_of_a_stream_join_to_the_answer(model: Model, long: Case) -> None:
    stream = model.stream(long.question, images=long.images)
    pieces = list(stream)
    assert len(pieces) > 5
    assert "".join(pieces) == long.answer == stream.result.text
    assert stream.result.token_ids == long.token_ids


def test_a_stop_string_cuts_the_answer(model: Model, long: Case) -> None:
    for stop in (",", " and "):
        kept, found, _ = long.answer.partition(stop)
        assert found
        result = model.generate(long.question, images=long.images, stop=[stop])
        assert (result.text, result.finish_reason) == (kept, "stop")
        assert len(result.token_ids) < len(long.token_ids)
        assert long.token_ids[: len(result.token_ids)] == result.token_ids


def sample(model: Model, case: Case, **options: Any) -> list[str]:
    """Draws four answers, none longer than right ones are."""
    result = model.generate(case.question, images=case.images, n=4, seed=1, max_new_tokens=64, **options)
    return [answer.text for answer in (result, *result.alternatives)]


@pytest.mark.parametrize("filter", [{"top_k": 1}, {"top_p": 0.3}, {"min_p": 0.5}])
def test_filters_leave_a_sure_model_no_choice(model: Model, long: Case, filter: dict[str, float]) -> None:
    """Odds of 0.9 to 0.1 are, at temperature 2, still 3 to 1."""
    assert sample(model, long, temperature=2.0, **filter) == [long.answer] * 4
    assert sample(model, long, temperature=2.0) != [long.answer] * 4


def test_a_low_temperature_keeps_the_answer_and_a_high_one_loses_it(model: Model, long: Case) -> None:
    """At 0.1 odds are to the power of ten. At 10 hardly anything is left of them."""
    assert sample(model, long, temperature=0.1) == [long.answer] * 4
    assert len({*sample(model, long, temperature=10.0), long.answer}) == 5


def test_threads_do_not_change_the_answer_or_a_bit_of_its_probability(long: Case) -> None:
    results = [long.ask(pocketvlm.load(MODEL_FOLDER, threads=threads), logprobs=3) for threads in (1, 2, 3)]
    assert [result.token_ids for result in results] == [long.token_ids] * 3
    assert results[0].logprobs == results[1].logprobs == results[2].logprobs
