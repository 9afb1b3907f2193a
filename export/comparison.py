"""Two models over the same requests, stage by stage: where the second parts from the first, and by how much.

Works on whatever `pocketvlm.load` opens, by `Model.trace`. What to ask comes from those who compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine import Model
from ..errors import InputError
from ..images import ImageSource
from ..trace import Trace
from .agreement import Agreement, agreement, pool_agreements
from .markdown_page import markdown_table

# A relative error beyond it parts two stages: sums of float32 in another order make less, float16 more.
PARTED = 1e-5

STAGES = ("prompt tokens", "pixel values", "image features", "logits")


@dataclass(frozen=True)
class Request:
    """What both are asked."""

    name: str
    prompt: str
    images: Sequence[ImageSource] = ()


@dataclass(frozen=True)
class Answered:
    """The first model's greedy answer to a request, and its stages."""

    token_ids: list[int]
    trace: Trace


@dataclass(frozen=True)
class Comparison:
    """The second model beside the first over one request.

    Attributes:
        request: Its name.
        same_prompt: Whether both read the same tokens.
        pixel_error: Relative error: the RMS of the difference by that of the first. 0 without images;
            None where the shapes differ, because one cuts other tiles.
        feature_error: The same of the image features.
        logit_error: The same of the logits behind the prompt.
        steps: Tokens of the first's greedy answer, which the second was forced along.
        agreement: Of the next tokens over these steps.
    """

    request: str
    same_prompt: bool
    pixel_error: float | None
    feature_error: float | None
    logit_error: float | None
    steps: int
    agreement: Agreement

    @property
    def parts_at(self) -> str | None:
        """The first of `STAGES` that differs by more than `PARTED`; None: none does."""
        errors = (self.pixel_error, self.feature_error, self.logit_error)
        parted = [not self.same_prompt, *(error is None or error > PARTED for error in errors)]
        return next((stage for stage, is_parted in zip(STAGES, parted, strict=True) if is_parted), None)


def answer(model: Model, request: Request, *, max_new_tokens: int, ignore_eos: bool = False) -> Answered:
    """Lets the first model answer greedily. Errors as `Model.generate`."""
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "ignore_eos": ignore_eos}
    token_ids = model.generate(request.prompt, images=request.images, **options).token_ids
    return Answered(token_ids, trace(model, request, token_ids))


def trace(model: Model, request: Request, token_ids: Sequence[int]) -> Trace:
    """Runs a model along an answer. Errors as `Model.trace`."""
    return model.trace(request.prompt, images=request.images, continuation=token_ids[:-1])


def compare(request: Request, first: Answered, second: Trace) -> Comparison:
    """Holds the second model's stages against the first's.

    Raises:
        InputError: They have other vocabularies, and so nothing to compare.
    """
    vocabularies = [found.logits.shape[1] for found in (first.trace, second)]
    if vocabularies[0] != vocabularies[1]:
        raise InputError(
            f"vocabularies of {vocabularies[0]} and {vocabularies[1]} tokens: these models cannot be compared"
        )
    return Comparison(
        request.name,
        first.trace.token_ids == second.token_ids,
        relative_error(first.trace.patches, second.patches),
        relative_error(first.trace.image_features, second.image_features),
        relative_error(first.trace.logits[:1], second.logits[:1]),
        len(first.token_ids),
        agreement(first.trace.logits, second.logits),
    )


def compare_models(
    first: Model,
    second: Model,
    requests: Sequence[Request],
    *,
    max_new_tokens: int,
    advance: Callable[[], object],
) -> list[Comparison]:
    """Asks both; `advance` is called after each request. Errors as `answer` and `compare`."""
    found = []
    for request in requests:
        answered = answer(first, request, max_new_tokens=max_new_tokens)
        found.append(compare(request, answered, trace(second, request, answered.token_ids)))
        advance()
    return found


def relative_error(first: NDArray[np.float32], second: NDArray[np.float32]) -> float | None:
    """Returns the RMS of the difference by that of the first; 0 for nothing, None for other shapes."""
    if first.shape != second.shape:
        return None
    size = float(np.sqrt(np.mean(np.square(first, dtype=np.float64)))) if first.size else 0.0
    difference = first.astype(np.float64) - second
    error = float(np.sqrt(np.mean(np.square(difference)))) if first.size else 0.0
    return error / size if size else error


@dataclass(frozen=True)
class Summary:
    """Comparisons put together.

    Attributes:
        requests: How many.
        same_greedy: To how many both give the same greedy tokens.
        pixel_error: The largest, as of `Comparison`; None where shapes differ in one.
        feature_error: See there.
        logit_error: See there.
        top1: As `agreement.Agreement` has it, over the steps of all.
        kl_mean: See there.
        kl_max: See there.
        parts_at: The first stage that parts in any request; None: none does.
    """

    requests: int
    same_greedy: int
    pixel_error: float | None
    feature_error: float | None
    logit_error: float | None
    top1: float
    kl_mean: float
    kl_max: float
    parts_at: str | None


def summarize(comparisons: Sequence[Comparison]) -> Summary:
    """Puts comparisons together."""
    pooled = pool_agreements([(found.agreement, found.steps) for found in comparisons])
    parted = {found.parts_at for found in comparisons}
    return Summary(
        len(comparisons),
        sum(found.agreement.first_other_token is None for found in comparisons),
        _largest([found.pixel_error for found in comparisons]),
        _largest([found.feature_error for found in comparisons]),
        _largest([found.logit_error for found in comparisons]),
        pooled.top1,
        pooled.kl_mean,
        pooled.kl_max,
        next((stage for stage in STAGES if stage in parted), None),
    )


def to_plain(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Returns comparisons and their summary as plain values for JSON."""
    entries = [asdict(found) | {"parts_at": found.parts_at} for found in comparisons]
    return {"summary": asdict(summarize(comparisons)), "requests": entries}


def to_table(comparisons: Sequence[Comparison]) -> str:
    """Lays comparisons out, a line for each request, and what they come to."""
    rows = [
        [
            found.request,
            "same" if found.same_prompt else "other",
            show_error(found.pixel_error),
            show_error(found.feature_error),
            show_error(found.logit_error),
            f"{100 * found.agreement.top1:.2f}",
            f"{found.agreement.kl_mean:.1e}",
            str(found.agreement.first_other_token or f"none in {found.steps}"),
            found.parts_at or "nowhere",
        ]
        for found in comparisons
    ]
    headings = ["request", "prompt", "pixels", "features", "logits", "top-1", "KL", "first other token"]
    table = markdown_table([*headings, "parts at"], rows)
    whole = summarize(comparisons)
    return (
        f"{table}\n\n"
        f"greedy answers  {whole.same_greedy} of {whole.requests} equal\n"
        f"next token      top-1 {100 * whole.top1:.2f} %, KL(A||B) {whole.kl_mean:.1e} nats on average, "
        f"{whole.kl_max:.1e} at most\n"
        f"parts at        {whole.parts_at or 'nowhere'} (the first relative error above {PARTED:g})"
    )


def show_error(error: float | None) -> str:
    """Writes a relative error of a table."""
    return "other shape" if error is None else f"{error:.1e}" if error else "0"


def _largest(errors: Sequence[float | None]) -> float | None:
    known = [error for error in errors if error is not None]
    return max(known) if len(known) == len(errors) else None
