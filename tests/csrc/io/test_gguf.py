"""Well-formed GGUF files, as the `gguf` package writes them: all of it comes back, and damage never crashes.

Refusals of malformed files are in test_gguf_malformed.py.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketvlm import _core
from pocketvlm.errors import FormatError, UnsupportedError

# One file per example in one folder; Hypothesis would rather have a new folder for each.
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(path: Path, fill: Callable[[GGUFWriter], None]) -> Path:
    writer = GGUFWriter(path, "llama")
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def small_file(path: Path) -> Path:
    def fill(writer: GGUFWriter) -> None:
        writer.add_uint32("llama.block_count", 30)
        writer.add_float32("llama.rope.freq_base", 100000.0)
        writer.add_bool("flag", True)
        writer.add_array("tokenizer.ggml.tokens", ["<|endoftext|>", "Ġt", "日本"])
        writer.add_array("clip.vision.image_mean", [0.5, 0.25, 0.125])
        writer.add_tensor("norm", np.arange(5, dtype=np.float32))
        quants = gguf.quants.quantize(np.linspace(-1, 1, 128, dtype=np.float32), GGMLQuantizationType.Q8_0)
        writer.add_tensor("weight", quants.reshape(2, -1), raw_dtype=GGMLQuantizationType.Q8_0)

    return write(path, fill)


def integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    low = -(2 ** (bits - 1)) if signed else 0
    return st.integers(low, low + 2**bits - 1)


def text() -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


FLOAT32 = st.floats(width=32, allow_nan=False)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "uint8": integers(8, signed=False),
    "int8": integers(8, signed=True),
    "uint16": integers(16, signed=False),
    "int16": integers(16, signed=True),
    "uint32": integers(32, signed=False),
    "int32": integers(32, signed=True),
    "uint64": integers(64, signed=False),
    "int64": integers(64, signed=True),
    "float32": FLOAT32,
    "float64": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "string": text(),
}
ARRAYS = st.one_of(
    st.lists(integers(32, signed=True), min_size=1),
    st.lists(FLOAT32, min_size=1),
    st.lists(st.booleans(), min_size=1),
    st.lists(text(), min_size=1),
)
VALUES = st.one_of(
    *(st.tuples(st.just(name), values) for name, values in SCALARS.items()),
    st.tuples(st.just("array"), ARRAYS),
)
KEYS = st.from_regex(r"[a-z][a-z0-9_.]{0,60}", fullmatch=True).filter(
    lambda key: not key.startswith("general.")
)


@one_folder
@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_metadata_round_trip(tmp_path: Path, values: dict[str, tuple[str, Any]]) -> None:
    def fill(writer: GGUFWriter) -> None:
        for key, (kind, value) in values.items():
            getattr(writer, f"add_{kind}")(key, value)

    file = _core.GgufFile(str(write(tmp_path / "model.gguf", fill)))
    expected = {"general.architecture": "llama", **{key: value for key, (_, value) in values.items()}}
    assert file.metadata == expected
    assert list(file.metadata) == list(expected)
    for key, (kind, value) in values.items():
        assert type(file.metadata[key]) is type(value), kind


@one_folder
@given(
    st.dictionaries(
        st.from_regex(r"[a-z0-9_.]{1,63}", fullmatch=True),
        st.tuples(
            st.sampled_from(["f32", "f16", "bf16", "q8_0", "q4_0"]),
            st.lists(st.integers(1, 5), min_size=1, max_size=4),
        ),
        max_size=8,
    ),
    st.integers(0, 2**32 - 1),
    st.sampled_from([8, 32, 4096]),
)
def test_tensor_round_trip(
    tmp_path: Path, tensors: dict[str, tuple[str, list[int]]], seed: int, alignment: int
) -> None:
    rng = np.random.default_rng(seed)
    blocks: dict[str, np.ndarray[Any, Any]] = {}
    expected: dict[str, tuple[str, list[int], int]] = {}

    def fill(writer: GGUFWriter) -> None:
        writer.add_custom_alignment(alignment)
        for name, (type_name, shape) in tensors.items():
            ggml_type = GGMLQuantizationType[type_name.upper()]
            block_size, type_size = gguf.GGML_QUANT_SIZES[ggml_type]
            *rows, row_blocks = shape
            blocks[name] = rng.integers(0, 256, (*rows, row_blocks * type_size), dtype=np.uint8)
            writer.add_tensor(name, blocks[name], raw_dtype=ggml_type)
            ne = [row_blocks * block_size, *reversed(rows)]
            expected[name] = (type_name, ne, blocks[name].size)

    file = _core.GgufFile(str(write(tmp_path / "model.gguf", fill)))
    assert file.tensors == expected
    for name, data in blocks.items():
        np.testing.assert_array_equal(file.tensor_data(name), data.ravel())
        file.give_back(name)  # the pages come back from the file
        np.testing.assert_array_equal(file.tensor_data(name), data.ravel())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads resident memory from /proc")
def test_give_back_frees_mapped_memory(tmp_path: Path) -> None:
    def resident_file_bytes() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssFile:")[1].split()[0]) * 1024

    weights = np.zeros(8 << 20, dtype=np.float32)
    path = write(tmp_path / "model.gguf", lambda writer: writer.add_tensor("weights", weights))
    file = _core.GgufFile(str(path))
    opened = resident_file_bytes()
    assert not file.tensor_data("weights").any()
    assert resident_file_bytes() - opened > 0.9 * weights.nbytes
    file.give_back("weights")
    assert resident_file_bytes() - opened < 0.1 * weights.nbytes


def test_vocabulary_of_true_size(tmp_path: Path) -> None:
    tokens = [f"token {i}" for i in range(49280)]
    path = write(tmp_path / "model.gguf", lambda writer: writer.add_token_list(tokens))
    assert _core.GgufFile(str(path)).require_strings("tokenizer.ggml.tokens") == tokens


def test_version_2(tmp_path: Path) -> None:
    path = small_file(tmp_path / "model.gguf")
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", 2)
    path.write_bytes(content)
    file = _core.GgufFile(str(path))
    assert file.version == 2
    assert set(file.tensors) == {"norm", "weight"}


def test_header_alone_need_not_be_padded(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 0))
    file = _core.GgufFile(str(path))
    assert (file.metadata, file.tensors) == ({}, {})


def test_empty_string_and_arrays(tmp_path: Path) -> None:
    def key(name: bytes, *value: int) -> bytes:
        *head, last = value
        return struct.pack("<Q", len(name)) + name + struct.pack(f"<{len(head)}IQ", *head, last)

    path = tmp_path / "model.gguf"
    header = struct.pack("<4sIQQ", b"GGUF", 3, 0, 3)
    path.write_bytes(header + key(b"text", 8, 0) + key(b"texts", 9, 8, 0) + key(b"floats", 9, 6, 0))
    file = _core.GgufFile(str(path))
    assert file.metadata == {"text": "", "texts": [], "floats": []}
    assert file.require_string("text") == ""
    assert file.require_f32_array("floats") == []


def test_text_that_is_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(struct.pack("<4sIQQQ1sIQ3s", b"GGUF", 3, 0, 1, 1, b"k", 8, 3, b"a\xffb"))
    assert _core.GgufFile(str(path)).metadata == {"k": "a\udcffb"}


def test_tensors_may_leave_gaps_and_touch(tmp_path: Path) -> None:
    def tensor(name: bytes, n: int, offset: int) -> bytes:
        return struct.pack("<Q1sIQIQ", 1, name, 1, n, 0, offset)

    header = struct.pack("<4sIQQ", b"GGUF", 3, 3, 0)
    # c lies first, a touches it, b follows behind a gap: 3 x 33 + 24 = 123 bytes of header, data from 128.
    infos = tensor(b"a", 8, 32) + tensor(b"b", 1, 96) + tensor(b"c", 8, 0)
    path = tmp_path / "model.gguf"
    path.write_bytes(header + infos + bytes(5) + np.arange(25, dtype=np.float32).tobytes() + b"tail")
    file = _core.GgufFile(str(path))
    values = {name: file.tensor_data(name).view(np.float32).tolist() for name in "abc"}
    assert values == {"a": list(range(8, 16)), "b": [24], "c": list(range(8))}


def test_typed_getters(tmp_path: Path) -> None:
    file = _core.GgufFile(str(small_file(tmp_path / "model.gguf")))
    assert file.require_u32("llama.block_count") == 30
    assert file.require_f32("llama.rope.freq_base") == 100000.0
    assert file.require_bool("flag") is True
    assert file.require_string("general.architecture") == "llama"
    assert file.require_strings("tokenizer.ggml.tokens") == ["<|endoftext|>", "Ġt", "日本"]
    assert file.require_f32_array("clip.vision.image_mean") == [0.5, 0.25, 0.125]
    assert file.find_u32("llama.block_count") == 30
    assert file.find_u32("llama.context_length") is None


@pytest.mark.parametrize(
    ("getter", "key", "message"),
    [
        ("require_u32", "llama.context_length", "missing, expected UINT32"),
        ("require_f32", "llama.context_length", "missing, expected FLOAT32"),
        ("require_bool", "llama.context_length", "missing, expected BOOL"),
        ("require_string", "llama.context_length", "missing, expected STRING"),
        ("require_strings", "llama.context_length", "missing, expected ARRAY/STRING"),
        ("require_f32_array", "llama.context_length", "missing, expected ARRAY/FLOAT32"),
        ("require_u32", "llama.rope.freq_base", "FLOAT32, expected UINT32"),
        ("require_f32", "llama.block_count", "UINT32, expected FLOAT32"),
        ("require_bool", "llama.block_count", "UINT32, expected BOOL"),
        ("require_string", "tokenizer.ggml.tokens", "ARRAY/STRING, expected STRING"),
        ("require_strings", "general.architecture", "STRING, expected ARRAY/STRING"),
        ("require_f32_array", "tokenizer.ggml.tokens", "ARRAY/STRING, expected ARRAY/FLOAT32"),
        ("find_u32", "flag", "BOOL, expected UINT32"),
    ],
)
def test_typed_getter_errors(tmp_path: Path, getter: str, key: str, message: str) -> None:
    path = small_file(tmp_path / "model.gguf")
    with pytest.raises(FormatError) as caught:
        getattr(_core.GgufFile(str(path)), getter)(key)
    assert str(caught.value) == f"{path}: key {key}: {message}"


def test_required_tensor(tmp_path: Path) -> None:
    path = small_file(tmp_path / "model.gguf")
    file = _core.GgufFile(str(path))
    file.require_tensor("weight", [64, 2])
    file.require_tensor("weight", [64, 2, 1])  # trailing ones do not count
    file.require_tensor("norm", [5])
    for name, ne, found in [
        ("weight", [2, 64], "[64, 2]"),
        ("weight", [64], "[64, 2]"),
        ("weight", [64, 2, 2], "[64, 2]"),
        ("norm", [5, 1, 1, 1, 2], "[5]"),
        ("bias", [5], "missing"),
    ]:
        with pytest.raises(FormatError, match=re.escape(f"{path}: tensor {name}: {found}, expected {ne}")):
            file.require_tensor(name, ne)


@settings(one_folder, max_examples=1000)
@given(st.data())
def test_damaged_bytes_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    """A small valid file with a few bytes changed parses, or is refused by name; what parses can be read."""
    path = tmp_path / "model.gguf"
    content = bytearray(small_file(path).read_bytes())
    special = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])
    for _ in range(data.draw(st.integers(1, 4), label="changes")):
        at = data.draw(st.integers(0, len(content) - 1), label="at")
        content[at] = data.draw(special | st.integers(0, 255), label="byte")
    path.write_bytes(content)
    try:
        file = _core.GgufFile(str(path))
    except (FormatError, UnsupportedError) as error:
        assert str(error).startswith(f"{path}: ")
        return
    assert len(file.metadata) > 0
    for name, (_, ne, nbytes) in file.tensors.items():
        assert math.prod(ne) > 0
        assert file.tensor_data(name).nbytes == nbytes
