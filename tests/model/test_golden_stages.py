"""The tiny model stage by stage, on every ISA row: each stage within its derived tolerance of
transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from . import tolerance
from .golden_files import Golden, open_engine, read_golden

GENERATION = "unsplit"  # the one whose stages the golden holds


def relative_tolerances(golden: Golden, generation: str) -> dict[str, float]:
    facts = golden.facts["generations"][generation]
    positions = len(facts["prompt_ids"]) + len(facts["token_ids"])
    return tolerance.relative_tolerances(golden.facts["sizes"], positions)


def check_stages(golden: Golden, generation: str, traced: dict[str, npt.NDArray[np.float32]]) -> None:
    """Compares each traced stage that the golden holds, and asserts that there is none it holds and the trace
    lacks.

    Args:
        golden: The golden.
        generation: Its generation.
        traced: Stage name as in the golden -> float32 [rows, channels].
    """
    relative = relative_tolerances(golden, generation)
    prefix = f"{generation}/"
    held = {
        key.removeprefix(prefix) for key in golden.arrays if key.startswith(prefix) and key[-5:] != "/rows"
    }
    parts = {stage.split(".")[0] for stage in traced}
    assert set(traced) == {stage for stage in held if stage.split(".")[0] in parts}
    excess = {}
    for stage, rows in traced.items():
        kept = golden.arrays[f"{prefix}{stage}/rows"]
        excess[stage] = tolerance.excess(rows[kept], golden.arrays[prefix + stage], relative[stage])
    assert {stage: value for stage, value in excess.items() if value > 1} == {}, "in units of the tolerance"


def test_vision_stages(isa: str, tiny_checkpoint: Path, tiny_f32: Path) -> None:
    golden = read_golden("tiny-f32")
    prompt = golden.prompt(GENERATION, tiny_checkpoint)
    traced = open_engine(tiny_f32, isa).trace_vision(prompt.tiles[0])
    check_stages(golden, GENERATION, {f"vision.{stage}": rows for stage, rows in traced.items()})


def test_text_stages(isa: str, tiny_checkpoint: Path, tiny_f32: Path) -> None:
    golden = read_golden("tiny-f32")
    prompt = golden.prompt(GENERATION, tiny_checkpoint)
    engine = open_engine(tiny_f32, isa)
    traced = engine.trace_text(prompt.token_ids, prompt.features(engine), prompt.image_token_id)
    stages = {stage if stage == "logits" else f"text.{stage}": rows for stage, rows in traced.items()}
    check_stages(golden, GENERATION, {stage: np.atleast_2d(rows) for stage, rows in stages.items()})


@pytest.mark.parametrize("generation", ["unsplit", "split", "two images"])
def test_image_features(isa: str, tiny_checkpoint: Path, tiny_f32: Path, generation: str) -> None:
    """All tiles at once, through the call that generation uses."""
    golden = read_golden("tiny-f32")
    features = golden.prompt(generation, tiny_checkpoint).features(open_engine(tiny_f32, isa))
    kept = golden.arrays[f"{generation}/vision.connector/rows"]
    expected = golden.arrays[f"{generation}/vision.connector"]
    relative = relative_tolerances(golden, generation)["vision.connector"]
    assert tolerance.excess(features[kept], expected, relative) <= 1


@pytest.mark.parametrize("generation", ["text", "unsplit", "split", "two images"])
def test_prompt_logits(isa: str, tiny_checkpoint: Path, tiny_f32: Path, generation: str) -> None:
    golden = read_golden("tiny-f32")
    prompt = golden.prompt(generation, tiny_checkpoint)
    engine = open_engine(tiny_f32, isa)
    logits = engine.prefill(
        engine.new_cache(), prompt.token_ids, prompt.features(engine), prompt.image_token_id
    )
    relative = relative_tolerances(golden, generation)["logits"]
    assert tolerance.excess(logits[None], golden.arrays[f"{generation}/logits"], relative) <= 1
