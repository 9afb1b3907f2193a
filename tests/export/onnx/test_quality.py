"""Questions asked of ONNX graphs: the same pixels, and figures that say how they were answered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pocketvlm.export.onnx.export import export_onnx
from pocketvlm.export.onnx.quality import pixel_values

from ...conftest import DEMO_CHECKPOINT
from ...patches import patches_bf16


@pytest.mark.parametrize(("side", "patch_size"), [(64, 8), (90, 14)])
def test_pixels_of_patches(side: int, patch_size: int) -> None:
    tiles = np.random.default_rng(4).integers(0, 256, (3, 3, side, side), np.uint8)
    expected = tiles.astype(np.float32) / np.float32(127.5) - 1
    used = side // patch_size * patch_size
    found = pixel_values(patches_bf16(tiles, patch_size), patch_size, side=side)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[..., :used, :used], expected[..., :used, :used], atol=1e-6)
    assert not found[..., used:, :].any()
    assert not found[..., used:].any()


def test_the_demo_model_answers_as_in_the_engine(tmp_path: Path) -> None:
    """At fp32 every token is the engine's, at the others nearly all; most answers are right."""
    export_onnx(DEMO_CHECKPOINT, tmp_path / "out", types=["fp32", "q4"], questions=12, threads=2)
    report = json.loads((tmp_path / "out" / "export_report.json").read_text())
    exact, coarse = (report["types"][name]["quality"] for name in ("fp32", "q4"))
    assert exact["questions"] == 12
    assert exact["right"] == exact["reference_right"] >= 9
    assert exact["top1"] == 1
    assert exact["kl_max"] < 1e-6
    assert coarse["right"] >= 8
    assert 0.9 < coarse["top1"] <= 1
    assert exact["kl_mean"] < coarse["kl_mean"] < 0.1


def test_no_questions_no_figures(checkpoint: Path, tmp_path: Path) -> None:
    export_onnx(checkpoint, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "export_report.json").read_text())
    assert "quality" not in report["types"]["fp32"]
