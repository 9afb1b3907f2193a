"""The listings in reference/: keys and tensors of a 256M pair as llama.cpp's own converter writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Listing:
    """One file: (key, type, value as text) and (tensor name, type, sizes innermost first), in file order."""

    keys: list[tuple[str, str, str]]
    tensors: list[tuple[str, str, list[int]]]


def read_listing(name: str) -> Listing:
    """Reads reference/`name`-256m-q8_0.txt."""
    text = (Path(__file__).parent / "reference" / f"{name}-256m-q8_0.txt").read_text(encoding="utf-8")
    keys = re.findall(r"^(\S+) : (\S+) = (.*)$", text, re.MULTILINE)
    tensors = re.findall(r"^(\S+) (\S+) ne=\[(.*)\]$", text, re.MULTILINE)
    sizes = [[int(size) for size in ne.split(", ")] for _, _, ne in tensors]
    return Listing(
        [key for key in keys if not key[0].startswith("GGUF.")],
        [(name, type, ne) for (name, type, _), ne in zip(tensors, sizes, strict=True)],
    )
