"""The reference conversions equal the `gguf` package and NumPy bit for bit."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm import _core
from pocketvlm.errors import InputError

BLOCK = 32

# Above 1e-36 and below 8e6: outside, gguf's own reciprocal or float16 scale overflows (tested apart).
FLOAT32 = st.floats(-(2.0**22), 2.0**22, width=32, allow_subnormal=False).filter(lambda x: not 0 < abs(x) < 1e-30)


def bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    return values.view(np.uint32)


def every_16_bit_pattern() -> npt.NDArray[np.uint16]:
    return np.arange(2**16, dtype=np.uint16)


def test_every_float16() -> None:
    patterns = every_16_bit_pattern()
    expected = patterns.view(np.float16).astype(np.float32)
    found = _core.quant.dequantize("f16", patterns.view(np.uint8))
    finite = ~np.isnan(expected)
    np.testing.assert_array_equal(bits(found[finite]), bits(expected[finite]))
    np.testing.assert_array_equal(np.isnan(found), ~finite)


def test_every_bfloat16() -> None:
    patterns = every_16_bit_pattern()
    found = _core.quant.dequantize("bf16", patterns.view(np.uint8))
    np.testing.assert_array_equal(bits(found), patterns.astype(np.uint32) << 16)


def test_float32_is_copied() -> None:
    patterns = np.random.default_rng(1).integers(0, 2**32, 1000, dtype=np.uint32)
    np.testing.assert_array_equal(bits(_core.quant.dequantize("f32", patterns.view(np.uint8))), patterns)


@pytest.mark.parametrize("type_name", ["q8_0", "q4_0"])
def test_blocks_equal_gguf(type_name: str) -> None:
    """Random blocks under every finite float16 scale."""
    ggml_type = GGMLQuantizationType[type_name.upper()]
    _, type_size = gguf.GGML_QUANT_SIZES[ggml_type]
    scales = every_16_bit_pattern()
    scales = scales[np.isfinite(scales.view(np.float16))]
    blocks = np.random.default_rng(2).integers(0, 256, (scales.size, type_size), dtype=np.uint8)
    blocks[:, :2] = scales.view(np.uint8).reshape(-1, 2)
    expected = gguf.quants.dequantize(blocks, ggml_type)
    found = _core.quant.dequantize(type_name, blocks.ravel())
    np.testing.assert_array_equal(bits(found), bits(expected.ravel()))


def assert_quantized_as_gguf(weights: npt.NDArray[np.float32]) -> None:
    expected = gguf.quants.quantize(weights, GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(_core.quant.quantize_q8_0(weights), expected)


@given(st.lists(FLOAT32, min_size=BLOCK, max_size=BLOCK))
def test_quantize_q8_0_equals_gguf(values: list[float]) -> None:
    assert_quantized_as_gguf(np.array(values, dtype=np.float32))


@pytest.mark.parametrize("exponent", range(-40, 23))
def test_quantize_q8_0_equals_gguf_at_every_scale(exponent: int) -> None:
    """From scales that are float16 subnormals, and 0, to the largest float16."""
    rng = np.random.default_rng(exponent + 40)
    assert_quantized_as_gguf(np.ldexp(rng.standard_normal(200 * BLOCK, dtype=np.float32) / 5, exponent))


def test_quantize_q8_0_rounds_halves_away_from_zero() -> None:
    weights = np.zeros(BLOCK, dtype=np.float32)
    weights[:6] = [127, 0.5, 1.5, -0.5, -2.5, np.nextafter(np.float32(0.5), np.float32(0))]
    assert_quantized_as_gguf(weights)
    quants = _core.quant.quantize_q8_0(weights)[2:].view(np.int8)
    assert quants[:6].tolist() == [127, 1, 2, -1, -3, 0]


@pytest.mark.parametrize("largest", [0.0, 1e-45, 1e-40, 1e-37])
def test_quantize_q8_0_of_what_float16_cannot_scale(largest: float) -> None:
    """Zeros, and weights so small that the reciprocal of their scale is infinite: a block of zeros."""
    weights = np.full(BLOCK, largest, dtype=np.float32)
    weights[::2] *= -1
    assert not _core.quant.quantize_q8_0(weights).any()


def test_bad_arguments() -> None:
    blocks = np.zeros(34, dtype=np.uint8)
    cases: list[tuple[type[Exception], str, Any]] = [
        (InputError, "type q9_9, expected one of f32", lambda: _core.quant.dequantize("q9_9", blocks)),
        (InputError, "33 bytes, expected a multiple of 34", lambda: _core.quant.dequantize("q8_0", blocks[1:])),
        (TypeError, "float64", lambda: _core.quant.quantize_q8_0(np.zeros(BLOCK))),
        (InputError, "33 values, expected a multiple of 32", lambda: _core.quant.quantize_q8_0(zeros(33))),
    ]
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            call()


def zeros(n: int) -> npt.NDArray[np.float32]:
    return np.zeros(n, dtype=np.float32)
