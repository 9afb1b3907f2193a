"""The tiny models as ONNX graphs."""

from __future__ import annotations

import pytest

from pocketvlm.export.onnx.export import export_onnx
from pocketvlm.export.onnx.types import TYPES
from pocketvlm.export.synthetic import write_synthetic

from ...model.golden_files import read_golden
from ...model.tiny_models import NAMES
from .exports import Exported


@pytest.fixture(scope="session", params=NAMES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Each tiny model in turn. Read only."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = write_synthetic(request.param, folder / "checkpoint")
    export_onnx(checkpoint, folder / "onnx", types=list(TYPES), threads=2)
    return Exported(checkpoint, folder / "onnx", read_golden(f"{request.param}-f32"))
