"""Options that several measurements have."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from pocketvlm import hub
from pocketvlm.errors import InputError
from pocketvlm.export.options import positive
from pocketvlm.images import DEFAULT_PIXEL_LIMIT, check_image_size
from pocketvlm.processor import ImageSize


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Declares --threads, --work-dir, --keep and --json FILE."""
    parser.add_argument("--threads", type=positive, metavar="N", help="as in `pocketvlm describe`")
    add_work_dir(parser)
    parser.add_argument("--keep", action="store_true", help="keep the synthetic checkpoints there too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")


def default_work_dir() -> Path:
    """Returns the folder for what measurements make and use again."""
    return hub.cache_folder() / "bench"


def add_work_dir(parser: argparse.ArgumentParser) -> None:
    """Declares --work-dir."""
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=default_work_dir(),
        metavar="FOLDER",
        help="where synthetic models and the environments of peers are kept for the next run (%(default)s)",
    )


def read_lengths(option: str, text: str) -> list[int]:
    """Reads a list such as "256,1024"; none from "". Raises InputError."""
    try:
        lengths = [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"{option}: found {text!r}, expected numbers such as 256,1024") from error
    if any(length < 1 for length in lengths):
        raise InputError(f"{option}: found {text!r}, expected numbers of at least 1")
    return lengths


def read_sizes(text: str) -> list[ImageSize]:
    """Reads a list of sizes such as "640x480,4000x3000", width x height.

    Raises InputError for what is no size, or none that an image may have.
    """
    sizes = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)x(\d+)", part.strip())
        if match is None:
            raise InputError(f"--sizes: found {part!r}, expected width x height, such as 640x480")
        size = ImageSize(height=int(match[2]), width=int(match[1]))
        check_image_size(size.width, size.height, "--sizes", DEFAULT_PIXEL_LIMIT)
        sizes.append(size)
    return list(dict.fromkeys(sizes))
