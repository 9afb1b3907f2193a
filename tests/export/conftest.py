"""A tiny checkpoint, which each test that changes it copies first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pocketvlm.export.synthetic import write_synthetic


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as `pocketvlm export synthetic` writes it. Read only."""
    return write_synthetic("tiny", tmp_path_factory.mktemp("export") / "tiny")


@pytest.fixture
def own_checkpoint(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that the test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
