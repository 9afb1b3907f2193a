"""The export through Optimum, where that is installed: it brings torch, which the other tests do without.

pip install '.[export]' pytest && pytest tests/export/test_optimum_export.py
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from pocketvlm.errors import InputError, UnsupportedError
from pocketvlm.export.onnx.export import export_onnx
from pocketvlm.export.synthetic import write_synthetic

from ...model.tiny_models import NAMES

HAS_OPTIMUM = importlib.util.find_spec("optimum") is not None


@pytest.mark.skipif(not HAS_OPTIMUM, reason="optimum-onnx is not installed")
@pytest.mark.parametrize("size", NAMES)
def test_traced_graphs_are_the_checkpoint(size: str, tmp_path: Path) -> None:
    """The command itself holds them against the engine; tiny-500m has its rope_theta where 4.57 looks not."""
    checkpoint = write_synthetic(size, tmp_path / "checkpoint")
    export_onnx(checkpoint, tmp_path / "out", via="optimum")
    report = json.loads((tmp_path / "out" / "export_report.json").read_text())
    assert set(report["versions"]) >= {"optimum-onnx", "torch", "transformers"}
    assert report["types"]["fp32"]["decoder_agreement"]["top1"] == 1
    names = {path.name for path in (tmp_path / "out" / "onnx").iterdir()}
    graphs = {f"{graph}.onnx" for graph in ("vision_encoder", "embed_tokens", "decoder_model_merged")}
    assert names == graphs | {f"{name}_data" for name in graphs}


@pytest.mark.skipif(HAS_OPTIMUM, reason="optimum-onnx is installed")
def test_without_optimum(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"is not installed, .*pip install 'pocketvlm\[export\]'"):
        export_onnx(checkpoint, tmp_path / "out", via="optimum")
    assert not list(tmp_path.iterdir())


def test_other_ways_and_types(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="via is 'magic', expected one of direct, optimum"):
        export_onnx(checkpoint, tmp_path / "out", via="magic")
    with pytest.raises(InputError, match="types is fp32, q4; by optimum there is fp32 alone"):
        export_onnx(checkpoint, tmp_path / "out", types=["fp32", "q4"], via="optimum")
    assert not list(tmp_path.iterdir())
