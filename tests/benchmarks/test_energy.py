"""Joules from RAPL's counters, which begin again at their end and may not be readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketvlm.benchmarks.energy import EnergyMeter


def zone(folder: Path, name: str, microjoules: int) -> Path:
    path = folder / name
    path.mkdir()
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text("1000000\n")
    return path


def test_adds_packages_and_leaves_out_their_parts(tmp_path: Path) -> None:
    first, second = zone(tmp_path, "intel-rapl:0", 100_000), zone(tmp_path, "intel-rapl:1", 900_000)
    part = zone(tmp_path, "intel-rapl:0:0", 0)
    with EnergyMeter(tmp_path) as meter:
        (first / "energy_uj").write_text("350000")
        (second / "energy_uj").write_text("100000")  # begun again after 1000000
        (part / "energy_uj").write_text("999999")
    assert meter.joules == pytest.approx(0.25 + 0.2)


def test_says_none_without_a_counter(tmp_path: Path) -> None:
    with EnergyMeter(tmp_path) as meter:
        pass
    assert meter.joules is None
    path = zone(tmp_path, "intel-rapl:0", 1)
    with EnergyMeter(tmp_path) as meter:
        (path / "energy_uj").unlink()
    assert meter.joules is None
