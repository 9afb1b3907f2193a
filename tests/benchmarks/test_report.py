"""How figures are shown: digits, medians, and the layout of a table."""

from __future__ import annotations

import pytest

from pocketvlm.benchmarks.report import Spread, number, table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.01234, "0.012"),
        (1.005, "1.00"),
        (12.345, "12.3"),
        (123.4, "123"),
        (92522.5, "92,522"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_spread_is_the_middle_and_the_ends() -> None:
    assert Spread.of([5.0, 1.0, 2.0]) == Spread(median=2.0, min=1.0, max=5.0)
    assert Spread.of([4.0]).to_dict() == {"median": 4.0, "min": 4.0, "max": 4.0}


def test_table_aligns_names_left_and_figures_right_under_headings_of_several_lines() -> None:
    assert table(["type", "peak\nMB"], [["q8_0", "1,234"], ["f32", "5"]]) == (
        "       peak\ntype     MB\n----  -----\nq8_0  1,234\nf32       5"
    )
