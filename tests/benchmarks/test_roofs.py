"""The roofs of this machine, and how the best of each kind is taken."""

from __future__ import annotations

import dataclasses
import math

import pytest

from pocketvlm import _core
from pocketvlm.benchmarks.roofs import Roofs, measure_roofs


@pytest.mark.parametrize("threads", [1, 2])
def test_this_machine(threads: int) -> None:
    roofs = measure_roofs(threads)
    assert roofs.threads == threads
    here = _core.roofs(_core.cpu_features())
    assert list(roofs.by_instruction) == [roof.instruction for roof in here]
    rates = [roofs.read_gb_s, roofs.fp32_gflop_s, roofs.bf16_gflop_s, roofs.int8_gop_s]
    assert all(math.isfinite(rate) and rate > 0 for rate in [*rates, *roofs.by_instruction.values()])
    assert roofs.int8_gop_s == max(
        roofs.by_instruction[roof.instruction] for roof in here if roof.kind == "int8"
    )


def test_the_best_of_each_kind() -> None:
    rates = [
        ("read", "r1", 4.0),
        ("int8", "i1", 9.0),
        ("fp32", "f1", 2.0),
        ("fp32", "f2", 3.0),
        ("read", "r2", 5.0),
    ]
    roofs = Roofs.of(rates, threads=3)
    assert dataclasses.asdict(roofs) == {
        "threads": 3,
        "read_gb_s": 5.0,
        "fp32_gflop_s": 3.0,
        "bf16_gflop_s": 3.0,
        "int8_gop_s": 9.0,
        "by_instruction": {"r1": 4.0, "i1": 9.0, "f1": 2.0, "f2": 3.0, "r2": 5.0},
    }
    assert Roofs.of([*rates, ("bf16", "b1", 7.0)], threads=3).bf16_gflop_s == 7.0
