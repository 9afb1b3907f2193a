"""Plausible faults of an implementation, put into the reference itself, to see how far they move its results.

A golden test is worth what it notices: each fault's effect is recorded in units of the tolerance at which the
tests fail.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..model import tolerance
from . import cases, reference

NEW_TOKENS = 64
Inputs = dict[str, torch.Tensor]
# A fault changes the model in place, or the inputs, and returns the inputs of the first forward pass.
Fault = Callable[[Any, Inputs], dict[str, torch.Tensor]]


def _swap_tiles(_model: Any, inputs: Inputs) -> Inputs:
    order = [1, 0, *range(2, inputs["pixel_values"].shape[1])]
    return {**inputs, "pixel_values": inputs["pixel_values"][:, order]}


def _shift_vision_positions(model: Any, inputs: Inputs) -> Inputs:
    """Per axis [0, 0, 1, ..., n-2], as transformers 4.55 to 4.57 compute it."""
    embedding = model.model.vision_model.embeddings.position_embedding.weight
    side = model.model.vision_model.embeddings.num_patches_per_side
    axis = torch.arange(side).sub(1).clamp(min=0)
    embedding.data = embedding.data[(axis[:, None] * side + axis[None, :]).reshape(-1)]
    return inputs


def _shift_text_position(_model: Any, inputs: Inputs) -> Inputs:
    """What follows the first position of the prompt counts one too many."""
    positions = torch.arange(inputs["input_ids"].shape[1])[None]
    positions[0, 1:] += 1
    return {**inputs, "position_ids": positions}


def _transpose_pixel_shuffle(model: Any, inputs: Inputs) -> Inputs:
    """Within a token, the block's columns before its rows."""
    connector = model.model.connector
    s = connector.scale_factor
    weight = connector.modality_projection.proj.weight
    weight.data = weight.data.view(len(weight), s, s, -1).transpose(1, 2).reshape(weight.shape)
    return inputs


def _vision_eps(model: Any, inputs: Inputs, eps: float = 1e-5) -> Inputs:
    for module in model.model.vision_model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = eps
    return inputs


def _text_eps(model: Any, inputs: Inputs, eps: float = 1e-6) -> Inputs:
    for module in model.model.text_model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = eps
    return inputs


def _erf_gelu(model: Any, inputs: Inputs) -> Inputs:
    for layer in model.model.vision_model.encoder.layers:
        layer.mlp.activation_fn = torch.nn.GELU()
    return inputs


def _rope_theta(model: Any, inputs: Inputs) -> Inputs:
    rotary = model.model.text_model.rotary_emb
    dim = 2 * len(rotary.inv_freq)
    rotary.inv_freq = 10000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    return inputs


def _tied_head(model: Any, inputs: Inputs) -> Inputs:
    model.lm_head.weight = model.model.text_model.embed_tokens.weight
    return inputs


# name -> (fault, the generation it is seen on)
FAULTS: dict[str, tuple[Fault, str]] = {
    "two tiles swapped": (_swap_tiles, "split"),
    "vision positions shifted": (_shift_vision_positions, "unsplit"),
    "text position shifted": (_shift_text_position, "unsplit"),
    "pixel shuffle transposed": (_transpose_pixel_shuffle, "unsplit"),
    "vision eps 1e-5 for 1e-6": (_vision_eps, "unsplit"),
    "text eps 1e-6 for 1e-5": (_text_eps, "unsplit"),
    "vision eps of config.json ignored": (partial(_vision_eps, eps=1e-6), "loud eps"),
    "text eps of config.json ignored": (partial(_text_eps, eps=1e-5), "loud eps"),
    "erf GELU for tanh": (_erf_gelu, "unsplit"),
    "rope_theta 10000": (_rope_theta, "unsplit"),
    "tied head": (_tied_head, "unsplit"),
}


def measure(folder: Path, generations: dict[str, cases.Case]) -> dict[str, Any]:
    """Runs each fault that is seen on one of these generations.

    Returns:
        Fault -> {"generation"; "in_tolerances": {stage: largest deviation} of the stages it moves at all;
        "first_other_token": the step at which the greedy tokens part from the right ones, None if they never
        do}.
    """
    processor = reference.load_processor(folder)
    results: dict[str, Any] = {}
    right: dict[str, tuple[Inputs, dict[str, Any], reference.Greedy]] = {}
    for name, (messages, images, split) in generations.items():
        with reference.edited(folder, cases.CONFIG_EDITS.get(name, {})) as source:
            model = reference.load_model(source)
        inputs = reference.processor_inputs(processor, messages, [reference.draw(i) for i in images], split)
        with reference.recorded_stages(model) as stages:
            run = reference.greedy(model, inputs, NEW_TOKENS)
        right[name] = (inputs, {**stages, "logits": run.prompt_logits}, run)
    for fault_name, (fault, name) in FAULTS.items():
        if name not in generations:
            continue
        inputs, stages, run = right[name]
        with reference.edited(folder, cases.CONFIG_EDITS.get(name, {})) as source:
            model = reference.load_model(source)
        relative = tolerance.relative_tolerances(
            reference.sizes(folder), inputs["input_ids"].shape[1] + NEW_TOKENS
        )
        inputs = fault(model, inputs)
        with reference.recorded_stages(model) as wrong_stages:
            wrong = reference.greedy(model, inputs, NEW_TOKENS)
        wrong_stages["logits"] = wrong.prompt_logits
        excess = {
            stage: float(f"{tolerance.excess(wrong_stages[stage], stages[stage], relative[stage]):.3g}")
            for stage in stages
        }
        pairs = enumerate(zip(run.token_ids, wrong.token_ids, strict=True))
        results[fault_name] = {
            "generation": name,
            "in_tolerances": {stage: value for stage, value in excess.items() if value > 0},
            "first_other_token": next((i for i, (a, b) in pairs if a != b), None),
        }
    return results
