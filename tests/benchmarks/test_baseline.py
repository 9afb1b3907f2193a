"""Two runs compared: which changes count, and what is said where runs cannot be compared well."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pocketvlm.benchmarks.baseline import Change, compare


def report(load_s: list[float], tokens_per_s: list[float]) -> dict[str, Any]:
    return {
        "machine": {"cpu": "a", "cores": 2, "threads": 2, "isa": "scalar"},
        "model": {"name": "m"},
        "request": {"new_tokens": 8, "images": [{"name": "x", "height": 1, "width": 2}]},
        "repeat": len(load_s),
        "roofs": {"read_gb_s": 10.0, "fp32_gflop_s": 10.0, "bf16_gflop_s": 10.0, "int8_gop_s": 10.0},
        "subjects": {
            "native": {
                "status": "ok",
                "metrics": {"load_s": {"values": load_s}, "decode_tokens_per_s": {"values": tokens_per_s}},
            },
            "openvino": {"status": "absent"},
        },
    }


OLD = report([1.09, 1.1, 1.12, 1.1, 1.08], [50.0, 51.0, 52.0, 50.0, 51.0])


def changes(new: dict[str, Any], threshold: float = 0.1) -> dict[str, Change]:
    return {change.metric: change for change in compare(OLD, new, threshold=threshold).changes}


def test_slower_is_above_1_for_times_and_for_rates() -> None:
    found = changes(report([2.2] * 5, [25.5] * 5))
    assert found["load_s"].ratio == pytest.approx(2.0)
    assert found["decode_tokens_per_s"].ratio == pytest.approx(2.0)
    assert all(change.worse and change.low > 1.5 for change in found.values())
    faster = changes(report([0.55] * 5, [102.0] * 5))
    assert [change.ratio for change in faster.values()] == [pytest.approx(0.5)] * 2
    assert not any(change.worse for change in faster.values())


def test_a_change_counts_beyond_the_threshold_and_the_noise() -> None:
    assert not changes(report([1.18] * 5, [51.0] * 5))["load_s"].worse  # 7 %
    assert changes(report([1.18] * 5, [51.0] * 5), threshold=0.05)["load_s"].worse
    noisy = changes(report([0.9, 2.0, 1.3, 0.8, 2.5], [51.0] * 5))["load_s"]
    assert noisy.ratio > 1.1
    assert noisy.low < 1 < noisy.high
    assert not noisy.worse


def test_tells_what_makes_runs_hard_to_compare() -> None:
    new = copy.deepcopy(OLD)
    new["machine"]["cpu"] = "b"
    new["request"]["images"][0]["width"] = 3
    new["roofs"]["read_gb_s"] = 5.0
    new["repeat"] = 2
    new["subjects"]["native"] = {"status": "failed"}
    comparison = compare(OLD, new, threshold=0.1)
    assert comparison.gone == ["native"]
    assert comparison.notes == [
        "machine.cpu was a, is b",
        "the images have other sizes",
        "the roof read_gb_s is 0.50 of what it was: another machine, or a busy one",
        "fewer than 3 turns: intervals are not to be trusted; --repeat 5 or more",
    ]
    text = comparison.to_text()
    assert "not measured now: native" in text
    assert "note: the images have other sizes" in text
