"""What the demo model is: its sizes, its tokenizer, and the files of its checkpoint but for the weights."""

from __future__ import annotations

import json
import random

from pocketvlm.export.model_parts import added_ids, complete_files, model_config, num_tokens
from pocketvlm.export.tokenizer_training import train_tokenizer

from . import scenes

TILE = 128
GRID = 2  # every picture is cut into 2 x 2 tiles; the global one comes on top
TILES = GRID * GRID + 1
PATCH = 16
PATCHES = TILE // PATCH  # along a side of a tile

_NOTICE = """\
The JSON files in this folder are modified copies from the model repository

    HuggingFaceTB/SmolVLM-256M-Instruct, https://huggingface.co/HuggingFaceTB/SmolVLM-256M-Instruct

by Hugging Face, licensed under the Apache License, Version 2.0 (http://www.apache.org/licenses/LICENSE-2.0):
sizes and vocabulary are those of pocketvlm's demo model. Its weights and its vocabulary are own work of
pocketvlm, under the same licence.
"""
_VOCAB_SIZE = 512
_CORPUS_SCENES = 2000


def checkpoint_files() -> dict[str, bytes]:
    """Returns file name -> content of everything but model.safetensors."""
    tokenizer = json.loads(train_tokenizer(_corpus(), _VOCAB_SIZE).to_str())
    config = model_config(
        image_token_id=added_ids(tokenizer)["<image>"],
        scale_factor=2,
        text={
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_theta": 10000.0,
            "vocab_size": num_tokens(tokenizer),
            "max_position_embeddings": 2048,
        },
        vision={
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 3,
            "image_size": TILE,
            "patch_size": PATCH,
        },
    )
    return complete_files(config, tokenizer, longest_edge=GRID * TILE) | {"NOTICE": _NOTICE.encode()}


def _corpus() -> list[str]:
    """Questions and answers as they come, but nothing from signs: those are to be spelled, not known."""
    paragraphs = []
    for seed in range(_CORPUS_SCENES):
        rng = random.Random(seed)
        scene = scenes.random_scene(rng, sign_probability=0.0)
        questions = [scenes.ask(scene, kind, rng) for kind in scenes.KINDS if kind != "change"]
        questions.append(scenes.random_change(rng, sign_probability=0.0)[2])
        paragraphs += [f"{question.text} {question.answer}" for question in questions]
    words = "What does the sign say? What does the price tag say? How much does it cost? middle"
    says = "The sign now says and a sign that says. The price tag now says and a price tag that says."
    return [*paragraphs, *[words, says] * _CORPUS_SCENES]
