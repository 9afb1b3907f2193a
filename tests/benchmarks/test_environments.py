"""The environments of peers and what is converted for them: made once, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pocketvlm.benchmarks import conversions, environments
from pocketvlm.benchmarks.conversions import convert
from pocketvlm.benchmarks.environments import Environment, environment_folder, find_python
from pocketvlm.cli import main
from pocketvlm.errors import BackendError


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Environment]:
    """Replaces the peers that there are."""
    table = {"empty": Environment((), "nothing to install")}
    monkeypatch.setattr(environments, "ENVIRONMENTS", table)
    monkeypatch.setattr(conversions, "ENVIRONMENTS", table)
    return table


def prepare(work_dir: Path, *names: str) -> int:
    return main(["bench", "prepare", *names, "--work-dir", str(work_dir)])


class TestPrepare:
    def test_makes_an_environment_that_stays_until_it_needs_something_else(
        self, known: dict[str, Environment], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert find_python("empty", tmp_path) is None
        assert main(["bench", "prepare", "--list", "--work-dir", str(tmp_path)]) == 0
        assert (
            f"empty  absent  pocketvlm bench prepare empty --work-dir {tmp_path}" in capsys.readouterr().out
        )
        assert prepare(tmp_path) == 0
        assert f"empty  ready  {environment_folder('empty', tmp_path)}" in capsys.readouterr().out
        python = find_python("empty", tmp_path)
        assert python is not None
        assert os.access(python, os.X_OK)
        (python.parent / "mark").touch()
        assert prepare(tmp_path, "empty") == 0
        assert (python.parent / "mark").exists()

        known["empty"] = Environment((), "nothing to install", {"CMAKE_ARGS": "-DX=1"})
        assert find_python("empty", tmp_path) is None
        assert prepare(tmp_path, "empty") == 0
        assert not (python.parent / "mark").exists()

    def test_goes_on_after_one_that_cannot_be_made(
        self, known: dict[str, Environment], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        known.clear()
        known["broken"] = Environment((("--no-index", "no-package-of-that-name"),), "fails")
        known["empty"] = Environment((), "nothing to install")
        assert prepare(tmp_path) == 1
        said = capsys.readouterr()
        assert "error: broken: " in said.err
        assert "No matching distribution found for no-package-of-that-name" in said.err
        assert str(tmp_path / "environments" / "broken.log") in said.err
        assert find_python("broken", tmp_path) is None
        assert find_python("empty", tmp_path) is not None

    def test_refuses_unknown_names_and_folders_that_cannot_be(
        self, known: dict[str, Environment], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert prepare(tmp_path, "mlx") == 1
        assert "PEER: found 'mlx', expected some of empty" in capsys.readouterr().err
        (tmp_path / "file").touch()
        assert prepare(tmp_path / "file", "empty") == 1
        assert "cannot be made" in capsys.readouterr().err


class TestConvert:
    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> Path:
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        (folder / "weights").write_text("1")
        return folder

    @pytest.fixture
    def script(self, known: dict[str, Environment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Copies a checkpoint, and counts how often it ran."""
        assert prepare(tmp_path, "empty") == 0
        script = tmp_path / "script.py"
        script.write_text(
            "import shutil, sys, pathlib\n"
            f"with open({str(tmp_path / 'ran')!r}, 'a') as file: file.write('x')\n"
            "shutil.copytree(sys.argv[1], sys.argv[2])\n"
        )
        monkeypatch.setattr(conversions, "CONVERSIONS", {"copy": (str(script), "empty")})
        return script

    def test_converts_once_for_each_checkpoint_and_script(
        self, checkpoint: Path, script: Path, tmp_path: Path
    ) -> None:
        first = convert("copy", checkpoint, tmp_path)
        assert (first / "weights").read_text() == "1"
        assert convert("copy", checkpoint, tmp_path) == first
        assert (tmp_path / "ran").read_text() == "x"
        (checkpoint / "weights").write_text("22")
        second = convert("copy", checkpoint, tmp_path)
        assert (second / "weights").read_text() == "22"
        script.write_text(script.read_text() + "# another\n")
        assert convert("copy", checkpoint, tmp_path) not in (first, second)

    def test_leaves_nothing_when_the_script_fails(
        self, checkpoint: Path, script: Path, tmp_path: Path
    ) -> None:
        script.write_text(script.read_text() + "raise ValueError('no room')\n")
        with pytest.raises(BackendError, match=r"for empty: exit code 1: ValueError: no room; all of it: "):
            convert("copy", checkpoint, tmp_path)
        assert [path for path in (tmp_path / "converted").iterdir() if path.is_dir()] == []
