"""Malformed GGUF files, one named case each: every one is refused with a message that says where and what.

The files are built byte by byte, since no writer would make them. Files that are fine are in test_gguf.py.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pocketvlm import _core
from pocketvlm.errors import FormatError, UnsupportedError

UINT32, BOOL, STRING, ARRAY, UINT64 = 4, 7, 8, 9, 10
F32, Q8_0 = 0, 8
KNOWN_TYPES = (
    "f32 (0), f16 (1), q4_0 (2), q4_1 (3), q5_0 (6), q5_1 (7), q8_0 (8), q4_k (12), q5_k (13), q6_k (14), "
    "iq4_nl (20), bf16 (30)"
)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(text: bytes) -> bytes:
    return u64(len(text)) + text


def entry(key: bytes, value_type: int, value: bytes) -> bytes:
    return string(key) + u32(value_type) + value


def array(element_type: int, count: int, elements: bytes) -> bytes:
    return u32(element_type) + u64(count) + elements


def tensor(name: bytes, ne: Sequence[int], *, type_id: int = F32, offset: int = 0, n_dims: int = -1) -> bytes:
    dims = b"".join(u64(n) for n in ne)
    return string(name) + u32(len(ne) if n_dims < 0 else n_dims) + dims + u32(type_id) + u64(offset)


@dataclass(frozen=True)
class Gguf:
    """The parts of a file; a count of None is the true one."""

    magic: bytes = b"GGUF"
    version: bytes = u32(3)
    tensor_count: int | None = None
    entry_count: int | None = None
    entries: Sequence[bytes] = ()
    tensors: Sequence[bytes] = ()
    data: bytes = b""
    alignment: int = 32
    tail: bytes = b""

    def encode(self) -> bytes:
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        entry_count = len(self.entries) if self.entry_count is None else self.entry_count
        header = self.magic + self.version + u64(tensor_count) + u64(entry_count)
        header += b"".join(self.entries) + b"".join(self.tensors)
        padding = -len(header) % self.alignment if self.data else 0
        return header + bytes(padding) + self.data + self.tail


VALID = Gguf(
    entries=[
        entry(b"general.architecture", STRING, string(b"llama")),
        entry(b"tokens", ARRAY, array(STRING, 2, string(b"a") + string(b"bc"))),
        entry(b"flag", BOOL, b"\x01"),
    ],
    tensors=[tensor(b"w", [32, 2], type_id=Q8_0), tensor(b"b", [3], offset=96)],
    data=bytes(96 + 12),
)


def with_entry(key: bytes, value_type: int, value: bytes) -> Gguf:
    return Gguf(entries=[entry(key, value_type, value)])


def with_tensors(*tensors: bytes, data_bytes: int = 0) -> Gguf:
    return Gguf(tensors=tensors, data=bytes(data_bytes))


def with_alignment(value: int) -> Gguf:
    return with_entry(b"general.alignment", UINT32, u32(value))


# name -> (file, message behind the path)
MALFORMED: dict[str, tuple[Gguf, str]] = {
    "zero bytes": (
        Gguf(magic=bytes(4), version=bytes(4)),
        'header: magic "\\x00\\x00\\x00\\x00", expected "GGUF"',
    ),
    "magic of another format": (replace(VALID, magic=b"GGML"), 'header: magic "GGML", expected "GGUF"'),
    "version 0": (replace(VALID, version=u32(0)), "header: version 0, expected 2 or 3"),
    "version 1": (replace(VALID, version=u32(1)), "header: version 1, expected 2 or 3"),
    "version 4": (replace(VALID, version=u32(4)), "header: version 4, expected 2 or 3"),
    "big-endian": (
        replace(VALID, version=struct.pack(">I", 3)),
        "header: big-endian numbers, expected little-endian",
    ),
    "absurd tensor count": (
        replace(VALID, tensor_count=2**64 - 1),
        "header: tensor count 18446744073709551615, expected at most 9 in the 316 bytes left",
    ),
    "absurd key count": (
        replace(VALID, entry_count=2**63),
        "header: key count 9223372036854775808, expected at most 22 in the 308 bytes left",
    ),
    "more tensors than allowed": (
        Gguf(tensor_count=65537, tail=bytes(65537 * 33)),
        "header: tensor count 65537, expected at most 65536",
    ),
    "more keys than allowed": (
        Gguf(entry_count=65537, tail=bytes(65537 * 14)),
        "header: key count 65537, expected at most 65536",
    ),
    "one key fewer than counted": (
        replace(VALID, entry_count=4),
        "tensor 0: a name of 562949953421312 bytes, expected 1 to 64",  # the first tensor was taken for a key
    ),
    "key without a name": (with_entry(b"", UINT32, u32(1)), "key 0: a name of 0 bytes, expected 1 to 65535"),
    "key name too long": (
        with_entry(b"k" * 65536, UINT32, u32(1)),
        "key 0: a name of 65536 bytes, expected 1 to 65535",
    ),
    "key name longer than the file": (
        Gguf(entries=[u64(60000) + bytes(20)]),
        "key 0: 20 bytes left, its name needs 60000",
    ),
    "key name with a zero byte": (
        with_entry(b"a\x00b", UINT32, u32(1)),
        "key 0: name a\\x00b, expected printable ASCII",
    ),
    "key name with a terminal escape": (
        with_entry(b"\x1b[2J", UINT32, u32(1)),
        "key 0: name \\x1b[2J, expected printable ASCII",
    ),
    "duplicated key": (
        Gguf(entries=[entry(b"k", UINT32, u32(i)) for i in range(3)]),
        "key k: appears twice, expected once",
    ),
    "unknown value type": (with_entry(b"k", 13, bytes(64)), "key k: value type 13, expected 0 to 12"),
    "huge value type": (
        with_entry(b"k", 2**32 - 1, bytes(64)),
        "key k: value type 4294967295, expected 0 to 12",
    ),
    "unknown element type": (
        with_entry(b"k", ARRAY, array(13, 1, bytes(8))),
        "key k: element type 13, expected 0 to 12",
    ),
    "array of arrays": (
        with_entry(b"k", ARRAY, array(ARRAY, 1, array(UINT32, 1, u32(1)))),
        "key k: an array of arrays, expected numbers or strings",
    ),
    "bool of 2": (with_entry(b"k", BOOL, b"\x02"), "key k: BOOL of value 2, expected 0 or 1"),
    "bool of 255 in an array": (
        with_entry(b"k", ARRAY, array(BOOL, 3, b"\x00\x01\xff")),
        "key k: BOOL of value 255, expected 0 or 1",
    ),
    "number cut off": (with_entry(b"k", UINT64, bytes(7)), "key k: 7 bytes left, UINT64 needs 1 x 8"),
    "string longer than the file": (
        with_entry(b"k", STRING, u64(6) + b"llama"),
        "key k: 5 bytes left, a string needs 6",
    ),
    "string length that overflows": (
        with_entry(b"k", STRING, u64(2**64 - 1) + b"llama"),
        "key k: 5 bytes left, a string needs 18446744073709551615",
    ),
    "array longer than the file": (
        with_entry(b"k", ARRAY, array(UINT32, 4, bytes(15))),
        "key k: 15 bytes left, UINT32 needs 4 x 4",
    ),
    "array size that overflows": (
        with_entry(b"k", ARRAY, array(UINT64, 2**61 + 1, bytes(8))),
        "key k: 8 bytes left, UINT64 needs 2305843009213693953 x 8",
    ),
    "array of absurdly many strings": (
        with_entry(b"k", ARRAY, array(STRING, 2**63, bytes(8))),
        "key k: 0 bytes left, a string needs 1 x 8",
    ),
    "string in an array that overflows": (
        with_entry(b"k", ARRAY, array(STRING, 2, string(b"a") + u64(2**64 - 8) + bytes(8))),
        "key k: 8 bytes left, a string needs 18446744073709551608",
    ),
    "alignment 0": (with_alignment(0), "key general.alignment: 0, expected a power of two in 8..65536"),
    "alignment 4": (with_alignment(4), "key general.alignment: 4, expected a power of two in 8..65536"),
    "alignment 24": (with_alignment(24), "key general.alignment: 24, expected a power of two in 8..65536"),
    "alignment 2^31": (
        with_alignment(2**31),
        "key general.alignment: 2147483648, expected a power of two in 8..65536",
    ),
    "alignment of another type": (
        with_entry(b"general.alignment", UINT64, u64(32)),
        "key general.alignment: UINT64, expected UINT32",
    ),
    "alignment in an array": (
        with_entry(b"general.alignment", ARRAY, array(UINT32, 1, u32(32))),
        "key general.alignment: ARRAY/UINT32, expected UINT32",
    ),
    "tensor without a name": (
        with_tensors(tensor(b"", [4]), data_bytes=16),
        "tensor 0: a name of 0 bytes, expected 1 to 64",
    ),
    "tensor name too long": (
        with_tensors(tensor(b"t" * 65, [4]), data_bytes=16),
        "tensor 0: a name of 65 bytes, expected 1 to 64",
    ),
    "tensor name of no ASCII": (
        with_tensors(tensor(b"w\xff", [4]), data_bytes=16),
        "tensor 0: name w\\xff, expected printable ASCII",
    ),
    "duplicated tensor": (
        with_tensors(tensor(b"w", [8]), tensor(b"w", [8], offset=32), data_bytes=64),
        "tensor w: appears twice, expected once",
    ),
    "no dimensions": (
        with_tensors(tensor(b"w", []), data_bytes=16),
        "tensor w: 0 dimensions, expected 1 to 4",
    ),
    "five dimensions": (
        with_tensors(tensor(b"w", [1] * 5), data_bytes=16),
        "tensor w: 5 dimensions, expected 1 to 4",
    ),
    "absurd number of dimensions": (
        with_tensors(tensor(b"w", [4], n_dims=2**32 - 1), data_bytes=16),
        "tensor w: 4294967295 dimensions, expected 1 to 4",
    ),
    "zero dimension": (
        with_tensors(tensor(b"w", [4, 0]), data_bytes=16),
        "tensor w: dimension 1 is 0, expected at least 1",
    ),
    "negative dimension": (
        with_tensors(tensor(b"w", [2**64 - 1]), data_bytes=16),
        "tensor w: dimension 0 is 18446744073709551615, expected at most 2^63 - 1 elements in all",
    ),
    "elements that overflow": (
        with_tensors(tensor(b"w", [2**32, 2**32]), data_bytes=16),
        "tensor w: dimension 1 is 4294967296, expected at most 2^63 - 1 elements in all",
    ),
    "elements that overflow to a small number": (
        with_tensors(tensor(b"w", [2**31, 2**31, 4, 2**60 + 1]), data_bytes=16),
        "tensor w: dimension 2 is 4, expected at most 2^63 - 1 elements in all",
    ),
    "bytes that overflow": (
        with_tensors(tensor(b"w", [2**31, 2**31]), data_bytes=16),
        "tensor w: f32 [2147483648, 2147483648], expected a size that fits into memory",
    ),
    "row that is no multiple of its block": (
        with_tensors(tensor(b"w", [48, 2], type_id=Q8_0), data_bytes=102),
        "tensor w: rows of 48, q8_0 needs a multiple of 32",
    ),
    "misaligned offset": (
        with_tensors(tensor(b"w", [4], offset=16), data_bytes=32),
        "tensor w: offset 16, expected a multiple of 32",
    ),
    "offset behind the file": (
        with_tensors(tensor(b"w", [4], offset=64), data_bytes=48),
        "tensor w: offset 64, expected at most 48, the bytes of all tensors",
    ),
    "offset that overflows": (
        with_tensors(tensor(b"w", [4], offset=2**64 - 32), data_bytes=48),
        "tensor w: offset 18446744073709551584, expected at most 48, the bytes of all tensors",
    ),
    "data cut off": (
        with_tensors(tensor(b"w", [32, 2], type_id=Q8_0), data_bytes=67),
        "tensor w: 67 bytes, q8_0 [32, 2] needs 68",
    ),
    "no data section": (with_tensors(tensor(b"w", [1])), "tensor w: 0 bytes, f32 [1] needs 4"),
    "two tensors at one offset": (
        with_tensors(tensor(b"a", [8]), tensor(b"b", [4]), data_bytes=64),
        "tensor b: overlaps tensor a, expected bytes of its own",
    ),
    "tensor that reaches into the next": (
        with_tensors(tensor(b"b", [8], offset=32), tensor(b"a", [9]), data_bytes=64),
        "tensor b: overlaps tensor a, expected bytes of its own",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(tmp_path: Path, name: str) -> None:
    malformed, message = MALFORMED[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(malformed.encode())
    with pytest.raises(FormatError) as caught:
        _core.GgufFile(str(path))
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("type_id", [4, 9, 11, 29, 31, 2**32 - 1])
def test_unknown_tensor_type(tmp_path: Path, type_id: int) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(with_tensors(tensor(b"w", [256], type_id=type_id), data_bytes=1024).encode())
    with pytest.raises(UnsupportedError) as caught:
        _core.GgufFile(str(path))
    assert str(caught.value) == f"{path}: tensor w: type {type_id}, expected one of {KNOWN_TYPES}"


def test_truncated_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    whole = VALID.encode()
    path.write_bytes(whole)
    assert set(_core.GgufFile(str(path)).tensors) == {"w", "b"}
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError, match=r"model\.gguf: (header|key|tensor) ?\S*: "):
            _core.GgufFile(str(path))


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.touch()
    with pytest.raises(FormatError, match="header: 0 bytes left, the magic needs 4"):
        _core.GgufFile(str(path))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nothing\.gguf: cannot be opened: No such file or directory"):
        _core.GgufFile(str(tmp_path / "nothing.gguf"))


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="a directory, expected a file"):
        _core.GgufFile(str(tmp_path))


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(FormatError, match="not a regular file, expected a file"):
        _core.GgufFile(str(tmp_path / "pipe.gguf"))


# Opens argv[1] and prints the seconds and the bytes that it took, and the outcome. VmHWM is the peak of this
# process alone; a peak before the file was opened would make the bytes more, never less.
MEASURE = """
import sys, time
from pathlib import Path
from pocketvlm import _core
from pocketvlm.errors import FormatError

def kib(field):
    return int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0])

before, start = kib("VmRSS"), time.perf_counter()
try:
    _core.GgufFile(sys.argv[1])
    outcome = "parsed"
except FormatError as error:
    outcome = str(error).split(": ", 1)[1]
print(time.perf_counter() - start, (kib("VmHWM") - before) * 1024, outcome)
"""

SPARSE = 2**34  # 16 GiB of zero bytes that take no room on the disk


def endless(element_type: int, count: int) -> Gguf:
    return replace(with_entry(b"k", ARRAY, array(element_type, count, b"")), entry_count=2)


def long_and_alike_keys() -> Gguf:
    return Gguf(entries=[entry(b"k" * 480 + b"%05x" % i, BOOL, b"\0") for i in range(65536)])


def many_tensors() -> Gguf:
    names = [tensor(b"t" * 59 + b"%05x" % i, [1, 1, 1, 1], offset=32 * i) for i in range(65536)]
    return with_tensors(*names, data_bytes=65536 * 32)


def tensor_over_all_others() -> Gguf:
    return replace(many_tensors(), tensors=[*many_tensors().tensors[1:], tensor(b"u", [2**31])])


# name -> (file, bytes that it is made up to with zeros, start of the outcome)
HOSTILE: dict[str, tuple[Callable[[], Gguf], int, str]] = {
    "empty strings without end": (
        lambda: endless(STRING, 2**31),
        SPARSE,
        "key k: 7 bytes left of the 32 MiB that a header may have, a string needs 1 x 8",
    ),
    "bools without end": (
        lambda: endless(BOOL, 2**33),
        SPARSE,
        "key k: 33554383 bytes left of the 32 MiB that a header may have, BOOL needs 8589934592",
    ),
    "as many bools as fit": (
        lambda: endless(BOOL, 2**25 - 49),
        SPARSE,
        "key 1: 0 bytes left of the 32 MiB that a header may have, length of its name needs 1 x 8",
    ),
    "long and alike keys": (long_and_alike_keys, 0, "parsed"),
    "many tensors": (many_tensors, 0, "parsed"),
    "a tensor over all others": (tensor_over_all_others, SPARSE, "tensor tttttt"),
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory from /proc")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_costs_little(tmp_path: Path, name: str) -> None:
    build, size, expected = HOSTILE[name]
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.write(build().encode())
        if size:
            file.truncate(size)
    command = [sys.executable, "-c", MEASURE, str(path)]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak_bytes, outcome = child.stdout.rstrip("\n").split(" ", 2)
    assert outcome.startswith(expected)
    assert float(seconds) < 1.0
    assert int(peak_bytes) < 100_000_000
