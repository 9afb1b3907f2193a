"""Exports in llama.cpp: the f32 pair loads and picks the same tokens; pairs of the other types load and give
logits as close as the two ways to round activations allow; the vocabulary tokenizes alike. The demo model
answers the same, as it is shipped too."""

from __future__ import annotations

import json
import math
import os
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pocketvlm import _core
from pocketvlm.config import ModelConfig
from pocketvlm.demo_model import MODEL_FOLDER
from pocketvlm.export.gguf_export import export_gguf
from pocketvlm.export.gguf_file import encode_header
from pocketvlm.export.gguf_metadata import Provenance, text_metadata
from pocketvlm.export.quantize import TYPES
from pocketvlm.export.synthetic import write_synthetic
from pocketvlm.export.vocabulary import vocabulary_metadata
from pocketvlm.processor import Processor
from pocketvlm.tokenizer import Tokenizer

from ..conftest import DEMO_CHECKPOINT
from ..golden import cases
from ..model import demo_golden
from ..model.golden_files import Prompt, open_engine, pair_of, read_golden

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


def tiny_prompts(checkpoint: Path) -> dict[str, Prompt]:
    """The prompts of the tiny model's golden."""
    golden = read_golden("tiny-f32")
    return {generation: golden.prompt(generation, checkpoint) for generation in GENERATIONS}


def generate(
    model: Path, prompts: dict[str, Prompt], scratch: Path, *, max_new_tokens: int
) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.float32]]]:
    """What llama.cpp makes of a pair, fed the engine's own embeddings of each prompt; and the engine's logits
    [vocab_size] behind each."""
    engine = open_engine(model, _core.isas()[0])
    embeddings, logits = {}, {}
    for name, prompt in prompts.items():
        traced = engine.trace_text(prompt.token_ids, prompt.features(engine), prompt.image_token_id)
        embeddings[f"prompt/{name}"] = traced["embed"]
        logits[name] = traced["logits"][-1]
    np.savez(scratch / "request.npz", max_new_tokens=max_new_tokens, **embeddings)
    files = (*pair_of(model), scratch / "request.npz", scratch / "answer.json")
    return ask_llama("llama_greedy.py", *files), logits


@pytest.fixture(scope="module")
def generated(
    tiny_checkpoint: Path, tiny_f32: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What llama.cpp generates from the f32 pair."""
    scratch = tmp_path_factory.mktemp("llama")
    return generate(tiny_f32, tiny_prompts(tiny_checkpoint), scratch, max_new_tokens=64)[0]


def test_projector_loads(generated: dict[str, Any]) -> None:
    assert generated["supports_vision"]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_same_tokens(generated: dict[str, Any], generation: str) -> None:
    expected = read_golden("tiny-f32").facts["generations"][generation]["token_ids"]
    assert generated["generated"][generation] == expected


# What the two round differently, relative to the RMS of a row: llama.cpp the activations, to the type of the
# weights or, beside blocks, to Q8_0; so does the engine beside blocks, else not. A block's largest magnitude
# is at most sqrt(32) times its RMS. llama.cpp's cache is float32 here.
BLOCK_ERROR = math.sqrt(32) / 127 / math.sqrt(12)
ACTIVATION_ERRORS = {
    "f16": 2**-11 / math.sqrt(3),
    "bf16": 2**-8 / math.sqrt(3),
    "q8_0": math.sqrt(2) * BLOCK_ERROR,
    "q4_0": math.sqrt(2) * BLOCK_ERROR,
}
CACHE_ERROR = 2**-11 / math.sqrt(3)


@pytest.mark.parametrize("type", ACTIVATION_ERRORS)
def test_other_types_load_and_give_close_logits(tiny_checkpoint: Path, tmp_path: Path, type: str) -> None:
    """Errors of the 6 products per layer and of the head add in quadrature, as test_types.py has it."""
    export_gguf(tiny_checkpoint, tmp_path / "model", type=type)
    answer, ours = generate(tmp_path / "model", tiny_prompts(tiny_checkpoint), tmp_path, max_new_tokens=1)
    assert answer["supports_vision"]
    layers = ModelConfig.from_folder(tiny_checkpoint).text.num_hidden_layers
    bound = math.sqrt((6 * layers + 1) * ACTIVATION_ERRORS[type] ** 2 + 2 * layers * CACHE_ERROR**2)
    for generation in GENERATIONS:
        theirs = np.array(answer["logits"][generation])
        error = float(np.sqrt(np.mean((ours[generation] - theirs) ** 2) / np.mean(theirs**2)))
        print(f"{type}, {generation}: error {error:.2e}, bound {bound:.2e}")
        assert error <= bound


@pytest.mark.parametrize("type", ["f32", "q8_0"])
def test_answers_of_the_demo_model(demo_f32: Path, tmp_path: Path, type: str) -> None:
    """A trained model is as sure in llama.cpp, whose tokens after the stop token are of no interest."""
    asked = {name: demo_golden.case_of(name) for name in demo_golden.names()}
    prompts = {name: case.prompt() for name, case in asked.items()}
    longest = max(len(case.token_ids) for case in asked.values())
    model = {"f32": demo_f32, "q8_0": MODEL_FOLDER}[type]
    generated = generate(model, prompts, tmp_path, max_new_tokens=longest)[0]["generated"]
    assert {name: token_ids[: len(asked[name].token_ids)] for name, token_ids in generated.items()} == {
        name: case.token_ids for name, case in asked.items()
    }


def test_the_vocabulary_of_granite_docling(tmp_path: Path) -> None:
    """Its pre-tokenizer is another one."""
    checkpoint = write_synthetic("tiny-granite-docling", tmp_path / "checkpoint")
    pair = export_gguf(checkpoint, tmp_path / "model", type="q8_0")
    check_vocabulary(pair.text, checkpoint, tmp_path)


def check_vocabulary(text_file: Path, checkpoint: Path, scratch: Path) -> None:
    """As many tokens; the special ones, and no others, are control; stop markers stop; texts tokenize
    alike."""
    (scratch / "texts.json").write_text(json.dumps(TEXTS))
    answer = ask_llama("llama_vocabulary.py", text_file, scratch / "texts.json", scratch / "answer.json")
    added = json.loads((checkpoint / "tokenizer.json").read_text())["added_tokens"]
    tokenizer = Tokenizer(checkpoint / "tokenizer.json")
    vocab_size = ModelConfig.from_folder(checkpoint).text.vocab_size
    assert answer["vocab_size"] == vocab_size
    special = sorted(token["id"] for token in added if token["special"])
    assert answer["control"] == [id for id in special if id < vocab_size]
    assert set(Processor(checkpoint).stop_token_ids) <= set(answer["end_of_generation"])
    pairs = zip(TEXTS, answer["token_ids"], strict=True)
    assert [text for text, token_ids in pairs if token_ids != tokenizer.encode(text)] == []


def test_tiny_vocabulary(tiny_checkpoint: Path, tiny_f32: Path, tmp_path: Path) -> None:
    check_vocabulary(pair_of(tiny_f32)[0], tiny_checkpoint, tmp_path)


def test_demo_vocabulary(tmp_path: Path) -> None:
    check_vocabulary(pair_of(MODEL_FOLDER)[0], DEMO_CHECKPOINT, tmp_path)


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
