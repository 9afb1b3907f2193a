"""`pocketvlm bench report`: a stored run once more, as the table of a page or as a picture."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvlm.export.markdown_page import markdown_table, replace_part, require_part
from pocketvlm.export.options import require_writable

from .baseline import read_report
from .report import number
from .run_plot import draw, require_matplotlib

PAGE_PART = "benchmark"  # what the markers around the table are called

# metric -> (heading, divisor): what a page shows of a run
_COLUMNS = {
    "vision_tile_s": ("vision, s a tile", 1.0),
    "prefill_tokens_per_s": ("prefill, tok/s", 1.0),
    "time_to_first_token_s": ("1st token, s", 1.0),
    "decode_tokens_per_s": ("decode, tok/s", 1.0),
    "peak_memory_bytes": ("peak, MB", 1e6),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pocketvlm bench report`."""
    parser.add_argument("run", type=Path, metavar="FILE", help="what `pocketvlm bench run --json` wrote")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="PAGE",
        help=f"put the table into PAGE, between the lines <!-- {PAGE_PART} --> and <!-- /{PAGE_PART} -->",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a picture: .png, .svg or .pdf")
    parser.set_defaults(func=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Run `pocketvlm bench report`: 0."""
    report = read_report(args.run)
    if args.markdown is not None:
        require_part(args.markdown, PAGE_PART)
    if args.plot is not None:
        require_writable(args.plot)
        require_matplotlib(args.plot)
    text = to_markdown(report)
    print(text)
    if args.markdown is not None:
        replace_part(args.markdown, PAGE_PART, text)
    if args.plot is not None:
        draw(report, args.plot)
    return 0


def to_markdown(report: Mapping[str, Any]) -> str:
    """Returns the medians of a run's subjects as a table, below what they were measured with."""
    machine, request, roofs = report["machine"], report["request"], report["roofs"]
    images = ", ".join(f"{image['width']}x{image['height']}" for image in request["images"])
    caption = (
        f"{report['model']['name']}, a picture of {images}, {request['new_tokens']} new tokens, on "
        f"{machine['threads']} threads\nof {machine['cpu']} (read {number(roofs['read_gb_s'])} GB/s, "
        f"fp32 {number(roofs['fp32_gflop_s'])}, bf16 {number(roofs['bf16_gflop_s'])}, "
        f"int8 {number(roofs['int8_gop_s'])} GOP/s), median of {report['repeat']} turns:"
    )
    rows = []
    for subject in report["subjects"].values():
        if subject["status"] == "ok":
            medians = {name: spread["median"] for name, spread in subject["metrics"].items()}
            rows.append(
                [
                    subject["title"],
                    *(number(medians[name] / divisor) for name, (_, divisor) in _COLUMNS.items()),
                ]
            )
    return f"{caption}\n\n{markdown_table(['', *(heading for heading, _ in _COLUMNS.values())], rows)}"
