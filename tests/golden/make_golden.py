"""Makes the goldens of this folder from the reference implementation, or with --check compares them with it.

    python -m tests.golden.make_golden [--check] {prompts,preprocessing,tiny,tiny-500m,tiny-2.2b,256m,demo}

Run from the repository root, in a virtual environment of requirements.txt (README.md says how). Each golden
records the versions and the SHA-256 of every input file, and is the same however often it is made.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import cases, golden_demo, golden_models, golden_pixels, golden_prompts
from .store import Store

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER_256M = ROOT / "export" / "data" / "smolvlm-256m-instruct"


def main(argv: list[str]) -> int:
    """Runs one subcommand. Returns 0, or 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(
        prog="make_golden", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--check", action="store_true", help="recompute and compare instead of writing")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prompts", help="token ids of conversations with the 256M tokenizer")
    commands.add_parser("preprocessing", help="tiles of formula images")
    for name in cases.TINY_MODELS:
        tiny = commands.add_parser(
            name, help=f"the {name} model at f32: stages, logits, greedy tokens; and its prompts"
        )
        tiny.add_argument("checkpoint", type=Path, help=f"folder of `pocketvlm export synthetic {name}`")
    for name in cases.VARIANTS:
        variant = commands.add_parser(name, help=f"the {name} model at f32: greedy tokens")
        variant.add_argument("checkpoint", type=Path, help=f"folder of `pocketvlm export synthetic {name}`")
    large = commands.add_parser("256m", help="logits of the 256M shape at f32")
    large.add_argument("checkpoint", type=Path, help="folder of `pocketvlm export synthetic 256m`")
    demo = commands.add_parser("demo", help="answers of the demo model at f32, with all logits")
    demo.add_argument("checkpoint", type=Path, help="examples/demo_model/checkpoint")
    arguments = parser.parse_args(argv)

    store = Store(Path(__file__).parent, check=arguments.check)
    if arguments.command == "prompts":
        golden_prompts.make(store, "prompts-256m", TOKENIZER_256M)
    elif arguments.command == "preprocessing":
        golden_pixels.make(store)
    elif arguments.command in cases.TINY_MODELS:
        if arguments.command != "tiny-500m":  # which has the tokenizer of tiny
            golden_prompts.make(store, f"prompts-{arguments.command}", arguments.checkpoint)
        golden_models.make_tiny(store, arguments.command, arguments.checkpoint)
    elif arguments.command in cases.VARIANTS:
        if arguments.command == "tiny-granite-docling":  # the others have SmolVLM's prompt format
            golden_prompts.make(store, f"prompts-{arguments.command}", arguments.checkpoint)
        golden_models.make_variant(store, arguments.command, arguments.checkpoint)
    elif arguments.command == "demo":
        golden_demo.make(store, arguments.checkpoint)
    else:
        golden_models.make_256m(store, arguments.checkpoint)
    for line in store.differences:
        print(line, file=sys.stderr)
    return 1 if store.differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
