"""The command line, run as a person runs it."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

import pocketvlm
from pocketvlm import _core, cli

COMMAND = [sys.executable, "-P", "-m", "pocketvlm"]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment, check=False, capture_output=True, text=True, timeout=120
    )


def test_describe_prints_the_answer_and_nothing_else(tiny_f32: Path, photo: Path) -> None:
    result = run("describe", photo, "-m", tiny_f32, "--max-new-tokens", "24", "--ignore-eos")
    assert (result.returncode, result.stderr) == (0, "")
    expected = pocketvlm.load(tiny_f32).generate(
        "Describe this image.", images=[photo], max_new_tokens=24, ignore_eos=True
    )
    assert result.stdout == expected.text.lstrip() + "\n"


def test_json_is_exactly_one_object(tiny_f32: Path, photo: Path) -> None:
    result = run("describe", photo, photo, "-m", tiny_f32, "--json", "--no-split", "--max-new-tokens", "5")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    values = json.loads(result.stdout)
    model = pocketvlm.load(tiny_f32)
    expected = model.generate(
        "Describe these images.", images=[photo, photo], max_new_tokens=5, split_images=False
    )
    assert values["text"] == expected.text
    assert values["token_ids"] == expected.token_ids
    assert values["tiles"] == 2
    assert values.keys() == expected.to_dict().keys()
    assert values["timings"].keys() == expected.to_dict()["timings"].keys()
    assert values["memory"]["peak_bytes"] > 10_000_000


def test_options_reach_the_model(tiny_f32: Path, photo: Path) -> None:
    model = pocketvlm.load(tiny_f32)
    whole = model.generate("Hm?", images=photo, max_new_tokens=40, ignore_eos=True)
    stop = whole.text[5:7]
    options = ["-p", "Hm?", "--stop", stop, "--stop", "not in it", "--ignore-eos", "--max-new-tokens", "40"]
    settings = ["--threads", "1", "--isa", "scalar", "--backend", "native"]
    result = run("describe", photo, "-m", tiny_f32, "--json", *options, *settings)
    values = json.loads(result.stdout)
    assert values["text"] == whole.text[: whole.text.index(stop)]
    assert values["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("options", "tiles"),
    [(["--tiles", "single"], 1), (["--tiles", "5"], 5), (["--no-upscale"], 13), (["--tiles", "auto"], 13)],
)
def test_modes_of_images(tiny_f32: Path, photo: Path, options: list[str], tiles: int) -> None:
    result = run("describe", photo, "-m", tiny_f32, "--json", "--max-new-tokens", "1", *options)
    assert json.loads(result.stdout)["tiles"] == tiles


def test_stats_go_to_stderr(tiny_f32: Path, photo: Path) -> None:
    result = run("describe", photo, "-m", tiny_f32, "--stats", "--max-new-tokens", "3", "--no-split")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) >= 1
    assert [line.split()[0] for line in result.stderr.splitlines()] == [
        *("prompt", "answer", "load", "preprocess", "vision", "prefill", "decode", "first", "peak")
    ]


def test_stats_tell_of_tiles_that_were_saved(tiny_f32: Path, photo: Path) -> None:
    options = ["-m", tiny_f32, "--stats", "--max-new-tokens", "1", "--tiles", "single"]
    twice = run("describe", photo, photo, *options).stderr.splitlines()[0]
    assert twice.endswith("for 2 tiles, 1 of them equal to another and not encoded again")
    assert run("describe", photo, *options).stderr.splitlines()[0].endswith("for 1 tiles")


def test_the_model_may_come_from_the_environment(tiny_f32: Path, photo: Path) -> None:
    result = run("describe", photo, "--max-new-tokens", "2", "--no-split", POCKETVLM_MODEL=str(tiny_f32))
    assert result.returncode == 0
    missing = run("describe", photo, POCKETVLM_MODEL="/no/such/model")
    assert missing.returncode == 1
    assert "/no/such/model: no such folder" in missing.stderr


# No network as a variable says it, and as a closed door says it.
OFFLINE = [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}]


@pytest.mark.parametrize("offline", OFFLINE)
def test_without_a_model_offline_it_says_what_to_do(
    photo: Path, tmp_path: Path, offline: dict[str, str]
) -> None:
    folders = {"HF_HOME": str(tmp_path), "POCKETVLM_CACHE": str(tmp_path), "POCKETVLM_MODEL": ""}
    result = run("describe", photo, "a b.png", **folders, **offline)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    opening = f"pocketvlm: error: without -m the model is {cli.DEFAULT_MODEL}: no such folder, nothing cached"
    assert result.stderr.startswith(opening)
    assert f"hf download {cli.DEFAULT_MODEL}" in result.stderr
    offered = shlex.split(result.stderr.split(": ")[-1])
    assert offered == ["pocketvlm", "describe", str(photo), "a b.png", "-m", "demo"]
    answer = run("describe", photo, *offered[4:], "--max-new-tokens", "2", **folders, **offline)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_a_model_that_was_named_is_not_answered_with_another(photo: Path, tmp_path: Path) -> None:
    folders = {"HF_HOME": str(tmp_path), "POCKETVLM_CACHE": str(tmp_path)}
    result = run("describe", photo, "-m", cli.DEFAULT_MODEL, HF_HUB_OFFLINE="1", **folders)
    assert result.returncode == 1
    assert "demo" not in result.stderr


def test_without_a_model_the_one_in_the_cache_is_used(tiny_q8_0: Path, photo: Path, tmp_path: Path) -> None:
    converted = f"{cli.DEFAULT_MODEL.replace('/', '--')}--{'0' * 40}--q8_0"
    shutil.copytree(tiny_q8_0, tmp_path / "models-v1" / converted)
    environment = {"HF_HOME": str(tmp_path), "POCKETVLM_CACHE": str(tmp_path), "POCKETVLM_MODEL": ""}
    result = run(
        "describe", photo, "--no-split", "--json", "--max-new-tokens", "4", HF_HUB_OFFLINE="1", **environment
    )
    assert (result.returncode, result.stderr) == (0, "")
    expected = pocketvlm.load(tiny_q8_0).generate(
        "Describe this image.", images=photo, max_new_tokens=4, split_images=False
    )
    assert json.loads(result.stdout)["token_ids"] == expected.token_ids


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg"], "missing.jpg: no such file"),
        (["PHOTO", "--max-new-tokens", "0"], "max_new_tokens is 0, expected an integer of at least 1"),
        (
            ["PHOTO", "--tiles", "5", "--no-split"],
            "tiles is 5 and split_images is False: give one of them",
        ),
        (["PHOTO", "--threads", "-1"], "threads is -1, expected an integer of at least 1"),
        (["PHOTO", "--backend", "mlx"], "backend 'mlx' is not there; available: native, onnx, llama_cpp"),
        (["PHOTO", "--stop", ""], "stop: found '', expected strings that are not empty"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(
    tiny_f32: Path, photo: Path, arguments: list[str], message: str
) -> None:
    result = run("describe", "-m", tiny_f32, *(str(photo) if a == "PHOTO" else a for a in arguments))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"pocketvlm: error: {message}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["describe"],
        ["describe", "a.jpg", "--do-sample"],
        ["describe", "a.jpg", "--type", "q2_k"],
        ["describe", "a.jpg", "--tiles", "all"],
        ["x"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert "usage: pocketvlm" in result.stderr


def test_version() -> None:
    assert run("--version").stdout == f"pocketvlm {pocketvlm.__version__}\n"


def test_info_shows_what_there_is(tmp_path: Path) -> None:
    facts = json.loads(run("info", "--json", POCKETVLM_CACHE=str(tmp_path)).stdout)
    assert facts == {
        "version": pocketvlm.__version__,
        "cpu_features": _core.cpu_features(),
        "isas": _core.isas(),
        "threads": _core.default_threads(),
        "backends": ["native", "onnx", "llama_cpp"],
        "cache_folder": str(tmp_path),
    }
    lines = run("info", POCKETVLM_CACHE=str(tmp_path)).stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(facts)
    assert lines[-1].endswith(str(tmp_path))


def test_info_shows_a_model(tiny_q8_0: Path) -> None:
    facts = json.loads(run("info", tiny_q8_0, "--json", "--threads", "1").stdout)
    assert facts["threads"] == 1
    assert facts["text_type"] == "q8_0"
    lines = run("info", tiny_q8_0).stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(facts)


def test_info_tells_what_an_image_would_take(tiny_f32: Path) -> None:
    options = ["info", tiny_f32, "--image-size", "640x480"]
    plan = pocketvlm.load(tiny_f32).plan(480, 640)
    assert json.loads(run(*options, "--json").stdout)["image_plan"] == plan.to_dict()
    lines = dict(line.split(maxsplit=1) for line in run(*options).stdout.splitlines())
    assert (lines["image"], lines["grid"], lines["tiles"]) == ("640x480", "3 rows, 4 cols", "13")
    single = dict(line.split(maxsplit=1) for line in run(*options, "--tiles", "single").stdout.splitlines())
    assert (single["tiles"], single["split"], single["grid"]) == ("1", "none", "0 rows, 0 cols")
    without = run("info", "--image-size", "640x480")
    assert (without.returncode, without.stderr.count("\n")) == (1, 1)
    assert "name one beside --image-size" in without.stderr
    assert run("info", tiny_f32, "--image-size", "640").returncode == 2


def test_commands_of_the_other_packages_are_found() -> None:
    for command in ("export", "bench", "demo"):
        result = run(command, "--help")
        assert result.returncode == 0
        assert f"usage: pocketvlm {command}" in result.stdout
    assert "synthetic" in run("export", "--help").stdout
    assert "memory" in run("bench", "--help").stdout


LONG = ["--ignore-eos", "--max-new-tokens", "1600", "--isa", "scalar", "--threads", "1"]


def test_ctrl_c_is_exit_code_130_without_a_trace(tiny_f32: Path, photo: Path) -> None:
    command = [*COMMAND, "describe", str(photo), "-m", str(tiny_f32), *LONG]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - started < 2
    assert (process.returncode, err) == (130, b"")


def test_a_reader_that_goes_away_is_no_error(tiny_f32: Path, photo: Path) -> None:
    command = [*COMMAND, "describe", str(photo), "-m", str(tiny_f32), *LONG]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_progress_is_shown_on_a_terminal_and_taken_away(tiny_f32: Path, photo: Path) -> None:
    terminal, child_side = pty.openpty()
    termios.tcsetwinsize(child_side, (24, 80))
    command = [*COMMAND, "describe", str(photo), "-m", str(tiny_f32), "--max-new-tokens", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=child_side)
    os.close(child_side)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
    os.close(terminal)
    assert process.wait() == 0
    assert b"vision" in shown
    assert shown.endswith(b"\r")


class Recorded(cli._Progress):
    """Progress without a terminal, to see what becomes of the bars."""

    def bar(self) -> Any:
        return self._bar


def test_a_bar_lasts_as_long_as_its_stage() -> None:
    with Recorded() as progress:
        assert progress.bar() is None
        progress.update("vision", 1, 3)
        first = progress.bar()
        assert first is not None
        progress.update("prefill", 1, 2)
        assert progress.bar() is not first
        progress.update("prefill", 2, 2)
        assert progress.bar() is None
