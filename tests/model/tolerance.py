"""How far two correct float32 evaluations of the model may lie apart, stage by stage: derived, never tuned.

u = 2^-24 bounds the relative rounding error of one float32 operation. Take a sum of k terms whose signs are
as good as random. Its partial sums grow as sqrt(j) and each is rounded once, so the error of the whole,
relative to the root mean square (RMS) of such sums, has variance sum_{j<=k} (u^2 / 3) (j / k) = u^2 k / 6 for
rounding errors uniform in [-u, u] (Higham and Mary, "A new approach to probabilistic rounding error
analysis", 2019, prove the same sqrt(k) growth as a bound that holds with high probability). Blocked and
vectorised sums do better.

A stage is the end of a chain of such sums: its dot products, means and softmax sums, K terms in all along one
path from the input. Taking the errors of the links as independent and passed on with unit gain, they add in
quadrature: one evaluation is off by u sqrt(K / 6) of the stage's RMS, the difference of two by u sqrt(K / 3).
What is compared is the largest of up to 10^6 numbers, within 5 standard deviations if they are normal: 5 /
sqrt(3) = 2.9. The gain of a layer is not exactly one (softmax, GELU and the norm of a small vector amplify,
the residual stream dilutes); factor 2.75 is left for it, which rounds the constant to C = 8:

RoPE's angles are float32 products, position times frequency, by definition: both sides make the same
rounding. But the frequencies, powers of theta, may differ in the last bit: by 0.07 u in the RMS over a head
at theta = 1e5. At position p that turns a query against a key by 0.07 p u, as much as the rounding of 6 (0.07
p)^2 = p^2 / 32 terms.

    |a - b| <= C u sqrt(K) scale,    scale = the RMS of the stage, or of the channel where that is larger

tests/golden/README.md holds it against the facts: what float32 against float64 uses of this bound in the
reference itself (little), and how far plausible bugs exceed it (far).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

U = 2.0**-24
C = 8.0

FloatArray = npt.NDArray[np.floating[Any]]


VISION_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
)
TEXT_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")


def sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Picks from a Hugging Face configuration, complete with its defaults, the sizes that the derivation
    needs."""
    return {
        "vision_config": {key: config["vision_config"][key] for key in VISION_SIZES},
        "text_config": {key: config["text_config"][key] for key in TEXT_SIZES},
        "scale_factor": config["scale_factor"],
    }


def relative_tolerances(config: Mapping[str, Any], positions: int) -> dict[str, float]:
    """Derives the relative tolerance C u sqrt(K) of every stage.

    Args:
        config: As sizes() returns; a golden records it.
        positions: Length of the text sequence, the longest softmax sum in the decoder.

    Returns:
        Stage name ("vision.layer.0", "text.final_norm", "logits", ...) -> tolerance relative to the stage's
        scale.
    """
    return {stage: C * U * math.sqrt(terms) for stage, terms in chained_terms(config, positions).items()}


def chained_terms(config: Mapping[str, Any], positions: int) -> dict[str, int]:
    """Counts K, the terms summed along one path from the input to each stage."""
    vision, text = config["vision_config"], config["text_config"]
    terms: dict[str, int] = {}

    d = vision["hidden_size"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    count = 3 * vision["patch_size"] ** 2
    terms["vision.patch_embed"] = count
    for i in range(vision["num_hidden_layers"]):
        count += d + _attention(d, d // vision["num_attention_heads"], patches, d)
        count += d + d + vision["intermediate_size"]  # norm, up, down
        terms[f"vision.layer.{i}"] = count
    count += d
    terms["vision.post_layernorm"] = count
    count += d * config["scale_factor"] ** 2
    terms["vision.connector"] = count

    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    terms["text.embed"] = count  # the rows of text are exact
    for i in range(text["num_hidden_layers"]):
        count += hidden + _attention(hidden, text["head_dim"], positions, heads * text["head_dim"])
        count += positions**2 // 32  # RoPE: see above
        count += hidden + hidden + text["intermediate_size"]
        terms[f"text.layer.{i}"] = count
    count += hidden
    terms["text.final_norm"] = count
    count += hidden
    terms["logits"] = count
    return terms


def _attention(inputs: int, head_dim: int, positions: int, outputs: int) -> int:
    """Terms along one path through attention: projection in, score, softmax's sum, mix of values, projection
    out."""
    return inputs + head_dim + positions + positions + outputs


def scale(expected: FloatArray) -> npt.NDArray[np.float64]:
    """What a stage's tolerance is relative to, for each of its numbers.

    The RMS of all rows; for a channel with outliers, whose weights and so rounding errors are larger, the
    channel's own.

    Args:
        expected: [..., channels].

    Returns:
        float64 [channels].
    """
    rows = expected.reshape(-1, expected.shape[-1]).astype(np.float64)
    if len(rows) == 1:
        return np.full(rows.shape[1], np.sqrt(np.mean(rows**2)))
    return np.maximum(np.sqrt(np.mean(rows**2, axis=0)), np.sqrt(np.mean(rows**2)))


def excess(actual: FloatArray, expected: FloatArray, relative_tolerance: float) -> float:
    """Returns the largest deviation in units of the tolerance: at most 1 is a pass. NaN never passes
    (inf)."""
    if actual.shape != expected.shape:
        raise ValueError(f"found {actual.shape}, expected {expected.shape}")
    deviation = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    ratio = deviation / (relative_tolerance * scale(expected))
    return float(ratio.max()) if np.isfinite(ratio).all() else math.inf
