"""Fixtures of the tests against goldens: every ISA row of this CPU."""

from __future__ import annotations

import pytest

from pocketvlm import _core


@pytest.fixture(params=_core.isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Each ISA row in turn."""
    return str(request.param)
