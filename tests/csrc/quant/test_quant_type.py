"""The reference conversions equal the `gguf` package and NumPy bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm import _core
from pocketvlm.errors import InputError

from .random_blocks import HALVES

BLOCK = 32

# Far from where the float16 scale overflows, and the reciprocal of a tiny one; those have tests of their own.
MAGNITUDES = st.floats(2.0**-100, 2.0**22, width=32)
WEIGHTS = st.one_of(st.just(0.0), MAGNITUDES, MAGNITUDES.map(lambda x: -x))


def bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    return values.view(np.uint32)


def every_16_bit_pattern() -> npt.NDArray[np.uint16]:
    return np.arange(2**16, dtype=np.uint16)


def test_every_float16() -> None:
    patterns = every_16_bit_pattern()
    expected = patterns.view(np.float16).astype(np.float32)
    found = _core.dequantize("f16", patterns.view(np.uint8))
    finite = ~np.isnan(expected)
    np.testing.assert_array_equal(bits(found[finite]), bits(expected[finite]))
    np.testing.assert_array_equal(np.isnan(found), ~finite)


def test_every_bfloat16() -> None:
    patterns = every_16_bit_pattern()
    found = _core.dequantize("bf16", patterns.view(np.uint8))
    np.testing.assert_array_equal(bits(found), patterns.astype(np.uint32) << 16)


def hard_to_round(kept_bits: npt.NDArray[np.uint32], dropped: int) -> npt.NDArray[np.float32]:
    """float32 values at, half way above and right beside each value that has `dropped` low bits of 0."""
    tie = 1 << (dropped - 1)
    offsets = np.array([0, 1, tie - 1, tie, tie + 1, (1 << dropped) - 1], dtype=np.uint32)
    return (kept_bits[:, None] + offsets).ravel().view(np.float32)


def assert_same_halves(found: npt.NDArray[np.uint16], expected: npt.NDArray[np.uint16], *, nan: int) -> None:
    """Equal bits, but for the payload of a NaN (magnitude above `nan`)."""
    is_nan = (expected & 0x7FFF) > nan
    np.testing.assert_array_equal((found & 0x7FFF) > nan, is_nan)
    np.testing.assert_array_equal(found[~is_nan], expected[~is_nan])


def test_to_float16_rounds_as_numpy() -> None:
    """At and around the ties of every exponent and every float16 mantissa, subnormal ones too."""
    normal = hard_to_round(np.arange(0, 2**31, 2**13, dtype=np.uint32), 13)
    units = np.arange(1024, dtype=np.float64)[:, None] + [0, 0.5 - 2**-12, 0.5, 0.5 + 2**-12]
    subnormal = (units * 2**-24).ravel()
    for values in (normal, subnormal.astype(np.float32)):
        for signed in (values, -values):
            with np.errstate(over="ignore"):
                expected = signed.astype(np.float16).view(np.uint16)
            assert_same_halves(_core.quant.fp32_to_fp16(signed), expected, nan=0x7C00)


def test_to_bfloat16_rounds_as_gguf() -> None:
    values = hard_to_round(np.arange(0, 2**32, 2**16, dtype=np.uint32), 16)
    expected = gguf.quants.quantize(values, GGMLQuantizationType.BF16).view(np.uint16)
    assert_same_halves(_core.quant.fp32_to_bf16(values), expected, nan=0x7F80)


def test_float32_is_copied() -> None:
    patterns = np.random.default_rng(1).integers(0, 2**32, 1000, dtype=np.uint32)
    np.testing.assert_array_equal(bits(_core.dequantize("f32", patterns.view(np.uint8))), patterns)


@pytest.mark.parametrize("type_name", HALVES)
def test_blocks_equal_gguf(type_name: str) -> None:
    """Random blocks under every finite float16 scale, and other minima."""
    ggml_type = GGMLQuantizationType[type_name.upper()]
    _, type_size = gguf.GGML_QUANT_SIZES[ggml_type]
    scales = every_16_bit_pattern()
    scales = scales[np.isfinite(scales.view(np.float16))]
    rng = np.random.default_rng(2)
    blocks = rng.integers(0, 256, (scales.size, type_size), dtype=np.uint8)
    for at in HALVES[type_name]:
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
        scales = rng.permutation(scales)
    with np.errstate(over="ignore"):
        expected = gguf.quants.dequantize(blocks, ggml_type)
    found = _core.dequantize(type_name, blocks.ravel())
    np.testing.assert_array_equal(bits(found), bits(expected.ravel()))


def assert_quantized_as_gguf(weights: npt.NDArray[np.float32]) -> None:
    expected = gguf.quants.quantize(weights, GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(_core.quant.quantize_q8_0(weights), expected)


@given(st.lists(WEIGHTS, min_size=BLOCK, max_size=BLOCK))
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
    with pytest.raises(InputError, match=r"type q9_9, expected one of f32 \(0\), "):
        _core.dequantize("q9_9", blocks)
    with pytest.raises(InputError, match="blocks: 33 bytes, expected a multiple of 34 for q8_0"):
        _core.dequantize("q8_0", blocks[1:])
    with pytest.raises(InputError, match="weights: 33 values, expected a multiple of 32"):
        _core.quant.quantize_q8_0(np.zeros(33, dtype=np.float32))
    with pytest.raises(TypeError, match="float64"):
        _core.quant.quantize_q8_0(np.zeros(BLOCK))  # type: ignore[arg-type]
