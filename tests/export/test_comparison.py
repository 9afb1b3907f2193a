"""`pocketvlm verify A B`: the stage at which two models part is named, and what they differ by is counted."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pocketvlm
from pocketvlm.cli import main
from pocketvlm.errors import InputError
from pocketvlm.export.comparison import (
    Answered,
    Comparison,
    Request,
    answer,
    compare,
    compare_models,
    summarize,
    to_table,
    trace,
)

REQUEST = Request("noise", "What?", [np.random.default_rng(4).integers(0, 256, (90, 130, 3), np.uint8)])
STEPS = 16


@pytest.fixture(scope="module")
def answered(tiny_f32: Path) -> Answered:
    model = pocketvlm.load(tiny_f32, threads=2)
    return answer(model, REQUEST, max_new_tokens=STEPS, ignore_eos=True)


def test_a_model_does_not_part_from_itself(tiny_f32: Path, answered: Answered) -> None:
    found = compare(REQUEST, answered, trace(pocketvlm.load(tiny_f32), REQUEST, answered.token_ids))
    assert found.same_prompt
    assert (found.pixel_error, found.feature_error, found.logit_error) == (0, 0, 0)
    assert (found.agreement.top1, found.agreement.kl_max) == (1, 0)
    assert (found.agreement.first_other_token, found.parts_at, found.steps) == (None, None, STEPS)


def test_the_first_stage_that_differs_is_named(answered: Answered) -> None:
    first = answered.trace
    changed: list[tuple[str, dict[str, Any]]] = [
        ("logits", {"logits": first.logits * 1.01}),
        ("image features", {"image_features": first.image_features * 1.01}),
        ("pixel values", {"patches": first.patches[:-1]}),
        ("prompt tokens", {"token_ids": [*first.token_ids, 5]}),
    ]
    other = first
    for stage, change in changed:
        other = replace(other, **change)
        assert compare(REQUEST, answered, other).parts_at == stage
    near = replace(first, patches=first.patches * np.float32(1 + 2**-20))
    assert compare(REQUEST, answered, near).parts_at is None


def test_where_greedy_answers_part_is_counted_from_one(answered: Answered) -> None:
    logits = answered.trace.logits.copy()
    logits[[4, 9], answered.token_ids[0] - 1] = logits.max() + 1
    found = compare(REQUEST, answered, replace(answered.trace, logits=logits))
    assert found.agreement.first_other_token == 5
    assert found.agreement.top1 == 1 - 2 / STEPS
    assert found.parts_at is None  # the logits behind the prompt are the same


def test_a_preprocessor_of_another_filter_parts_at_the_pixels(tiny_f32: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(tiny_f32, tmp_path / "own"))
    config = json.loads((own / "preprocessor_config.json").read_text())
    config["resample"] = {1: 2, 2: 3, 3: 1}[config["resample"]]
    (own / "preprocessor_config.json").write_text(json.dumps(config))
    models = [pocketvlm.load(folder, threads=2) for folder in (tiny_f32, own)]
    (found,) = compare_models(*models, [REQUEST], max_new_tokens=2, advance=lambda: None)
    assert found.parts_at == "pixel values"


def test_other_vocabularies_are_refused(answered: Answered) -> None:
    other = replace(answered.trace, logits=answered.trace.logits[:, :-8])
    with pytest.raises(InputError, match="these models cannot be compared"):
        compare(REQUEST, answered, other)


def comparison(answered: Answered, steps: int, scale: float) -> Comparison:
    shorter = replace(answered.trace, logits=answered.trace.logits[:steps])
    part = Answered(answered.token_ids[:steps], shorter)
    return compare(REQUEST, part, replace(shorter, logits=shorter.logits * np.float32(scale)))


def test_a_summary_counts_steps_and_keeps_the_worst(answered: Answered) -> None:
    found = [comparison(answered, 4, 1), comparison(answered, 12, 1.5)]
    whole = summarize(found)
    assert whole.kl_mean == pytest.approx(0.75 * found[1].agreement.kl_mean)
    assert whole.kl_max == found[1].agreement.kl_max > 0
    assert whole.logit_error == pytest.approx(0.5)
    assert (whole.requests, whole.same_greedy, whole.parts_at) == (2, 2, "logits")
    lines = to_table(found).splitlines()
    assert lines[2].endswith("none in 4 |  nowhere |")
    assert lines[3].endswith("none in 12 |   logits |")


class TestCommand:
    def test_compares_two_that_load(
        self,
        tiny_f32: Path,
        tiny_checkpoint: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A folder and a checkpoint, over pictures of a folder, by name."""
        monkeypatch.setenv("POCKETVLM_CACHE", str(tmp_path / "cache"))
        (tmp_path / "pictures").mkdir()
        (tmp_path / "pictures" / "notes.txt").write_text("no picture")
        for name, side in (("b.png", 40), ("a.jpg", 90)):
            Image.new("RGB", (side, 50), "red").save(tmp_path / "pictures" / name)
        pictures = ["--images", str(tmp_path / "pictures"), "--max-new-tokens", "5"]
        options = ["--b", "type=q8_0,isa=scalar", "--json", str(tmp_path / "out.json"), "--threads", "2"]
        assert main(["verify", str(tiny_f32), str(tiny_checkpoint), *pictures, *options]) == 0
        report = json.loads((tmp_path / "out.json").read_text())
        assert [entry["request"] for entry in report["requests"]] == ["a.jpg", "b.png"]
        assert report["summary"]["parts_at"] == "image features"
        assert report["summary"]["pixel_error"] == 0
        assert (report["a"]["text_type"], report["b"]["text_type"]) == ("f32", "q8_0")
        assert (report["b"]["isa"], report["b"]["threads"]) == ("scalar", 2)
        shown = capsys.readouterr().out
        assert shown.splitlines()[2].startswith("| a.jpg")
        assert "parts at        image features" in shown

    def test_drawn_pictures_where_there_are_no_others(
        self, tiny_f32: Path, capsys: pytest.CaptureFixture[str], llama_packages: None
    ) -> None:
        """Between backends, which agree at f32 but for mtmd, which rounds pixel values to float16."""
        for vision_engine, stage in (("native", "nowhere"), ("mtmd", "pixel values")):
            backend = ["--b", f"backend=llama_cpp,vision_engine={vision_engine}", "--threads", "1"]
            assert main(["verify", str(tiny_f32), str(tiny_f32), *backend, "--max-new-tokens", "8"]) == 0
            shown = capsys.readouterr().out
            assert "greedy answers  6 of 6 equal" in shown
            assert f"parts at        {stage} " in shown

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["demo"], "found 1 models, expected two: pocketvlm verify A B"),
            (["demo", "demo", "demo"], "found 3 models, expected two"),
            (["demo", "nowhere"], "nowhere: no such folder"),
            (["demo", "demo", "--images", "missing"], "missing: no such folder of pictures"),
            (["demo", "demo", "--images", "."], "found no picture; expected files"),
            (["demo", "demo", "--json", "missing/out.json"], "missing/out.json: cannot be written"),
            (["demo", "demo", "--b", "backend=mlx"], "backend 'mlx' is not there"),
            (["--quality", "demo", "demo"], "--quality: found 2 checkpoints, expected one at most"),
        ],
    )
    def test_what_cannot_be_is_one_line(
        self,
        arguments: list[str],
        message: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["verify", *arguments]) == 1
        errors = capsys.readouterr().err
        assert message in errors
        assert len(errors.splitlines()) == 1

    @pytest.mark.parametrize("options", ["backend", "threads=2", "backend=", ""])
    def test_options_that_are_none(self, options: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["verify", "demo", "demo", "--a", options])
        assert "expected NAME=VALUE with a name of backend, type" in capsys.readouterr().err
