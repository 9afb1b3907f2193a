"""Block bytes against the quantisers of the `gguf` package, which are those of ggml."""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pocketvlm.export.quantize import TYPES

GGML_TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
}
assert GGML_TYPES.keys() == TYPES.keys()

# In a block whose largest magnitude is below this, give or take a rounding, 1 / (max / 127) or 1 / (max / 8)
# overflows float32, and what `gguf` does is undefined. See the test of blocks too small for a scale.
SMALLEST_DEFINED = {"q8_0": 1.01 * 127 * 2.0**-128, "q4_0": 1.01 * 8 * 2.0**-128}


def expected_bytes(rows: npt.NDArray[np.float32], name: str) -> bytes:
    return gguf.quants.quantize(rows, GGML_TYPES[name]).tobytes()


def our_bytes(rows: npt.NDArray[np.float32], name: str) -> bytes:
    data = TYPES[name].quantize(rows)
    assert data.dtype == np.uint8 and data.shape == (len(rows), TYPES[name].nbytes(rows.shape[1]))
    return data.tobytes()


def floats(limit: float) -> st.SearchStrategy[float]:
    """Numbers up to `limit`, subnormal ones too, and among them the edges."""
    edges = [0.0, 1.0, 8.0, 127.0, 0.5, 63.5, 7.5, 1e-6, 1e-30, 1e-45, limit]
    return st.sampled_from([*edges, *(-x for x in edges)]) | st.floats(-limit, limit, width=32)


def without_undefined(rows: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
    """Puts 1 into the blocks that are not zero but too small to be defined."""
    if name not in SMALLEST_DEFINED:
        return rows
    blocks = rows.reshape(-1, 32).copy()
    largest = np.abs(blocks).max(axis=1)
    blocks[(largest > 0) & (largest < SMALLEST_DEFINED[name]), 5] = 1
    return blocks.reshape(rows.shape)


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_equals_gguf(name: str, data: st.DataObject) -> None:
    # Where the limit itself is not a float32, one a little below it.
    limit = float(np.nextafter(np.float32(min(TYPES[name].max_abs, 1e38)), np.float32(0)))
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3).map(lambda blocks: 32 * blocks)))
    fill = st.sampled_from([0.0, -0.0])
    rows = data.draw(hnp.arrays(np.float32, shape, elements=floats(limit), fill=fill))
    rows = without_undefined(rows, name)
    assert our_bytes(rows, name) == expected_bytes(rows, name)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e-6, 1.0, 300.0, 60000.0])
def test_equals_gguf_on_normal_values(name: str, scale: float) -> None:
    """At 1e-6 the scales are subnormal float16, at 1e-36 they are zero."""
    values = np.random.default_rng(0).standard_normal((64, 576)) / 5 * scale
    rows = without_undefined(values.astype(np.float32), name)
    assert our_bytes(rows, name) == expected_bytes(rows, name)


def test_q8_0_rounds_ties_away_from_zero() -> None:
    row = np.zeros((1, 32), np.float32)
    row[0, :7] = [127, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5]
    block = np.frombuffer(our_bytes(row, "q8_0"), np.uint8)
    assert block[:2].view("<f2") == 1
    assert block[2:9].view(np.int8).tolist() == [127, 1, -1, 2, -2, 3, -3]
    assert block.tobytes() == expected_bytes(row, "q8_0")


def test_q8_0_of_zeros_is_zeros() -> None:
    assert our_bytes(np.zeros((2, 64), np.float32), "q8_0") == bytes(2 * 2 * 34)


def q4_0_quants(block: bytes) -> list[int]:
    """The 32 four-bit numbers of a block, 8 taken off: element i lies beside element i + 16."""
    packed = np.frombuffer(block, np.uint8)[2:].astype(int)
    return [*(packed % 16 - 8), *(packed // 16 - 8)]


def test_q4_0_rounds_ties_up_and_fills_low_halves_first() -> None:
    row = np.zeros((1, 32), np.float32)
    row[0, :7] = [-8, 0.5, -0.5, 1.5, -1.5, 7, 7.5]
    row[0, 16:19] = [6.5, -6.5, 8]
    block = our_bytes(row, "q4_0")
    assert np.frombuffer(block[:2], "<f2") == 1
    quants = q4_0_quants(block)
    assert quants[:8] == [-8, 1, 0, 2, -1, 7, 7, 0]  # 7.5 would be 8, which there is not
    assert quants[16:20] == [7, -6, 7, 0]
    assert block == expected_bytes(row, "q4_0")


@pytest.mark.parametrize("sign", [1, -1])
def test_q4_0_scale_comes_from_the_first_of_equal_magnitudes(sign: int) -> None:
    row = np.zeros((1, 32), np.float32)
    row[0, 3], row[0, 9] = sign * 4, sign * -4
    block = our_bytes(row, "q4_0")
    assert np.frombuffer(block[:2], "<f2") == sign * -0.5
    assert [q4_0_quants(block)[i] for i in (3, 9)] == [-8, 7]
    assert block == expected_bytes(row, "q4_0")


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_q4_0_of_zeros_keeps_the_sign_as_gguf_does(zero: float) -> None:
    row = np.full((1, 32), zero, np.float32)
    assert our_bytes(row, "q4_0") == np.float16(-zero).tobytes() + b"\x88" * 16 == expected_bytes(row, "q4_0")


def test_bf16_rounds_to_nearest_even() -> None:
    """1 + 2^-8 and 1 + 3 * 2^-8 lie half way between two bf16; a float32 to either side of one does not."""
    tie = np.float32(1 + 2**-8)
    below, above = np.nextafter(tie, np.float32([0, 2]))
    row = np.array([[tie, below, above, 1 + 3 * 2**-8, -tie, 1e-45, -0.0]], np.float32)
    bits = np.frombuffer(our_bytes(row, "bf16"), "<u2").tolist()
    assert bits == [0x3F80, 0x3F80, 0x3F81, 0x3F82, 0xBF80, 0, 0x8000]
    assert our_bytes(row, "bf16") == expected_bytes(row, "bf16")


@pytest.mark.parametrize("sign", [1, -1])
def test_largest_magnitude_stays_finite(sign: int) -> None:
    for name in ("f16", "bf16", "q8_0", "q4_0"):
        rows = np.full((1, 32), sign * TYPES[name].max_abs, np.float32)
        assert np.abs(rows).max() == TYPES[name].max_abs
        data = our_bytes(rows, name)
        assert data == expected_bytes(rows, name)
        stored = gguf.quants.dequantize(np.frombuffer(data, np.uint8), GGML_TYPES[name])
        assert np.array_equal(stored, rows[0])


@pytest.mark.parametrize("tiny", [1e-38, -1e-38, 1e-40, 1e-45])
def test_blocks_too_small_for_a_scale_are_zeros(tiny: float) -> None:
    rows = np.full((1, 32), tiny, np.float32)
    rows[0, 1] = 0
    assert our_bytes(rows, "q8_0") == bytes(34)
    assert our_bytes(rows, "q4_0") == np.float16(-np.copysign(0, tiny)).tobytes() + b"\x88" * 16
