"""Folders and hub ids become exported folders: converted once, by one process, leaving nothing half done."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from pocketvlm import hub
from pocketvlm.demo_model import MODEL_FOLDER
from pocketvlm.errors import FormatError, InputError, UnsupportedError
from pocketvlm.gguf_files import find_model_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of our own, and an empty one for the hub's files."""
    monkeypatch.setenv("POCKETVLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "cache" / "models-v1"


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may change."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "my-checkpoint")


def conversions(cache: Path) -> list[str]:
    """Names of what a cache holds besides lock files."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock") if cache.exists() else []


def test_demo_is_the_model_that_is_installed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub.resolve("demo", type="f32") == find_model_files(MODEL_FOLDER)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "holiday.jpg").touch()
    assert hub.resolve("demo").folder == MODEL_FOLDER
    assert not cache.exists()


def test_a_model_in_a_folder_named_demo_is_that_one(
    tiny_f32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(tiny_f32)
    assert hub.resolve("demo").folder == Path("demo")
    assert hub.resolve("./demo").folder == Path("demo")


@pytest.mark.parametrize("name", ["text.gguf", "model.safetensors", "config.json"])
def test_half_a_model_in_a_folder_named_demo_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / name).touch()
    with pytest.raises(FormatError, match=re.escape(name)):
        hub.resolve("demo")


@pytest.mark.parametrize("source", ["./demo", "demo/", "Demo", Path("demo")])
def test_only_the_bare_name_is_the_demo_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        hub.resolve(source)


def test_an_exported_folder_is_used_as_it_is(tiny_f32: Path, cache: Path) -> None:
    files = hub.resolve(tiny_f32, type="q8_0")
    assert files.folder == tiny_f32
    assert {files.text, files.projector} == set(tiny_f32.glob("*.gguf"))
    assert not cache.exists()


def test_the_pair_is_told_apart_by_metadata(tiny_f32: Path, tmp_path: Path) -> None:
    files = hub.resolve(tiny_f32)
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    (swapped / "mmproj-a.gguf").symlink_to(files.text)
    (swapped / "b.gguf").symlink_to(files.projector)
    assert hub.resolve(swapped).text.name == "mmproj-a.gguf"


@pytest.mark.parametrize("count", [0, 2])
def test_a_folder_without_exactly_one_pair_lists_what_is_there(
    tiny_f32: Path, tmp_path: Path, count: int
) -> None:
    files = hub.resolve(tiny_f32)
    (tmp_path / "text.gguf").symlink_to(files.text)
    for i in range(count):
        (tmp_path / f"projector{i}.gguf").symlink_to(files.projector)
    with pytest.raises(
        FormatError, match=r"text\.gguf \(llama\); expected one text file" if not count else "clip"
    ):
        hub.resolve(tmp_path)


def test_a_checkpoint_is_converted_once_and_says_so(
    checkpoint: Path, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.WARNING, "pocketvlm"):
        first = hub.resolve(checkpoint)
    assert [record.getMessage() for record in caplog.records] == [
        f"converting {checkpoint} to q8_0, once, into {first.folder}"
    ]
    assert first.folder.parent == cache
    assert conversions(cache) == [first.folder.name]
    assert (first.folder / "tokenizer.json").is_file()

    monkeypatch.setattr(subprocess, "run", None)  # a second conversion would need it
    assert hub.resolve(checkpoint) == first


def test_another_type_or_a_changed_file_is_another_conversion(checkpoint: Path, cache: Path) -> None:
    first = hub.resolve(checkpoint, type="q8_0")
    assert "F32" in hub.resolve(checkpoint, type="f32").text.name
    os.utime(checkpoint / "model.safetensors", ns=(1, 1))
    assert hub.resolve(checkpoint, type="q8_0").folder != first.folder
    assert len(conversions(cache)) == 3


def test_two_processes_convert_once(checkpoint: Path, cache: Path) -> None:
    code = "import sys, pocketvlm.hub as hub; print(hub.resolve(sys.argv[1]).folder)"
    command = [sys.executable, "-P", "-c", code, str(checkpoint)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert {out for out, _ in outputs} == {f"{cache / conversions(cache)[0]}\n"}
    assert len(conversions(cache)) == 1
    assert sum("converting" in err for _, err in outputs) == 1


def test_a_failed_conversion_is_named_and_leaves_nothing(checkpoint: Path, cache: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"my-checkpoint: cannot be converted.*model\.safetensors"):
        hub.resolve(checkpoint)
    assert conversions(cache) == []


def test_ctrl_c_during_a_conversion_leaves_nothing(
    checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(command: list[str], **options: Any) -> None:
        staging = Path(command[command.index("gguf") + 2])
        staging.mkdir()
        (staging / "half.gguf").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hub.resolve(checkpoint)
    assert conversions(cache) == []


def test_what_a_killed_process_left_is_cleared_away(checkpoint: Path, cache: Path) -> None:
    folder = hub.resolve(checkpoint).folder
    shutil.rmtree(folder)
    partial = Path(f"{folder}.partial")
    partial.mkdir()
    (partial / "half.gguf").touch()
    assert hub.resolve(checkpoint).folder == folder
    assert conversions(cache) == [folder.name]
    assert not (folder / "half.gguf").exists()


def test_a_process_that_is_killed_lets_the_next_one_convert(checkpoint: Path, cache: Path) -> None:
    code = (
        "import sys, time, subprocess, pocketvlm.hub as hub\n"
        "subprocess.run = lambda *a, **k: (print('inside', flush=True), time.sleep(60))\n"
        "hub.resolve(sys.argv[1])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(checkpoint)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    started = time.monotonic()
    assert hub.resolve(checkpoint).folder.is_dir()
    assert time.monotonic() - started < 50


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "found an empty folder"),
        (["notes.txt"], r"found notes\.txt; expected a GGUF pair"),
        (["config.json"], r"found config\.json; expected"),
        (["model.safetensors"], r"found model\.safetensors; expected"),
    ],
)
def test_a_folder_with_neither_is_named(
    tmp_path: Path, cache: Path, content: list[str], message: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in content:
        (folder / name).touch()
    with pytest.raises(FormatError, match=message):
        hub.resolve(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no-such-folder", "no such folder, and not a hub id"),
        ("/no/such/folder", "no such folder, and not a hub id"),
        ("a/b/c", "no such folder, and not a hub id"),
        (__file__, "is a file"),
    ],
)
def test_a_source_that_is_not_there_is_named(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hub.resolve(source)


class FakeHub:
    """Stands for `huggingface_hub.snapshot_download` over one repository; counts what was asked for."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        self.checkpoint = checkpoint
        self.snapshot = folder / COMMIT
        self.online = True
        self.asked: list[list[str]] = []

    def __call__(self, repo_id: str, *, allow_patterns: list[str], **options: Any) -> str:
        assert repo_id == "someone/tiny"
        self.asked.append(allow_patterns)
        if self.online:
            shutil.copytree(
                self.checkpoint,
                self.snapshot,
                dirs_exist_ok=True,
                ignore=lambda _, names: [
                    n for n in names if not any(Path(n).match(pattern) for pattern in allow_patterns)
                ],
            )
        elif not self.snapshot.exists():
            raise LocalEntryNotFoundError("offline")
        return str(self.snapshot)


@pytest.fixture
def fake_hub(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tiny_checkpoint, tmp_path / "snapshots")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    return fake


def test_a_hub_id_is_downloaded_and_converted_once(cache: Path, fake_hub: FakeHub) -> None:
    first = hub.resolve("someone/tiny")
    assert first.folder.name == f"someone--tiny--{COMMIT}--q8_0"
    assert fake_hub.asked == [["config.json"], ["*.json", "*.jinja", "*.safetensors"]]
    shutil.rmtree(fake_hub.snapshot)
    assert hub.resolve("someone/tiny") == first
    assert fake_hub.asked[2:] == [["config.json"]]  # no weights for what is converted already


def test_offline_what_was_converted_is_used(cache: Path, fake_hub: FakeHub) -> None:
    first = hub.resolve("someone/tiny")
    fake_hub.online = False
    assert hub.resolve("someone/tiny") == first
    shutil.rmtree(fake_hub.snapshot)
    assert hub.resolve("someone/tiny") == first
    with pytest.raises(UnsupportedError, match="nothing cached"):
        hub.resolve("someone/tiny", type="f32")


def test_offline_with_the_configuration_alone_says_what_to_do(cache: Path, fake_hub: FakeHub) -> None:
    fake_hub.snapshot.mkdir(parents=True)
    shutil.copy(fake_hub.checkpoint / "config.json", fake_hub.snapshot)
    fake_hub.online = False
    with pytest.raises(UnsupportedError, match="hf download someone/tiny --local-dir FOLDER"):
        hub.resolve("someone/tiny")
    assert conversions(cache) == []


def test_a_repository_that_is_not_there_is_an_input_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_found(*args: Any, **options: Any) -> str:
        error = RepositoryNotFoundError.__new__(
            RepositoryNotFoundError
        )  # else it needs a response of the hub
        Exception.__init__(error, "404\n\nnot found")
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", not_found)
    with pytest.raises(
        InputError, match="someone/tiny: no such folder, and the hub refuses it: 404 not found"
    ):
        hub.resolve("someone/tiny")


def test_a_download_that_breaks_off_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **options: Any) -> str:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(UnsupportedError, match="someone/tiny: cannot be downloaded: reset by peer"):
        hub.resolve("someone/tiny")


def test_a_cache_that_cannot_be_made_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("POCKETVLM_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be made.*POCKETVLM_CACHE names another"):
        hub.resolve(checkpoint)


def test_the_real_hub_client_offline_with_nothing_cached_says_what_to_do(cache: Path) -> None:
    code = "import sys, pocketvlm; pocketvlm.load('someone/tiny')"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, check=False, capture_output=True, text=True
    )
    last_line = result.stderr.splitlines()[-1]
    assert last_line.startswith(
        "pocketvlm.errors.UnsupportedError: someone/tiny: no such folder, nothing cached"
    )
    assert "hf download someone/tiny" in last_line


@pytest.fixture
def gguf_hub(tiny_f32: Path, tiny_q8_0: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A repository of GGUF files alone, of two types and with a file of another kind."""
    repository = tmp_path / "repository"
    repository.mkdir()
    for folder in (tiny_f32, tiny_q8_0):
        for path in folder.glob("*.gguf"):
            shutil.copy(path, repository)
    (repository / "README.md").touch()
    fake = FakeHub(repository, tmp_path / "snapshots")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)

    def list_repo_files(repo_id: str, *, revision: str) -> list[str]:
        assert (repo_id, revision, fake.online) == ("someone/tiny", COMMIT, True)
        return [path.name for path in repository.iterdir()]

    monkeypatch.setattr(huggingface_hub, "list_repo_files", list_repo_files)
    fake.snapshot.mkdir(parents=True)
    return fake


def test_a_repository_of_gguf_files_gives_the_pair_of_the_type(cache: Path, gguf_hub: FakeHub) -> None:
    names = ["checkpoint-Q8_0.gguf", "mmproj-checkpoint-Q8_0.gguf"]
    files = hub.resolve("someone/tiny")
    assert [files.text.name, files.projector.name] == names
    assert gguf_hub.asked == [["config.json"], names]
    gguf_hub.online = False
    assert hub.resolve("someone/tiny") == files
    assert hub.resolve("someone/tiny", type="q8_0").describe()[0].image_seq_len == 16
    with pytest.raises(InputError, match=r"has checkpoint-Q8_0\.gguf, .*expected one text file \*-F32\.gguf"):
        hub.resolve("someone/tiny", type="f32")


def test_a_projector_of_another_type_does(cache: Path, gguf_hub: FakeHub) -> None:
    (gguf_hub.checkpoint / "mmproj-checkpoint-Q8_0.gguf").unlink()
    assert hub.resolve("someone/tiny").projector.name == "mmproj-checkpoint-F32.gguf"
    with pytest.raises(InputError, match=r"expected one text file \*-Q4_0\.gguf and one projector mmproj-"):
        hub.resolve("someone/tiny", type="q4_0")
