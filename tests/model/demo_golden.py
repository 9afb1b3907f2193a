"""The demo model as tests go through it: questions about pictures, and the reference's answers to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pocketvlm.engine import Model
from pocketvlm.messages import parse_messages
from pocketvlm.processor import ImageSize, Processor, plan_tiles
from pocketvlm.result import GenerationResult

from ..conftest import DEMO_CHECKPOINT
from .golden_files import GOLDEN, Prompt, cut_tiles, read_golden, sha256_of_tiles

NAME = "demo-f32"


@dataclass(frozen=True)
class Case:
    """A question about pictures, and what the reference makes of it."""

    example: int  # its number among the held-out ones
    question: str
    truth: str | None  # None: the example has no such question
    images: list[Path]
    split: bool
    prompt_ids: list[int]
    token_ids: list[int]  # the stop token included
    answer: str
    tiles_sha256: str
    logits: npt.NDArray[np.float32]  # [steps, vocab]

    def ask(self, model: Model, *, logprobs: int | None = None) -> GenerationResult:
        """Puts the question to a model, as a person would."""
        split = None if self.split else False
        return model.generate(self.question, images=self.images, split_images=split, logprobs=logprobs)

    def prompt(self) -> Prompt:
        """The question as the core takes it. Asserts that token ids and tiles are the reference's."""
        processor = Processor(DEMO_CHECKPOINT)
        pictures = [np.array(Image.open(path)) for path in self.images]
        sizes = [ImageSize(*picture.shape[:2]) for picture in pictures]
        plans = [plan_tiles(size, processor.config, split=self.split) for size in sizes]
        assert processor.encode(parse_messages(self.question, self.images), plans) == self.prompt_ids
        tiles = cut_tiles(pictures, processor.config, split=self.split)
        assert sha256_of_tiles(tiles) == self.tiles_sha256
        return Prompt(np.array(self.prompt_ids, np.int32), tiles, processor.image_token_id)


def names() -> list[str]:
    """The cases' names."""
    return list(read_golden(NAME).facts["cases"])


def case_of(name: str) -> Case:
    """The case of a name. Asserts that the checkpoint is the one that the golden was made from."""
    golden = read_golden(NAME)
    golden.check_source(DEMO_CHECKPOINT)
    facts = golden.facts["cases"][name]
    return Case(
        example=facts["example"],
        question=facts["question"],
        truth=facts["truth"],
        images=[GOLDEN / "demo-pictures" / image for image in facts["images"]],
        split=facts["do_image_splitting"],
        prompt_ids=facts["prompt_ids"],
        token_ids=facts["token_ids"],
        answer=facts["answer"],
        tiles_sha256=facts["tiles_sha256"],
        logits=golden.arrays[name],
    )
