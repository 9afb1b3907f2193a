"""The whole export: contents against the checkpoint, hashes, variants of the source, nothing half-written."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from pocketvlm.config import ModelConfig
from pocketvlm.errors import Error, FormatError, InputError, UnsupportedError
from pocketvlm.export.gguf_export import (
    EMBEDDING_TYPES,
    ExportedPair,
    export_gguf,
    interleave_rotary_rows,
)
from pocketvlm.export.gguf_file import GgufWriter
from pocketvlm.export.quantize import TYPES
from pocketvlm.export.tensor_map import EMBED_TOKENS, LM_HEAD, TensorSpec, all_tensors

from .tensor_files import Stored, read_tensors, write_sharded, write_tensors

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def exports(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportedPair]:
    """An export of each type."""
    folder = tmp_path_factory.mktemp("exports")
    return {type: export_gguf(checkpoint, folder / type, type=type, equalize=False) for type in TYPES}


@pytest.fixture(scope="module")
def f32(exports: dict[str, ExportedPair]) -> ExportedPair:
    return exports["f32"]


@pytest.fixture(scope="module")
def q8_0(exports: dict[str, ExportedPair]) -> ExportedPair:
    return exports["q8_0"]


def metadata_of(path: Path) -> dict[str, Any]:
    return {field.name: field.contents() for field in gguf.GGUFReader(path).fields.values()}


def tensors_of(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def all_tensors_of(pair: ExportedPair) -> dict[str, gguf.ReaderTensor]:
    return tensors_of(pair.text) | tensors_of(pair.projector)


def expected_values(spec: TensorSpec, stored: Stored) -> npt.NDArray[np.float32]:
    """The values of a tensor in GGUF's order of rows, permuted as in llama.cpp's converter."""
    values = stored.as_float32().reshape(spec.shape)
    if spec.gguf_name.endswith(("attn_q.weight", "attn_k.weight")) and spec.gguf_name.startswith("blk."):
        heads = spec.shape[0] // 64
        values = values.reshape(heads, 2, 32, spec.shape[1]).swapaxes(1, 2).reshape(spec.shape)
    return values


def specs_of(folder: Path) -> list[TensorSpec]:
    return all_tensors(ModelConfig.from_folder(folder))


def test_f32_holds_the_values_of_the_checkpoint(checkpoint: Path, f32: ExportedPair) -> None:
    stored, found = read_tensors(checkpoint / WEIGHTS), all_tensors_of(f32)
    assert len(found) == len(stored)
    for spec in specs_of(checkpoint):
        tensor = found[spec.gguf_name]
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert list(tensor.shape) == list(reversed(spec.shape))
        values = expected_values(spec, stored[spec.hf_name])
        assert np.array_equal(tensor.data.reshape(spec.shape), values), spec.gguf_name


@pytest.mark.parametrize("type", TYPES)
def test_matrices_are_the_blocks_of_the_gguf_package(
    checkpoint: Path, exports: dict[str, ExportedPair], type: str
) -> None:
    stored, found = read_tensors(checkpoint / WEIGHTS), all_tensors_of(exports[type])
    matrices = 0
    for spec in specs_of(checkpoint):
        tensor, values = found[spec.gguf_name], expected_values(spec, stored[spec.hf_name])
        if spec.always_f32:
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
            assert np.array_equal(tensor.data.reshape(spec.shape), values)
        else:
            is_embedding = spec.hf_name in (EMBED_TOKENS, LM_HEAD)
            expected_type = "q8_0" if type == "q4_0" and is_embedding else type
            assert tensor.tensor_type == gguf.GGMLQuantizationType[expected_type.upper()]
            expected = gguf.quants.quantize(values, tensor.tensor_type)
            assert tensor.data.tobytes() == expected.tobytes(), spec.gguf_name
            matrices += 1
    assert matrices == 2 + 2 * 7 + 1 + 2 * 6


def test_bf16_of_a_bf16_checkpoint_loses_nothing(checkpoint: Path, exports: dict[str, ExportedPair]) -> None:
    stored, found = read_tensors(checkpoint / WEIGHTS), all_tensors_of(exports["bf16"])
    for spec in specs_of(checkpoint):
        tensor = found[spec.gguf_name]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(spec.shape)
        assert np.array_equal(values, expected_values(spec, stored[spec.hf_name]))


def test_permuted_rows_give_the_same_attention_scores() -> None:
    """Rotating pairs (i, i + d/2) of the original rows is rotating pairs (2i, 2i + 1) of the new ones."""
    rng = np.random.default_rng(0)
    heads, head_dim, hidden = 2, 8, 5
    weight = rng.standard_normal((heads * head_dim, hidden)).astype(np.float32)
    x = rng.standard_normal(hidden)
    angles = 7 * 100.0 ** (-np.arange(head_dim // 2) / (head_dim // 2))

    original = (weight @ x).reshape(heads, head_dim)
    low, high = original[:, : head_dim // 2], original[:, head_dim // 2 :]
    rotated = (low + 1j * high) * np.exp(1j * angles)

    permuted = (interleave_rotary_rows(weight, head_dim) @ x).reshape(heads, head_dim)
    interleaved = (permuted[:, 0::2] + 1j * permuted[:, 1::2]) * np.exp(1j * angles)
    np.testing.assert_allclose(interleaved, rotated, rtol=1e-12)


@pytest.mark.parametrize(
    ("type", "suffix", "file_type"),
    [
        ("f32", "F32", gguf.LlamaFileType.ALL_F32),
        ("f16", "F16", gguf.LlamaFileType.MOSTLY_F16),
        ("bf16", "BF16", gguf.LlamaFileType.MOSTLY_BF16),
        ("q8_0", "Q8_0", gguf.LlamaFileType.MOSTLY_Q8_0),
        ("q4_0", "Q4_0", gguf.LlamaFileType.MOSTLY_Q4_0),
    ],
)
def test_files_say_their_type(
    exports: dict[str, ExportedPair], type: str, suffix: str, file_type: gguf.LlamaFileType
) -> None:
    pair = exports[type]
    assert [path.name for path in (pair.text, pair.projector)] == [
        f"tiny-{suffix}.gguf",
        f"mmproj-tiny-{suffix}.gguf",
    ]
    assert [metadata_of(path)["general.file_type"] for path in (pair.text, pair.projector)] == [file_type] * 2


def test_metadata_names_the_model_and_ties_the_pair(f32: ExportedPair, q8_0: ExportedPair) -> None:
    found = [metadata_of(path) for path in (f32.text, f32.projector, q8_0.text, q8_0.projector)]
    assert len({metadata["pocketvlm.pair_id"] for metadata in found}) == 1
    assert {metadata["pocketvlm.source.name"] for metadata in found} == {"tiny"}
    assert found[0]["general.architecture"] == "llama"
    assert found[1]["clip.projector_type"] == "idefics3"
    assert found[0]["llama.attention.head_count_kv"] == 1
    assert found[0]["llama.rope.freq_base"] == 100000


def test_pair_id_is_that_of_the_source_tensors(checkpoint: Path, f32: ExportedPair) -> None:
    """As FORMAT.md defines it."""
    lines = [
        f"{name} {stored.dtype} {list(stored.shape)} {hashlib.sha256(stored.raw).hexdigest()}\n"
        for name, stored in read_tensors(checkpoint / WEIGHTS).items()
    ]
    expected = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    assert metadata_of(f32.text)["pocketvlm.pair_id"] == expected


def test_tensor_hashes_are_those_of_the_stored_bytes(f32: ExportedPair, q8_0: ExportedPair) -> None:
    for path in (f32.text, f32.projector, q8_0.text, q8_0.projector):
        expected = [
            f"{name}={hashlib.sha256(tensor.data.tobytes()).hexdigest()}"
            for name, tensor in tensors_of(path).items()
        ]
        assert metadata_of(path)["pocketvlm.tensor_hashes"] == expected


def test_a_name_is_that_of_files_and_model(
    checkpoint: Path, tmp_path: Path, exports: dict[str, ExportedPair]
) -> None:
    pair = export_gguf(checkpoint, tmp_path / "out", type="f32", name="My model-1.0")
    assert pair.text.name == "My model-1.0-F32.gguf"
    assert pair.projector.name == "mmproj-My model-1.0-F32.gguf"
    for path, before in zip(
        (pair.text, pair.projector), (exports["f32"].text, exports["f32"].projector), strict=True
    ):
        found, expected = metadata_of(path), metadata_of(before)
        for key in ("general.name", "general.finetune", "pocketvlm.source.name"):
            assert found[key] == "My model-1.0"
        named = [key for key in found if found[key] != expected[key]]
        assert set(named) == {"general.name", "general.finetune", "pocketvlm.source.name"}


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\\b", "..", ".hidden", "a\0b"])
def test_a_name_that_no_file_can_have_is_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"name is .*, expected one that a file can have"):
        export_gguf(checkpoint, tmp_path / "out", type="f32", name=name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("vision_type", TYPES)
def test_the_projector_may_have_its_own_type(
    checkpoint: Path, tmp_path: Path, exports: dict[str, ExportedPair], type: str, vision_type: str
) -> None:
    """Each file is the same whatever the type of the other."""
    pair = export_gguf(checkpoint, tmp_path / "out", type=type, vision_type=vision_type, equalize=False)
    assert pair.text.name == exports[type].text.name
    assert pair.text.read_bytes() == exports[type].text.read_bytes()
    assert pair.projector.name == exports[vision_type].projector.name
    assert pair.projector.read_bytes() == exports[vision_type].projector.read_bytes()


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("embedding_type", EMBEDDING_TYPES)
def test_the_embedding_may_have_its_own_type(
    checkpoint: Path, tmp_path: Path, exports: dict[str, ExportedPair], type: str, embedding_type: str
) -> None:
    """It and the head alone change; the file is still mostly of `type`, and says so."""
    pair = export_gguf(checkpoint, tmp_path / "out", type=type, embedding_type=embedding_type, equalize=False)
    assert pair.text.name == exports[type].text.name
    assert metadata_of(pair.text)["general.file_type"] == TYPES[type].file_type
    assert pair.projector.read_bytes() == exports[type].projector.read_bytes()
    found, plain = tensors_of(pair.text), tensors_of(exports[type].text)
    embeddings = tensors_of(exports[embedding_type].text)
    assert found.keys() == plain.keys()
    for name, tensor in found.items():
        expected = (embeddings if name in ("token_embd.weight", "output.weight") else plain)[name]
        assert tensor.tensor_type == expected.tensor_type
        assert tensor.data.tobytes() == expected.data.tobytes()


def test_the_folder_holds_the_files_of_the_checkpoint(checkpoint: Path, f32: ExportedPair) -> None:
    written = {path.name for path in f32.text.parent.iterdir()}
    copied = {path.name for path in checkpoint.glob("*.json")} - {"synthetic.json"}
    assert written == copied | {"tiny-F32.gguf", "mmproj-tiny-F32.gguf"}
    for name in copied:
        assert (f32.text.parent / name).read_bytes() == (checkpoint / name).read_bytes()


def test_sharded_gives_the_same_bytes(own_checkpoint: Path, tmp_path: Path) -> None:
    whole = export_gguf(own_checkpoint, tmp_path / "whole", type="q8_0")
    tensors = read_tensors(own_checkpoint / WEIGHTS)
    (own_checkpoint / WEIGHTS).unlink()
    write_sharded(own_checkpoint, tensors, 3)
    sharded = export_gguf(own_checkpoint, tmp_path / "sharded", type="q8_0")
    assert sharded.text.read_bytes() == whole.text.read_bytes()
    assert sharded.projector.read_bytes() == whole.projector.read_bytes()


def test_pieces_do_not_change_the_bytes(
    checkpoint: Path, tmp_path: Path, q8_0: ExportedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to single rows, and single heads where rows move."""
    monkeypatch.setattr("pocketvlm.export.checkpoint._CHUNK_ELEMENTS", 1)
    pair = export_gguf(checkpoint, tmp_path / "out", type="q8_0", equalize=False)
    assert pair.text.read_bytes() == q8_0.text.read_bytes()
    assert pair.projector.read_bytes() == q8_0.projector.read_bytes()


def test_a_shared_head_is_left_out(own_checkpoint: Path, tmp_path: Path) -> None:
    tensors = read_tensors(own_checkpoint / WEIGHTS)
    tensors[LM_HEAD] = tensors[EMBED_TOKENS]
    write_tensors(own_checkpoint / WEIGHTS, tensors)
    pair = export_gguf(own_checkpoint, tmp_path / "out", type="f32")
    found = tensors_of(pair.text)
    assert "output.weight" not in found and "token_embd.weight" in found


@pytest.mark.parametrize("type", ["q8_0", "q4_0"])
def test_rows_that_are_not_whole_blocks_become_f16(own_checkpoint: Path, tmp_path: Path, type: str) -> None:
    """As the 2.2B vision tower's ffn_down, K = 4304."""
    path = own_checkpoint / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"]["intermediate_size"] = 80
    path.write_text(json.dumps(config))
    tensors = read_tensors(own_checkpoint / WEIGHTS)
    for i in range(2):
        mlp = f"model.vision_model.encoder.layers.{i}.mlp"
        tensors[f"{mlp}.fc1.weight"] = Stored("BF16", (80, 64), tensors[f"{mlp}.fc1.weight"].raw[: 80 * 128])
        tensors[f"{mlp}.fc1.bias"] = Stored("BF16", (80,), tensors[f"{mlp}.fc1.bias"].raw[:160])
        tensors[f"{mlp}.fc2.weight"] = Stored("BF16", (64, 80), tensors[f"{mlp}.fc2.weight"].raw[: 80 * 128])
    write_tensors(own_checkpoint / WEIGHTS, tensors)
    found = tensors_of(export_gguf(own_checkpoint, tmp_path / "out", type=type).projector)
    down = found["v.blk.1.ffn_down.weight"]
    assert down.tensor_type == gguf.GGMLQuantizationType.F16
    values = tensors["model.vision_model.encoder.layers.1.mlp.fc2.weight"].as_float32()
    assert np.array_equal(down.data.ravel(), values.astype(np.float16))
    up_type = found["v.blk.1.ffn_up.weight"].tensor_type
    assert up_type == gguf.GGMLQuantizationType[type.upper()]


@pytest.mark.parametrize(
    ("type", "value", "message"),
    [
        ("f16", 65520, "holds 65520, f16 reaches 65504"),
        ("bf16", 3.4e38, r"holds 3.4e\+38, bf16 reaches 3.38953e\+38"),
        ("q8_0", 1e7, r"holds 1e\+07, q8_0 reaches 8.31901e\+06"),
        ("q4_0", 6e5, "holds 600000, q4_0 reaches 524032"),
    ],
)
def test_values_beyond_the_type(
    own_checkpoint: Path, tmp_path: Path, type: str, value: float, message: str
) -> None:
    tensors = read_tensors(own_checkpoint / WEIGHTS)
    name = "model.text_model.layers.1.mlp.down_proj.weight"
    values = np.zeros(tensors[name].shape, np.float32)
    values[7, 9] = -value
    tensors[name] = Stored("F32", tensors[name].shape, values.tobytes())
    write_tensors(own_checkpoint / WEIGHTS, tensors)
    with pytest.raises(UnsupportedError, match=f"tensor {name}: {message}; export as f32"):
        export_gguf(own_checkpoint, tmp_path / "out", type=type)
    assert not (tmp_path / "out").exists()
    export_gguf(own_checkpoint, tmp_path / "out", type="f32")


def test_transformers_5_layout_of_the_processor(own_checkpoint: Path, tmp_path: Path) -> None:
    """One processor_config.json that holds the image processor, and a template of its own file."""
    preprocessor = json.loads((own_checkpoint / "preprocessor_config.json").read_text())
    (own_checkpoint / "preprocessor_config.json").unlink()
    nested = {"image_seq_len": 16, "image_processor": preprocessor}
    (own_checkpoint / "processor_config.json").write_text(json.dumps(nested))
    (own_checkpoint / "chat_template.json").unlink()
    (own_checkpoint / "chat_template.jinja").write_text("{{ messages }}")
    pair = export_gguf(own_checkpoint, tmp_path / "out", type="f32")
    assert metadata_of(pair.projector)["clip.vision.preproc_image_size"] == 256
    assert metadata_of(pair.text)["tokenizer.chat_template"] == "{{ messages }}"
    assert (tmp_path / "out" / "chat_template.jinja").exists()


def test_a_processor_for_another_model(own_checkpoint: Path, tmp_path: Path) -> None:
    (own_checkpoint / "processor_config.json").write_text('{"image_seq_len": 64}')
    with pytest.raises(FormatError, match="image_seq_len 64 image tokens per tile, the model makes 16"):
        export_gguf(own_checkpoint, tmp_path / "out", type="f32")


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json", WEIGHTS]
)
def test_a_missing_file_is_named(own_checkpoint: Path, tmp_path: Path, name: str) -> None:
    (own_checkpoint / name).unlink()
    with pytest.raises(FormatError, match=name):
        export_gguf(own_checkpoint, tmp_path / "out", type="f32")
    assert not (tmp_path / "out").exists()


def test_an_unknown_type(checkpoint: Path, tmp_path: Path) -> None:
    for option, name, expected in (
        ("type", "q9_9", "f32, f16, bf16, q8_0, q4_0"),
        ("vision_type", "Q8_0", "f32, f16, bf16, q8_0, q4_0"),
        ("embedding_type", "q4_0", "f32, f16, bf16, q8_0"),
    ):
        with pytest.raises(InputError, match=f"^{option} is '{name}', expected one of {expected}$"):
            export_gguf(checkpoint, tmp_path / "out", **({"type": "q4_0"} | {option: name}))
    assert not (tmp_path / "out").exists()


def failing_writer(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Makes the second file fail in its middle."""
    write, calls = GgufWriter.write, []

    def write_until_it_fails(self: GgufWriter, data: npt.NDArray[np.uint8]) -> None:
        calls.append(len(data))
        if len(calls) == 40:
            raise error
        write(self, data)

    monkeypatch.setattr(GgufWriter, "write", write_until_it_fails)


def test_an_interrupt_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_writer(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        export_gguf(checkpoint, tmp_path / "out", type="f32")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_export(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_gguf(checkpoint, tmp_path / "out", type="f32")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    failing_writer(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(Error, match="the disk is full"):
        export_gguf(checkpoint, tmp_path / "out", type="q8_0", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_weights_cut_short_meanwhile(own_checkpoint: Path, tmp_path: Path) -> None:
    def cut(_stage: str, _done: int, _total: int) -> None:
        with (own_checkpoint / WEIGHTS).open("r+b") as file:
            file.truncate(10_000)

    with pytest.raises(FormatError, match=r"10000 bytes, expected \d+ at least"):
        export_gguf(own_checkpoint, tmp_path / "out", type="f32", on_progress=cut)
    assert not (tmp_path / "out").exists()


def test_progress_goes_up_to_the_total(checkpoint: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    export_gguf(checkpoint, tmp_path / "out", type="f32", on_progress=lambda *call: calls.append(call))
    total = sum(spec.num_elements for spec in specs_of(checkpoint))
    assert list(dict.fromkeys(call[0] for call in calls)) == ["text", "projector"]
    assert {call[2] for call in calls} == {total} and calls[-1][1] == total
    assert [call[1] for call in calls] == sorted(call[1] for call in calls)


def test_an_export_is_replaced_only_with_force(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_gguf(checkpoint, out, type="f32")
    with pytest.raises(InputError, match="--force"):
        export_gguf(checkpoint, out, type="q8_0")
    export_gguf(checkpoint, out, type="q8_0", force=True)
    assert sorted(path.name for path in out.glob("*.gguf")) == ["mmproj-tiny-Q8_0.gguf", "tiny-Q8_0.gguf"]


def test_exporting_onto_the_checkpoint_itself(own_checkpoint: Path) -> None:
    before = shutil.copytree(own_checkpoint, own_checkpoint.parent / "copy")
    with pytest.raises(InputError, match="was not written by this command"):
        export_gguf(own_checkpoint, own_checkpoint, type="f32", force=True)
    for path in before.iterdir():
        assert (own_checkpoint / path.name).read_bytes() == path.read_bytes()
