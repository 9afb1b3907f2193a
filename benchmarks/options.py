"""Options that several measurements have."""

from __future__ import annotations

import argparse
from pathlib import Path

from pocketvlm import hub
from pocketvlm.export.options import positive


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
