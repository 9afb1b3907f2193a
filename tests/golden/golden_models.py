"""Goldens of the models: what each stage of the reference gives and which tokens it picks.

The numbers are float32, as the reference computes them. float64 runs beside it only to measure: its distance
is recorded as "observed", in units of the tolerance that tests/model/tolerance.py derives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..model import tolerance
from . import cases, faults, reference
from .images import sha256_of_array
from .store import Store

NEW_TOKENS = 64
MIN_DISTINCT_TOKENS = 16
MIN_MARGIN = 100  # of the logits' tolerance, so that no correct float32 evaluation can pick another token
STAGES_OF = "unsplit"  # the generation whose every stage is kept

Arrays = dict[str, npt.NDArray[Any]]


def make_tiny(store: Store, name: str, folder: Path) -> None:
    """Makes {name}-f32.npz (stages, logits) and {name}-f32.json (inputs, tokens, margins, faults).

    Args:
        store: Takes the goldens.
        name: One of cases.TINY_MODELS.
        folder: Its checkpoint.

    Raises RuntimeError when the model is not as lively, or as sure of its tokens, as the tests need it.
    """
    generations = cases.TINY_MODELS[name]
    golden, arrays, tolerances = _make(folder, generations, NEW_TOKENS, rows=12)
    _require_lively(name, golden)
    golden["faults"] = faults.measure(
        folder, {key: case for key, case in generations.items() if key in ("split", "unsplit", "loud eps")}
    )
    for fault in ("two tiles swapped", "vision positions shifted", "text position shifted"):
        if golden["faults"][fault]["first_other_token"] is None:
            raise RuntimeError(f"{name}, {fault}: the same {NEW_TOKENS} tokens")
    store.put_json(f"{name}-f32", golden)
    store.put_arrays(f"{name}-f32", arrays, tolerances)


def make_variant(store: Store, name: str, folder: Path) -> None:
    """Makes {name}-f32.json (inputs, tokens, margins) of one of cases.VARIANTS. Raises as make_tiny."""
    golden, _, _ = _make(folder, cases.VARIANTS[name], NEW_TOKENS, rows=1)
    _require_lively(name, golden)
    store.put_json(f"{name}-f32", golden)


def _require_lively(name: str, golden: dict[str, Any]) -> None:
    for generation, case in golden["generations"].items():
        if generation in cases.CONFIG_EDITS:
            continue
        distinct = len(set(case["token_ids"]))
        if distinct < MIN_DISTINCT_TOKENS:
            raise RuntimeError(
                f"{name}, {generation}: {distinct} distinct tokens, {MIN_DISTINCT_TOKENS} are needed"
            )
        if min(case["margins"]) < MIN_MARGIN:
            raise RuntimeError(
                f"{name}, {generation}: a margin of {min(case['margins'])} tolerances, "
                f"{MIN_MARGIN} are needed"
            )


def make_256m(store: Store, folder: Path) -> None:
    """Makes 256m-f32.npz and .json: one unsplit image at the true shape, logits and two rows of each
    stage."""
    golden, arrays, tolerances = _make(folder, cases.GENERATIONS_256M, 1, rows=3)
    store.put_json("256m-f32", golden)
    store.put_arrays("256m-f32", arrays, tolerances)


def _make(
    folder: Path, generations: dict[str, cases.Case], new_tokens: int, *, rows: int
) -> tuple[dict[str, Any], Arrays, Arrays]:
    """Runs the generations in float32 and float64.

    Returns:
        The JSON golden. The arrays: "{case}/logits" [vocab] of the prompt's last position;
        "{case}/vision.connector" and, for STAGES_OF, "{case}/{stage}" for all stages: `rows` rows [rows,
        channels] of all tiles or positions joined, with their numbers in "{case}/{stage}/rows". The
        tolerances of the arrays.
    """
    processor = reference.load_processor(folder)
    files = ("config.json", "tokenizer.json", *sorted(file.name for file in folder.glob("*.safetensors")))
    golden: dict[str, Any] = {
        "reference": reference.versions(),
        "sha256": {file: reference.sha256_of_file(folder / file) for file in files},
        "sizes": reference.sizes(folder),
        "generations": {},
    }
    arrays: Arrays = {}
    tolerances: Arrays = {}
    for name, (messages, images, split) in generations.items():
        edits = cases.CONFIG_EDITS.get(name, {})
        steps = 1 if edits else new_tokens
        with reference.edited(folder, edits) as source:
            model, model64 = reference.load_model(source), reference.load_model(source, torch.float64)
        inputs = reference.processor_inputs(processor, messages, [reference.draw(i) for i in images], split)
        with reference.recorded_stages(model) as stages:
            run = reference.greedy(model, inputs, steps)
        with reference.float64_throughout(), reference.recorded_stages(model64) as stages64:
            run64 = reference.greedy(model64, reference.to_float64(inputs), steps)
        if run.token_ids != run64.token_ids:
            raise RuntimeError(f"{name}: float32 and float64 pick different tokens")

        ids = inputs["input_ids"][0].tolist()
        relative = tolerance.relative_tolerances(golden["sizes"], len(ids) + steps)
        stages["logits"], stages64["logits"] = run.prompt_logits, run64.prompt_logits
        margins = run.margins / (
            relative["logits"] * np.sqrt(np.mean(run.logits.astype(np.float64) ** 2, axis=1))
        )
        tiles = reference.tiles_of(inputs["pixel_values"][0].numpy()) if images else None
        golden["generations"][name] = {
            "messages": messages,
            "images": images,
            "do_image_splitting": split,
            "config_edit": edits,
            "tiles": 0 if tiles is None else len(tiles),
            "tiles_sha256": None if tiles is None else sha256_of_array(tiles),
            "prompt_ids": ids,
            "token_ids": run.token_ids,
            "margins": [round(margin, 1) for margin in margins.tolist()],
            "observed": {
                stage: float(f"{tolerance.excess(value, stages64[stage], relative[stage]):.2g}")
                for stage, value in stages.items()
            },
        }
        for stage, value in stages.items():
            if name != STAGES_OF and stage not in ("vision.connector", "logits"):
                continue
            key, flat = f"{name}/{stage}", value.reshape(-1, value.shape[-1])
            kept = np.unique(np.linspace(0, len(flat) - 1, rows).round().astype(np.int32))
            arrays[key], arrays[f"{key}/rows"] = flat[kept], kept
            tolerances[key] = np.broadcast_to(relative[stage] * tolerance.scale(flat), flat[kept].shape)
    return golden, arrays, tolerances
