"""The exported f32 pair in llama.cpp: it loads, tokenizes alike, and picks the same tokens from the same
embeddings."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvlm import _core
from pocketvlm.chat_template import STOP_MARKERS
from pocketvlm.tokenizer import Tokenizer

from ..golden import cases
from ..model.golden_files import open_engine, read_golden

GENERATIONS = ["text", "unsplit", "split", "two images"]
TEXTS = [
    item["text"]
    for messages, _, _ in [*cases.PROMPTS.values(), *cases.TYPED_MARKERS.values()]
    for message in messages
    for item in message["content"]
    if item["type"] == "text"
]

HOW_TO_PREPARE = """POCKETVLM_LLAMA_PYTHON is not set: the python of an environment with llama-cpp-python
0.3.36. `make test` prepares one and sets it. By hand (llama.cpp is compiled, which takes about four minutes):
    python3 -m venv build/llama/venv
    build/llama/venv/bin/pip install llama-cpp-python==0.3.36
    export POCKETVLM_LLAMA_PYTHON=build/llama/venv/bin/python"""


def llama_python() -> str:
    python = os.environ.get("POCKETVLM_LLAMA_PYTHON")
    if not python:
        pytest.fail(HOW_TO_PREPARE)
    return python


@pytest.fixture(scope="module")
def answer(tiny_checkpoint: Path, tiny_f32: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What llama.cpp makes of the pair, fed the engine's own embeddings of each golden prompt."""
    python = llama_python()
    golden = read_golden("tiny-f32")
    engine = open_engine(tiny_f32, _core.isas()[0])
    prompts = {}
    for generation in GENERATIONS:
        prompt = golden.prompt(generation, tiny_checkpoint)
        traced = engine.trace_text(prompt.token_ids, prompt.features(engine), prompt.image_token_id)
        prompts[f"prompt/{generation}"] = traced["embed"]
    folder = tmp_path_factory.mktemp("llama")
    np.savez(folder / "request.npz", texts=json.dumps(TEXTS), max_new_tokens=64, **prompts)
    (projector,) = tiny_f32.glob("mmproj-*.gguf")
    (text,) = set(tiny_f32.glob("*.gguf")) - {projector}
    script = Path(__file__).parent / "llama_greedy.py"
    paths = [script, text, projector, folder / "request.npz", folder / "answer.json"]
    run = subprocess.run([python, *map(str, paths)], capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr[-4000:]
    found: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return found


def test_projector_sees(answer: dict[str, Any]) -> None:
    assert answer["supports_vision"]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_same_tokens(answer: dict[str, Any], generation: str) -> None:
    expected = read_golden("tiny-f32").facts["generations"][generation]["token_ids"]
    assert answer["generated"][generation] == expected


def test_same_vocabulary(answer: dict[str, Any], tiny_checkpoint: Path) -> None:
    """As many tokens; the markers, and no others, are control tokens; both stop markers end a generation."""
    content = json.loads((tiny_checkpoint / "tokenizer.json").read_text())
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    assert answer["vocab_size"] == config["text_config"]["vocab_size"]
    assert answer["control"] == sorted(token["id"] for token in content["added_tokens"] if token["special"])
    tokenizer = Tokenizer(tiny_checkpoint / "tokenizer.json")
    assert {tokenizer.token_to_id(marker) for marker in STOP_MARKERS} <= set(answer["end_of_generation"])


@pytest.mark.parametrize("i", range(len(TEXTS)))
def test_same_tokenization(answer: dict[str, Any], tiny_checkpoint: Path, i: int) -> None:
    assert answer["token_ids"][i] == Tokenizer(tiny_checkpoint / "tokenizer.json").encode(TEXTS[i]), repr(
        TEXTS[i]
    )
