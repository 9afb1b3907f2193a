"""The demo model from the picture on, through the public API: transformers' tokens and logits at f32 on every
ISA row; its answers at the other types that keep them.

The golden's choice of questions makes this exact: at f32 no token's lead is below 100 tolerances, and each
has a probability of at least 0.9. Roundings to 8 bits, which move the logarithm of its odds by about 0.1, do
not bring that below the probability of another.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import pocketvlm
from pocketvlm import _core
from pocketvlm.demo_model import MODEL_FOLDER
from pocketvlm.demo_model.scenes import KINDS, held_out
from pocketvlm.engine import Model

from ..conftest import DEMO_CHECKPOINT, export
from . import tolerance
from .demo_golden import NAME, Case, case_of, names
from .golden_files import read_golden


@pytest.fixture(params=names())
def case(request: pytest.FixtureRequest) -> Case:
    """Each question in turn."""
    return case_of(request.param)


@functools.cache
def load(folder: Path, isa: str) -> Model:
    return pocketvlm.load(folder, isa=isa, threads=2)


@pytest.fixture(scope="module")
def f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo-f16") / "model"
    export("gguf", DEMO_CHECKPOINT, folder, "--type", "f16")
    return folder


def log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of each row."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def test_tokens_and_logits(isa: str, demo_f32: Path, case: Case) -> None:
    """A logit may be off by the tolerance, the logarithm of their sum by as much again."""
    model = load(demo_f32, isa)
    vocab_size = model.config.text.vocab_size
    result = case.ask(model, logprobs=vocab_size)
    assert result.token_ids == case.token_ids
    assert (result.text, result.finish_reason) == (case.answer, "stop")
    assert result.prompt_tokens == len(case.prompt_ids)
    assert result.logprobs is not None
    found = np.full(case.logits.shape, np.nan)
    for row, entry in zip(found, result.logprobs, strict=True):
        row[[top.token_id for top in entry.top]] = [top.logprob for top in entry.top]
    expected = case.logits.astype(np.float64)
    scale = np.sqrt(np.mean(expected**2, axis=1, keepdims=True))  # [steps, 1]
    positions = len(case.prompt_ids) + len(case.token_ids)
    relative = tolerance.relative_tolerances(read_golden(NAME).facts["sizes"], positions)["logits"]
    excess = abs(found - log_softmax(expected)) / (2 * relative * scale)
    print(f"{isa}: {excess.max():.3f} of the tolerance")
    assert excess.max() <= 1  # nan is not


def test_the_shipped_pair_gives_the_same_answers(isa: str, case: Case) -> None:
    assert case.ask(load(MODEL_FOLDER, isa)).token_ids == case.token_ids


def test_f16_gives_the_same_answers(f16: Path, case: Case) -> None:
    assert case.ask(load(f16, _core.isas()[0])).token_ids == case.token_ids


def test_prompt_and_tiles(case: Case) -> None:
    """Token for token and bit for bit; the tests above count tokens."""
    case.prompt()


def test_the_questions_are_held_out_ones_and_answered_right() -> None:
    cases = [case for case in map(case_of, names()) if case.truth is not None]
    examples = dict(enumerate(held_out(1 + max(case.example for case in cases))))
    for case in cases:
        example = examples[case.example]
        assert (example.question, example.answer) == (case.question, case.truth)
        assert case.answer.strip() == case.truth
    assert sorted(examples[case.example].kind for case in cases if case.split) == sorted(2 * KINDS)
    assert len([case for case in cases if not case.split]) == 1
