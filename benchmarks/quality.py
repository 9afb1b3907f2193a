"""`pocketvlm bench quality`: what a type of weights costs, as the distance of its answers from those of f32.

One prompt with a picture, and the tokens with which f32 goes on, are forced through every model; where it
would have gone is compared step by step. benchmarks/README.md states the method.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketvlm import _core, hub
from pocketvlm.config import ModelConfig
from pocketvlm.errors import InputError
from pocketvlm.export.agreement import Agreement, Certainty, agreement, certainty, step_logits
from pocketvlm.export.options import name_list, positive, require_writable
from pocketvlm.gguf_files import find_model_files
from pocketvlm.messages import parse_messages
from pocketvlm.processor import ImageSize, Processor, plan_tiles
from pocketvlm.tiles import TileLayout, cut_tiles

from .machine import Machine, this_machine
from .options import add_common_options
from .picture import generated_picture
from .report import table, write_json
from .synthetic_models import SIZES, TYPES, SyntheticModel, make_synthetic_models

REFERENCE = "f32"
_QUESTION = "Describe this image."
_FILLER = " and"  # one token in the vocabularies of SmolVLM
# (height, width), most tiles first: with splitting they become 13, 9 and 5 tiles.
_PICTURES = (ImageSize(1152, 1536), ImageSize(768, 1536), ImageSize(384, 1536))


@dataclass(frozen=True)
class Prompt:
    """One prompt about one picture, as a model takes it."""

    token_ids: list[int]
    image_token_id: int
    image_tokens: int
    patches: NDArray[np.uint16]  # of all tiles, bfloat16 [T, patches, 3 * patch_size^2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pocketvlm bench quality`."""
    subject = parser.add_mutually_exclusive_group()
    subject.add_argument("-m", "--model", metavar="CHECKPOINT", help="checkpoint folder or hub id")
    subject.add_argument("--synthetic", choices=SIZES, default="256m", help="made-up weights (%(default)s)")
    parser.add_argument(
        "--types",
        default="bf16,f16,q8_0,q4_0",
        metavar="LIST",
        help=f"what to hold against f32: some of {','.join(TYPES)} (%(default)s)",
    )
    parser.add_argument(
        "--continuations", type=positive, default=64, metavar="N", help="steps to compare (%(default)s)"
    )
    parser.add_argument(
        "--prompt-tokens", type=positive, default=874, metavar="N", help="length of the prompt (%(default)s)"
    )
    add_common_options(parser)
    parser.set_defaults(func=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Run `pocketvlm bench quality`: 0. Raises Error where a model cannot be made or run."""
    types = name_list("--types", args.types, TYPES)
    if args.json is not None:
        require_writable(args.json)
    if args.model is not None:
        subject = args.model
        folders = _convert(args.model, [REFERENCE, *types])
    else:
        subject = f"synthetic {args.synthetic}"
        wanted = [SyntheticModel(args.synthetic, type) for type in dict.fromkeys([REFERENCE, *types])]
        made = make_synthetic_models(wanted, args.work_dir, keep_checkpoints=args.keep)
        folders = {model.type: folder for model, folder in made.items()}
    machine = this_machine(threads=args.threads)
    pool = _core.ThreadPool(machine.threads)
    prompt = build_prompt(folders[REFERENCE], args.prompt_tokens, pool)
    certainty, agreements = compare_types(
        folders, types, prompt, args.continuations, pool, say=lambda text: print(text, file=sys.stderr)
    )
    report = {
        "measurement": "quality",
        "machine": asdict(machine),
        "subject": subject,
        "synthetic": args.model is None,
        "prompt_tokens": len(prompt.token_ids),
        "image_tokens": prompt.image_tokens,
        "tiles": len(prompt.patches),
        "continuations": args.continuations,
        "reference": {"type": REFERENCE, **asdict(certainty)},
        "types": {type: asdict(agreement) for type, agreement in agreements.items()},
    }
    print(_to_text(machine, report, agreements))
    if args.json is not None:
        write_json(args.json, report)
    return 0


def _convert(source: str, types: Sequence[str]) -> dict[str, Path]:
    """Exports a checkpoint at every type, into the cache that `pocketvlm describe --type` uses."""
    if any(Path(source).expanduser().glob("*.gguf")):
        raise InputError(f"{source}: is exported already; expected the checkpoint, to export it at f32 too")
    return {type: hub.resolve(source, type=type).folder for type in types}


def build_prompt(folder: Path, length: int, pool: _core.ThreadPool) -> Prompt:
    """Makes a prompt of exactly `length` tokens about the generated picture.

    The picture takes the shape that gives the most tiles that fit; words fill the question up.

    Raises:
        InputError: There is no such prompt: too short for a picture, or words of several tokens step over it.
    """
    processor, config = Processor(folder), ModelConfig.from_folder(folder)
    size, shortest = _PICTURES[0], 0
    for size in _PICTURES:
        shortest = len(_encode(processor, size, fillers=0))
        if shortest <= length:
            break
    else:
        raise InputError(f"--prompt-tokens is {length}, a picture and a question take {shortest} at least")
    token_ids = _encode(processor, size, fillers=length - shortest)
    if len(token_ids) != length:
        raise InputError(
            f"--prompt-tokens is {length}, which no prompt of ours gives: found {len(token_ids)} "
            f"with {length - shortest} words more than the shortest of {shortest}"
        )
    plan = plan_tiles(size, processor.config, split=True)
    picture = np.array(generated_picture((size.width, size.height)))
    layout = TileLayout("patches_bf16", config.vision.patch_size)
    patches = cut_tiles([picture], [plan], processor.config, layout=layout, pool=pool)
    return Prompt(token_ids, config.image_token_id, token_ids.count(config.image_token_id), patches)


def _encode(processor: Processor, size: ImageSize, *, fillers: int) -> list[int]:
    plan = plan_tiles(size, processor.config, split=True)
    # Only the place of the picture counts here; its bytes are not looked at.
    return processor.encode(parse_messages(_QUESTION + _FILLER * fillers, [b""]), [plan])


def compare_types(
    folders: dict[str, Path],
    types: Sequence[str],
    prompt: Prompt,
    steps: int,
    pool: _core.ThreadPool,
    *,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Certainty, dict[str, Agreement]]:
    """Runs the reference, then each of `types` over the reference's tokens; one model is loaded at a time.

    Args:
        folders: Type -> exported folder; the reference's too.
        types: What to compare.
        prompt: From `build_prompt`.
        steps: Tokens to go on for.
        pool: Threads to compute with.
        say: Called with a line when a model's turn comes.

    Raises:
        InputError: The continuation does not fit the context.
    """
    say(f"running {REFERENCE}, for {steps} tokens after a prompt of {len(prompt.token_ids)}")
    reference = continue_prompt(folders[REFERENCE], prompt, steps, pool, forced=None)
    forced = reference.argmax(axis=1).tolist()
    agreements = {}
    for type in types:
        say(f"running {type} over the tokens of {REFERENCE}")
        agreements[type] = agreement(
            reference, continue_prompt(folders[type], prompt, steps, pool, forced=forced)
        )
    return certainty(reference), agreements


def continue_prompt(
    folder: Path, prompt: Prompt, steps: int, pool: _core.ThreadPool, *, forced: Sequence[int] | None
) -> NDArray[np.float32]:
    """Loads a model, encodes the picture with its own vision tower, and returns `step_logits`."""
    files = find_model_files(folder)
    model = _core.Model(
        str(files.text), str(files.projector), pool=pool, isa=os.environ.get("POCKETVLM_ISA") or None
    )
    return step_logits(
        model,
        prompt.token_ids,
        model.encode_images(prompt.patches).reshape(-1, model.hidden_size),
        prompt.image_token_id,
        steps=steps,
        forced=forced,
    )


def _to_text(machine: Machine, report: dict[str, Any], agreements: dict[str, Agreement]) -> str:
    steps = report["continuations"]
    rows = [
        [
            type,
            f"{100 * found.top1:.1f} %",
            f"{found.kl_mean:.1e}",
            f"{found.kl_max:.1e}",
            str(found.first_other_token or "none"),
        ]
        for type, found in agreements.items()
    ]
    reference = report["reference"]
    lines = [
        machine.to_text(),
        f"{report['subject']}: a prompt of {report['prompt_tokens']} tokens, "
        f"{report['image_tokens']} of them for {report['tiles']} tiles of a generated picture;",
        f"then the {steps} tokens with which f32 goes on greedily, stop tokens included, forced through all.",
        f"f32 itself: top probability {reference['mean_top_probability']:.3f}, "
        f"entropy {reference['mean_entropy']:.2f} nats, mean over the steps.",
        "",
        table(["type", "top-1", "KL mean\nnats", "KL max\nnats", "first other\ntoken"], rows),
        "",
        "top-1: steps at which the most likely token is f32's. KL: KL(f32 || type) of the next token.",
        "first other token: where greedy answers part. Each type has its own vision tower and connector.",
    ]
    if report["synthetic"]:
        lines += [
            "The weights are made up: expect a trained model, which is surer of its answers, to lose less.",
            "These compare types with each other; for the quality of a model give its checkpoint (-m).",
        ]
    return "\n".join(lines)
