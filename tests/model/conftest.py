"""Fixtures of the tests against goldens: every ISA row of this CPU, every tiny model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from pocketvlm import _core

from ..conftest import export
from .tiny_models import NAMES, TinyModel, golden_of


@pytest.fixture(params=_core.isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Each ISA row in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def make_tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyModel]:
    """Makes a tiny model by its name and exports it, once per session."""

    @functools.cache
    def make(name: str) -> TinyModel:
        folder: Path = tmp_path_factory.mktemp(name)
        export("synthetic", name, folder / "checkpoint")
        for type in ("f32", "q8_0"):
            export("gguf", folder / "checkpoint", folder / type, "--type", type)
        return TinyModel(folder / "checkpoint", folder / "f32", folder / "q8_0", golden_of(name))

    return make


@pytest.fixture(params=NAMES)
def tiny(request: pytest.FixtureRequest, make_tiny_model: Callable[[str], TinyModel]) -> TinyModel:
    """Each tiny model in turn."""
    return make_tiny_model(request.param)
