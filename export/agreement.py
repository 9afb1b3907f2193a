"""How far the next-token distributions of a model are from those of a reference, over the same tokens.

`step_logits` runs a model over forced tokens; the rest is arithmetic on logits. What is forced, and which
models are held against which, is decided by those who measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..errors import InputError


@dataclass(frozen=True)
class Certainty:
    """How sure the reference is of its own tokens: with little certainty a small error changes the token."""

    mean_top_probability: float
    mean_entropy: float  # nats


@dataclass(frozen=True)
class Agreement:
    """How far a model is from the reference, over the steps of one continuation or several."""

    top1: float  # fraction of the steps at which both would take the same token
    kl_mean: float  # nats, KL(reference || model)
    kl_max: float
    first_other_token: int | None  # where greedy answers part, counted from 1; None: they never do


def step_logits(
    model: _core.Model,
    token_ids: Sequence[int],
    image_features: NDArray[np.float32],
    image_token_id: int,
    *,
    steps: int,
    forced: Sequence[int] | None,
) -> NDArray[np.float32]:
    """Returns the logits of every step after a prompt, float32 [steps, vocab].

    Args:
        model: What runs.
        token_ids: The prompt.
        image_features: float32 [image tokens, hidden_size], of the model's own vision tower or another's.
        image_token_id: The token whose places they take.
        steps: How many tokens to predict.
        forced: The tokens to go on with, `steps` - 1 of them or more; None: the model's own greedy ones, stop
            tokens included.

    Raises:
        InputError: Prompt and steps do not fit the context.
    """
    if len(token_ids) + steps > model.max_position_embeddings:
        raise InputError(
            f"prompt and continuation take {len(token_ids)} + {steps} tokens, "
            f"the context holds {model.max_position_embeddings}"
        )
    cache = model.new_cache()
    logits = np.empty((steps, model.vocab_size), np.float32)
    logits[0] = model.prefill(cache, np.array(token_ids, np.int32), image_features, image_token_id)
    for step in range(1, steps):
        token_id = int(logits[step - 1].argmax()) if forced is None else forced[step - 1]
        logits[step] = model.decode(cache, token_id)
    return logits


def agreement(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> Agreement:
    """Compares the logits of two models, each [steps, vocab], over the same tokens."""
    different = np.flatnonzero(reference.argmax(axis=1) != logits.argmax(axis=1))
    # Row by row: in float64 a whole continuation would be the largest thing in memory.
    divergences = [_kl_divergence(p, q) for p, q in zip(reference, logits, strict=True)]
    return Agreement(
        top1=1 - len(different) / len(reference),
        kl_mean=float(np.mean(divergences)),
        kl_max=max(divergences),
        first_other_token=int(different[0]) + 1 if len(different) else None,
    )


def pool_agreements(found: Sequence[tuple[Agreement, int]]) -> Agreement:
    """Puts the agreements over several continuations together, each with its number of steps."""
    agreements, steps = zip(*found, strict=True)
    return Agreement(
        top1=float(np.average([each.top1 for each in agreements], weights=steps)),
        kl_mean=float(np.average([each.kl_mean for each in agreements], weights=steps)),
        kl_max=max(each.kl_max for each in agreements),
        first_other_token=None,  # a matter of each
    )


def certainty(logits: NDArray[np.float32]) -> Certainty:
    """Describes the distributions of `logits`, [steps, vocab]."""
    logs = [_log_softmax(row) for row in logits]
    return Certainty(
        mean_top_probability=float(np.mean([np.exp(row.max()) for row in logs])),
        mean_entropy=float(np.mean([-(np.exp(row) @ row) for row in logs])),
    )


def _kl_divergence(p_logits: NDArray[np.float32], q_logits: NDArray[np.float32]) -> float:
    """KL(p || q) in nats of two distributions given by logits [vocab]."""
    log_p, log_q = _log_softmax(p_logits), _log_softmax(q_logits)
    return float(np.exp(log_p) @ (log_p - log_q))


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    log_probabilities: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return log_probabilities
