"""Outlier twins: the same function with other activations, on tiny models with the quirks of large ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pocketvlm import _core
from pocketvlm.config import ModelConfig
from pocketvlm.errors import InputError
from pocketvlm.export.channel_places import places
from pocketvlm.export.checkpoint import Checkpoint
from pocketvlm.export.gguf_export import export_gguf
from pocketvlm.export.outlier_twin import CHANNELS, outlier_channels, write_outlier_twin
from pocketvlm.export.synthetic import write_synthetic
from pocketvlm.export.tensor_map import LM_HEAD, all_tensors

from ..patches import random_patches

EPSILON = 2.0**-24  # a rounding of float32, relative


@pytest.fixture(scope="module", params=["tiny", "tiny-500m", "tiny-2.2b"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads that share in groups or do not, three sizes of pixel shuffle."""
    return write_synthetic(request.param, tmp_path_factory.mktemp(request.param) / "checkpoint")


def weights(folder: Path) -> dict[str, NDArray[np.float32]]:
    with Checkpoint(folder) as source:
        specs = all_tensors(source.config)
        if source.has_shared_head:
            specs = [spec for spec in specs if spec.hf_name != LM_HEAD]
        return {spec.hf_name: source.read_rows(spec, 0, spec.shape[0]).values for spec in specs}


def trace(folder: Path, work: Path, isa: str) -> dict[str, NDArray[np.float32]]:
    """What the model at f32 computes of a tile of noise and a prompt with its image tokens, by stage."""
    pair = export_gguf(folder, work, type="f32", force=True)
    model = _core.Model(str(pair.text), str(pair.projector), pool=_core.ThreadPool(1), isa=isa)
    image_token_id = ModelConfig.from_folder(folder).image_token_id
    rng = np.random.default_rng(0)
    patches = random_patches(model, 1)
    stages = {f"vision.{name}": rows for name, rows in model.trace_vision(patches).items()}
    text, image = rng.integers(0, 200, 10), np.full(model.image_seq_len, image_token_id)
    token_ids = np.concatenate([text, image, text]).astype(np.int32)
    features = model.encode_images(patches).reshape(-1, model.hidden_size)
    return stages | model.trace_text(token_ids, features, image_token_id)


@pytest.mark.parametrize("isa", _core.isas())
def test_a_power_of_two_changes_no_bit_of_what_comes_out(checkpoint: Path, tmp_path: Path, isa: str) -> None:
    """A product with a power of two is exact: had a channel lost its partner, bits would differ."""
    twin = write_outlier_twin(checkpoint, tmp_path / "twin", factor=128)
    before, after = (trace(folder, tmp_path / "model", isa) for folder in (checkpoint, twin))
    assert before.keys() == after.keys()
    different = {name for name in before if not np.array_equal(before[name], after[name])}
    assert different == {"vision.post_layernorm"}, "the one stage between a producer and a consumer"


def test_the_outliers_are_in_the_activations(checkpoint: Path, tmp_path: Path) -> None:
    twin = write_outlier_twin(checkpoint, tmp_path / "twin", factor=128)
    traced = [trace(folder, tmp_path / "model", _core.isas()[0]) for folder in (checkpoint, twin)]
    before, after = (stages["vision.post_layernorm"] for stages in traced)
    factors = after / before
    outliers = np.flatnonzero((factors == 128).all(axis=0))
    assert len(outliers) == CHANNELS
    assert (np.delete(factors, outliers, axis=1) == 1).all()


def test_every_place_has_its_outliers(checkpoint: Path, tmp_path: Path) -> None:
    before = weights(checkpoint)
    after = weights(write_outlier_twin(checkpoint, tmp_path / "twin", factor=128))
    assert before.keys() == after.keys()
    all_places = places(ModelConfig.from_folder(checkpoint))
    scaled = {name for place in all_places for name in (*place.producers, *place.consumers)}
    assert {name for name in before if not np.array_equal(before[name], after[name])} == scaled
    for place in all_places:
        for name in place.producers:
            # The middle of a row: some of its columns may be divided for another place.
            factors = np.median(after[name] / before[name], axis=1)
            assert np.flatnonzero(factors == 128).tolist() == outlier_channels(place, 0)


def test_any_factor_changes_logits_by_roundings_alone(checkpoint: Path, tmp_path: Path) -> None:
    """Two roundings more for each product are less than what the order of a sum of hundreds may change.

    The bound takes those as if all were of one sign and every layer passed them on whole.
    """
    twin = write_outlier_twin(checkpoint, tmp_path / "twin", factor=100)
    traced = [trace(folder, tmp_path / "model", _core.isas()[0]) for folder in (checkpoint, twin)]
    before, after = (stages["logits"] for stages in traced)
    config = ModelConfig.from_folder(checkpoint)
    layers = config.text.num_hidden_layers + config.vision.num_hidden_layers
    terms = max(config.text.intermediate_size, config.vision.intermediate_size)
    assert not np.array_equal(before, after)
    assert np.abs(before - after).max() <= 2 * EPSILON * terms * layers * np.abs(before).max()


def test_a_seed_chooses_the_channels(tiny_checkpoint: Path, tmp_path: Path) -> None:
    first, again, other = (
        write_outlier_twin(tiny_checkpoint, tmp_path / name, factor=20, seed=seed) / "model.safetensors"
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("factor", [0.0, -20.0, float("nan"), float("inf")])
def test_a_factor_that_is_none(tiny_checkpoint: Path, tmp_path: Path, factor: float) -> None:
    with pytest.raises(InputError, match="the factor of outliers is"):
        write_outlier_twin(tiny_checkpoint, tmp_path / "twin", factor=factor)
    assert not (tmp_path / "twin").exists()


@pytest.mark.parametrize("type", ["bf16", "q8_0", "q4_0"])
def test_a_twin_is_exported_like_any_checkpoint(tiny_checkpoint: Path, tmp_path: Path, type: str) -> None:
    twin = write_outlier_twin(tiny_checkpoint, tmp_path / "twin", factor=20)
    pair = export_gguf(twin, tmp_path / "model", type=type)
    _core.Model(str(pair.text), str(pair.projector), pool=_core.ThreadPool(1))
