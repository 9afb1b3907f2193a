"""Options that several measurements have."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path

from pocketvlm import hub
from pocketvlm.errors import InputError


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Declares --threads, --work-dir, --keep and --json FILE."""
    parser.add_argument("--threads", type=positive, metavar="N", help="as in `pocketvlm describe`")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=hub.cache_folder() / "bench",
        metavar="FOLDER",
        help="where synthetic models are kept for the next run (%(default)s)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the synthetic checkpoints there too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")


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
