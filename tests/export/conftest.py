"""A tiny checkpoint, which each test that changes it copies first, and the tiny models as ONNX graphs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pocketvlm.export.onnx_export import export_onnx
from pocketvlm.export.onnx_types import TYPES
from pocketvlm.export.synthetic import write_synthetic

from ..model.golden_files import read_golden
from ..model.tiny_models import NAMES
from .onnx_exports import Exported


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as `pocketvlm export synthetic` writes it. Read only."""
    return write_synthetic("tiny", tmp_path_factory.mktemp("export") / "tiny")


@pytest.fixture
def own_checkpoint(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that the test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


@pytest.fixture(scope="session", params=NAMES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Each tiny model in turn. Read only."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = write_synthetic(request.param, folder / "checkpoint")
    export_onnx(checkpoint, folder / "onnx", types=list(TYPES), threads=2)
    return Exported(checkpoint, folder / "onnx", read_golden(f"{request.param}-f32"))
