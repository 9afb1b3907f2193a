"""Options that several measurements have."""

from __future__ import annotations

import argparse
from pathlib import Path

from pocketvlm import hub
from pocketvlm.export.options import positive


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
