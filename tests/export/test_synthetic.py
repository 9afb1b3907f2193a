"""Synthetic checkpoints: the same bytes everywhere, statistics of a trained model, complete folders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pocketvlm.config import ModelConfig, ProcessorConfig
from pocketvlm.errors import InputError
from pocketvlm.export import synthetic_weights
from pocketvlm.export.model_files import SIZES, model_files
from pocketvlm.export.safetensors_file import SafetensorsFile
from pocketvlm.export.synthetic import DEFAULT_SEED, write_synthetic
from pocketvlm.export.synthetic_weights import synthetic_chunks
from pocketvlm.export.tensor_map import TensorSpec, all_tensors

# If one of these changes, all earlier measurements on that size were of another model.
TINY_SHA256 = {
    "tiny": "99d13789290fc0b04642e8d2d4017f9affd8039be4b03461c0f8e19e66054352",
    "tiny-500m": "87570209b7f7db7ef50b4f92ccdcfcee74bbc021d0a3b16f20fda050c4182842",
    "tiny-2.2b": "0b15a6bb8607e35b99467ecfc44798b63bc45ea142d46232dbbca4b8ab485d0b",
    "tiny-smolvlm2": "145685792f3a404605c9b7f0c08ef57d1454e492e42b77217ebbba885c10aca7",
    "tiny-smolvlm2-2.2b": "4500675cfa18e865255a4e59d5bb6e28624a7d848335826e029de9a66c14ba49",
    "tiny-smoldocling": "589ce0333a6a7e49415448fbab3b983b26aa9dcebc2c4769f2e413411a200b15",
    "tiny-granite-docling": "0e45cf41b9763b851f932b8fbe14eaa9e029504c66989aab182e5a68baf8b401",
}
# The first million values of some tensors: size, tensor, sha256 of their bf16 bits.
LARGE_SHA256 = [
    (
        "2.2b",
        "lm_head.weight",
        "3dd58de8f9cabd2a0a7ad1b824b2009d7166b845e20bbaa5a950298408235993",
    ),
]


def config_of(size: str, folder: Path) -> ModelConfig:
    for name, content in model_files(size).items():
        (folder / name).write_bytes(content)
    return ModelConfig.from_folder(folder)


def spec_of(config: ModelConfig, name: str) -> TensorSpec:
    return next(spec for spec in all_tensors(config) if spec.hf_name == name)


def values_of(spec: TensorSpec, seed: int = DEFAULT_SEED) -> npt.NDArray[np.float32]:
    bits = np.concatenate(list(synthetic_chunks(spec, seed)))
    return (bits.astype(np.uint32) << 16).view(np.float32).reshape(spec.shape)


@pytest.mark.parametrize("size", TINY_SHA256)
def test_tiny_models_are_the_recorded_files(size: str, tmp_path: Path) -> None:
    out = write_synthetic(size, tmp_path / size)
    found = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    assert found == TINY_SHA256[size]
    facts = json.loads((out / "synthetic.json").read_text())
    assert facts == {"size": size, "seed": DEFAULT_SEED, "sha256": TINY_SHA256[size]}


@pytest.mark.parametrize(("size", "name", "sha256"), LARGE_SHA256)
def test_large_sizes_have_the_recorded_values(size: str, name: str, sha256: str, tmp_path: Path) -> None:
    chunk = next(synthetic_chunks(spec_of(config_of(size, tmp_path), name), DEFAULT_SEED))
    assert hashlib.sha256(chunk.astype("<u2").tobytes()).hexdigest() == sha256


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    files = [
        (write_synthetic("tiny", tmp_path / f"{seed}", seed) / "model.safetensors").read_bytes()
        for seed in (1, 2)
    ]
    assert len(files[0]) == len(files[1]) and files[0] != files[1]


def test_pieces_do_not_change_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a row of outliers lies across the border of two pieces."""
    spec = spec_of(config_of("tiny", tmp_path), "model.text_model.layers.0.mlp.up_proj.weight")
    whole = values_of(spec)
    monkeypatch.setattr(synthetic_weights, "CHUNK_ELEMENTS", 100)
    assert np.array_equal(values_of(spec), whole)


@given(
    st.lists(
        st.tuples(st.integers(0, 0x7000), st.sampled_from([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])), min_size=1
    ),
    st.booleans(),
)
def test_bf16_is_rounded_to_nearest_even(halves: list[tuple[int, int]], negative: bool) -> None:
    """The upper 16 bits are kept; the lower ones are on, below and above a tie."""
    pattern = np.array([(negative << 31) + (upper << 16) + lower for upper, lower in halves], np.uint32)
    values = pattern.view(np.float32)
    bits = synthetic_weights.to_bf16(values)
    rounded = (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    below = ((bits.astype(np.uint32) - 1) << 16).view(np.float32).astype(np.float64)
    above = ((bits.astype(np.uint32) + 1) << 16).view(np.float32).astype(np.float64)
    exact = values.astype(np.float64)
    for other in (below, above):
        nearer = np.abs(rounded - exact) < np.abs(other - exact)
        tie = np.abs(rounded - exact) == np.abs(other - exact)
        assert (nearer | (tie & (bits % 2 == 0)) | ~np.isfinite(other)).all()


def test_matrices_are_normal_and_norms_are_near_one(tmp_path: Path) -> None:
    config = config_of("256m", tmp_path)
    matrix = values_of(spec_of(config, "model.text_model.layers.3.self_attn.v_proj.weight"))
    standard = matrix / matrix.std()
    assert abs(standard.mean()) < 0.01
    # A normal distribution has 68.3 % within one deviation and 95.4 % within two.
    assert abs((np.abs(standard) < 1).mean() - 0.683) < 0.02
    assert abs((np.abs(standard) < 2).mean() - 0.954) < 0.02
    assert abs(np.corrcoef(matrix[0], matrix[1])[0, 1]) < 0.2
    final_norm = values_of(spec_of(config, "model.text_model.norm.weight"))
    assert abs(final_norm.mean() - 1) < 0.05 and 0.05 < final_norm.std() < 0.2


def test_norms_and_up_projections_have_outliers_twenty_times_larger(tmp_path: Path) -> None:
    config = config_of("256m", tmp_path)
    norms = [
        values_of(spec_of(config, f"model.text_model.layers.{i}.input_layernorm.weight")) for i in (0, 29)
    ]
    outliers = [set(np.flatnonzero(norm > 10)) for norm in norms]
    assert outliers[0] == outliers[1] and 1 <= len(outliers[0]) <= 3
    up = values_of(spec_of(config, "model.vision_model.encoder.layers.0.mlp.fc1.weight"))
    row_rms = np.sqrt((up.astype(np.float64) ** 2).mean(axis=1))
    large = row_rms > 10 * np.median(row_rms)
    assert 1 <= large.sum() <= 16
    assert abs(row_rms[large].mean() / np.median(row_rms) - 20) < 1


@pytest.mark.parametrize("size", SIZES)
def test_configurations_and_tokenizer_fit_together(size: str, tmp_path: Path) -> None:
    config = config_of(size, tmp_path)
    processor = ProcessorConfig.from_folder(tmp_path)
    processor.require_match(config, size)
    assert (processor.longest_edge, processor.tile_size, processor.image_seq_len) == {
        "256m": (2048, 512, 64),
        "500m": (2048, 512, 64),
        "2.2b": (1536, 384, 81),
        "smolvlm2-256m": (2048, 512, 64),
        "smolvlm2-500m": (2048, 512, 64),
        "smolvlm2-2.2b": (1536, 384, 81),
        "smoldocling": (2048, 512, 64),
        "granite-docling": (2048, 512, 64),
        "tiny": (256, 64, 16),
        "tiny-500m": (256, 64, 4),
        "tiny-2.2b": (360, 90, 4),
        "tiny-smolvlm2": (256, 64, 4),
        "tiny-smolvlm2-2.2b": (360, 90, 4),
        "tiny-smoldocling": (256, 64, 16),
        "tiny-granite-docling": (256, 64, 16),
    }[size]
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    # granite-docling has a token without a row in the embedding, and another marker at the end of an answer.
    is_granite = size.endswith("granite-docling")
    assert tokenizer.get_vocab_size() == config.text.vocab_size + is_granite
    assert tokenizer.token_to_id("<image>") == config.image_token_id
    assert len(tokenizer.encode("\n\n<image>").ids) == 2
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    end = "<|end_of_text|>" if is_granite else "<end_of_utterance>"
    assert tokenizer.token_to_id(end) == generation["eos_token_id"]
    listed = json.loads((tmp_path / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert {int(id): token["content"] for id, token in listed.items()} == {
        id: token.content
        for id, token in tokenizer.get_added_tokens_decoder().items()
        if id < config.text.vocab_size
    }


def test_2_2b_is_the_published_configuration(tmp_path: Path) -> None:
    config = config_of("2.2b", tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert (config.text.vocab_size, config.image_token_id, config.text.rope_theta) == (49155, 49153, 273768)
    assert config.image_seq_len == 81 and config.vision.num_patches_per_side == 27
    markers = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    assert [tokenizer.token_to_id(marker) for marker in markers] == [49152, 49153, 49154]
    # Rows and the global tile go through plain BPE.
    assert len(tokenizer.encode("<row_1_col_1>").ids) > 1
    assert len(tokenizer.encode("<global-img>").ids) > 1


def test_tiny_500m_has_the_quirks_of_smolvlm2(tmp_path: Path) -> None:
    config = config_of("tiny-500m", tmp_path)
    assert config.model_type == "smolvlm"
    assert config.pad_token_id >= config.text.vocab_size
    text = config.text
    assert (text.num_attention_heads, text.num_key_value_heads, text.head_dim) == (3, 1, 64)


def test_tiny_2_2b_has_the_quirks_of_2_2b(tmp_path: Path) -> None:
    config = config_of("tiny-2.2b", tmp_path)
    text, vision = config.text, config.vision
    assert vision.image_size % vision.patch_size == 6
    assert (config.scale_factor, vision.num_patches_per_side) == (3, 6)
    assert 3 * vision.patch_size**2 == 588
    assert vision.hidden_size // vision.num_attention_heads == 72
    # Only ffn_down has rows of no whole blocks.
    assert (vision.intermediate_size % 32, vision.hidden_size % 32) == (16, 0)
    assert text.num_key_value_heads == text.num_attention_heads == 2
    assert (text.rope_theta, text.vocab_size % 2) == (273768, 1)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert len(tokenizer.encode("<row_1_col_1>").ids) > 1
    assert len(tokenizer.encode("<global-img>").ids) > 1


def test_a_folder_that_is_there_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    out = write_synthetic("tiny", tmp_path / "out", 1)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="is not empty; --force replaces it"):
        write_synthetic("tiny", out)
    assert (out / "model.safetensors").read_bytes() == before
    write_synthetic("tiny", out, force=True)
    assert (out / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()


def test_an_unknown_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"size is '3b', expected one of 256m, 500m, 2\.2b, tiny, "):
        write_synthetic("3b", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_nothing_is_left_when_interrupted(tmp_path: Path) -> None:
    def interrupt(_stage: str, done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic("tiny", tmp_path / "out", on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_progress_goes_up_to_the_total(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    out = write_synthetic("tiny", tmp_path / "out", on_progress=lambda *call: calls.append(call))
    with SafetensorsFile(out / "model.safetensors") as file:
        total = sum(entry.nbytes for entry in file.tensors.values()) // 2
    assert {call[2] for call in calls} == {total} and calls[-1][1] == total
    assert [call[1] for call in calls] == sorted(call[1] for call in calls)
