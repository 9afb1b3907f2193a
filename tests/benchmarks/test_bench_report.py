"""`pocketvlm bench report`: stored runs are whole, and pages show what they say."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from PIL import Image

from pocketvlm.benchmarks.bench_report import PAGE_PART, to_markdown
from pocketvlm.benchmarks.report import number
from pocketvlm.cli import main
from pocketvlm.export.markdown_page import find_part

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
SHOWN = ROOT / "benchmarks" / "results" / "256m.json"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_stored_run_keeps_the_schema(path: Path) -> None:
    schema = json.loads((files("pocketvlm.benchmarks") / "run.schema.json").read_text())
    jsonschema.validate(json.loads(path.read_text()), schema, cls=jsonschema.Draft202012Validator)


def test_the_readme_shows_the_stored_run() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    begin, end = find_part(page, PAGE_PART, "README.md")
    assert page[begin:end] == f"\n{to_markdown(json.loads(SHOWN.read_text()))}\n", (
        f"pocketvlm bench report {SHOWN.relative_to(ROOT)} --markdown README.md"
    )


def test_shows_puts_and_draws_a_stored_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, plot = tmp_path / "page.md", tmp_path / "plot.png"
    page.write_text(f"before <!-- {PAGE_PART} --><!-- /{PAGE_PART} --> after")
    assert main(["bench", "report", str(SHOWN), "--markdown", str(page), "--plot", str(plot)]) == 0
    table = capsys.readouterr().out.rstrip("\n")
    assert page.read_text() == f"before <!-- {PAGE_PART} -->\n{table}\n<!-- /{PAGE_PART} --> after"
    report = json.loads(SHOWN.read_text())
    measured = [subject for subject in report["subjects"].values() if subject["status"] == "ok"]
    assert [line.split("|")[1].strip() for line in table.splitlines()[-len(measured) :]] == [
        subject["title"] for subject in measured
    ]
    decode = measured[0]["metrics"]["decode_tokens_per_s"]["median"]
    assert f" {number(decode)} | " in table
    with Image.open(plot) as image:
        assert image.width > 1000


def test_draws_what_has_no_contexts_and_what_failed(tmp_path: Path) -> None:
    report = json.loads(SHOWN.read_text())
    first, *others = report["subjects"]
    report["subjects"][first]["decode_by_context"] = []
    for name in others:
        report["subjects"][name] = {"status": "failed", "title": name, "error": "x"}
    run, plot = tmp_path / "run.json", tmp_path / "plot.svg"
    run.write_text(json.dumps(report))
    assert main(["bench", "report", str(run), "--plot", str(plot)]) == 0
    assert "<svg" in plot.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["missing.json"], "missing.json: cannot be read"),
        ([__file__], "not JSON"),
        ([str(SHOWN), "--markdown", "missing.md"], "missing.md"),
        ([str(SHOWN), "--plot", "plot.gif"], "found .gif, expected one of"),
    ],
)
def test_refuses(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "report", *options]) == 1
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
