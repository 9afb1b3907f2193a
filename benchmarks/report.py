"""What measurements share in showing their figures: medians with their spread, tables, JSON files."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of what several runs gave."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Returns the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def to_dict(self) -> dict[str, float]:
        """Returns median, min and max for JSON."""
        return asdict(self)


def number(value: float) -> str:
    """Writes a figure with about three digits, never with an exponent."""
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{decimals}f}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> str:
    """Lays out a table: the first `names` columns to the left, figures to the right.

    A heading may have several lines; the shorter ones stand at the bottom.
    """
    lines = [heading.split("\n") for heading in headings]
    depth = max(map(len, lines))
    head = [[""] * (depth - len(line)) + line for line in lines]
    body = [list(column) for column in zip(*head, strict=True)] + [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    body.insert(depth, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in body
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file for people and programs."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
