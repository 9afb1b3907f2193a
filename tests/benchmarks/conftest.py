"""What the measuring tests share: a 256M-shaped model in q8_0 and the right to make control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pocketvlm.benchmarks.control_group import memory_control_group
from pocketvlm.errors import UnsupportedError


@pytest.fixture(scope="session")
def model_256m_q8_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic checkpoint of the 256M shape, exported as q8_0: a folder for `pocketvlm describe -m`."""
    folder = tmp_path_factory.mktemp("model-256m")
    checkpoint, exported = folder / "checkpoint", folder / "q8_0"
    pocketvlm = [sys.executable, "-m", "pocketvlm"]
    subprocess.run([*pocketvlm, "export", "synthetic", "256m", str(checkpoint)], check=True)
    subprocess.run(
        [*pocketvlm, "export", "gguf", str(checkpoint), str(exported), "--type", "q8_0"], check=True
    )
    return exported


@pytest.fixture(scope="session")
def control_groups() -> None:
    """Skip where no control group can be made; fail in CI, where the hard limit must be shown."""
    try:
        with memory_control_group(2**30):
            pass
    except UnsupportedError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must be able to set a hard memory limit: {error}")
        pytest.skip(str(error))
