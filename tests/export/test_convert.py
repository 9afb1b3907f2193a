"""`pocketvlm convert`: pairs of another type, by ours and by others; what makes no sense is named."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

import pocketvlm
from pocketvlm import _core
from pocketvlm.cli import main
from pocketvlm.errors import FormatError, InputError, UnsupportedError
from pocketvlm.export.convert import convert
from pocketvlm.export.gguf_export import export_gguf
from pocketvlm.gguf_files import ModelFiles, find_model_files


def pair(folder: Path) -> ModelFiles:
    return find_model_files(folder)


@pytest.fixture(scope="module")
def bare_f32(tiny_f32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair alone in a folder, with the names that others give."""
    folder = tmp_path_factory.mktemp("bare")
    shutil.copy(pair(tiny_f32).text, folder / "Some-Model-F32.gguf")
    shutil.copy(pair(tiny_f32).projector, folder / "mmproj-Some-Model-F32.gguf")
    return folder


@pytest.mark.parametrize("type", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_a_pair_becomes_what_the_export_makes_of_the_checkpoint(
    tiny_checkpoint: Path, tiny_f32: Path, tmp_path: Path, type: str
) -> None:
    """All of it, down to the hashes of the tensors, where the export evens no channels out."""
    export_gguf(tiny_checkpoint, tmp_path / "exported", type=type, equalize=False)
    written = convert(tiny_f32, tmp_path / "converted", type=type)
    exported, converted = pair(tmp_path / "exported"), pair(tmp_path / "converted")
    assert written == [converted.text, converted.projector]
    for expected, found in ((exported.text, converted.text), (exported.projector, converted.projector)):
        first, second = _core.GgufFile(expected), _core.GgufFile(found)
        assert second.tensors == first.tensors
        assert all(
            np.array_equal(second.tensor_data(name), first.tensor_data(name)) for name in first.tensors
        )
        assert second.metadata == first.metadata
        assert second.value_types == first.value_types
    names = {path.name for path in (tmp_path / "converted").iterdir()}
    assert names == {path.name for path in (tmp_path / "exported").iterdir()}


def test_a_bare_pair_keeps_its_name_and_loads(bare_f32: Path, tmp_path: Path) -> None:
    text, projector = convert(
        bare_f32 / "Some-Model-F32.gguf", tmp_path / "out", type="q8_0", vision_type="f16"
    )
    assert (text.name, projector.name) == ("Some-Model-Q8_0.gguf", "mmproj-Some-Model-F16.gguf")
    model = pocketvlm.load(tmp_path / "out")
    assert (model.info()["text_type"], model.info()["vision_type"]) == ("q8_0", "f16")
    expected = pocketvlm.load(bare_f32).generate("What?", max_new_tokens=4, ignore_eos=True)
    found = model.generate("What?", max_new_tokens=4, ignore_eos=True)
    assert found.prompt_tokens == expected.prompt_tokens


def test_hashes_are_of_the_data_as_it_is_now(tiny_q8_0: Path, tmp_path: Path) -> None:
    convert(tiny_q8_0, tmp_path / "out", type="f16")
    for path in (pair(tmp_path / "out").text, pair(tmp_path / "out").projector):
        file = _core.GgufFile(path)
        stated = dict(line.rsplit("=", 1) for line in file.metadata["pocketvlm.tensor_hashes"])
        assert stated == {
            name: hashlib.sha256(file.tensor_data(name).data).hexdigest() for name in file.tensors
        }


def test_every_kind_of_key_stays(bare_f32: Path, tmp_path: Path) -> None:
    """Numbers of all widths, and arrays of them, as other programs write them."""
    source = pair(bare_f32).text
    reader = gguf.GGUFReader(source)
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(pair(bare_f32).projector, folder)
    writer = gguf.GGUFWriter(folder / "text.gguf", "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, element)
    writer.add_uint8("x.u8", 255)
    writer.add_int8("x.i8", -128)
    writer.add_uint16("x.u16", 65535)
    writer.add_int16("x.i16", -32768)
    writer.add_uint64("x.u64", 2**64 - 1)
    writer.add_int64("x.i64", -(2**63))
    writer.add_float64("x.f64", 0.1)
    writer.add_bool("x.bool", True)
    writer.add_array("x.floats", [0.5, 1.5])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    text, _ = convert(folder, tmp_path / "out", type="f16")
    before, after = _core.GgufFile(folder / "text.gguf"), _core.GgufFile(text)
    changed = {"general.file_type", "pocketvlm.tensor_hashes"}
    assert list(after.metadata) == list(before.metadata)
    assert after.value_types == before.value_types
    assert {key for key, value in before.metadata.items() if after.metadata[key] != value} <= changed


def test_a_checkpoint_is_exported(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(tiny_checkpoint), str(tmp_path / "out"), "--type", "q4_0"]) == 0
    files = pair(tmp_path / "out")
    assert capsys.readouterr().out.splitlines() == [str(files.text), str(files.projector)]
    assert pocketvlm.load(tmp_path / "out").info()["text_type"] == "q4_0"


def test_a_checkpoint_becomes_graphs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    written = convert(tiny_checkpoint, tmp_path / "out", type="int8")
    assert {path.parent for path in written} == {tmp_path / "out" / "onnx"}
    assert pocketvlm.load(tmp_path / "out", backend="onnx").generate("What?", max_new_tokens=2).token_ids


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"type": "q9_9"}, InputError, "type is 'q9_9', expected one of f32, f16"),
        ({"type": "int8"}, UnsupportedError, "ONNX graphs are made of checkpoints, not of GGUF files"),
        ({"type": "q8_0", "vision_type": "int8"}, InputError, "vision_type is 'int8', expected one of"),
        ({"type": "q8_0", "embedding_type": "q4_0"}, InputError, "embedding_type is 'q4_0', expected"),
        ({"type": "q8_0", "mmproj": "nothing.gguf"}, InputError, "nothing.gguf: no such file"),
    ],
)
def test_what_makes_no_sense(
    bare_f32: Path, tmp_path: Path, options: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        convert(bare_f32, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_mixtures_need_llama_cpp(
    tiny_checkpoint: Path, bare_f32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    for source in (tiny_checkpoint, bare_f32):
        with pytest.raises(UnsupportedError, match=r"q4_k_m is written by .* 'pocketvlm\[llama\]'"):
            convert(source, tmp_path / "out", type="q4_k_m")
    assert not list(tmp_path.iterdir())


def test_other_sources(tiny_checkpoint: Path, bare_f32: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        convert(tmp_path / "nowhere", tmp_path / "out", type="q8_0")
    with pytest.raises(InputError, match="mmproj is for those"):
        convert(tiny_checkpoint, tmp_path / "out", type="q8_0", mmproj="some.gguf")
    with pytest.raises(InputError, match="vision_type is for GGUF files; int8 is a type of ONNX files"):
        convert(tiny_checkpoint, tmp_path / "out", type="int8", vision_type="f16")
    (tmp_path / "text.gguf").write_bytes(b"GGUF")
    with pytest.raises(FormatError):
        convert(tmp_path / "text.gguf", tmp_path / "out", type="q8_0")
    convert(bare_f32, tmp_path / "there", type="f16")
    with pytest.raises(InputError, match="is not empty; --force replaces it"):
        convert(bare_f32, tmp_path / "there", type="q8_0")
    convert(bare_f32, tmp_path / "there", type="q8_0", force=True)
    assert pocketvlm.load(tmp_path / "there").info()["text_type"] == "q8_0"
