"""The tiny models stage by stage, on every ISA row: each stage within its derived tolerance of
transformers."""

from __future__ import annotations

import pytest

from .golden_files import open_engine
from .stages import check_stages, excess_of
from .tiny_models import TinyModel, generations

STAGES_OF = "unsplit"  # the generation whose every stage a golden holds


def test_vision_stages(isa: str, tiny: TinyModel) -> None:
    engine = open_engine(tiny.f32, isa)
    traced = engine.trace_vision(tiny.prompt(STAGES_OF).patches(engine)[:1])
    check_stages(tiny.golden, STAGES_OF, {f"vision.{stage}": rows for stage, rows in traced.items()})


def test_text_stages(isa: str, tiny: TinyModel) -> None:
    prompt = tiny.prompt(STAGES_OF)
    engine = open_engine(tiny.f32, isa)
    traced = engine.trace_text(prompt.token_ids, prompt.features(engine), prompt.image_token_id)
    logits = {"logits": traced.pop("logits")}
    check_stages(tiny.golden, STAGES_OF, {f"text.{stage}": rows for stage, rows in traced.items()} | logits)


@pytest.mark.parametrize(("tiny", "generation"), generations(but_not=["text"]), indirect=["tiny"])
def test_image_features(isa: str, tiny: TinyModel, generation: str) -> None:
    """All tiles at once, through the call that generation uses."""
    features = tiny.prompt(generation).features(open_engine(tiny.f32, isa))
    assert excess_of(tiny.golden, generation, "vision.connector", features) <= 1


@pytest.mark.parametrize(("tiny", "generation"), generations(), indirect=["tiny"])
def test_prompt_logits(isa: str, tiny: TinyModel, generation: str) -> None:
    prompt = tiny.prompt(generation)
    engine = open_engine(tiny.f32, isa)
    logits = engine.prefill(
        engine.new_cache(), prompt.token_ids, prompt.features(engine), prompt.image_token_id
    )
    assert excess_of(tiny.golden, generation, "logits", logits[None]) <= 1
