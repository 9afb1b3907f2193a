"""What types of weights and rows of kernels cost in right answers: one question set, asked in every way.

The questions are about drawn pictures (`pocketvlm.demo_model.scenes`), each with one right answer. Beside
counting those, each way is held against the reference, f32 on the best row, over the reference's own tokens.
What to ask comes from `verify`, tables are made in `quality_report`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..config import ModelConfig
from ..demo_model.scenes import held_out
from ..gguf_files import find_model_files
from ..messages import parse_messages
from ..processor import ImageSize, Processor, plan_tiles
from ..tiles import TileLayout, cut_tiles
from .agreement import agreement, pool_agreements, step_logits
from .convert import convert
from .outlier_twin import write_outlier_twin

# The longest right answers, five shapes and a sign or six shapes, take far fewer.
MAX_NEW_TOKENS = 96


@dataclass(frozen=True)
class Subject:
    """One way to run the checkpoint."""

    type: str  # of the weights; "q4_0/q8_0": of the text model and of the vision tower with the connector
    isa: str
    outliers: float = 1  # the factor of the outlier twin; 1: the checkpoint itself

    def __str__(self) -> str:
        twin = "" if self.outliers == 1 else f", outliers x{self.outliers:g}"
        return f"{self.type} on {self.isa}{twin}"


@dataclass(frozen=True)
class Question:
    """A question as a model takes it."""

    kind: str
    answer: str  # the right one
    token_ids: list[int]
    patches: NDArray[np.uint16]  # of all tiles, bfloat16 [T, patches, 3 * patch_size^2]


@dataclass(frozen=True)
class Reference:
    """What the reference answered to one question."""

    token_ids: list[int]  # the stop token included
    logits: NDArray[np.float32]  # [steps, vocab], from which they were taken


@dataclass(frozen=True)
class Outcome:
    """How one subject did.

    `top1`, `kl_mean`, `kl_max` are those of `agreement.Agreement`, over the steps of all answers.
    """

    subject: Subject
    answers: list[str]  # to the first of the questions, as many as were asked
    right: list[bool]
    top1: float
    kl_mean: float
    kl_max: float


def prepare_questions(checkpoint: Path, count: int, pool: _core.ThreadPool) -> Iterator[Question]:
    """Yields the first `count` held-out questions, for the tokenizer and the processor of `checkpoint`."""
    processor = Processor(checkpoint)
    config = processor.config
    layout = TileLayout("patches_bf16", ModelConfig.from_folder(checkpoint).vision.patch_size)
    for example in held_out(count):
        pictures = [np.array(image) for image in example.images]
        sizes = [ImageSize(*picture.shape[:2]) for picture in pictures]
        plans = [plan_tiles(size, config, split=config.do_image_splitting) for size in sizes]
        patches = cut_tiles(pictures, plans, config, layout=layout, pool=pool)
        # Only the places of the pictures count here; their bytes are not looked at.
        messages = parse_messages(example.question, [b""] * len(pictures))
        token_ids = processor.encode(messages, plans)
        yield Question(example.kind, example.answer, token_ids, patches)


class Answers(Protocol):
    """Whatever answers questions greedily: `Examinee` has what the methods return."""

    def encode(self, question: Question) -> NDArray[np.float32]: ...

    def answer(self, question: Question, features: NDArray[np.float32]) -> list[int]: ...

    def logits(
        self, question: Question, features: NDArray[np.float32], token_ids: Sequence[int]
    ) -> NDArray[np.float32]: ...

    def text(self, token_ids: Iterable[int]) -> str: ...


class Exports:
    """The models of a checkpoint and its twins, exported when they are first asked for."""

    def __init__(self, checkpoint: Path, work: Path) -> None:
        """Takes the checkpoint, and a folder to work in that the caller removes."""
        self._checkpoint = checkpoint
        self._work = work

    def model(self, type: str, outliers: float) -> Path:
        """Returns the folder of the model. Errors as `convert` and `write_outlier_twin`."""
        folder = self._work / f"{outliers:g}-{type.replace('/', '-')}"
        if not folder.exists():
            text_type, _, vision_type = type.partition("/")
            source = self._twin(outliers)
            convert(source, folder, type=text_type, vision_type=vision_type or None)
        return folder

    def _twin(self, outliers: float) -> Path:
        if outliers == 1:
            return self._checkpoint
        folder = self._work / f"{outliers:g}"
        if not folder.exists():
            write_outlier_twin(self._checkpoint, folder, factor=outliers)
        return folder


class Examinee:
    """A loaded model that answers questions greedily."""

    def __init__(self, folder: Path, isa: str, pool: _core.ThreadPool) -> None:
        """Loads the exported model in `folder`. Errors as `pocketvlm.load`."""
        files = find_model_files(folder)
        self._model = _core.Model(str(files.text), str(files.projector), pool=pool, isa=isa)
        self._image_token_id = ModelConfig.from_folder(folder).image_token_id
        self._processor = Processor(folder)

    def encode(self, question: Question) -> NDArray[np.float32]:
        """Returns the features of the pictures, float32 [image tokens, hidden_size]."""
        return self._model.encode_images(question.patches).reshape(-1, self._model.hidden_size)

    def answer(self, question: Question, features: NDArray[np.float32]) -> list[int]:
        """Returns the tokens of the answer, the stop token included."""
        result = self._model.generate(
            self._model.new_cache(),
            np.array(question.token_ids, np.int32),
            features,
            image_token_id=self._image_token_id,
            max_new_tokens=MAX_NEW_TOKENS,
            stop_token_ids=self._processor.stop_token_ids,
            ignore_eos=False,
            on_token=None,
        )
        return result.token_ids

    def logits(
        self, question: Question, features: NDArray[np.float32], token_ids: Sequence[int]
    ) -> NDArray[np.float32]:
        """Returns the logits for each of `token_ids` when these are forced, float32 [steps, vocab]."""
        return step_logits(
            self._model,
            question.token_ids,
            features,
            self._image_token_id,
            steps=len(token_ids),
            forced=token_ids,
        )

    def text(self, token_ids: Iterable[int]) -> str:
        """Returns the text of an answer, without space around it; special tokens give none."""
        return answer_text(self._processor, token_ids)


def answer_text(processor: Processor, token_ids: Iterable[int]) -> str:
    """Returns the text of an answer, without space around it; special tokens give none."""
    decode = processor.tokenizer.decode_bytes
    return b"".join(map(decode, token_ids)).decode(errors="replace").strip()


def ask_reference(
    examinee: Examinee, questions: Sequence[Question], advance: Callable[[], object]
) -> list[Reference]:
    """Lets the reference answer; `advance` is called after each question."""
    references = []
    for question in questions:
        features = examinee.encode(question)
        token_ids = examinee.answer(question, features)
        references.append(Reference(token_ids, examinee.logits(question, features, token_ids)))
        advance()
    return references


def ask(
    examinee: Answers,
    subject: Subject,
    questions: Sequence[Question],
    references: Sequence[Reference],
    advance: Callable[[], object],
) -> Outcome:
    """Lets a subject answer as many of the questions as given; `advance` is called after each."""
    answers, agreements = [], []
    for question, reference in zip(questions, references, strict=False):
        features = examinee.encode(question)
        logits = examinee.logits(question, features, reference.token_ids)
        agreements.append((agreement(reference.logits, logits), len(logits)))
        # A greedy answer is the reference's as long as the likeliest tokens are: then it need not be run.
        same = logits.argmax(axis=1).tolist() == reference.token_ids
        token_ids = reference.token_ids if same else examinee.answer(question, features)
        answers.append(examinee.text(token_ids))
        advance()
    pooled = pool_agreements(agreements)
    return Outcome(
        subject,
        answers,
        right=[answer == question.answer for answer, question in zip(answers, questions, strict=True)],
        top1=pooled.top1,
        kl_mean=pooled.kl_mean,
        kl_max=pooled.kl_max,
    )
