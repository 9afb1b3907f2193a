"""Compares what the engine traces with the stages that a golden holds; knows nothing of models or rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import tolerance
from .golden_files import Golden


def relative_tolerances(golden: Golden, generation: str) -> dict[str, float]:
    """The derived tolerances for a generation's prompt and tokens."""
    facts = golden.facts["generations"][generation]
    positions = len(facts["prompt_ids"]) + len(facts["token_ids"])
    return tolerance.relative_tolerances(golden.facts["sizes"], positions)


def excess_of(golden: Golden, generation: str, stage: str, rows: npt.NDArray[np.float32]) -> float:
    """The largest deviation of a stage in units of its tolerance.

    Args:
        golden: The golden.
        generation: One of its generations, whose stage it holds.
        stage: "vision.connector", "logits", ...
        rows: The whole stage, [rows, channels]; the golden's rows are picked from it.
    """
    key = f"{generation}/{stage}"
    relative = relative_tolerances(golden, generation)[stage]
    return tolerance.excess(rows[golden.arrays[f"{key}/rows"]], golden.arrays[key], relative)


def check_stages(golden: Golden, generation: str, traced: dict[str, npt.NDArray[np.float32]]) -> None:
    """Asserts that every stage of a trace is within tolerance, and that the trace leaves none out.

    Args:
        golden: The golden. generation: The one whose every stage it holds. traced: Stage -> float32 [rows,
        channels], of the vision tower ("vision.*") or of the decoder (the others).
    """
    keys = [key.split("/") for key in golden.arrays]
    held = {parts[1] for parts in keys if parts[0] == generation}
    is_vision = next(iter(traced)).startswith("vision.")
    assert set(traced) == {stage for stage in held if stage.startswith("vision.") == is_vision}
    excess = {stage: excess_of(golden, generation, stage, rows) for stage, rows in traced.items()}
    assert {stage: value for stage, value in excess.items() if value > 1} == {}, "in units of the tolerance"
