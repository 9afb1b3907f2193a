"""Equalization: outliers are gone, and the function of the model is what it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from pocketvlm import _core
from pocketvlm.config import ModelConfig
from pocketvlm.export.checkpoint import Checkpoint
from pocketvlm.export.equalization import OUTLIER_LOG2, Equalization, _factors
from pocketvlm.export.gguf_export import export_gguf
from pocketvlm.export.outlier_twin import write_outlier_twin
from pocketvlm.export.safetensors_file import encode_header
from pocketvlm.export.synthetic import write_synthetic
from pocketvlm.export.tensor_map import LM_HEAD, TensorSpec, all_tensors

from ..patches import random_patches


@pytest.fixture(scope="module", params=["tiny", "tiny-500m", "tiny-2.2b"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads that share in groups or do not, three sizes of pixel shuffle."""
    return write_synthetic(request.param, tmp_path_factory.mktemp(request.param) / "checkpoint")


def read_all(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The weights of a checkpoint."""
    with Checkpoint(folder) as source:
        return {spec.hf_name: source.read_rows(spec, 0, spec.shape[0]).values for spec in specs_of(source)}


def equalized(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The same, evened out."""
    with Checkpoint(folder) as source:
        equalization = Equalization(source, specs_of(source))
    return {name: equalization.apply(values, name, 0) for name, values in read_all(folder).items()}


def specs_of(source: Checkpoint) -> list[TensorSpec]:
    specs = all_tensors(source.config)
    return [spec for spec in specs if not (spec.hf_name == LM_HEAD and source.has_shared_head)]


def test_a_twin_comes_near_what_it_was_made_from(checkpoint: Path, tmp_path: Path) -> None:
    """Scales of 128 shrink to a rounding of the exponent and what is an outlier in the original."""
    twin = write_outlier_twin(checkpoint, tmp_path / "twin", factor=128)
    before, after = equalized(checkpoint), equalized(twin)
    for name, values in before.items():
        there = values != 0
        exponents = np.log2(after[name][there] / values[there])
        assert np.array_equal(exponents, np.round(exponents)), name
        assert np.abs(exponents).max() <= OUTLIER_LOG2, name


def test_what_comes_out_changes_by_no_bit(checkpoint: Path, tmp_path: Path) -> None:
    """Products with powers of two are exact: had a channel lost its partner, bits would differ."""
    twin = write_outlier_twin(checkpoint, tmp_path / "twin", factor=128)
    with Checkpoint(twin) as source:
        shapes = {spec.hf_name: spec.shape for spec in all_tensors(source.config)}
    weights, even = equalized(twin), tmp_path / "even"
    shutil.copytree(twin, even)
    with (even / "model.safetensors").open("wb") as file:
        file.write(encode_header((name, "F32", shapes[name]) for name in weights))
        file.writelines(values.tobytes() for values in weights.values())
    text = np.arange(8, dtype=np.int32)
    outputs = []
    for folder in (twin, even):
        pair = export_gguf(folder, tmp_path / f"{folder.name} f32", type="f32")
        model = _core.Model(str(pair.text), str(pair.projector), pool=_core.ThreadPool(1))
        features = model.encode_images(random_patches(model, 1)).reshape(-1, model.hidden_size)
        image_token_id = ModelConfig.from_folder(folder).image_token_id
        image = np.full(len(features), image_token_id, np.int32)
        outputs.append(model.trace_text(np.concatenate([text, image, text]), features, image_token_id))
    assert outputs[0].keys() == outputs[1].keys()
    assert all(np.array_equal(outputs[0][name], outputs[1][name]) for name in outputs[0])
    assert any(not np.array_equal(weights[name], values) for name, values in read_all(twin).items())


def test_rows_in_pieces_are_rows_at_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    twin = write_outlier_twin(tiny_checkpoint, tmp_path / "twin", factor=128)
    name = "model.text_model.layers.0.self_attn.v_proj.weight"
    with Checkpoint(twin) as source:
        equalization = Equalization(source, specs_of(source))
    rows = read_all(twin)[name]
    cut = len(rows) // 3
    pieces = [equalization.apply(rows[:cut], name, 0), equalization.apply(rows[cut:], name, cut)]
    assert np.array_equal(np.concatenate(pieces), equalization.apply(rows, name, 0))
    assert not np.array_equal(np.concatenate(pieces), rows)


def test_only_types_with_blocks_are_evened_out(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A norm is f32 in every file, so it shows what was done to it."""
    twin = write_outlier_twin(tiny_checkpoint, tmp_path / "twin", factor=128)
    name = "model.text_model.layers.0.input_layernorm.weight"
    largest = {}
    for type in ("f32", "bf16", "q8_0", "q4_0"):
        pair = export_gguf(twin, tmp_path / type, type=type)
        norm = next(t for t in gguf.GGUFReader(pair.text).tensors if t.name == "blk.0.attn_norm.weight")
        largest[type] = float(np.abs(norm.data).max())
    assert largest["f32"] == largest["bf16"] == np.abs(read_all(twin)[name]).max()
    assert largest["q8_0"] == largest["q4_0"] == np.abs(equalized(twin)[name]).max() < largest["f32"] / 16


def test_a_channel_that_nothing_makes_is_left_alone(tiny_checkpoint: Path) -> None:
    made, read = np.array([0, 1, 1, 64, 1], np.float32), np.array([1, 1, 0, 1, 1], np.float32)
    assert _factors(made, read).tolist() == [1, 1, 1, 8, 1]
    assert _factors(np.zeros(3, np.float32), read[:3]).tolist() == [1, 1, 1]
