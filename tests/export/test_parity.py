"""`pocketvlm verify --parity`: float32 ways give equal tokens, others are counted, refusals are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketvlm.cli import main
from pocketvlm.export import parity
from pocketvlm.export.parity import (
    DEMO,
    ONNX_TYPES,
    PAIR_BACKENDS,
    SYNTHETIC,
    Finding,
    Way,
    examine_parity,
    plan_ways,
    requests_of,
    to_markdown,
    to_plain,
)

from ..conftest import DEMO_CHECKPOINT

BEGIN, END = "<!-- parity -->", "<!-- /parity -->"


def test_every_backend_meets_every_variant() -> None:
    ways = plan_ways(["f32", "q8_0", "q4_k_m"])
    of_demo = 3 * 2 + 2 + len(ONNX_TYPES)
    assert len(ways) == len(set(ways)) == of_demo + len(SYNTHETIC) * 4
    backends = {*PAIR_BACKENDS, ("onnx", None)}
    for variant in (DEMO, *SYNTHETIC):
        assert {(way.backend, way.vision_engine) for way in ways if way.variant == variant} == backends
    assert requests_of(ways, 40) == 40 * of_demo + 6 * 4 * len(SYNTHETIC)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory, llama_packages: None) -> dict[Way, Finding]:
    variants = (DEMO, "tiny", "tiny-2.2b", "tiny-granite-docling")
    ways = [
        way
        for way in plan_ways(["f32", "q4_k_m"])
        if way.variant in variants and way.type in ("f32", "fp32", "q4_k_m")
    ]
    calls: list[None] = []
    found = examine_parity(
        DEMO_CHECKPOINT,
        ways,
        examples=6,
        threads=1,  # where cores are shared, those of llama.cpp wait for each other at length
        work=tmp_path_factory.mktemp("parity"),
        advance=lambda: calls.append(None),
    )
    refused = 6  # requests to the one way
    assert len(calls) == requests_of(ways, 6) - refused
    assert [finding.way for finding in found] == ways
    return {finding.way: finding for finding in found}


def test_greedy_tokens_at_float32_are_equal(findings: dict[Way, Finding]) -> None:
    """With our tower, of which mtmd has none."""
    exact = [
        finding
        for way, finding in findings.items()
        if way.vision_engine != "mtmd" and way.type in ("f32", "fp32")
    ]
    assert len(exact) == 12
    for finding in exact:
        assert len(finding.comparisons) == 6
        assert all(found.agreement.first_other_token is None for found in finding.comparisons)
        assert {found.parts_at for found in finding.comparisons} == {None}


def test_where_mtmd_parts_is_named(findings: dict[Way, Finding]) -> None:
    """It rounds pixel values to float16, and cannot run the first 2.2B."""
    mtmd = {way.variant: finding for way, finding in findings.items() if way.vision_engine == "mtmd"}
    for variant in (DEMO, "tiny", "tiny-granite-docling"):
        assert {found.parts_at for found in mtmd[variant].comparisons} == {"pixel values"}
    refused = mtmd["tiny-2.2b"].refused
    assert refused is not None
    assert "<global-img>" in refused


def test_right_answers_are_counted_where_there_are_any(findings: dict[Way, Finding]) -> None:
    right = {way: finding.right for way, finding in findings.items() if way.backend == "native"}
    assert right.pop(Way(DEMO, "native", None, "f32")) == 4
    assert right.pop(Way(DEMO, "native", None, "q4_k_m")) in (3, 4, 5)
    assert set(right.values()) == {None}


def test_the_table_and_the_values(findings: dict[Way, Finding]) -> None:
    lines = to_markdown(list(findings.values())).splitlines()
    assert len(lines) == 2 + len(findings) + 2
    assert sum("refused" in line for line in lines) == 1
    cells = [cell.strip() for cell in lines[2].split("|")]
    assert cells[1:7] == ["demo", "native", "`f32`", "6 of 6", "66.7", "100.00"]
    plain = json.loads(json.dumps(to_plain(list(findings.values()))))
    assert [entry["requests"] for entry in plain].count(0) == 1
    assert plain[0]["summary"]["parts_at"] is None


def test_the_command_fills_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = [Way("tiny", "native", None, "f32")]
    monkeypatch.setattr(parity, "plan_ways", lambda types: ways)
    page, out = tmp_path / "page.md", tmp_path / "out.json"
    page.write_text(f"{BEGIN}\n{END}\n")
    files = ["--markdown", str(page), "--json", str(out)]
    assert main(["verify", "--parity", str(DEMO_CHECKPOINT), *files]) == 0
    table = capsys.readouterr().out.strip()
    assert "| tiny  |  native | `f32` |       6 of 6 |" in table
    assert page.read_text() == f"{BEGIN}\n{table}\n{END}\n"
    assert json.loads(out.read_text())[0]["summary"]["same_greedy"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b"], "--parity: found 2 checkpoints"),
        (["--types", "q9"], "--types: found 'q9'"),
        (["--markdown", "missing.md"], "missing.md: there is no such file"),
        (["nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "--parity", *arguments]) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.splitlines()) == 1
