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
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
assert GGML_TYPES.keys() == TYPES.keys()

# Below this magnitude 1 / (max / 127) overflows float32 and what `gguf` does is undefined: see the last test.
SMALLEST_DEFINED = 4e-37


def expected_bytes(rows: npt.NDArray[np.float32], name: str) -> bytes:
    return gguf.quants.quantize(rows, GGML_TYPES[name]).tobytes()


def our_bytes(rows: npt.NDArray[np.float32], name: str) -> bytes:
    data = TYPES[name].quantize(rows)
    assert data.dtype == np.uint8 and data.shape == (len(rows), TYPES[name].nbytes(rows.shape[1]))
    return data.tobytes()


def floats(limit: float) -> st.SearchStrategy[float]:
    """Numbers up to `limit`, among them the edges; no magnitudes for which `gguf` is undefined."""
    edges = st.sampled_from([0.0, -0.0, 1.0, 127.0, 0.5, 63.5, 1e-30, -1e-30, limit, -limit])
    numbers = st.floats(-limit, limit, width=32, allow_subnormal=False)
    return edges | numbers.filter(lambda x: x == 0 or abs(x) > SMALLEST_DEFINED)


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_equals_gguf(name: str, data: st.DataObject) -> None:
    # Where the limit itself is not a float32, one a little below it.
    limit = float(np.nextafter(np.float32(min(TYPES[name].max_abs, 1e38)), np.float32(0)))
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3).map(lambda blocks: 32 * blocks)))
    rows = data.draw(hnp.arrays(np.float32, shape, elements=floats(limit), fill=st.just(0.0)))
    assert our_bytes(rows, name) == expected_bytes(rows, name)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 300.0, 60000.0])
def test_equals_gguf_on_normal_values(name: str, scale: float) -> None:
    values = np.random.default_rng(0).standard_normal((64, 576)) / 5 * scale
    rows = values.astype(np.float32)
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


@pytest.mark.parametrize("sign", [1, -1])
def test_largest_magnitude_stays_finite(sign: int) -> None:
    for name in ("f16", "q8_0"):
        rows = np.full((1, 32), sign * TYPES[name].max_abs, np.float32)
        data = np.frombuffer(our_bytes(rows, name), np.uint8)
        assert np.isfinite(data[:2].view("<f2")).all()
        assert data.tobytes() == expected_bytes(rows, name)


def test_q8_0_blocks_too_small_for_a_scale_are_zeros() -> None:
    for tiny in (1e-37, 1e-40, 1e-45):
        rows = np.full((1, 32), tiny, np.float32)
        assert our_bytes(rows, "q8_0") == bytes(34)
