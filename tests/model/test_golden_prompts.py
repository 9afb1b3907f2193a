"""Prompts: the token ids are those of transformers' processor, with the real tokenizer, the tiny one, the one
that has no tokens for the rows and the global tile, and granite-docling's."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from pocketvlm.messages import parse_messages
from pocketvlm.processor import ImageSize, Processor, plan_tiles

from .golden_files import read_golden
from .tiny_models import TinyModel


def cases(golden: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in read_golden(golden).facts["cases"]]


@pytest.fixture(scope="module")
def processor_256m() -> Processor:
    folder = Path(str(files("pocketvlm.export"))) / "data" / "smolvlm-256m-instruct"
    read_golden("prompts-256m").check_source(folder)
    return Processor(folder)


@pytest.fixture(scope="module")
def processor_tiny(tiny_checkpoint: Path) -> Processor:
    read_golden("prompts-tiny").check_source(tiny_checkpoint)
    return Processor(tiny_checkpoint)


@pytest.fixture(scope="module")
def processor_tiny_2_2b(make_tiny_model: Callable[[str], TinyModel]) -> Processor:
    checkpoint = make_tiny_model("tiny-2.2b").checkpoint
    read_golden("prompts-tiny-2.2b").check_source(checkpoint)
    return Processor(checkpoint)


@pytest.fixture(scope="module")
def processor_granite(make_tiny_model: Callable[[str], TinyModel]) -> Processor:
    checkpoint = make_tiny_model("tiny-granite-docling").checkpoint
    read_golden("prompts-tiny-granite-docling").check_source(checkpoint)
    return Processor(checkpoint)


def encode(processor: Processor, case: dict[str, Any]) -> list[int]:
    sizes = [ImageSize(image["height"], image["width"]) for image in case["images"]]
    plans = [plan_tiles(size, processor.config, split=case["do_image_splitting"]) for size in sizes]
    placeholders = [b""] * len(sizes)  # nobody opens them: only their number and sizes matter here
    return processor.encode(parse_messages(case["messages"], placeholders), plans)


@pytest.mark.parametrize("case", cases("prompts-256m"))
def test_real_tokenizer(processor_256m: Processor, case: dict[str, Any]) -> None:
    assert encode(processor_256m, case) == case["expected_ids"]


@pytest.mark.parametrize("case", cases("prompts-tiny"))
def test_tiny_tokenizer(processor_tiny: Processor, case: dict[str, Any]) -> None:
    assert encode(processor_tiny, case) == case["expected_ids"]


@pytest.mark.parametrize("case", cases("prompts-tiny-2.2b"))
def test_tiny_tokenizer_without_tile_markers(processor_tiny_2_2b: Processor, case: dict[str, Any]) -> None:
    assert encode(processor_tiny_2_2b, case) == case["expected_ids"]


@pytest.mark.parametrize("case", cases("prompts-tiny-granite-docling"))
def test_granite_docling(processor_granite: Processor, case: dict[str, Any]) -> None:
    assert encode(processor_granite, case) == case["expected_ids"]


def test_plain_string_content_is_one_text(processor_256m: Processor) -> None:
    """The template of the checkpoint drops such a message without a word; here it counts."""
    facts = {case["name"]: case for case in read_golden("prompts-256m").facts["cases"]}
    case = {**facts["text only"], "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    assert encode(processor_256m, case) == case["expected_ids"]
