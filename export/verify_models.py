"""`pocketvlm verify A B`: two models, whatever they are and whatever runs them, over the same pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..demo_model.scenes import held_out
from ..engine import Model, load
from ..errors import InputError
from .comparison import Request, compare_models, to_plain, to_table

# What `--a` and `--b` may say: options of `pocketvlm.load`.
LOAD_OPTIONS = ("backend", "type", "isa", "vision_compute", "vision_engine")

_PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_DRAWN = 6  # pictures, if none are given: a question of each kind
_PROMPT = "Describe this image."


def load_options(text: str) -> dict[str, Any]:
    """Reads "backend=llama_cpp,type=f32", for argparse."""
    options: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or not value or name not in LOAD_OPTIONS:
            raise argparse.ArgumentTypeError(
                f"found {part!r}, expected NAME=VALUE with a name of {', '.join(LOAD_OPTIONS)}"
            )
        options[name] = value
    return options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what only the comparison of two models takes."""
    group = parser.add_argument_group("two models")
    for name in ("a", "b"):
        group.add_argument(
            f"--{name}",
            type=load_options,
            default={},
            metavar="NAME=VALUE,...",
            help=f"how to load {name.upper()}: {', '.join(LOAD_OPTIONS)}",
        )
    group.add_argument("--images", type=Path, metavar="DIR", help="pictures to ask about (drawn ones)")
    group.add_argument("-p", "--prompt", default=_PROMPT, help="what to ask about --images (%(default)s)")
    group.add_argument(
        "--max-new-tokens",
        type=int,
        default=64,
        metavar="N",
        help="the most tokens of an answer to hold against each other (%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Compares the two of `args.models` and prints the table. Errors as `pocketvlm.load` and `generate`."""
    requests = read_requests(args.images, args.prompt)
    first, second = (
        _load(source, options, args.threads)
        for source, options in zip(args.models, (args.a, args.b), strict=True)
    )
    # disable=None: only on a terminal
    with tqdm(total=len(requests), unit=" requests", disable=None, leave=False) as bar:
        found = compare_models(
            first, second, requests, max_new_tokens=args.max_new_tokens, advance=bar.update
        )
    print(to_table(found))
    if args.json is not None:
        models = {"a": first.info(), "b": second.info()}
        args.json.write_text(json.dumps({**models, **to_plain(found)}, indent=1) + "\n", encoding="utf-8")
    return 0


def read_requests(folder: Path | None, prompt: str) -> Sequence[Request]:
    """Returns a request for every picture of a folder, by name; without one drawn pictures with questions.

    Raises:
        InputError: There is no such folder, or no picture in it.
    """
    if folder is None:
        return [Request(scene.kind, scene.question, list(scene.images)) for scene in held_out(_DRAWN)]
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of pictures")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
    if not paths:
        raise InputError(f"{folder}: found no picture; expected files *{', *'.join(_PICTURES)}")
    return [Request(path.name, prompt, [path]) for path in paths]


def _load(source: str, options: dict[str, Any], threads: int | None) -> Model:
    return load(source, threads=threads, **options)
