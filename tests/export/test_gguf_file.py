"""The GGUF writer: whole files equal to those of the `gguf` package, and its refusal to write half a file."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from pocketvlm.errors import FormatError
from pocketvlm.export.gguf_file import (
    GgufWriter,
    TensorInfo,
    ValueType,
    array,
    boolean,
    encode_header,
    float32,
    replace_metadata,
    string,
    uint32,
)
from pocketvlm.export.quantize import TYPES

METADATA = {
    "general.architecture": string("llama"),
    "a.number": uint32(2**32 - 1),
    "a.float": float32(1e-6),
    "a.true": boolean(True),
    "a.false": boolean(False),
    "a.text": string("zwölf \n 猫"),
    "an.empty.text": string(""),
    "texts": array(ValueType.STRING, ["Ġ t", "", "ß"]),
    "integers": array(ValueType.INT32, [3, -1, 2**31 - 1]),
    "floats": array(ValueType.FLOAT32, [0.5, 0.25, 0.1]),
}

VALUES = {
    "vector": np.arange(5, dtype=np.float32),
    "matrix": np.arange(64 * 3, dtype=np.float32).reshape(3, 64),
    "kernel": np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4),
}
KINDS = {"vector": "f32", "matrix": "q8_0", "kernel": "f16"}


def tensor_infos() -> list[TensorInfo]:
    return [
        TensorInfo(name, values.shape, TYPES[KINDS[name]], TYPES[KINDS[name]].nbytes(values.size))
        for name, values in VALUES.items()
    ]


def write_ours(path: Path) -> None:
    with GgufWriter(path, METADATA, tensor_infos()) as writer:
        for name, values in VALUES.items():
            for row in values.reshape(len(values), -1):
                writer.write(TYPES[KINDS[name]].quantize(row[None]))


def write_theirs(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("a.number", 2**32 - 1)
    writer.add_float32("a.float", 1e-6)
    writer.add_bool("a.true", True)
    writer.add_bool("a.false", False)
    writer.add_string("a.text", "zwölf \n 猫")
    # add_string leaves empty strings out.
    writer.add_key_value("an.empty.text", "", gguf.GGUFValueType.STRING)
    writer.add_array("texts", ["Ġ t", "", "ß"])
    writer.add_array("integers", [3, -1, 2**31 - 1])
    writer.add_array("floats", [0.5, 0.25, 0.1])
    writer.add_tensor("vector", VALUES["vector"])
    quantized = gguf.quants.quantize(VALUES["matrix"], gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("matrix", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("kernel", VALUES["kernel"].astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_files_equal_the_gguf_packages(tmp_path: Path) -> None:
    write_ours(tmp_path / "ours")
    write_theirs(tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_metadata_can_be_replaced_by_values_as_long(tmp_path: Path) -> None:
    write_ours(tmp_path / "x")
    before = (tmp_path / "x").read_bytes()
    changed = METADATA | {"a.text": string("zwölf \n 鼠")}
    replace_metadata(tmp_path / "x", METADATA, changed, tensor_infos())
    after = (tmp_path / "x").read_bytes()
    assert after == before.replace("猫".encode(), "鼠".encode()) != before
    with pytest.raises(AssertionError, match="not as long"):
        replace_metadata(tmp_path / "x", METADATA, METADATA | {"a.text": string("x")}, tensor_infos())


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(FormatError, match="surrogates not allowed"):
        encode_header({"a.text": string("\ud800")}, [])


def test_an_incomplete_tensor_is_noticed(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="incomplete"),
        GgufWriter(tmp_path / "x", METADATA, tensor_infos()) as writer,
    ):
        writer.write(TYPES["f32"].quantize(VALUES["vector"][None, :4]))


def test_too_many_bytes_are_noticed(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="too many bytes for vector"),
        GgufWriter(tmp_path / "x", METADATA, tensor_infos()) as writer,
    ):
        writer.write(TYPES["f32"].quantize(np.zeros((1, 6), np.float32)))
