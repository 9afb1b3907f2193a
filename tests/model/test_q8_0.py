"""The tiny models at q8_0 beside f32: off by no more than 8 bits can cost, the same tokens where that allows
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
from collections.abc import Callable

import numpy as np
import pytest

from pocketvlm import _core

from .golden_files import Golden, open_engine, pair_of
from .tiny_models import TinyModel, generations

PRODUCT_ERROR = math.sqrt(2 * 32) / 127 / math.sqrt(12)


def relative_bound(golden: Golden) -> float:
    """RMS error of the logits relative to their RMS."""
    sizes = golden.facts["sizes"]
    # Per layer: values in, output, up, down; and queries and keys, which act through the scores.
    layers = sizes["vision_config"]["num_hidden_layers"] + sizes["text_config"]["num_hidden_layers"]
    return PRODUCT_ERROR * math.sqrt(6 * layers + 2)


@pytest.mark.parametrize(("tiny", "generation"), generations(), indirect=["tiny"])
def test_logits_and_tokens(isa: str, tiny: TinyModel, generation: str) -> None:
    """Fed the reference's tokens, so that one difference does not bring all the others."""
    prompt = tiny.prompt(generation)
    expected = tiny.expected(generation)
    rows = []
    for folder in (tiny.f32, tiny.q8_0):
        engine = open_engine(folder, isa)
        cache = engine.new_cache()
        logits = [
            engine.prefill(cache, prompt.token_ids, prompt.features(engine), prompt.image_token_id),
            *(engine.decode(cache, token_id) for token_id in expected[:-1]),
        ]
        rows.append(np.stack(logits).astype(np.float64))
    exact, rounded = rows
    assert exact.argmax(axis=1).tolist() == expected

    bound = relative_bound(tiny.golden)
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


def test_rows_of_no_whole_blocks_are_f16(make_tiny_model: Callable[[str], TinyModel]) -> None:
    """What the tests above ran for tiny-2.2b: one f16 matrix among those of q8_0, as in the true 2.2B."""
    _, projector = pair_of(make_tiny_model("tiny-2.2b").q8_0)
    tensors = _core.GgufFile(str(projector)).tensors
    assert {name for name, tensor in tensors.items() if tensor[0] == "f16"} == {"v.blk.0.ffn_down.weight"}
    assert tensors["v.blk.0.ffn_up.weight"][0] == "q8_0"
