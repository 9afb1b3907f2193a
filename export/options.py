"""Values of options that several commands have, here and in the benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path

from ..errors import InputError


def positive(text: str) -> int:
    """Reads an integer of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {number}, expected at least 1")
    return number


def name_list(option: str, text: str, known: Collection[str]) -> list[str]:
    """Reads a list such as "256m,500m". Raises InputError for what is not `known`."""
    found = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in found:
        if name not in known:
            raise InputError(f"{option}: found {name!r}, expected some of {','.join(known)}")
    return found


def require_writable(path: Path) -> None:
    """Raises InputError if `path` cannot become a file: to be known before hours of work."""
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise InputError(f"{path}: cannot be written: expected a file in a folder that is there")
