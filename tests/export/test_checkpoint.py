"""Checkpoints as they come: sharded, other dtypes, older names, tied heads; and one error per defect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pocketvlm.errors import FormatError, UnsupportedError
from pocketvlm.export.checkpoint import Checkpoint
from pocketvlm.export.tensor_map import EMBED_TOKENS, LM_HEAD, all_tensors

from .tensor_files import Stored, read_tensors, write_sharded, write_tensors

NORM = "model.text_model.norm.weight"
WEIGHTS = "model.safetensors"


def contents(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Reads all tensors of a checkpoint, a few rows at a time."""
    with Checkpoint(folder) as checkpoint:
        tensors = {}
        for spec in all_tensors(checkpoint.config):
            borders = [*range(0, spec.shape[0], 100), spec.shape[0]]
            parts = [checkpoint.read_rows(spec, *span).values for span in pairwise(borders)]
            tensors[spec.hf_name] = np.concatenate(parts).reshape(spec.shape)
        return tensors


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def tensors(own_checkpoint: Path) -> Iterator[dict[str, Stored]]:
    """The tensors of `own_checkpoint`; what the test leaves in them is not written by itself."""
    yield read_tensors(own_checkpoint / WEIGHTS)


def test_values_are_the_stored_ones(checkpoint: Path) -> None:
    stored = read_tensors(checkpoint / WEIGHTS)
    found = contents(checkpoint)
    assert found.keys() == stored.keys()
    for name, values in found.items():
        assert np.array_equal(values.ravel(), stored[name].as_float32())


def test_sharded_is_the_same(own_checkpoint: Path, tensors: dict[str, Stored]) -> None:
    expected = contents(own_checkpoint)
    (own_checkpoint / WEIGHTS).unlink()
    write_sharded(own_checkpoint, tensors, 3)
    assert_same(contents(own_checkpoint), expected)


def test_f32_and_f16_are_read(own_checkpoint: Path, tensors: dict[str, Stored]) -> None:
    expected = contents(own_checkpoint)
    for i, (name, stored) in enumerate(tensors.items()):
        if i % 2:
            tensors[name] = Stored("F32", stored.shape, stored.as_float32().tobytes())
    half = np.arange(128, dtype=np.float16) / 64
    tensors[NORM] = Stored("F16", (128,), half.tobytes())
    write_tensors(own_checkpoint / WEIGHTS, tensors)
    assert_same(contents(own_checkpoint), expected | {NORM: half.astype(np.float32)})


def test_the_other_class_is_read(own_checkpoint: Path) -> None:
    expected = contents(own_checkpoint)
    edit_config(own_checkpoint, model_type="smolvlm", architectures=["SmolVLMForConditionalGeneration"])
    assert_same(contents(own_checkpoint), expected)


def test_names_without_model_and_leftover_buffers(own_checkpoint: Path, tensors: dict[str, Stored]) -> None:
    expected = contents(own_checkpoint)
    older = {name.removeprefix("model."): stored for name, stored in tensors.items()}
    older["vision_model.embeddings.position_ids"] = Stored("I64", (1, 2), bytes(16))
    older["text_model.layers.0.self_attn.rotary_emb.inv_freq"] = Stored("F32", (1,), bytes(4))
    write_tensors(own_checkpoint / WEIGHTS, older)
    assert_same(contents(own_checkpoint), expected)


def is_shared(folder: Path) -> bool:
    with Checkpoint(folder) as checkpoint:
        return checkpoint.has_shared_head


def test_a_head_of_its_own_is_kept_even_if_the_config_ties_it(own_checkpoint: Path) -> None:
    """As transformers 5.23.0 does: tied only when absent or equal."""
    assert not is_shared(own_checkpoint)
    edit_config(own_checkpoint, tie_word_embeddings=True)
    assert not is_shared(own_checkpoint)


def test_a_head_equal_to_the_embedding_is_shared(own_checkpoint: Path, tensors: dict[str, Stored]) -> None:
    tensors[LM_HEAD] = tensors[EMBED_TOKENS]
    write_tensors(own_checkpoint / WEIGHTS, tensors)
    assert is_shared(own_checkpoint)
    last_byte_differs = bytearray(tensors[LM_HEAD].raw)
    last_byte_differs[-1] ^= 1
    tensors[LM_HEAD] = Stored("BF16", tensors[LM_HEAD].shape, bytes(last_byte_differs))
    write_tensors(own_checkpoint / WEIGHTS, tensors)
    assert not is_shared(own_checkpoint)


def test_an_absent_head_is_shared_only_if_the_config_says_so(
    own_checkpoint: Path, tensors: dict[str, Stored]
) -> None:
    del tensors[LM_HEAD]
    write_tensors(own_checkpoint / WEIGHTS, tensors)
    with pytest.raises(FormatError, match=r"tensor lm_head.weight is missing"):
        Checkpoint(own_checkpoint)
    edit_config(own_checkpoint, tie_word_embeddings=True)
    assert is_shared(own_checkpoint)


def test_names_of_hub_folders(own_checkpoint: Path, tmp_path: Path) -> None:
    with Checkpoint(own_checkpoint) as checkpoint:
        assert (checkpoint.name, checkpoint.revision) == ("checkpoint", "")
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--HuggingFaceTB--SmolVLM-256M-Instruct" / "snapshots" / commit
    cached.parent.mkdir(parents=True)
    own_checkpoint.rename(cached)
    with Checkpoint(cached) as checkpoint:
        assert (checkpoint.name, checkpoint.revision) == ("SmolVLM-256M-Instruct", commit)
    local = cached.rename(tmp_path / "my-model")
    metadata = local / ".cache" / "huggingface" / "download" / "config.json.metadata"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"{commit}\netag\n1700000000.0\n")
    with Checkpoint(local) as checkpoint:
        assert (checkpoint.name, checkpoint.revision) == ("my-model", commit)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="there is no such folder"):
        Checkpoint(tmp_path / "absent")


def test_no_weights(own_checkpoint: Path) -> None:
    (own_checkpoint / WEIGHTS).unlink()
    with pytest.raises(
        FormatError, match=r"there is no model.safetensors and no model.safetensors.index.json"
    ):
        Checkpoint(own_checkpoint)
    (own_checkpoint / "pytorch_model.bin").touch()
    with pytest.raises(UnsupportedError, match="only safetensors are read"):
        Checkpoint(own_checkpoint)


def test_missing_tensors_are_named(own_checkpoint: Path, tensors: dict[str, Stored]) -> None:
    del tensors[NORM]
    write_tensors(own_checkpoint / WEIGHTS, tensors)
    with pytest.raises(FormatError, match=f"tensor {NORM} is missing"):
        Checkpoint(own_checkpoint)
    write_tensors(own_checkpoint / WEIGHTS, {LM_HEAD: tensors[LM_HEAD]})
    with pytest.raises(FormatError, match=r"model.connector.* and 55 more are missing"):
        Checkpoint(own_checkpoint)


def test_unexpected_tensors_are_named(own_checkpoint: Path, tensors: dict[str, Stored]) -> None:
    bias = "model.text_model.layers.0.self_attn.q_proj.bias"
    write_tensors(own_checkpoint / WEIGHTS, tensors | {bias: Stored("F32", (1,), bytes(4))})
    with pytest.raises(FormatError, match=f"tensor {bias} is not part of the model"):
        Checkpoint(own_checkpoint)


def test_wrong_shape(own_checkpoint: Path, tensors: dict[str, Stored]) -> None:
    tensors[NORM] = Stored("F32", (64,), bytes(256))
    write_tensors(own_checkpoint / WEIGHTS, tensors)
    with pytest.raises(FormatError, match=rf"tensor {NORM}: shape \[64\], config.json needs \[128\]"):
        Checkpoint(own_checkpoint)


def test_transposed_shape(own_checkpoint: Path, tensors: dict[str, Stored]) -> None:
    stored = tensors[EMBED_TOKENS]
    tensors[EMBED_TOKENS] = Stored(stored.dtype, stored.shape[::-1], stored.raw)
    write_tensors(own_checkpoint / WEIGHTS, tensors)
    with pytest.raises(FormatError, match=r"shape \[128, 1000\], config.json needs \[1000, 128\]"):
        Checkpoint(own_checkpoint)


@pytest.mark.parametrize(("dtype", "size"), [("I8", 1), ("F8_E4M3", 1), ("F64", 8)])
def test_other_dtypes(own_checkpoint: Path, tensors: dict[str, Stored], dtype: str, size: int) -> None:
    tensors[NORM] = Stored(dtype, (128,), bytes(128 * size))
    write_tensors(own_checkpoint / WEIGHTS, tensors)
    with pytest.raises(UnsupportedError, match=rf"dtype {dtype}; supported: BF16, F16, F32"):
        Checkpoint(own_checkpoint)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers(own_checkpoint: Path, tensors: dict[str, Stored], value: float) -> None:
    values = np.ones(128, np.float32)
    values[77] = value
    tensors[NORM] = Stored("F32", (128,), values.tobytes())
    write_tensors(own_checkpoint / WEIGHTS, tensors)
    with pytest.raises(FormatError, match=f"tensor {NORM}: holds NaN or infinity"):
        contents(own_checkpoint)


def shard(folder: Path, tensors: dict[str, Stored]) -> dict[str, Any]:
    """Replaces the weights by two files and an index; returns the index."""
    (folder / WEIGHTS).unlink()
    write_sharded(folder, tensors, 2)
    index: dict[str, Any] = json.loads((folder / f"{WEIGHTS}.index.json").read_text())
    return index


def test_a_missing_shard(own_checkpoint: Path, tensors: dict[str, Stored]) -> None:
    shard(own_checkpoint, tensors)
    (own_checkpoint / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FormatError, match=r"model-00002-of-00002.safetensors: cannot be opened"):
        Checkpoint(own_checkpoint)


@pytest.mark.parametrize(
    "file", ["../checkpoint/model-00001-of-00002.safetensors", "/etc/passwd", "sub/x.safetensors", "", 3]
)
def test_an_index_that_points_elsewhere(
    own_checkpoint: Path, tensors: dict[str, Stored], file: object
) -> None:
    index = shard(own_checkpoint, tensors)
    index["weight_map"][NORM] = file
    (own_checkpoint / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match="expected a safetensors file in this folder"):
        Checkpoint(own_checkpoint)


def test_an_index_that_names_the_wrong_shard(own_checkpoint: Path, tensors: dict[str, Stored]) -> None:
    index = shard(own_checkpoint, tensors)
    files = sorted(set(index["weight_map"].values()))
    index["weight_map"][NORM] = files[1 - files.index(index["weight_map"][NORM])]
    (own_checkpoint / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match=f"tensor {NORM} is missing, model.safetensors.index.json puts it"):
        Checkpoint(own_checkpoint)


def test_a_tensor_in_two_shards(own_checkpoint: Path, tensors: dict[str, Stored]) -> None:
    index = shard(own_checkpoint, tensors)
    for file in set(index["weight_map"].values()):
        stored = read_tensors(own_checkpoint / file)
        write_tensors(own_checkpoint / file, stored | {NORM: tensors[NORM]})
    with pytest.raises(FormatError, match=f"tensor {NORM} is also in"):
        Checkpoint(own_checkpoint)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": [1]}'])
def test_a_damaged_index(own_checkpoint: Path, content: str) -> None:
    (own_checkpoint / WEIGHTS).unlink()
    (own_checkpoint / f"{WEIGHTS}.index.json").write_text(content)
    with pytest.raises(FormatError, match=r"model.safetensors.index.json: "):
        Checkpoint(own_checkpoint)
