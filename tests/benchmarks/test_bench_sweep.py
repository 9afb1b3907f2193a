"""`pocketvlm bench sweep` on the tiny model: a point for every setting, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketvlm.cli import main


def sweep(*arguments: str | Path) -> int:
    return main(["bench", "sweep", "--synthetic", "tiny", *map(str, arguments)])


def test_measures_every_setting_in_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    options = ["--threads", "2", "--sizes", "100x20,100x100", "--contexts", "30,90,5000", "--new-tokens", "4"]
    assert sweep(*options, "--repeat", "2", "--work-dir", tmp_path, "--json", out) == 0
    said = capsys.readouterr()
    assert "a context of 5000 is left out: the model holds 2028 and an answer" in said.err
    turns = [line.split(": ")[1] for line in said.err.splitlines() if line.startswith("turn ")]
    assert turns == ["1 threads", "2 threads", "2 sizes and 2 lengths of text"] * 2

    content = json.loads(out.read_text())
    assert (content["measurement"], content["repeat"], content["new_tokens"]) == ("sweep", 2, 4)
    settings = {
        axis: [point["setting"] for point in content[axis]] for axis in ("threads", "images", "contexts")
    }
    assert settings == {"threads": ["1", "2"], "images": ["100x20", "100x100"], "contexts": ["30", "90"]}
    assert [point["metrics"]["tiles"]["median"] for point in content["images"]] == [5, 17]
    for point in [*content["threads"], *content["images"]]:
        metrics = point["metrics"]
        assert 0 < metrics["time_to_first_token_s"]["min"] <= metrics["end_to_end_s"]["max"]
    few, many = (point["metrics"]["prompt_tokens"]["median"] for point in content["contexts"])
    assert many - few == 60
    for axis, count in (("Threads", 2), ("Pictures", 2), ("Tokens read before", 2)):
        part = said.out[said.out.index(f"\n{axis}") :].split("\n\n")[0]
        rows = part[part.index("----") :].splitlines()[1:]
        assert len(rows) == 2 * count  # medians, and below them the ends


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "abacus"], "backend 'abacus' is not there"),
        (["--sizes", "640"], "--sizes: found '640', expected width x height"),
        (["--contexts", "many"], "--contexts: found 'many', expected numbers"),
        (["--new-tokens", "1"], "expected at least 2"),
        (["--json", "missing/out.json"], "cannot be written"),
    ],
)
def test_refuses(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(*options) == 1
    assert message in capsys.readouterr().err
