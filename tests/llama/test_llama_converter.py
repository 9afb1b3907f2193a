"""Pairs made by llama.cpp's own converter and quantised by its own tool, loaded with nothing beside them.

`make test-full` gets the converter, and a Python for it: POCKETVLM_CONVERTER, POCKETVLM_CONVERTER_PYTHON.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import pocketvlm
from pocketvlm import _core
from pocketvlm.demo_model.scenes import held_out
from pocketvlm.export.gguf_export import export_gguf
from pocketvlm.export.llama_mixtures import quantize_text_file
from pocketvlm.export.synthetic import write_synthetic
from pocketvlm.gguf_files import find_model_files

from ..conftest import DEMO_CHECKPOINT

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("llama_packages")]

QUESTIONS = 300


def make_pair(checkpoint: Path, folder: Path, *, type: str) -> None:
    """Runs the converter for the text model and for the projector."""
    converter, python = (os.environ.get(f"POCKETVLM_CONVERTER{end}") for end in ("", "_PYTHON"))
    if not (converter and python):
        pytest.skip("POCKETVLM_CONVERTER names no llama.cpp, or POCKETVLM_CONVERTER_PYTHON no Python for it")
    folder.mkdir()
    script = Path(__file__).parent / "run_converter.py"
    for name, options in (("text.gguf", []), ("mmproj.gguf", ["--mmproj"])):
        command = [python, script, converter, checkpoint, *options, "--outtype", type]
        result = subprocess.run(
            [*command, "--outfile", folder / name], check=False, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr


def right_answers(folder: Path) -> list[bool]:
    model = pocketvlm.load(folder, threads=2)
    return [
        model.generate(scene.question, images=list(scene.images), max_new_tokens=96).text.strip()
        == scene.answer
        for scene in held_out(QUESTIONS)
    ]


@pytest.fixture(scope="module")
def demo_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converter") / "demo"
    make_pair(DEMO_CHECKPOINT, folder, type="f16")
    return folder


@pytest.mark.parametrize(("mixture", "ours"), [("q8_0", "q8_0"), ("q4_k_m", "q4_0")])
def test_answers_the_demo_questions_as_well_as_our_export(
    demo_pair: Path, tmp_path: Path, mixture: str, ours: str
) -> None:
    folder = tmp_path / "pair"
    folder.mkdir()
    quantize_text_file(demo_pair / "text.gguf", folder / "text.gguf", mixture)
    shutil.copy(demo_pair / "mmproj.gguf", folder)
    export_gguf(DEMO_CHECKPOINT, tmp_path / "ours", type=ours)
    theirs, of_ours = (100 * np.mean(right_answers(path)) for path in (folder, tmp_path / "ours"))
    print(f"\n{mixture} by llama.cpp: {theirs:.1f} % of {QUESTIONS} right; {ours} by us: {of_ours:.1f} %")
    assert of_ours > 90
    assert theirs >= of_ours - 1  # three answers, which rounding may turn either way


def test_a_pair_in_the_true_shape_is_what_our_export_makes(tmp_path: Path) -> None:
    """With the real tokenizer, whose name the converter knows: sizes, prompts and weights are the same."""
    checkpoint = write_synthetic("256m", tmp_path / "checkpoint")
    make_pair(checkpoint, tmp_path / "theirs", type="bf16")
    export_gguf(checkpoint, tmp_path / "ours", type="bf16")
    theirs, ours = (find_model_files(tmp_path / name) for name in ("theirs", "ours"))
    for their, our in ((theirs.text, ours.text), (theirs.projector, ours.projector)):
        found, expected = _core.GgufFile(their), _core.GgufFile(our)
        assert set(found.tensors) == set(expected.tensors)
        for name, (type, ne, _) in expected.tensors.items():
            their_type, their_ne, _ = found.tensors[name]
            assert their_ne == ne
            values = _core.dequantize(their_type, found.tensor_data(name))
            np.testing.assert_array_equal(values, _core.dequantize(type, expected.tensor_data(name)))
    scene = next(iter(held_out(1)))
    answers = []
    for folder in (tmp_path / "theirs", tmp_path / "ours"):
        model = pocketvlm.load(folder, threads=2)
        trace = model.trace(scene.question, images=list(scene.images))
        answers.append((trace.token_ids, trace.logits))
    (their_ids, their_logits), (our_ids, our_logits) = answers
    assert their_ids == our_ids
    np.testing.assert_array_equal(their_logits, our_logits)
