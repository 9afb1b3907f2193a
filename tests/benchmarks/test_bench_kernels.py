"""Every kernel is measured on every row, and is held against the right roof."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest

from pocketvlm import _core
from pocketvlm.benchmarks.bench_kernels import bound, select_cases
from pocketvlm.benchmarks.cli import main
from pocketvlm.benchmarks.roofs import Roofs
from pocketvlm.errors import InputError

ROOFS = Roofs.of(
    [
        ("int8", "vpdpbusd zmm", 1000.0),
        ("fp32", "vfmadd231ps zmm", 100.0),
        ("fp32", "vfmadd231ps ymm", 50.0),
        ("read", "r", 10.0),
    ],
    threads=1,
)


@pytest.mark.parametrize(
    ("kind", "isa", "moved", "operations", "roof", "seconds"),
    [
        ("int8", "avx512_vnni", 1e9, 2e9, "read", 0.1),
        ("int8", "avx512_vnni", 1e9, 2e12, "vpdpbusd zmm", 2.0),
        ("fp32", "avx512_vnni", 1e9, 1e11, "vfmadd231ps zmm", 1.0),
        ("fp32", "avx2", 1e9, 1e11, "vfmadd231ps ymm", 2.0),
        ("", "avx2", 1e9, 1e15, "read", 0.1),
    ],
)
def test_the_lower_roof_bounds(
    kind: str, isa: str, moved: float, operations: float, roof: str, seconds: float
) -> None:
    found, shortest = bound(kind, isa, moved, operations, ROOFS)
    assert found == roof
    assert shortest == pytest.approx(seconds)


def test_every_column_of_the_dispatch_page_has_a_case() -> None:
    """In the scalar row, which lacks none. What is a kernel there: pointers, and a list of them."""
    header = (Path(__file__).parents[2] / "csrc" / "kernels" / "kernel_table.h").read_text()
    structs = "".join(header.split("\nstruct ")[1:]).split("\n};")
    columns = set(re.findall(r"(?:\w|>)[*>]>? (\w+);", "".join(structs)))
    assert {case.kernel for case in select_cases("", "scalar")} == columns - {"isa", "bf16"}


def test_one_kernel_on_two_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "kernels.json"
    options = [
        "--isas",
        "scalar",
        "--threads",
        "2",
        "--repeat",
        "3",
        "--filter",
        "rms_norm",
        "--json",
        str(file),
    ]
    assert main(["kernels", *options]) == 0
    report = json.loads(file.read_text())
    rows = list(dict.fromkeys([_core.isas()[0], "scalar"]))
    found = [(one["isa"], one["threads"], one["use"]) for one in report["kernels"]]
    assert found == [(isa, n, use) for n in (1, 2) for isa in rows for use in ("decode", "prefill")]
    for one in report["kernels"]:
        assert one["kernel"] == "rms_norm"
        assert one["seconds"]["min"] <= one["seconds"]["median"] <= one["seconds"]["max"]
        assert all(math.isfinite(one[key]) and one[key] > 0 for key in ("gb_s", "gop_s", "of_roof"))
    assert [roofs["threads"] for roofs in report["roofs"]] == [1, 2]
    assert set(report["roofs"][0]) == {field.name for field in dataclasses.fields(Roofs)}
    text = capsys.readouterr().out
    assert "scalar, 2 threads" in text
    assert "rms_norm" in text


@pytest.mark.parametrize("isa", _core.isas())
def test_every_row_has_its_roofs(isa: str) -> None:
    here = {roof.instruction: 1.0 for roof in _core.roofs(_core.cpu_features())}
    roofs = Roofs(1, 1.0, 1.0, 1.0, 1.0, here)
    for kind in {kind for _, _, kind, _, _ in _core.kernel_cases(isa)} - {""}:
        assert bound(kind, isa, 1.0, 2.0, roofs)[0] in here


def test_a_filter_that_fits_nothing() -> None:
    with pytest.raises(InputError, match=r"^--filter: found 'fft', expected part of one of: gemm_f32, "):
        select_cases("fft", "scalar")
