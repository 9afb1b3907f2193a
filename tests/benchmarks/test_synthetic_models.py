"""Synthetic models are made once, made anew when the export changed, and never without room for them."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from pocketvlm.benchmarks import exports
from pocketvlm.benchmarks.synthetic_models import (
    SIZES,
    TYPES,
    SyntheticModel,
    make_synthetic_models,
)
from pocketvlm.config import ModelConfig
from pocketvlm.errors import Error
from pocketvlm.export.model_files import model_files
from pocketvlm.export.quantize import TYPES as EXPORT_TYPES
from pocketvlm.export.tensor_map import all_tensors

TINY_F32, TINY_Q8_0 = SyntheticModel("tiny", "f32"), SyntheticModel("tiny", "q8_0")
DiskUsage = namedtuple("DiskUsage", "total used free")


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_those_of_the_shape(size: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(model_files(size)["config.json"])
    assert SIZES[size] == sum(spec.num_elements for spec in all_tensors(ModelConfig.from_folder(tmp_path)))


def test_types_are_those_of_the_export() -> None:
    assert set(TYPES) == set(EXPORT_TYPES)


def test_a_model_is_made_once_and_the_checkpoint_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = make_synthetic_models([TINY_F32, TINY_Q8_0], tmp_path)
    assert [len(list(folder.glob("*.gguf"))) for folder in folders.values()] == [2, 2]
    assert not (tmp_path / "tiny-checkpoint").exists()
    made = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert made == ["tiny-checkpoint", "tiny-f32", "tiny-q8_0"]

    assert make_synthetic_models([TINY_Q8_0], tmp_path) == {TINY_Q8_0: folders[TINY_Q8_0]}
    assert capsys.readouterr().err == ""


def test_a_checkpoint_that_is_kept_serves_the_next_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_synthetic_models([TINY_F32], tmp_path, keep_checkpoints=True)
    assert (tmp_path / "tiny-checkpoint" / "model.safetensors").is_file()
    capsys.readouterr()
    make_synthetic_models([TINY_Q8_0], tmp_path, keep_checkpoints=True)
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["tiny-q8_0"]


def test_another_export_makes_models_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_synthetic_models([TINY_F32], tmp_path)[TINY_F32]
    (text,) = folder.glob("[!m]*.gguf")
    text.write_bytes(b"as the old code wrote it")
    monkeypatch.setattr(exports, "_export_code", lambda: "changed")
    make_synthetic_models([TINY_F32], tmp_path)
    assert text.read_bytes()[:4] == b"GGUF"


def test_too_little_disk_is_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.2b at q8_0 is 2.5 GB beside 4.7 GB of checkpoint, 256m at f32 another 1.1."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: DiskUsage(10**12, 10**12, 6 * 10**9))
    wanted = [SyntheticModel("256m", "f32"), SyntheticModel("2.2b", "q8_0")]
    with pytest.raises(Error, match=r"6\.0 GB of disk are free, making 256m-f32, 2\.2b-q8_0 needs 8\.3 GB"):
        make_synthetic_models(wanted, tmp_path)
    assert not list(tmp_path.glob("2*"))


def test_graphs_need_room_for_what_they_are_held_against(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """256m at q4: 0.23 GB, 0.51 of checkpoint and 1.03 at float32."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: DiskUsage(10**12, 10**12, 10**9))
    with pytest.raises(Error, match=r"1\.0 GB of disk are free, making 256m-q4 needs 1\.9 GB"):
        make_synthetic_models([SyntheticModel("256m", "q4")], tmp_path)


def test_a_failed_export_is_named_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "tiny-f32").mkdir()
    (tmp_path / "tiny-f32" / "thesis.txt").write_text("not ours")
    with pytest.raises(
        Error, match=r"tiny-f32: cannot be made .*thesis\.txt: was not written by this command"
    ):
        make_synthetic_models([TINY_F32], tmp_path)
    assert not (tmp_path / "tiny-checkpoint").exists()
