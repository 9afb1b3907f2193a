"""Exports in llama.cpp: the f32 pair loads and picks the same tokens; the vocabulary tokenizes alike."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvlm import _core
from pocketvlm.chat_template import STOP_MARKERS
from pocketvlm.config import ModelConfig
from pocketvlm.export.gguf_file import encode_header
from pocketvlm.export.gguf_metadata import Provenance, text_metadata
from pocketvlm.export.quantize import TYPES
from pocketvlm.export.vocabulary import vocabulary_metadata
from pocketvlm.tokenizer import Tokenizer

from ..golden import cases
from ..model.golden_files import open_engine, pair_of, read_golden

GENERATIONS = ["text", "unsplit", "split", "two images"]
TEXTS = sorted(
    {
        item["text"]
        for messages, _, _ in [*cases.PROMPTS.values(), *cases.TYPED_MARKERS.values()]
        for message in messages
        for item in message["content"]
        if item["type"] == "text"
    }
)

HOW_TO_PREPARE = """POCKETVLM_LLAMA_PYTHON names no python with llama-cpp-python 0.3.36 installed.
`make test` prepares one and sets it. By hand, compiling llama.cpp for about four minutes:
    python3 -m venv build/llama/venv
    build/llama/venv/bin/pip install llama-cpp-python==0.3.36
    export POCKETVLM_LLAMA_PYTHON=build/llama/venv/bin/python"""


def ask_llama(script: str, *arguments: Path) -> dict[str, Any]:
    """Runs a script of this folder in llama.cpp's environment and reads its answer, the last of the
    arguments."""
    python = os.environ.get("POCKETVLM_LLAMA_PYTHON")
    if not python:
        pytest.fail(HOW_TO_PREPARE)
    command = [python, str(Path(__file__).parent / script), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr[-4000:]
    answer: dict[str, Any] = json.loads(arguments[-1].read_text())
    return answer


@pytest.fixture(scope="module")
def generated(
    tiny_checkpoint: Path, tiny_f32: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What llama.cpp generates, fed the engine's own embeddings of each golden prompt."""
    golden = read_golden("tiny-f32")
    engine = open_engine(tiny_f32, _core.isas()[0])
    prompts = {}
    for generation in GENERATIONS:
        prompt = golden.prompt(generation, tiny_checkpoint)
        traced = engine.trace_text(prompt.token_ids, prompt.features(engine), prompt.image_token_id)
        prompts[f"prompt/{generation}"] = traced["embed"]
    folder = tmp_path_factory.mktemp("llama")
    np.savez(folder / "request.npz", max_new_tokens=64, **prompts)
    return ask_llama("llama_greedy.py", *pair_of(tiny_f32), folder / "request.npz", folder / "answer.json")


def test_projector_loads(generated: dict[str, Any]) -> None:
    assert generated["supports_vision"]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_same_tokens(generated: dict[str, Any], generation: str) -> None:
    expected = read_golden("tiny-f32").facts["generations"][generation]["token_ids"]
    assert generated["generated"][generation] == expected


def check_vocabulary(text_file: Path, checkpoint: Path, scratch: Path) -> None:
    """As many tokens; the special ones, and no others, are control; stop markers stop; texts tokenize
    alike."""
    (scratch / "texts.json").write_text(json.dumps(TEXTS))
    answer = ask_llama("llama_vocabulary.py", text_file, scratch / "texts.json", scratch / "answer.json")
    added = json.loads((checkpoint / "tokenizer.json").read_text())["added_tokens"]
    tokenizer = Tokenizer(checkpoint / "tokenizer.json")
    assert answer["vocab_size"] == ModelConfig.from_folder(checkpoint).text.vocab_size
    assert answer["control"] == sorted(token["id"] for token in added if token["special"])
    assert {tokenizer.token_to_id(marker) for marker in STOP_MARKERS} <= set(answer["end_of_generation"])
    pairs = zip(TEXTS, answer["token_ids"], strict=True)
    assert [text for text, token_ids in pairs if token_ids != tokenizer.encode(text)] == []


def test_tiny_vocabulary(tiny_checkpoint: Path, tiny_f32: Path, tmp_path: Path) -> None:
    check_vocabulary(pair_of(tiny_f32)[0], tiny_checkpoint, tmp_path)


def test_real_vocabulary(tmp_path: Path) -> None:
    """The header that an export of the 256M model gets: llama.cpp needs no tensors for the vocabulary
    alone."""
    checkpoint = Path(str(files("pocketvlm.export"))) / "data" / "smolvlm-256m-instruct"
    config = ModelConfig.from_folder(checkpoint)
    metadata = text_metadata(
        config,
        vocabulary_metadata(checkpoint, config),
        type=TYPES["f32"],
        num_parameters=0,
        provenance=Provenance("vocabulary", "", "0" * 64),
        tensor_hashes=[],
    )
    (tmp_path / "text.gguf").write_bytes(encode_header(metadata, []))
    check_vocabulary(tmp_path / "text.gguf", checkpoint, tmp_path)
