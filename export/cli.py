"""The commands `pocketvlm export gguf`, `onnx` and `synthetic`; other modules do the work."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import Error
from .gguf_export import EMBEDDING_TYPES, export_gguf
from .model_files import SIZES
from .onnx.requirements import require_packages
from .onnx.types import TYPES as ONNX_TYPES
from .options import name_list, positive
from .progress import progress_bar
from .quantize import TYPES
from .synthetic import DEFAULT_SEED, write_synthetic

_GGUF_DESCRIPTION = """
Convert a Hugging Face SmolVLM or Idefics3 checkpoint to GGUF. OUT becomes a folder with a text and a
projector file, the tokenizer and the configurations: pocketvlm loads the folder, llama.cpp the two files.
"""

_ONNX_DESCRIPTION = """
Convert a Hugging Face SmolVLM or Idefics3 checkpoint to ONNX: the files that transformers.js and other
clients of published exports load. Every type gives OUT/onnx a vision encoder, a token embedding and a
decoder, each with its weights in a file beside it. All are run against the checkpoint before OUT appears;
OUT/export_report.json says how near they are.
"""

_SYNTHETIC_DESCRIPTION = """
Write a complete Hugging Face checkpoint of true shape with made-up weights, for trying out and measuring
without a download. The same size and seed give the same bytes on every machine.
"""


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Adds the export commands to the parser of `pocketvlm export`."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    gguf = commands.add_parser(
        "gguf", help="convert a Hugging Face checkpoint to GGUF files", description=_GGUF_DESCRIPTION
    )
    gguf.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help="folder with config.json, safetensors, tokenizer"
    )
    gguf.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    gguf.add_argument(
        "--type", required=True, choices=tuple(TYPES), help="type of the matrices; norms and biases stay f32"
    )
    gguf.add_argument(
        "--name", help="what to call the model and its files (default: as on the hub or as CHECKPOINT)"
    )
    gguf.add_argument(
        "--vision-type", choices=tuple(TYPES), help="type for vision tower and connector (default: as --type)"
    )
    gguf.add_argument(
        "--embedding-type",
        choices=EMBEDDING_TYPES,
        help="type for token embedding and head, never under 8 bits (default: as --type; q8_0 for q4_0)",
    )
    gguf.add_argument(
        "--no-equalize",
        dest="equalize",
        action="store_false",
        help="keep huge channels in q8_0 and q4_0 as they are: the blocks of llama.cpp's converter always",
    )
    _add_force(gguf)
    gguf.set_defaults(func=_run_gguf)

    onnx = commands.add_parser(
        "onnx", help="convert a Hugging Face checkpoint to ONNX graphs", description=_ONNX_DESCRIPTION
    )
    onnx.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help="folder with config.json, safetensors, tokenizer"
    )
    onnx.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    onnx.add_argument(
        "--type",
        default="fp32",
        metavar="LIST",
        help=f"some of {','.join(ONNX_TYPES)}, comma-separated (default: %(default)s)",
    )
    onnx.add_argument(
        "--via",
        choices=("direct", "optimum"),
        default="direct",
        help="direct: graphs of onnxruntime's fast operators; optimum: plain ones as torch traces them, fp32 "
        "alone, which needs the extra [export] (default: %(default)s)",
    )
    onnx.add_argument("--threads", type=positive, metavar="N", help="to check the files with")
    onnx.add_argument(
        "--questions",
        type=positive,
        metavar="N",
        help="also ask checkpoint and graphs N questions about drawn pictures, for the report: right answers "
        "are to be had from the demo model alone, agreement from all",
    )
    _add_force(onnx)
    onnx.set_defaults(func=_run_onnx)

    synthetic = commands.add_parser(
        "synthetic", help="write a checkpoint with made-up weights", description=_SYNTHETIC_DESCRIPTION
    )
    synthetic.add_argument("size", metavar="SIZE", choices=SIZES, help=f"one of {', '.join(SIZES)}")
    synthetic.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    synthetic.add_argument(
        "--seed", type=int, default=DEFAULT_SEED, metavar="N", help="other weights (default: %(default)s)"
    )
    _add_force(synthetic)
    synthetic.set_defaults(func=_run_synthetic)


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="replace what an earlier run has left in OUT")


def _run_gguf(args: argparse.Namespace) -> int:
    with progress_bar() as on_progress:
        pair = export_gguf(
            args.checkpoint,
            args.out,
            type=args.type,
            name=args.name,
            vision_type=args.vision_type,
            embedding_type=args.embedding_type,
            equalize=args.equalize,
            force=args.force,
            on_progress=on_progress,
        )
    print(pair.text)
    print(pair.projector)
    return 0


def _run_onnx(args: argparse.Namespace) -> int:
    types = name_list("--type", args.type, ONNX_TYPES)
    # Only with these is there anything to import.
    require_packages()
    from .onnx.export import export_onnx

    with progress_bar() as on_progress:
        paths = export_onnx(
            args.checkpoint,
            args.out,
            types=types,
            via=args.via,
            threads=args.threads,
            questions=args.questions or 0,
            force=args.force,
            on_progress=on_progress,
        )
    print(*paths, sep="\n")
    return 0


def _run_synthetic(args: argparse.Namespace) -> int:
    with progress_bar() as on_progress:
        folder = write_synthetic(args.size, args.out, args.seed, force=args.force, on_progress=on_progress)
    print(folder)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `python -m pocketvlm.export ARGUMENTS` and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pocketvlm.export",
        description="Write model files: GGUF, ONNX and synthetic checkpoints.",
    )
    add_commands(parser)
    args = parser.parse_args(argv)
    try:
        code: int = args.func(args)
    except (Error, OSError) as error:
        print(f"pocketvlm: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pocketvlm: interrupted", file=sys.stderr)
        return 130
    return code
