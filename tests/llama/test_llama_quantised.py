"""Files as llama.cpp's own tools quantise them, with nothing beside them: loaded, and as right as our own."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pocketvlm
from pocketvlm import _core
from pocketvlm.demo_model.scenes import held_out
from pocketvlm.export.gguf_export import export_gguf
from pocketvlm.gguf_files import find_model_files

from ..conftest import DEMO_CHECKPOINT

pytestmark = pytest.mark.usefixtures("llama_packages")

QUESTIONS = 42

# What llama.cpp calls a mixture -> the types of its matrices that it must hold.
MIXTURES = {
    "Q4_K_M": {"q4_k", "q6_k"},
    "Q5_K_M": {"q5_k", "q6_k"},
    "Q6_K": {"q6_k"},
    "Q8_0": {"q8_0"},
    "Q4_1": {"q4_1"},
    "Q5_0": {"q5_0"},
    "Q5_1": {"q5_1"},
    "IQ4_NL": {"iq4_nl"},
}


@pytest.fixture(scope="module")
def demo_f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "f16"
    export_gguf(DEMO_CHECKPOINT, folder, type="f16")
    return folder


@pytest.fixture(scope="module")
def answers(demo_f16: Path) -> list[str]:
    """What the unquantised pair answers."""
    return ask(pocketvlm.load(demo_f16, threads=2))


def ask(model: pocketvlm.Model) -> list[str]:
    return [
        model.generate(scene.question, images=list(scene.images), max_new_tokens=96).text.strip()
        for scene in held_out(QUESTIONS)
    ]


def share_of_right(answers: list[str]) -> float:
    scenes = list(held_out(QUESTIONS))
    return float(np.mean([a == scene.answer for a, scene in zip(answers, scenes, strict=True)]))


def quantise(source: Path, target: Path, mixture: str) -> None:
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{mixture}")
    parameters.nthread = 1
    status = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(parameters)
    )
    assert status == 0


@pytest.fixture(params=MIXTURES)
def bare_pair(request: pytest.FixtureRequest, demo_f16: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A quantised text file and a projector, alone in a folder."""
    pair = find_model_files(demo_f16)
    quantise(pair.text, tmp_path / "text.gguf", request.param)
    shutil.copy(pair.projector, tmp_path / "projector.gguf")
    yield request.param, tmp_path


def test_answers_are_as_right_as_without_quantisation(
    bare_pair: tuple[str, Path], answers: list[str]
) -> None:
    mixture, folder = bare_pair
    types = {type for type, _, _ in _core.GgufFile(folder / "text.gguf").tensors.values()}
    assert MIXTURES[mixture] <= types
    found = ask(pocketvlm.load(folder, threads=2))
    # Of 42 answers, which a bit of a weight more or less can turn, some turn either way.
    assert share_of_right(found) >= share_of_right(answers) - 0.05
    assert np.mean([a == b for a, b in zip(found, answers, strict=True)]) >= 0.9


def test_llama_cpp_reads_the_same_weights(bare_pair: tuple[str, Path]) -> None:
    """Its logits behind a prompt are ours, but for how either rounds activations."""
    _, folder = bare_pair
    scene = next(iter(held_out(1)))
    ours, theirs = (
        pocketvlm.load(folder, threads=1, backend=backend).trace(scene.question, images=list(scene.images))
        for backend in ("native", "llama_cpp")
    )
    difference = np.linalg.norm(ours.logits - theirs.logits) / np.linalg.norm(theirs.logits)
    assert difference < 0.1
