"""Two runs of `pocketvlm bench run` compared: ratios with confidence intervals, and what got worse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketvlm.errors import FormatError, InputError

from .report import table
from .run_report import METRICS, SCHEMA

DEFAULT_THRESHOLD = 0.1
_CONFIDENCE = 0.95
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Change:
    """One metric of one subject: how much worse it is than it was; above 1 is slower, or more memory.

    Attributes:
        ratio: Of the medians.
        low: The interval that the ratio lies in with 95 % confidence.
        high: Its other end.
        worse: Whether the ratio is beyond the threshold and the whole interval above 1.
    """

    subject: str
    metric: str
    ratio: float
    low: float
    high: float
    worse: bool


@dataclass(frozen=True)
class Comparison:
    """All metrics that both runs have."""

    changes: list[Change]
    gone: list[str]  # subjects that were measured then and are not now
    notes: list[str]  # what makes the two runs hard to compare
    threshold: float

    @property
    def is_worse(self) -> bool:
        return any(change.worse for change in self.changes)

    def to_text(self) -> str:
        """Lays out the ratios, worst first in each subject, and a verdict."""
        rows = [
            [
                change.subject,
                change.metric,
                f"{change.ratio:.3f}",
                f"{change.low:.3f}-{change.high:.3f}",
                "WORSE" if change.worse else "",
            ]
            for change in self.changes
        ]
        worse = sum(change.worse for change in self.changes)
        verdict = (
            f"{worse} of {len(rows)} are worse by more than {self.threshold:.0%}, with 95 % confidence"
            if worse
            else f"nothing is worse by more than {self.threshold:.0%} with 95 % confidence"
        )
        return "\n".join(
            [
                "Compared with the baseline (above 1: slower, or more memory):",
                table(["subject", "metric", "ratio", "95 %", ""], rows, names=2),
                *(f"not measured now: {name}" for name in self.gone),
                *(f"note: {note}" for note in self.notes),
                verdict,
            ]
        )


def read_report(path: Path) -> dict[str, Any]:
    """Reads what `bench run --json` wrote. Raises InputError or FormatError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FormatError(f"{path}: not JSON: {error}") from error
    found = (content.get("schema"), content.get("measurement")) if isinstance(content, dict) else None
    if found != (SCHEMA, "run"):
        raise FormatError(f"{path}: expected the --json of `pocketvlm bench run`, schema {SCHEMA}")
    assert isinstance(content, dict)
    return content


def compare(old: Mapping[str, Any], new: Mapping[str, Any], *, threshold: float) -> Comparison:
    """Compares what both runs measured.

    Args:
        old: The content of the --json of the baseline.
        new: That of the run to judge.
        threshold: By how much worse a metric may be: 0.1 is a tenth.
    """
    changes, gone = [], []
    for name, before in old["subjects"].items():
        if before["status"] != "ok":
            continue
        after = new["subjects"].get(name, {})
        if after.get("status") != "ok":
            gone.append(name)
            continue
        for metric, about in METRICS.items():
            if metric in before["metrics"] and metric in after["metrics"]:
                pair = before["metrics"][metric]["values"], after["metrics"][metric]["values"]
                ratio, low, high = _ratio(*(reversed(pair) if not about.higher_is_better else pair))
                worse = ratio > 1 + threshold and low > 1
                changes.append(Change(name, metric, ratio, low, high, worse))
    return Comparison(changes, gone, _notes(old, new), threshold)


def _ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """The ratio of medians with the ends of its interval, by resampling both (percentile bootstrap)."""
    rng = np.random.default_rng(0)

    def medians(values: Sequence[float]) -> Any:
        return np.median(rng.choice(np.array(values), (_RESAMPLES, len(values))), axis=1)

    ratios = medians(above) / medians(below)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return float(np.median(above) / np.median(below)), float(low), float(high)


def _notes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differences between the runs that are no change of the program."""
    notes = []
    for place, name in (("machine", "cpu"), ("machine", "cores"), ("machine", "threads"), ("machine", "isa"),
                        ("model", "name"), ("request", "new_tokens")):  # fmt: skip
        before, after = old[place][name], new[place][name]
        if before != after:
            notes.append(f"{place}.{name} was {before}, is {after}")
    before, after = old["request"]["images"], new["request"]["images"]
    sizes = [[(image["height"], image["width"]) for image in images] for images in (before, after)]
    if sizes[0] != sizes[1]:
        notes.append("the images have other sizes")
    for name in ("read_gb_s", "fp32_gflop_s", "bf16_gflop_s", "int8_gop_s"):
        ratio = new["roofs"][name] / old["roofs"][name]
        if not 0.9 < ratio < 1.1:
            notes.append(f"the roof {name} is {ratio:.2f} of what it was: another machine, or a busy one")
    if min(old["repeat"], new["repeat"]) < 3:
        notes.append("fewer than 3 turns: intervals are not to be trusted; --repeat 5 or more")
    return notes
