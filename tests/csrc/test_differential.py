"""The image kernels of every ISA row equal the scalar ones, between guard pages: builds and runs
differential/main.cc, which also runs without Python (`make test-arm`)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pocketvlm import _core

ROOT = Path(__file__).parents[2]


def run(*command: str | Path) -> str:
    """Returns what the command prints; fails with that where the command does."""
    result = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def differential(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled test; builds it and the kernels, not the rest of the core."""
    folder = tmp_path_factory.mktemp("differential")
    run("cmake", "-S", ROOT, "-B", folder, "-DPOCKETVLM_PYTHON=OFF", "-DPOCKETVLM_BUILD_TESTS=ON")
    run("cmake", "--build", folder, "--target", "differential", "--parallel", str(os.cpu_count() or 1))
    return folder / "differential"


def test_every_row_equals_the_scalar_one(differential: Path) -> None:
    lines = run(differential).splitlines()
    for isa in _core.isas():
        for kernel in ("resize_row_u8", "resize_columns_u8", "center_patches_bf16", "center_patches_f32"):
            assert any(line.split()[:2] == [isa, kernel] for line in lines), f"{isa} {kernel} did not run"


def test_one_seed(differential: Path) -> None:
    """What the program tells a person to run again after it found a difference."""
    assert run(differential, "5").count(" 1 cases equal") >= 4
