"""Draws the training curve: `python -m pocketvlm.demo_model.curve LOG PNG` (needs matplotlib)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import pyplot

_PARTS = {
    "answers": "answers",
    "things": "head: shape and colour",
    "characters": "head: characters",
    "positions": "head: place in the text",
}


def draw(log: Path, out: Path, heads_weight: float) -> None:
    """Draws every part of the loss over the time of both phases, the heads at full weight in both."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    tower_seconds = max(line["seconds"] for line in lines if line["phase"] == "tower")
    figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
    for part, name in _PARTS.items():
        points = [
            (
                (line["seconds"] + (tower_seconds if line["phase"] == "joint" else 0)) / 60,
                line[part] / (heads_weight if line["phase"] == "joint" and part != "answers" else 1),
            )
            for line in lines
            if part in line
        ]
        axes.plot(*zip(*points, strict=True), label=name, linewidth=2.2 if part == "answers" else 1.2)
    axes.axvline(tower_seconds / 60, color="0.6", linewidth=1, linestyle="--")
    axes.text(tower_seconds / 60, 1.01, " everything ", transform=axes.get_xaxis_transform(), ha="left")
    axes.text(tower_seconds / 60, 1.01, " tower alone ", transform=axes.get_xaxis_transform(), ha="right")
    axes.set(yscale="log", xlabel="minutes", ylabel="cross entropy, nats")
    axes.grid(which="major", alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    from .train import HEADS_WEIGHT

    draw(Path(sys.argv[1]), Path(sys.argv[2]), HEADS_WEIGHT)
