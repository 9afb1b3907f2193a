"""The distances between distributions, against values known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pocketvlm.export.agreement import agreement, certainty


class TestArithmetic:
    def test_kl_divergence_of_known_distributions(self) -> None:
        """KL([1/2, 1/2] || [1/4, 3/4]) = ln(2 / sqrt 3), whatever constant is added to the logits."""
        half = np.array([[0.0, 0.0], [7.0, 7.0]], np.float32)
        quarter = np.array([[0.0, 0.0], [0.0, math.log(3)]], np.float32)
        found = agreement(half, quarter)
        assert found.kl_max == pytest.approx(math.log(2 / math.sqrt(3)), rel=1e-6)
        assert found.kl_mean == pytest.approx(found.kl_max / 2, rel=1e-6)

    def test_the_divergence_is_from_the_reference(self) -> None:
        half, quarter = np.zeros((1, 2), np.float32), np.array([[0.0, math.log(3)]], np.float32)
        other_way = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
        assert agreement(quarter, half).kl_mean == pytest.approx(other_way, rel=1e-6)

    def test_large_logits_do_not_overflow(self) -> None:
        sure, other = np.array([[1e4, 0.0]], np.float32), np.array([[0.0, 1e4]], np.float32)
        assert agreement(sure, other).kl_mean == pytest.approx(1e4)

    def test_agreement_counts_steps_and_names_the_first_other_token(self) -> None:
        reference = np.eye(4, dtype=np.float32)
        other = reference[[0, 1, 3, 3]]
        found = agreement(reference, other)
        assert (found.top1, found.first_other_token) == (0.75, 3)
        assert agreement(reference, reference).first_other_token is None

    def test_certainty_of_a_uniform_distribution(self) -> None:
        found = certainty(np.zeros((3, 8), np.float32))
        assert found.mean_top_probability == pytest.approx(1 / 8)
        assert found.mean_entropy == pytest.approx(math.log(8))
