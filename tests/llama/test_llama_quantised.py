"""Files as llama.cpp quantises them, with nothing beside them: as right as what they were made of."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pocketvlm
from pocketvlm import _core
from pocketvlm.demo_model.scenes import held_out
from pocketvlm.errors import BackendError, InputError
from pocketvlm.export.convert import convert
from pocketvlm.export.gguf_export import export_gguf
from pocketvlm.export.llama_mixtures import MIXTURES, quantize_text_file
from pocketvlm.gguf_files import find_model_files

from ..conftest import DEMO_CHECKPOINT

pytestmark = pytest.mark.usefixtures("llama_packages")

QUESTIONS = 42

# The mixtures -> the types of matrices that each must hold.
TYPES_OF = {
    "q4_1": {"q4_1"},
    "q5_0": {"q5_0"},
    "q5_1": {"q5_1"},
    "iq4_nl": {"iq4_nl"},
    "q4_k_s": {"q4_k"},
    "q4_k_m": {"q4_k", "q6_k"},
    "q5_k_s": {"q5_k"},
    "q5_k_m": {"q5_k", "q6_k"},
    "q6_k": {"q6_k"},
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


@pytest.fixture(params=MIXTURES)
def bare_pair(request: pytest.FixtureRequest, demo_f16: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A quantised text file and a projector, alone in a folder."""
    pair = find_model_files(demo_f16)
    text, _ = convert(demo_f16, tmp_path / "converted", type=request.param)
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copy(text, folder)
    shutil.copy(pair.projector, folder)
    yield request.param, folder


def test_answers_are_as_right_as_without_quantisation(
    bare_pair: tuple[str, Path], answers: list[str]
) -> None:
    mixture, folder = bare_pair
    types = {type for type, _, _ in _core.GgufFile(find_model_files(folder).text).tensors.values()}
    assert TYPES_OF[mixture] <= types
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


def test_keys_stay_and_hashes_are_of_the_data(demo_f16: Path, tmp_path: Path) -> None:
    """Embedding and head in the type that was asked for."""
    text, projector = convert(demo_f16, tmp_path / "out", type="q4_k_m", embedding_type="f16")
    assert text.name.endswith("-Q4_K_M.gguf")
    assert projector.name.endswith("-Q8_0.gguf")
    before, after = _core.GgufFile(find_model_files(demo_f16).text), _core.GgufFile(text)
    changed = {"general.file_type", "general.quantization_version", "pocketvlm.tensor_hashes"}
    assert {key for key, value in before.metadata.items() if after.metadata[key] != value} <= changed
    assert after.metadata.keys() - before.metadata.keys() <= changed
    assert after.tensors["token_embd.weight"][0] == "f16"
    stated = dict(line.rsplit("=", 1) for line in after.metadata["pocketvlm.tensor_hashes"])
    assert stated == {
        name: hashlib.sha256(after.tensor_data(name).data).hexdigest() for name in after.tensors
    }


def test_a_checkpoint_becomes_a_mixture(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Exported in float32 on the way, of which nothing is left."""
    files = convert(tiny_checkpoint, tmp_path / "out", type="q4_1", vision_type="f16")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.suffix for path in files] == [".gguf", ".gguf"]
    model = pocketvlm.load(tmp_path / "out")
    assert (model.info()["text_type"], model.info()["vision_type"]) == ("q4_1", "f16")
    with pytest.raises(InputError, match="is not empty; --force replaces it"):
        convert(tiny_checkpoint, tmp_path / "out", type="q4_1")


def test_what_llama_cpp_refuses_is_said(
    demo_f16: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of the folder."""
    source = tmp_path / "in"
    shutil.copytree(demo_f16, source)
    with pytest.raises(BackendError, match=r"as q6_k: llama\.cpp failed"):
        quantize_text_file(source / "nothing.gguf", tmp_path / "text.gguf", "q6_k")
    monkeypatch.setattr(
        "pocketvlm.export.convert.quantize_text_file",
        lambda source, target, *rest: quantize_text_file(source.with_name("nothing.gguf"), target, *rest),
    )
    with pytest.raises(BackendError):
        convert(source, tmp_path / "out", type="q6_k")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
