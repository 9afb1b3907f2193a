"""`pocketvlm demo`, run as a person runs it: what it prints, what it saves, what it refuses to replace."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import pocketvlm
from pocketvlm.cli import main
from pocketvlm.demo_model import FEATURES, MODEL_FOLDER, cli, scenes
from pocketvlm.gguf_files import find_model_files

COMMAND = [sys.executable, "-P", "-m", "pocketvlm", "demo"]


def demo(folder: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in `folder`, with no hub in reach."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9"} | environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_it_needs_no_argument_and_shows_answers_beside_the_truth(tmp_path: Path) -> None:
    result = demo(tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["pocketvlm-demo.png"]
    lines = result.stdout.splitlines()
    assert re.fullmatch(r"picture +pocketvlm-demo\.png, \d+x\d+ pixels, seed \d+", lines[0])
    _, questions = cli.make_up(cli.DEFAULT_SEED)
    for question, (asked, answer, truth) in zip(
        questions, (lines[i : i + 3] for i in (2, 6, 10)), strict=True
    ):
        said = answer.removeprefix("       answer  ")
        assert asked == f"{'right' if said == question.answer else 'WRONG'}  {question.text}"
        assert truth == f"       truth   {question.answer}"
    figures = [line.split("  ")[0] for line in lines[14:19]]
    assert figures == ["right", "load", "first token", "decode", "peak memory"]
    assert lines[-1].endswith("pocketvlm describe pocketvlm-demo.png -m demo -p 'How many shapes are there?'")


def test_what_it_shows_first_is_right(tmp_path: Path) -> None:
    """Its mistakes are counted elsewhere; a person's first look should not be at one."""
    values = json.loads(demo(tmp_path, "--json").stdout)
    assert [answer["answer"] for answer in values["answers"]] == [a["truth"] for a in values["answers"]]


def test_json_is_exactly_one_object(tmp_path: Path) -> None:
    result = demo(tmp_path, "--json", "--seed", "7", "--out", "a.png", "--threads", "1", "--isa", "scalar")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    values = json.loads(result.stdout)
    assert list(values) == ["picture", "seed", "answers", "correct", "timings", "memory"]
    assert (values["picture"], values["seed"]) == ("a.png", 7)
    assert values["correct"] == sum(answer["correct"] for answer in values["answers"])
    assert values["timings"].keys() == {"load_s", "time_to_first_token_s", "decode_tokens_per_s"}
    assert all(seconds > 0 for seconds in values["timings"].values())
    assert values["memory"]["peak_bytes"] > 10_000_000
    model = pocketvlm.load(MODEL_FOLDER, isa="scalar")
    _, questions = cli.make_up(7)
    for answer, question in zip(values["answers"], questions, strict=True):
        assert list(answer) == ["kind", "question", "answer", "truth", "correct", "timings"]
        assert (answer["kind"], answer["question"]) == (question.kind, question.text)
        assert answer["truth"] == question.answer
        said = model.generate(question.text, images=tmp_path / "a.png").text.strip()
        assert (answer["answer"], answer["correct"]) == (said, said == question.answer)
        assert answer["timings"].keys() == pocketvlm.Timings.__annotations__.keys()


def test_wrong_answers_are_said_to_be_wrong_and_are_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = cli.make_up

    def lying(seed: int) -> tuple[scenes.Scene, list[scenes.Question]]:
        scene, questions = real(seed)
        return scene, [scenes.Question(q.kind, q.text, "No model says this.") for q in questions]

    monkeypatch.setattr(cli, "make_up", lying)
    assert main(["demo", "--out", str(tmp_path / "a.png")]) == 0
    out = capsys.readouterr().out
    assert out.count("WRONG") == 3
    assert "right         0 of 3 answers" in out


def test_the_picture_that_is_saved_is_the_one_that_was_drawn(tmp_path: Path) -> None:
    demo(tmp_path, "--seed", "11", "--out", "picture.PNG")
    image, _ = scenes.draw(cli.make_up(11)[0])
    with Image.open(tmp_path / "picture.PNG") as saved:
        assert saved.format == "PNG"
        assert saved.tobytes() == image.tobytes()


def test_a_picture_of_an_earlier_run_is_replaced(tmp_path: Path) -> None:
    picture = tmp_path / "pocketvlm-demo.png"
    contents = set()
    for arguments in ([], ["--seed", "4"], ["--seed", "5"]):
        assert demo(tmp_path, *arguments).returncode == 0
        contents.add(picture.read_bytes())
    assert len(contents) == 3


@pytest.mark.parametrize("theirs", ["png", "text", "empty"])
def test_a_file_of_somebody_else_is_kept_unless_forced(tmp_path: Path, theirs: str) -> None:
    path = tmp_path / "holiday.png"
    if theirs == "png":
        Image.new("RGB", (8, 8)).save(path)
    else:
        path.write_text("mine" if theirs == "text" else "")
    before = path.read_bytes()
    result = demo(tmp_path, "--out", "holiday.png")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "pocketvlm: error: holiday.png: is there, not made by an earlier run; "
        "--force replaces it, --out names another file\n"
    )
    assert path.read_bytes() == before
    assert demo(tmp_path, "--out", "holiday.png", "--force").returncode == 0
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "no/such/folder/a.png"], "no/such/folder/a.png: cannot be written: No such file"),
        (["--out", "folder.png"], "folder.png: cannot be written: Is a directory; --out names another"),
        (["--out", "file/a.png"], "file/a.png: cannot be written: Not a directory"),
        (["--out", "a.jpg"], "a.jpg: the picture is saved as PNG, give a name that ends in .png"),
        (["--seed", "-1"], "seed is -1, expected an integer of at least 0"),
        (["--threads", "0"], "threads is 0, expected an integer of at least 1"),
        (["--isa", "sse9"], "sse9"),
        (["--backend", "abacus"], "backend 'abacus' is not there"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    result = demo(tmp_path, *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("pocketvlm: error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"folder.png", "file"}


@pytest.mark.parametrize("arguments", [["--seed", "x"], ["--seed"], ["picture.png"]])
def test_wrong_usage_is_exit_code_2(tmp_path: Path, arguments: list[str]) -> None:
    result = demo(tmp_path, *arguments)
    assert result.returncode == 2
    assert "usage: pocketvlm" in result.stderr


def test_every_seed_gives_a_sign_and_shapes_that_no_other_set_holds() -> None:
    kinds = set()
    for seed in range(300):
        scene, questions = cli.make_up(seed)
        assert scene.sign is not None
        assert len(scene.shapes) >= 2
        assert questions[0].kind == "describe"
        assert len({question.kind for question in questions}) == 3
        kinds |= {question.kind for question in questions}
        assert (scene, questions) == cli.make_up(seed)
    assert kinds == set(FEATURES) - {"change"}  # which takes two pictures
    assert cli._FIRST_SEED >= 2 * scenes.HELD_OUT_SEED


def test_the_model_is_installed_and_small() -> None:
    files = find_model_files(MODEL_FOLDER)
    assert files.text.stat().st_size + files.projector.stat().st_size <= 9_000_000
    info = pocketvlm.load(MODEL_FOLDER, threads=1).info()
    assert (info["text_type"], info["vision_type"]) == ("q8_0", "q8_0")
    assert info["num_parameters"] <= 8_000_000


def test_what_only_training_needs_is_not_imported(tmp_path: Path) -> None:
    for name in ("torch", "transformers"):
        (tmp_path / f"{name}.py").write_text("")  # so that also a guarded import is noticed
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pocketvlm.demo_model.cli\n"
        "print(*(set(sys.modules) & {'torch', 'transformers', 'pocketvlm.export', 'pocketvlm.benchmarks'}))"
    )
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == []


def test_the_checkpoint_is_not_installed() -> None:
    names = {path.name for path in MODEL_FOLDER.parent.iterdir()}
    assert {"model", "fonts", "words.txt", "scenes.py"} <= names
    assert "checkpoint" not in names
    assert (MODEL_FOLDER.parent / "fonts" / "LICENSE").is_file()
