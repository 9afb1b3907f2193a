"""What cannot be exported to ONNX gives an error that says why, and leaves nothing behind."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pocketvlm.errors import Error, FormatError, InputError, UnsupportedError
from pocketvlm.export.onnx import decoder, requirements
from pocketvlm.export.onnx.export import export_onnx
from pocketvlm.export.onnx.graph_builder import GraphBuilder

from ..tensor_files import Stored, read_tensors, write_tensors

Floats = npt.NDArray[np.float32]


@pytest.mark.parametrize("types", [["fp32", "q5"], []])
def test_unknown_types(checkpoint: Path, tmp_path: Path, types: list[str]) -> None:
    with pytest.raises(InputError, match=r"expected (one|some) of fp32, fp16"):
        export_onnx(checkpoint, tmp_path / "out", types=types)
    assert not list(tmp_path.iterdir())


def test_a_missing_tensor(own_checkpoint: Path, tmp_path: Path) -> None:
    tensors = read_tensors(own_checkpoint / "model.safetensors")
    del tensors["model.vision_model.post_layernorm.weight"]
    write_tensors(own_checkpoint / "model.safetensors", tensors)
    with pytest.raises(FormatError, match=r"post_layernorm\.weight is missing"):
        export_onnx(own_checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_class(own_checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((own_checkpoint / "config.json").read_text())
    config["architectures"] = ["LlavaForConditionalGeneration"]
    (own_checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match=r"architectures is \['LlavaForCond.*'\]; supported"):
        export_onnx(own_checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_weight_too_large_for_float16(own_checkpoint: Path, tmp_path: Path) -> None:
    tensors = read_tensors(own_checkpoint / "model.safetensors")
    name = "model.text_model.layers.1.mlp.down_proj.weight"
    old = tensors[name]
    # 2 to the 16 as bfloat16
    tensors[name] = Stored(old.dtype, old.shape, (0x4780).to_bytes(2, "little") + old.raw[2:])
    write_tensors(own_checkpoint / "model.safetensors", tensors)
    with pytest.raises(UnsupportedError, match=r"down_proj\.weight: holds 65536, float16 reaches 65504"):
        export_onnx(own_checkpoint, tmp_path / "out", types=["fp16"])
    assert not (tmp_path / "out").exists()


def test_a_full_disk(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(GraphBuilder, "weight", fail)
    with pytest.raises(Error, match="the disk is full, nothing was written"):
        export_onnx(checkpoint, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_wrong_graph_is_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graphs are held against the checkpoint before they appear."""
    tables = decoder.rotary_tables

    def swapped(config: Any) -> tuple[Floats, Floats]:
        cos, sin = tables(config)
        return sin, cos

    monkeypatch.setattr(decoder, "rotary_tables", swapped)
    with pytest.raises(Error, match=r"decoder_model_merged\.onnx: its output is .* of its RMS away"):
        export_onnx(checkpoint, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_earlier_export_is_replaced(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_onnx(checkpoint, out, types=["fp32", "q4"])
    with pytest.raises(InputError, match="--force"):
        export_onnx(checkpoint, out)
    export_onnx(checkpoint, out, force=True)
    assert not (out / "onnx" / "decoder_model_merged_q4.onnx").exists()
    (out / "onnx" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt: was not written by this command"):
        export_onnx(checkpoint, out, force=True)
    assert (out / "onnx" / "notes.txt").read_text() == "mine"


def test_progress(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    export_onnx(checkpoint, tmp_path / "out", on_progress=lambda *step: seen.append(step))
    assert [done for _, done, _ in seen] == list(range(len(seen)))
    assert seen[0] == ("vision_encoder.onnx", 0, len(seen))
    assert seen[-1][0] == "checking fp32"


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (((99,), (100,)), r"onnx \S+ is installed, .* at least 99 and less than 100: pip install"),
        (((0,), (0, 1)), r"onnx \S+ is installed, .* less than 0\.1"),
    ],
)
def test_other_versions(bounds: requirements.Range, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        requirements.require_packages({"onnx": bounds})


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(UnsupportedError, match=r"no-such-package is not installed, .*: pip install 'x'"):
        requirements.require_packages({"no-such-package": ((1,), (2,))}, install="pip install 'x'")
