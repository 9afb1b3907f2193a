"""`pocketvlm bench sizes` on the tiny model: its table, its JSON, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

METRICS = {
    "load_s",
    "preprocess_s",
    "vision_tile_s",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "time_to_first_token_s",
    "peak_memory_bytes",
}


def bench_sizes(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pocketvlm", "bench", "sizes", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_one_command_prints_a_row_for_every_size_and_type(tmp_path: Path) -> None:
    options = ["--sizes", "tiny", "--types", "q8_0,f32", "--max-new-tokens", "8", "--threads", "1"]
    out = tmp_path / "out.json"
    finished = bench_sizes(*options, "--repeat", "2", "--work-dir", tmp_path, "--json", out)
    assert finished.returncode == 0, finished.stderr

    lines = finished.stdout.splitlines()
    assert "1 threads" in lines[1]
    first_rule = next(i for i, line in enumerate(lines) if line.startswith("----"))
    assert lines[first_rule - 1].split()[:3] == ["size", "type", "MB"]
    rows = [line.split() for line in lines[first_rule + 1 : first_rule + 5]]
    assert [row[:2] for row in rows[::2]] == [["tiny", "q8_0"], ["tiny", "f32"]]
    # Weights, tiles, prompt and the metrics; below, the ends of the metrics.
    assert [len(row) for row in rows] == [5 + len(METRICS), len(METRICS)] * 2
    assert all("-" in ends for row in rows[1::2] for ends in row)

    report = json.loads(out.read_text())
    assert report["machine"]["threads"] == 1
    assert report["repeat"] == 2
    for row in report["rows"]:
        assert row["isa"] == report["machine"]["isa"]
        assert (row["tiles"], row["new_tokens"]) == (13, 8)
        assert set(row["metrics"]) == METRICS
        for spread in row["metrics"].values():
            assert 0 < spread["min"] <= spread["median"] <= spread["max"]
        assert row["metrics"]["peak_memory_bytes"]["min"] > 30e6  # the interpreter and NumPy alone
    q8_0, f32 = report["rows"]
    assert q8_0["weight_bytes"] < f32["weight_bytes"]
    assert q8_0["file_bytes"] < f32["file_bytes"]

    turns = [line for line in finished.stderr.splitlines() if line.startswith("running")]
    assert [turn.split()[1] for turn in turns] == ["tiny-q8_0,", "tiny-f32,"] * 2


def test_a_single_run_has_no_spread_and_takes_a_picture_of_ours(tmp_path: Path, photo: Path) -> None:
    options = ["--sizes", "tiny", "--types", "q8_0", "--max-new-tokens", "2", "--repeat", "1"]
    finished = bench_sizes(*options, "--work-dir", tmp_path, "--image", photo)
    assert finished.returncode == 0, finished.stderr
    assert "photo.jpg" in finished.stdout
    after_the_rule = finished.stdout[finished.stdout.rindex("----") :].splitlines()[1:]
    assert after_the_rule[0].startswith("tiny  q8_0")
    assert after_the_rule[1] == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "tiny,3b"], "--sizes: found '3b', expected some of 256m,500m,2.2b,tiny"),
        (["--types", "q9"], "--types: found 'q9', expected some of f32,"),
        (["--image", "missing.jpg"], "missing.jpg: no such file"),
        (["--max-new-tokens", "1"], "expected at least 2"),
        (["--json", "missing/out.json"], "missing/out.json: cannot be written"),
    ],
)
def test_what_cannot_work_is_said_before_models_are_made(
    options: list[str], message: str, tmp_path: Path
) -> None:
    finished = bench_sizes("--sizes", "tiny", "--types", "q8_0", *options, "--work-dir", tmp_path / "models")
    assert finished.returncode == 1
    assert finished.stderr.startswith("pocketvlm: error: ")
    assert message in finished.stderr
    assert not (tmp_path / "models").exists()


def test_a_run_that_fails_is_named(tmp_path: Path) -> None:
    not_an_image = tmp_path / "note.txt"
    not_an_image.write_text("no picture")
    options = ["--sizes", "tiny", "--types", "q8_0", "--work-dir", tmp_path / "models"]
    finished = bench_sizes(*options, "--image", not_an_image)
    assert finished.returncode == 1
    assert "pocketvlm: error: pocketvlm describe" in finished.stderr
    assert "note.txt" in finished.stderr.splitlines()[-1]
