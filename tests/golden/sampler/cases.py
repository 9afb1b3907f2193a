"""What the sampler's goldens cover: options, and logits by formula. Neither side is run here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

VOCAB_SIZE = 257  # no multiple of any vector
# Some ids twice, here and in both; the last id of the vocabulary.
PROMPT_IDS = [3, 7, 7, 100, 256, 12]
ANSWER_IDS = [42, 7, 42, 42, 200]


@dataclass(frozen=True)
class Case:
    """Options by the names of `SamplingOptions`, and what the logits are like."""

    options: dict[str, Any]
    scale: float = 3.0  # of the normal distribution that they come from
    step: float = 0.0  # if not 0, rounded to multiples of it: many are equal


CASES = {
    "temperature low": Case({"temperature": 0.3}),
    "temperature high": Case({"temperature": 2.5}),
    "top_k 1": Case({"temperature": 1.0, "top_k": 1}),
    "top_k 20": Case({"temperature": 0.8, "top_k": 20}),
    "top_k among equals": Case({"temperature": 1.0, "top_k": 20}, step=0.5),
    "top_k all but one": Case({"temperature": 1.0, "top_k": VOCAB_SIZE - 1}),
    "top_k beyond": Case({"temperature": 1.0, "top_k": VOCAB_SIZE + 1}),
    "top_p small": Case({"temperature": 1.0, "top_p": 0.01}),
    "top_p half": Case({"temperature": 1.3, "top_p": 0.5}),
    "top_p large": Case({"temperature": 1.0, "top_p": 0.98}),
    "top_p flat": Case({"temperature": 1.0, "top_p": 0.9}, scale=0.1),
    "min_p": Case({"temperature": 0.9, "min_p": 0.05}),
    "min_p one": Case({"temperature": 0.9, "min_p": 1.0}, step=0.5),
    "filters together": Case({"temperature": 0.7, "top_k": 60, "top_p": 0.95, "min_p": 0.02}),
    "repetition": Case({"temperature": 1.0, "repetition_penalty": 1.3}),
    "repetition wanted": Case({"temperature": 1.0, "repetition_penalty": 0.7}),
    "presence": Case({"temperature": 1.0, "presence_penalty": 1.5}),
    "frequency": Case({"temperature": 1.0, "frequency_penalty": -0.75}),
    "bias": Case({"temperature": 1.0, "logit_bias": {5: 4.0, 42: -2.5, 6: float("-inf")}}),
    "all": Case(
        {
            "temperature": 1.2,
            "top_k": 100,
            "top_p": 0.9,
            "min_p": 0.01,
            "repetition_penalty": 1.15,
            "presence_penalty": 0.5,
            "frequency_penalty": 0.25,
            "logit_bias": {3: 3.0, 100: -1.0, 8: float("-inf")},
        }
    ),
    "greedy": Case({}),
    "greedy with penalties": Case(
        {"repetition_penalty": 1.5, "presence_penalty": 1.0, "frequency_penalty": 0.5}, scale=1.0
    ),
}


def draw_logits(name: str) -> npt.NDArray[np.float32]:
    """Draws the logits of a case, float32 [VOCAB_SIZE]; two ids of the history are the likeliest."""
    case = CASES[name]
    logits = np.random.default_rng(list(CASES).index(name)).standard_normal(VOCAB_SIZE) * case.scale
    logits[[7, 42]] = 2.5 * case.scale + np.array([0.25, 0.5])
    if case.step:
        logits = np.round(logits / case.step) * case.step
    return logits.astype(np.float32)
