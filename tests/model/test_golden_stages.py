"""The tiny model stage by stage, on every ISA row: each stage within its derived tolerance of
transformers."""

from __future__ import annotations

from pathlib import Path

import pytest

from .golden_files import open_engine, read_golden
from .stages import check_stages, excess_of

STAGES_OF = "unsplit"  # the generation whose every stage the golden holds


def test_vision_stages(isa: str, tiny_checkpoint: Path, tiny_f32: Path) -> None:
    golden = read_golden("tiny-f32")
    prompt = golden.prompt(STAGES_OF, tiny_checkpoint)
    traced = open_engine(tiny_f32, isa).trace_vision(prompt.tiles[0])
    check_stages(golden, STAGES_OF, {f"vision.{stage}": rows for stage, rows in traced.items()})


def test_text_stages(isa: str, tiny_checkpoint: Path, tiny_f32: Path) -> None:
    golden = read_golden("tiny-f32")
    prompt = golden.prompt(STAGES_OF, tiny_checkpoint)
    engine = open_engine(tiny_f32, isa)
    traced = engine.trace_text(prompt.token_ids, prompt.features(engine), prompt.image_token_id)
    logits = {"logits": traced.pop("logits")}
    check_stages(golden, STAGES_OF, {f"text.{stage}": rows for stage, rows in traced.items()} | logits)


@pytest.mark.parametrize("generation", ["unsplit", "split", "two images"])
def test_image_features(isa: str, tiny_checkpoint: Path, tiny_f32: Path, generation: str) -> None:
    """All tiles at once, through the call that generation uses."""
    golden = read_golden("tiny-f32")
    features = golden.prompt(generation, tiny_checkpoint).features(open_engine(tiny_f32, isa))
    assert excess_of(golden, generation, "vision.connector", features) <= 1


@pytest.mark.parametrize("generation", ["text", "unsplit", "split", "two images"])
def test_prompt_logits(isa: str, tiny_checkpoint: Path, tiny_f32: Path, generation: str) -> None:
    golden = read_golden("tiny-f32")
    prompt = golden.prompt(generation, tiny_checkpoint)
    engine = open_engine(tiny_f32, isa)
    logits = engine.prefill(
        engine.new_cache(), prompt.token_ids, prompt.features(engine), prompt.image_token_id
    )
    assert excess_of(golden, generation, "logits", logits[None]) <= 1
