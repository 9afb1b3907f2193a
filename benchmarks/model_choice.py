"""The model that a measurement is about: one of a person's, or made-up weights in the shape of a real one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pocketvlm import _core, hub
from pocketvlm.errors import InputError, UnsupportedError
from pocketvlm.gguf_files import ModelFiles, find_model_files

from .subjects import Sources
from .synthetic_models import SIZES, SyntheticModel, checkpoint_folder, make_synthetic_models

_DEFAULT_SIZE = "256m"


def add_model_choice(parser: argparse.ArgumentParser) -> None:
    """Declares -m MODEL and --synthetic SIZE, one of them at most."""
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "-m", "--model", help="checkpoint folder or hub id; or an exported folder, for what can load that"
    )
    model.add_argument(
        "--synthetic",
        choices=SIZES,
        metavar="SIZE",
        help=f"made-up weights in the shape of one of {', '.join(SIZES)} ({_DEFAULT_SIZE}, unless -m)",
    )


def read_model(
    args: argparse.Namespace, types: Sequence[str], *, wants_checkpoint: bool
) -> tuple[str, Sources]:
    """Finds or makes the model in the forms that are asked for.

    Args:
        args: With what `add_model_choice` and `add_work_dir` declare.
        types: To export it at; an exported model keeps its own.
        wants_checkpoint: Whether the checkpoint is needed too.

    Returns:
        What to call it, and its forms.

    Raises:
        InputError: There is no such model, or it is exported and several types are asked for.
        UnsupportedError: Its weights are of a type that is not known here.
        Error: It cannot be made or converted.
    """
    if args.model is None:
        size = args.synthetic or _DEFAULT_SIZE
        wanted = {type: SyntheticModel(size, type) for type in types}
        folders = make_synthetic_models(
            list(wanted.values()), args.work_dir, keep_checkpoints=wants_checkpoint
        )
        exported = {type: find_model_files(folders[wanted[type]]) for type in types}
        checkpoint = checkpoint_folder(size, args.work_dir) if wants_checkpoint else None
        return f"synthetic {size}", Sources(exported, checkpoint)
    exported = {type: hub.resolve(args.model, type=type) for type in types}
    checkpoint = hub.find_checkpoint(args.model)
    if checkpoint is not None:
        return args.model, Sources(exported, checkpoint)
    if len(types) > 1:
        raise InputError(f"--type: {args.model} is exported and has one type; several take a checkpoint")
    files = exported[types[0]]
    return args.model, Sources({_type_of(files): files}, None)


def _type_of(files: ModelFiles) -> str:
    """The type of an exported model's matrices."""
    name, _, _ = _core.GgufFile(files.text).tensors["blk.0.attn_q.weight"]
    if name not in hub.TYPES:
        raise UnsupportedError(
            f"{files.text}: its weights are {name}, expected one of {', '.join(hub.TYPES)}"
        )
    return name
