"""The model that a measurement is about: one of a person's, or made-up weights in the shape of a real one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pocketvlm import _core, hub
from pocketvlm.errors import InputError, UnsupportedError
from pocketvlm.export.onnx.types import TYPES as ONNX_TYPES
from pocketvlm.gguf_files import ModelFiles, find_model_files

from .exports import make_graphs
from .subjects import Sources, types_of
from .synthetic_models import SIZES, SyntheticModel, checkpoint_folder, make_synthetic_models

_DEFAULT_SIZE = "256m"
# What types may be asked for: those of GGUF files, then those of ONNX graphs. They share no name.
TYPES = (*hub.TYPES, *ONNX_TYPES)
_DEFAULT_ONNX_TYPE = "int8"


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


def choose_types(asked: Sequence[str], subjects: Sequence[str]) -> list[str]:
    """Returns what types to make so that each subject has one of its own kind of files.

    Args:
        asked: Some of `TYPES`; of a kind that all of its subjects get. None: the usual one of each kind.
        subjects: Names of backends, or "llama.cpp".

    Raises:
        InputError: A subject has nothing among `asked`, or something there is for none of them.
    """
    if not asked:
        defaults = (hub.DEFAULT_TYPE, _DEFAULT_ONNX_TYPE)
        asked = [type for type in defaults if any(type in types_of(subject) for subject in subjects)]
    for subject in subjects:
        if not set(asked) & set(types_of(subject)):
            expected = ",".join(types_of(subject))
            raise InputError(f"--type: found {','.join(asked)}, {subject} takes some of {expected}")
    for type in asked:
        if not any(type in types_of(subject) for subject in subjects):
            raise InputError(f"--type: found {type!r}, which is not for {', '.join(subjects)}")
    return list(asked)


def read_model(
    args: argparse.Namespace, types: Sequence[str], *, wants_checkpoint: bool
) -> tuple[str, Sources]:
    """Finds or makes the model in the forms that are asked for.

    Args:
        args: With what `add_model_choice` and `add_work_dir` declare.
        types: To export it at, some of `TYPES`; an exported model keeps its own.
        wants_checkpoint: Whether the checkpoint is needed too.

    Returns:
        What to call it, and its forms.

    Raises:
        InputError: There is no such model, or it is exported and several types are asked for.
        UnsupportedError: Its weights are of a type that is not known here.
        Error: It cannot be made or converted.
    """
    gguf_types = [type for type in types if type in hub.TYPES]
    onnx_types = [type for type in types if type in ONNX_TYPES]
    if args.model is None:
        size = args.synthetic or _DEFAULT_SIZE
        wanted = {type: SyntheticModel(size, type) for type in types}
        folders = make_synthetic_models(
            list(wanted.values()), args.work_dir, keep_checkpoints=wants_checkpoint
        )
        exported = {type: find_model_files(folders[wanted[type]]) for type in gguf_types}
        graphs = {type: folders[wanted[type]] for type in onnx_types}
        checkpoint = checkpoint_folder(size, args.work_dir) if wants_checkpoint else None
        return f"synthetic {size}", Sources(exported, checkpoint, graphs)
    exported = {type: hub.resolve(args.model, type=type) for type in gguf_types}
    if onnx_types and (Path(args.model) / "onnx").is_dir():
        return args.model, Sources(exported, None, dict.fromkeys(onnx_types, Path(args.model)))
    checkpoint = hub.find_checkpoint(args.model)
    if checkpoint is not None:
        graphs = {type: make_graphs(checkpoint, type, args.work_dir) for type in onnx_types}
        return args.model, Sources(exported, checkpoint, graphs)
    if onnx_types:
        raise InputError(f"{args.model}: expected a checkpoint, or a folder with the subfolder onnx")
    if len(gguf_types) > 1:
        raise InputError(f"--type: {args.model} is exported and has one type; several take a checkpoint")
    files = exported[gguf_types[0]]
    return args.model, Sources({_type_of(files): files}, None, {})


def _type_of(files: ModelFiles) -> str:
    """The type of an exported model's matrices."""
    name, _, _ = _core.GgufFile(files.text).tensors["blk.0.attn_q.weight"]
    if name not in hub.TYPES:
        raise UnsupportedError(
            f"{files.text}: its weights are {name}, expected one of {', '.join(hub.TYPES)}"
        )
    return name
