"""Makes sampler.npz and sampler.json: what transformers' logits processors make of the logits of cases.py.

    python -m tests.golden.sampler.make_golden [--check]

Run from the repository root, in the environment of tests/golden/requirements.txt.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessor, LogitsProcessorList

from ..reference import versions
from ..store import Store
from .cases import ANSWER_IDS, CASES, PROMPT_IDS, VOCAB_SIZE, Case, draw_logits

# No token may be kept or left out by less than this, relative to the limit: float32 decides otherwise here.
MARGIN = 1e-4
OF_TRANSFORMERS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class PenaltiesAndBias(LogitsProcessor):
    """What transformers lacks: presence and frequency penalty as the OpenAI API defines them, and bias."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        counts = torch.bincount(input_ids[0, len(PROMPT_IDS) :], minlength=VOCAB_SIZE)
        scores = scores - self.options.get("frequency_penalty", 0.0) * counts
        scores = scores - self.options.get("presence_penalty", 0.0) * (counts > 0)
        for token, bias in self.options.get("logit_bias", {}).items():
            scores[0, token] += bias
        return scores


class _Generation(GenerationMixin):
    """A model as far as choosing processors asks for one."""

    class config:  # noqa: N801
        is_encoder_decoder = False


def processors(options: dict[str, Any]) -> LogitsProcessorList:
    """Returns transformers' own choice and order of processors, with ours where it puts a caller's."""
    chosen = {name: options[name] for name in OF_TRANSFORMERS if name in options}
    config = GenerationConfig(do_sample="temperature" in options, **chosen)
    ours = LogitsProcessorList([PenaltiesAndBias(options)])
    return _Generation()._get_logits_processor(
        config, input_ids_seq_length=len(PROMPT_IDS), logits_processor=ours, device="cpu"
    )


def check_margins(name: str, case: Case, scores: npt.NDArray[np.float64]) -> None:
    """Raises ValueError if a case is too close a call. scores: float64 [VOCAB_SIZE], with temperature."""
    weights = np.sort(np.exp(scores - scores.max()))[::-1]
    if "top_k" in case.options:
        weights = weights[weights >= weights[min(case.options["top_k"], VOCAB_SIZE) - 1]]
    top_p, min_p = case.options.get("top_p", 1.0), case.options.get("min_p", 0.0)
    before = (np.cumsum(weights) - weights) / weights.sum()
    closest = min(
        np.abs(before - top_p).min() / (1 - top_p) if top_p < 1 else 1.0,
        np.abs(weights[weights < 1] - min_p).min() / min_p if min_p > 0 else 1.0,
    )
    if closest < MARGIN:
        raise ValueError(f"{name}: within {closest:.2g} of a limit; change its options a little")


def main(argv: list[str]) -> int:
    """Returns 0, or 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(prog="make_golden")
    parser.add_argument("--check", action="store_true", help="recompute and compare instead of writing")
    store = Store(Path(__file__).parent, check=parser.parse_args(argv).check)

    input_ids = torch.tensor([PROMPT_IDS + ANSWER_IDS])
    scores = []
    for name, case in CASES.items():
        steps = processors(case.options)
        logits = torch.from_numpy(draw_logits(name))[None]
        scores.append(steps(input_ids, logits.clone())[0].numpy())
        unfiltered = {k: v for k, v in case.options.items() if k not in ("top_k", "top_p", "min_p")}
        check_margins(name, case, processors(unfiltered)(input_ids, logits.clone())[0].double().numpy())
    arrays = {"logits": np.stack([draw_logits(name) for name in CASES]), "scores": np.stack(scores)}
    store.put_arrays("sampler", arrays, {})
    steps_of_all = {
        name: [type(step).__name__ for step in processors(case.options)] for name, case in CASES.items()
    }
    store.put_json("sampler", {"versions": versions(), "processors": steps_of_all})
    for line in store.differences:
        print(line, file=sys.stderr)
    return 1 if store.differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
