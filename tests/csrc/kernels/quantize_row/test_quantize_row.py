"""Activation quantisation: an exact kernel, so that every row of the table gives the scalar row's bytes."""

import numpy as np
import pytest

from pocketvlm import _core


def rows() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    lengths = (1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 300)
    drawn = [rng.standard_normal(k, dtype=np.float32) * 10 ** float(rng.integers(-6, 6)) for k in lengths]
    zeros = np.zeros(40, dtype=np.float32)
    # amax 127 makes the scale 1: halves lie exactly between two integers
    ties = np.concatenate([[127.0], np.arange(31) - 15.5]).astype(np.float32)
    outlier = np.full(32, 1e-3, dtype=np.float32)
    outlier[5] = -1e6
    ends = [np.full(32, value, dtype=np.float32) for value in (1e-38, 9e-36, 2e-35, 1e33)]
    return [*drawn, zeros, ties, -ties, outlier, *ends]


def test_scalar_is_the_definition() -> None:
    for x in rows():
        values, scales, sums = _core.kernels.quantize_row_i8("scalar", x)
        padded = np.zeros(len(values), dtype=np.float32)
        padded[: len(x)] = x
        blocks = padded.reshape(-1, 32)
        amax = np.abs(blocks).max(axis=1)
        fraction, exponent = np.frexp(amax * np.float32(1 / 127))
        rounded = np.ldexp(np.ceil(fraction * 16) / 16, exponent)  # four significant bits
        scale = np.where(amax >= 1e-35, rounded, 0).astype(np.float32)
        inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
        expected = np.rint(blocks * inverse[:, None]).astype(np.int8)
        assert np.array_equal(values.reshape(-1, 32), expected)
        assert np.array_equal(scales, scale)
        assert np.all((scales == 0) | (np.abs(expected).max(axis=1) >= 112))
        assert np.array_equal(sums, expected.sum(axis=1, dtype=np.int32))


@pytest.mark.parametrize("isa", _core.isas())
def test_every_row_equals_scalar(isa: str) -> None:
    for x in rows():
        for offset in (0, 1, 3):  # off the vector boundary
            shifted = np.concatenate([np.zeros(offset, dtype=np.float32), x])[offset:]
            for found, expected in zip(
                _core.kernels.quantize_row_i8(isa, shifted),
                _core.kernels.quantize_row_i8("scalar", x),
                strict=True,
            ):
                assert np.array_equal(found, expected), (isa, len(x), offset)
