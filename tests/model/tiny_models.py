"""The tiny models as the golden tests go through them: each with its checkpoint, exports and golden, and the
generations that its golden holds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .golden_files import Golden, Prompt, read_golden

NAMES = ("tiny", "tiny-500m", "tiny-2.2b")


@dataclass(frozen=True)
class TinyModel:
    """A tiny model on disk and what the reference makes of it."""

    checkpoint: Path
    f32: Path  # an export, as q8_0
    q8_0: Path
    golden: Golden

    def prompt(self, generation: str) -> Prompt:
        """The prompt of one of the golden's generations."""
        return self.golden.prompt(generation, self.checkpoint)

    def expected(self, generation: str) -> list[int]:
        """The reference's greedy tokens."""
        token_ids: list[int] = self.golden.facts["generations"][generation]["token_ids"]
        return token_ids


def golden_of(name: str) -> Golden:
    """The golden of a tiny model."""
    return read_golden(f"{name}-f32")


def generations(*, but_not: Collection[str] = ()) -> list[Any]:
    """Parameters (tiny, generation): every generation of every tiny model by the config.json that it has."""
    return [
        pytest.param(name, generation, id=f"{name}-{generation}")
        for name in NAMES
        for generation, facts in golden_of(name).facts["generations"].items()
        if not facts["config_edit"] and generation not in but_not
    ]
