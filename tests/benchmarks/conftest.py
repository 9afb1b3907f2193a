"""What the measuring tests share: the right to make control groups."""

from __future__ import annotations

import os

import pytest

from pocketvlm.benchmarks.control_group import memory_control_group
from pocketvlm.errors import UnsupportedError


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
