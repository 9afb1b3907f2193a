"""An output folder appears complete or not at all, and never takes the place of somebody's files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pocketvlm.errors import Error, InputError
from pocketvlm.export.output_folder import output_folder

PATTERNS = ("*.json", "*.gguf")


def write(out: Path, text: str, *, force: bool = False) -> None:
    with output_folder(out, force=force, replaceable=PATTERNS) as folder:
        (folder / "a.json").write_text(text)


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_and_its_parents(tmp_path: Path) -> None:
    write(tmp_path / "x" / "y" / "out", "new")
    assert tree(tmp_path) == {"x/y/out/a.json": "new"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", "new")
    assert tree(tmp_path) == {"out/a.json": "new"}


def test_nothing_is_seen_before_the_end(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with output_folder(out, force=False, replaceable=PATTERNS) as folder:
        (folder / "a.json").write_text("new")
        assert not out.exists()
        assert folder.parent == out.parent
    assert out.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_nothing_is_left_of_a_failure(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), output_folder(tmp_path / "out", force=False, replaceable=PATTERNS) as folder:
        (folder / "a.json").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    with (
        pytest.raises(KeyboardInterrupt),
        output_folder(tmp_path / "out", force=True, replaceable=PATTERNS) as folder,
    ):
        (folder / "b.json").write_text("half")
        raise KeyboardInterrupt
    assert tree(tmp_path) == {"out/a.json": "old"}


def test_a_failure_of_the_last_step_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out", "old")
    rename = Path.rename

    def fail_for_the_new_one(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise PermissionError(errno.EACCES, "no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(PermissionError):
        write(tmp_path / "out", "new", force=True)
    assert tree(tmp_path) == {"out/a.json": "old"}


def test_force_replaces_the_whole_folder(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    (tmp_path / "out" / "stale.gguf").write_text("old")
    with pytest.raises(InputError, match="is not empty; --force replaces it"):
        write(tmp_path / "out", "new")
    assert tree(tmp_path) == {"out/a.json": "old", "out/stale.gguf": "old"}
    write(tmp_path / "out", "new", force=True)
    assert tree(tmp_path) == {"out/a.json": "new"}


@pytest.mark.parametrize("name", ["thesis.txt", "sub/a.json"])
def test_force_does_not_replace_what_others_wrote(tmp_path: Path, name: str) -> None:
    foreign = tmp_path / "out" / name
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    with pytest.raises(InputError, match=r"was not written by this command"):
        write(tmp_path / "out", "new", force=True)
    assert tree(tmp_path) == {f"out/{name}": "mine"}


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file, expected a folder or nothing"):
        write(tmp_path / "out", "new", force=True)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(Error, match="out: the disk is full, nothing was written"),
        output_folder(tmp_path / "out", force=False, replaceable=PATTERNS),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_other_failures_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    with (
        pytest.raises(PermissionError),
        output_folder(tmp_path / "out", force=False, replaceable=PATTERNS),
    ):
        raise PermissionError(errno.EACCES, "no")
