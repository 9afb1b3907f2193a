"""The tiny model at q8_0 beside f32: off by no more than 8 bits can cost, the same tokens where that allows
it.

A Q8_0 block is 32 numbers with largest magnitude a, rounded to multiples of a / 127: errors uniform within
half a step, a / 127 / sqrt(12) in the RMS. As a <= sqrt(32) RMS(block), that is at most 1.3 % of the RMS of
any block, of weights and of activations alike: 1.8 % for their products, and so for sums of products with
independent errors. A path from pixel to logit runs through N such matrices, whose errors add in quadrature:
sqrt(N) 1.8 % of the logits' RMS. Blocks of normal numbers have a = 2.2 RMS, not 5.7: that leaves a factor of
2.6 for gains other than one.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from .golden_files import Golden, open_engine, read_golden

GENERATIONS = ["text", "unsplit", "split", "two images"]
PRODUCT_ERROR = math.sqrt(2 * 32) / 127 / math.sqrt(12)


def relative_bound(golden: Golden) -> float:
    """RMS error of the logits relative to their RMS."""
    sizes = golden.facts["sizes"]
    # Per layer: values in, output, up, down; and queries and keys, which act through the scores.
    layers = sizes["vision_config"]["num_hidden_layers"] + sizes["text_config"]["num_hidden_layers"]
    return PRODUCT_ERROR * math.sqrt(6 * layers + 2)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_logits_and_tokens(
    isa: str, tiny_checkpoint: Path, tiny_q8_0: Path, tiny_f32: Path, generation: str
) -> None:
    """Fed the reference's tokens, so that one difference does not bring all the others."""
    golden = read_golden("tiny-f32")
    prompt = golden.prompt(generation, tiny_checkpoint)
    expected = golden.facts["generations"][generation]["token_ids"]
    rows = {}
    for folder in (tiny_q8_0, tiny_f32):
        engine = open_engine(folder, isa)
        cache = engine.new_cache()
        logits = [
            engine.prefill(cache, prompt.token_ids, prompt.features(engine), prompt.image_token_id),
            *(engine.decode(cache, token_id) for token_id in expected[:-1]),
        ]
        rows[folder] = np.stack(logits).astype(np.float64)
    exact, rounded = rows[tiny_f32], rows[tiny_q8_0]
    assert exact.argmax(axis=1).tolist() == expected

    bound = relative_bound(golden)
    scale = np.sqrt(np.mean(exact**2, axis=1))  # [steps]
    error = np.sqrt(np.mean((rounded - exact) ** 2, axis=1)) / scale
    overall = float(np.sqrt(np.mean(error**2)))
    same = rounded.argmax(axis=1) == exact.argmax(axis=1)
    print(f"{isa}, {generation}: error {overall:.3f} (bound {bound:.3f}), top-1 {same.mean():.0%}")
    assert overall <= bound
    # A lead of more than 4 standard deviations of the difference of two logits cannot be lost.
    top2 = np.partition(exact, -2, axis=1)[:, -2:]
    safe = top2[:, 1] - top2[:, 0] > 4 * math.sqrt(2) * bound * scale
    assert same[safe].all()
    assert safe.any()
