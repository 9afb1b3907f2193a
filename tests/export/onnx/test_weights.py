"""Matrices quantised for ONNX graphs: how they lie, how far they are from what they were."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pocketvlm.export.onnx.types import Quantisation
from pocketvlm.export.onnx.weights import (
    NF4_LEVELS,
    QuantisedMatrix,
    quantise,
    quantise_normal_floats,
    quantise_rows,
)

Floats = npt.NDArray[np.float32]


def restore(found: QuantisedMatrix, bits: int, width: int) -> Floats:
    """What MatMulNBits makes of a matrix, [N, K]."""
    quants = found.quants
    if bits == 4:
        quants = np.stack([quants & 15, quants >> 4], axis=-1).reshape(*quants.shape[:2], 32)
    values = quants.astype(np.float32) - np.float32(1 << (bits - 1))
    return (values * found.scales[:, :, None]).reshape(len(quants), -1)[:, :width]


def random_matrix(rows: int, width: int) -> Floats:
    matrix = np.random.default_rng(5).standard_normal((rows, width)).astype(np.float32)
    matrix[1] = 0
    matrix[2, :32] = 0
    return matrix


@pytest.mark.parametrize("width", [32, 96, 112, 31])
@pytest.mark.parametrize(("bits", "block_size"), [(4, 32), (8, 32), (8, None)])
def test_half_a_step_at_most(bits: int, block_size: int | None, width: int) -> None:
    matrix = random_matrix(5, width)
    found = quantise(matrix, Quantisation(bits, block_size))
    blocks = -(-width // 32)
    assert found.quants.shape == (5, blocks, 4 * bits)
    assert found.scales.shape == (5, 1 if block_size is None else blocks)
    error = np.abs(restore(found, bits, width) - matrix)
    steps = np.repeat(np.abs(found.scales), width if block_size is None else 32, axis=1)[:, :width]
    # The largest number of a block is exact at 4 bits, its opposite cut off at 7 of 8 steps.
    limit = 1.0 if bits == 4 else 0.5
    assert (error <= steps * np.float32(limit + 1e-4)).all()
    assert np.median(error[0] / steps[0]) < 0.5
    assert not error[1].any()


def test_four_bits_keep_the_largest_number() -> None:
    matrix = np.zeros((1, 64), np.float32)
    matrix[0, :3] = [0.5, -2.0, 1.75]
    matrix[0, 32:35] = [3.0, -0.75, 0.375]
    found = restore(quantise(matrix, Quantisation(4, 32)), 4, 64)
    assert found[0, :3].tolist() == [0.5, -2.0, 1.75]
    assert found[0, 32:35].tolist() == [3.0, -0.75, 0.375]


def test_rows() -> None:
    matrix = random_matrix(4, 40)
    quants, scales = quantise_rows(matrix)
    assert (quants.dtype, quants.shape, scales.shape) == (np.dtype(np.int8), (4, 40), (4,))
    assert np.abs(quants[0]).max() == 127
    assert (np.abs(quants * scales[:, None] - matrix) <= scales[:, None] * 0.5001).all()


def test_zero_points() -> None:
    """From the smallest number to the largest, with 0 among the levels."""
    matrix = random_matrix(5, 96) + np.float32(0.7)
    matrix[3] = np.abs(matrix[3])
    found = quantise(matrix, Quantisation(8, None, is_asymmetric=True))
    assert found.zero_points is not None
    assert found.zero_points.shape == found.scales.shape == (5, 1)
    assert found.zero_points[3] == 0
    values = found.quants.reshape(5, -1).astype(np.float32) - found.zero_points
    assert (np.abs(values * found.scales - matrix) <= found.scales * 1.001).all()
    assert (found.scales < np.abs(matrix).max(axis=1, keepdims=True) / 127).all()


def test_normal_floats() -> None:
    """Levels of NF4, a block after the other across rows: the nearest one, exact for the largest number."""
    matrix = random_matrix(3, 96)
    packed, scales = quantise_normal_floats(matrix, 64)
    assert (packed.shape, scales.shape) == ((144,), (5,))
    levels = np.stack([packed >> 4, packed & 15], axis=-1).reshape(-1)
    flat = np.append(matrix.reshape(-1), np.zeros(32, np.float32)).reshape(5, 64)
    largest = np.abs(flat).max(axis=1)
    assert scales.tolist() == largest.tolist()
    assert levels[np.abs(flat[0]).argmax()] in (0, 15)
    # The widest gap between levels is 0.31 of the scale.
    found = NF4_LEVELS[np.append(levels, np.full(32, 7))].reshape(5, 64) * scales[:, None]
    assert (np.abs(found - flat) <= largest[:, None] * 0.153).all()
    assert not found[flat == 0].any()
