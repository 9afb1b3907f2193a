"""What every test may use: the tiny synthetic checkpoint and the demo model's, their exports, the 256M shape,
and a photo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

DEMO_CHECKPOINT = Path(__file__).parents[1] / "examples" / "demo_model" / "checkpoint"


def export(*arguments: str | Path) -> None:
    """Runs `pocketvlm export` as a person would."""
    subprocess.run([sys.executable, "-P", "-m", "pocketvlm", "export", *map(str, arguments)], check=True)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Hugging Face folder of the tiny model: every quirk of the architecture in about 1 MB."""
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    export("synthetic", "tiny", folder)
    return folder


@pytest.fixture(scope="session")
def tiny_f32(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model exported at f32: a folder for `pocketvlm.load`."""
    folder = tmp_path_factory.mktemp("tiny-f32") / "model"
    export("gguf", tiny_checkpoint, folder, "--type", "f32")
    return folder


@pytest.fixture(scope="session")
def tiny_q8_0(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model exported at q8_0: a folder for `pocketvlm.load`."""
    folder = tmp_path_factory.mktemp("tiny-q8_0") / "model"
    export("gguf", tiny_checkpoint, folder, "--type", "q8_0")
    return folder


@pytest.fixture(scope="session")
def demo_f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model, which was trained, exported at f32: a folder for `pocketvlm.load`."""
    folder = tmp_path_factory.mktemp("demo-f32") / "model"
    export("gguf", DEMO_CHECKPOINT, folder, "--type", "f32")
    return folder


@pytest.fixture(scope="session")
def model_256m_q8_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic weights in the true shape of the 256M, exported at q8_0: a folder for `pocketvlm.load`."""
    folder = tmp_path_factory.mktemp("256m-q8_0")
    export("synthetic", "256m", folder / "checkpoint")
    export("gguf", folder / "checkpoint", folder / "model", "--type", "q8_0")
    shutil.rmtree(folder / "checkpoint")
    return folder / "model"


@pytest.fixture(scope="session")
def photo() -> Path:
    """The example picture of the repository, 1536x1152."""
    return Path(__file__).parents[1] / "examples" / "photo.jpg"


@pytest.fixture(scope="session")
def llama_packages() -> None:
    """Makes llama_cpp importable: installed beside pocketvlm, or in the virtual environment of
    POCKETVLM_LLAMA_PYTHON, which `make test` prepares. Skips where it is in neither."""
    if find_spec("llama_cpp"):
        return
    python = os.environ.get("POCKETVLM_LLAMA_PYTHON")
    if not python:
        pytest.skip("no llama-cpp-python here: POCKETVLM_LLAMA_PYTHON names no python that has it")
    where = "import sys, sysconfig; print(*sys.version_info[:2]); print(sysconfig.get_path('platlib'))"
    found = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True)
    version, folder = found.stdout.splitlines()
    assert version == "{} {}".format(*sys.version_info[:2])
    sys.path.append(folder)  # the last: what both have is taken from here
