"""Norms, activations and RoPE of every row of the kernel table, against float64."""

import numpy as np
import pytest

from pocketvlm import _core

EPSILON = float(np.finfo(np.float32).eps)
ISAS = _core.isas()
# 0 to 2 vectors of 16 and a bit, and a real row.
LENGTHS = [*range(1, 34), 576]


def normal(n: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng([seed, n]).standard_normal(n) * scale).astype(np.float32)


@pytest.mark.parametrize("isa", ISAS)
def test_layer_norm(isa: str) -> None:
    """Float32 sums over n: the mean and the variance are off by at most n eps of the values' size."""
    for n in LENGTHS:
        x, weight, bias = normal(n, 1) + np.float32(3), normal(n, 2), normal(n, 3)
        y = _core.kernels.layer_norm(isa, x, weight, bias, 1e-6)
        centred = x.astype(np.float64) - x.mean(dtype=np.float64)
        inverse = 1 / np.sqrt((centred**2).mean() + 1e-6)
        size = np.abs(x).max() * inverse
        bound = (
            (n + 8)
            * EPSILON
            * (size * np.abs(weight) * (1 + (size * size if n < 3 else size)) + np.abs(bias))
        )
        assert np.all(np.abs(y - (centred * inverse * weight + bias)) <= bound), n


@pytest.mark.parametrize("isa", ISAS)
def test_rms_norm(isa: str) -> None:
    for n in LENGTHS:
        x, weight = normal(n, 4, 100), normal(n, 5)
        y = _core.kernels.rms_norm(isa, x, weight, 1e-5)
        exact = x / np.sqrt((x.astype(np.float64) ** 2).mean() + 1e-5) * weight
        assert np.all(np.abs(y - exact) <= (n + 8) * EPSILON * np.abs(exact)), n


@pytest.mark.parametrize("isa", ISAS)
def test_gelu_tanh(isa: str) -> None:
    """tanh and 1 / (1 + exp) lose a few eps of 1, so that the result is off by a few eps of x."""
    for n in LENGTHS:
        x = normal(n, 6, 4)
        x[0] = [0, -30, 30, 1e4, -1e4][n % 5]
        y = _core.kernels.gelu_tanh(isa, x)
        wide = x.astype(np.float64)
        exact = 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
        assert np.all(np.abs(y - exact) <= 16 * EPSILON * np.abs(x) + 1e-30), n


@pytest.mark.parametrize("isa", ISAS)
def test_silu_mul(isa: str) -> None:
    for n in LENGTHS:
        gate, up = normal(n, 7, 8), normal(n, 8)
        gate[0] = [0, -100, 100, 3e4, -3e4][n % 5]
        y = _core.kernels.silu_mul(isa, gate, up)
        wide = gate.astype(np.float64)
        exact = wide / (1 + np.exp(-np.maximum(wide, -700))) * up
        assert np.all(np.abs(y - exact) <= 16 * EPSILON * np.abs(gate * up) + 1e-30), n


@pytest.mark.parametrize("isa", ISAS)
def test_rope_interleaved(isa: str) -> None:
    for n in range(2, 130, 2):
        x, angles = normal(n, 9), normal(n // 2, 10, 3)
        y = _core.kernels.rope_interleaved(isa, x, np.cos(angles), np.sin(angles), 0.125)
        rotated = (
            (x[0::2] + 1j * x[1::2].astype(np.complex128)) * np.exp(1j * angles.astype(np.float64)) * 0.125
        )
        size = np.repeat(np.abs(rotated), 2)
        exact = np.stack([rotated.real, rotated.imag], axis=1).reshape(-1)
        assert np.all(np.abs(y - exact) <= 8 * EPSILON * size), n


@pytest.mark.parametrize("isa", ISAS)
def test_f32_to_f16_rounds_as_ieee_754_does(isa: str) -> None:
    """Every float16, what lies half way between two, its neighbours, and what is too large or too small."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves[1:] + halves[:-1]) / 2
    exact = [halves, middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(np.inf))]
    special = [np.array([65519.996, 65520, 1e30, np.inf, 2**-25, 1e-45], np.float32)]
    positive = np.concatenate(exact + special)
    x = np.concatenate([positive, -positive])
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).view(np.uint16)
    assert np.array_equal(_core.kernels.f32_to_f16(isa, x), expected)
    for n in LENGTHS:
        assert np.array_equal(_core.kernels.f32_to_f16(isa, x[:n]), expected[:n]), n
    assert np.isnan(_core.kernels.f32_to_f16(isa, np.float32([np.nan])).view(np.float16))[0]
