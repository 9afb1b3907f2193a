"""The command `pocketvlm convert`; `convert` does the work."""

from __future__ import annotations

import argparse
from pathlib import Path

from .convert import convert
from .gguf_export import EMBEDDING_TYPES
from .llama_mixtures import MIXTURES
from .onnx.types import TYPES as ONNX_TYPES
from .progress import progress_bar
from .quantize import TYPES

_DESCRIPTION = """
Make other files of a model: of a Hugging Face checkpoint a GGUF pair or ONNX graphs, of a GGUF pair one of
another type, whatever types it has and whoever wrote it. The type says the format. What few bits have lost
does not come back: start from the most exact files there are.
"""


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `pocketvlm convert`."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "source", metavar="IN", help="folder of a checkpoint or of a GGUF pair, or the text file of one"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument(
        "--type",
        required=True,
        choices=(*TYPES, *MIXTURES, *ONNX_TYPES),
        metavar="TYPE",
        help=f"GGUF: {', '.join(TYPES)}; GGUF by llama.cpp, with the extra 'llama': {', '.join(MIXTURES)}; "
        f"ONNX, with the extra 'onnx': {', '.join(ONNX_TYPES)}",
    )
    parser.add_argument("--mmproj", metavar="FILE", help="projector of a GGUF text file (the one beside it)")
    parser.add_argument(
        "--vision-type",
        choices=tuple(TYPES),
        help="GGUF: type of the projector file (as --type; q8_0 for llama.cpp's)",
    )
    parser.add_argument(
        "--embedding-type",
        choices=EMBEDDING_TYPES,
        help="GGUF: type of token embedding and head, never under 8 bits (as --type; q8_0 for q4_0; for "
        "llama.cpp's types what it chooses)",
    )
    parser.add_argument("--force", action="store_true", help="replace what an earlier run has left in OUT")
    parser.set_defaults(func=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Runs `pocketvlm convert`: 0. Prints the files that were written."""
    with progress_bar() as on_progress:
        written = convert(
            args.source,
            args.out,
            type=args.type,
            mmproj=args.mmproj,
            vision_type=args.vision_type,
            embedding_type=args.embedding_type,
            force=args.force,
            on_progress=on_progress,
        )
    for path in written:
        print(path)
    return 0
