"""One turn of a subject: a process from its start to its end, and all that is measured of it meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pocketvlm.config import ModelConfig

from .energy import EnergyMeter
from .process_memory import MemorySampler
from .subject_process import Span, SubjectProcess, stage_metrics

CONTEXT_TOKENS = 16  # decoded at each context length
_WARM_UP_TOKENS = 2
_TEMPLATE_TOKENS = 16  # what a subject may put around a text


@dataclass(frozen=True)
class Question:
    """What every subject is asked, in the same words about the same files, one after the other."""

    images: tuple[Path, ...]
    text: str
    new_tokens: int


@dataclass(frozen=True)
class Turn:
    """What a turn gave.

    Attributes:
        metrics: Those of `run_report.METRICS` that can be had here, for one image: means, if there are more.
        tiles: Of all images.
        prompt_tokens: Of all images, image tokens included.
        spans: start (of the interpreter, with imports), load, warm-up, then stages of the measured answers.
        memory: (seconds, resident bytes) meanwhile, on the clock of the spans.
        decode_by_context: (tokens in the context, tokens per second), if it was asked for.
    """

    metrics: dict[str, float]
    versions: dict[str, str]
    tiles: int
    prompt_tokens: int
    spans: list[Span]
    memory: list[tuple[float, int]]
    decode_by_context: list[tuple[int, float]]


def text_of(tokens: int) -> str:
    """Returns a text of about so many tokens: with the tokenizers of SmolVLM a word that is one of them."""
    return " and" * tokens


def fitting_contexts(contexts: Sequence[int], config: ModelConfig, new_tokens: int) -> list[int]:
    """Returns those context lengths that a model has room for, and says on stderr which it leaves out."""
    room = config.text.max_position_embeddings - new_tokens - _TEMPLATE_TOKENS
    for context in contexts:
        if context > room:
            print(
                f"a context of {context} is left out: the model holds {room} and an answer", file=sys.stderr
            )
    return [context for context in contexts if context <= room]


def run_turn(
    process: SubjectProcess,
    model: dict[str, str],
    question: Question,
    *,
    threads: int,
    contexts: Sequence[int] = (),
) -> Turn:
    """Loads, warms up with the same questions and few tokens, then measures an answer about each image.

    Args:
        process: A subject that has loaded nothing.
        model: What its `load` takes.
        question: To be answered about each image.
        threads: To compute with.
        contexts: At which context lengths to measure decoding too, roughly; after what is measured else.

    Raises:
        BackendError: The subject's process ended, or answered with another number of tokens.
    """
    images = question.images
    energy = EnergyMeter()
    with MemorySampler(process.pid) as sampler:
        load, versions = process.load(model, threads)
        warm_ups = [process.describe(image, question.text, _WARM_UP_TOKENS) for image in images]
        with energy:
            answers = [process.describe(image, question.text, question.new_tokens) for image in images]
    metrics = {
        "load_s": load.seconds,
        **stage_metrics(answers),
        "peak_memory_bytes": sampler.peak,
        "peak_memory_high_water_bytes": sampler.high_water,
    }
    if energy.joules is not None:
        metrics["energy_j"] = energy.joules / len(images)
    continued = [process.continue_text(text_of(context), CONTEXT_TOKENS) for context in contexts]
    stages = [span for answer in answers for span in (*answer.spans, answer.decode)]
    return Turn(
        metrics=metrics,
        versions=versions,
        tiles=sum(answer.tiles for answer in answers),
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        spans=[
            Span("start", sampler.samples[0][0], load.start),
            load,
            Span("warm-up", warm_ups[0].started, warm_ups[-1].token_times[-1]),
            *sorted(stages, key=lambda span: span.start),
        ],
        memory=sampler.samples,
        decode_by_context=[(answer.prompt_tokens, answer.decode_tokens_per_s) for answer in continued],
    )
