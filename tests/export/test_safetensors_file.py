"""The safetensors reader: what it returns, and one named error for each way a file can be malformed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm.errors import FormatError
from pocketvlm.export.safetensors_file import DTYPE_SIZES, SafetensorsFile, encode_header


def write(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    """Writes a file from a header (JSON object or bytes) and a length that may be a lie."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(begin: int, end: int, dtype: str = "F32", shape: Any = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def refusal(path: Path) -> str:
    """Opens a file that must not open; returns the message."""
    with pytest.raises(FormatError) as caught:
        SafetensorsFile(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_reads_what_is_there(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "b": entry(8, 16), "a": entry(0, 8)}
    with SafetensorsFile(write(tmp_path / "x", header, bytes(range(16)))) as file:
        assert set(file.tensors) == {"a", "b"}
        a, b = file.tensors["a"], file.tensors["b"]
        assert (a.dtype, a.shape, a.nbytes) == ("F32", (2,), 8)
        assert file.read(a.offset, a.nbytes) == bytes(range(8))
        assert file.read(b.offset + 4, 4) == bytes(range(12, 16))


def test_scalars_and_empty_tensors_are_sound(tmp_path: Path) -> None:
    header = {"empty": entry(0, 0, shape=(0, 7)), "scalar": entry(0, 4, shape=())}
    with SafetensorsFile(write(tmp_path / "x", header, bytes(4))) as file:
        assert file.tensors["empty"].nbytes == 0
        assert file.tensors["scalar"].shape == ()


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(DTYPE_SIZES)), st.lists(st.integers(0, 5), max_size=4)), max_size=6
    )
)
def test_what_encode_header_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, tensors: list[tuple[str, list[int]]]
) -> None:
    named = [(f"tensor {i}", dtype, tuple(shape)) for i, (dtype, shape) in enumerate(tensors)]
    header = encode_header(named)
    assert len(header) % 8 == 0
    path = tmp_path_factory.mktemp("round") / "x"
    path.write_bytes(header)
    needed = sum(_nbytes(dtype, shape) for _, dtype, shape in named)
    path.write_bytes(header + bytes(needed))
    with SafetensorsFile(path) as file:
        assert [(name, e.dtype, e.shape) for name, e in file.tensors.items()] == named


def _nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    product = DTYPE_SIZES[dtype]
    for size in shape:
        product *= size
    return product


def test_missing_file(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent")


@pytest.mark.parametrize("size", [0, 1, 7])
def test_shorter_than_its_length_field(tmp_path: Path, size: int) -> None:
    (tmp_path / "x").write_bytes(bytes(size))
    assert f"{size} bytes" in refusal(tmp_path / "x")


@pytest.mark.parametrize("length", [3, 10**8, 2**63, 2**64 - 1])
def test_absurd_header_length(tmp_path: Path, length: int) -> None:
    assert f"header length {length}" in refusal(write(tmp_path / "x", b"{}", length=length))


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"\xff\xfe", b'{"a": 1, "a": 2}', b"[" * 100_000],
    ids=["empty", "cut", "not utf-8", "name twice", "deep"],
)
def test_header_is_not_json(tmp_path: Path, header: bytes) -> None:
    assert "the header is not JSON" in refusal(write(tmp_path / "x", header))


def test_header_is_not_an_object(tmp_path: Path) -> None:
    assert "JSON list" in refusal(write(tmp_path / "x", b"[]"))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ([], "expected an object"),
        ({}, "dtype is None"),
        (entry(0, 8, dtype="F31"), "dtype is 'F31'"),
        (entry(0, 8) | {"shape": 2}, "shape is 2"),
        (entry(0, 8, shape=(-2,)), "shape is [-2]"),
        (entry(0, 8, shape=(2.0,)), "shape is [2.0]"),
        (entry(0, 8, shape=(True, 2)), "shape is [True, 2]"),
        (entry(0, 8) | {"data_offsets": [0]}, "data_offsets is [0]"),
        (entry(8, 0), "data_offsets is [8, 0]"),
        (entry(-8, 0), "data_offsets is [-8, 0]"),
        (entry(0, 8, shape=(3,)), "8 bytes, F32 [3] needs 12"),
        (entry(0, 8, shape=(2**40, 2**40)), f"needs {2**82}"),
    ],
)
def test_malformed_entry(tmp_path: Path, tensor: Any, message: str) -> None:
    found = refusal(write(tmp_path / "x", {"w": tensor}, bytes(8)))
    assert "tensor w" in found and message in found


def test_truncated(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"w": entry(0, 8)}, bytes(7))
    size = path.stat().st_size
    assert f"{size} bytes, the header describes {size + 1}" in refusal(path)


def test_trailing_bytes(tmp_path: Path) -> None:
    assert "the header describes" in refusal(write(tmp_path / "x", {"w": entry(0, 8)}, bytes(9)))


def test_overlap(tmp_path: Path) -> None:
    header = {"a": entry(0, 8), "b": entry(4, 12)}
    assert "tensor b overlaps tensor a" in refusal(write(tmp_path / "x", header, bytes(12)))


def test_same_bytes_twice(tmp_path: Path) -> None:
    header = {"a": entry(0, 8), "b": entry(0, 8)}
    assert "tensor b overlaps tensor a" in refusal(write(tmp_path / "x", header, bytes(8)))


def test_hole(tmp_path: Path) -> None:
    header = {"a": entry(0, 8), "b": entry(12, 20)}
    assert "tensor b leaves a hole after tensor a" in refusal(write(tmp_path / "x", header, bytes(20)))


def test_cut_short_after_opening(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"w": entry(0, 8)}, bytes(8))
    with SafetensorsFile(path) as file:
        with path.open("r+b") as other:
            other.truncate(path.stat().st_size - 1)
        tensor = file.tensors["w"]
        with pytest.raises(FormatError, match=r"bytes, expected \d+ at least"):
            file.read(tensor.offset, tensor.nbytes)
