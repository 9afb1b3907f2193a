"""The command `pocketvlm demo`: draws a picture, asks the demo model about it, and prints answers and truth.

The picture comes from `scenes`, the answers from the public API, as any program would get them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shlex
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

import pocketvlm
from pocketvlm import hub
from pocketvlm.arguments import read_integer
from pocketvlm.errors import InputError

from . import FEATURES, MODEL_FOLDER, scenes

DEFAULT_OUT = Path("pocketvlm-demo.png")
DEFAULT_SEED = 32

_DESCRIPTION = """
Draw a picture, ask the model that comes with this package three questions about it, and print its answers
beside the truth, with times and memory. Needs no network. The model is small and was trained on drawings of
shapes and signs: it knows nothing else.
"""

# Neither training nor the held-out set draws from seeds as high.
_FIRST_SEED = 2 * scenes.HELD_OUT_SEED

# Opens every picture saved here, so that the next run knows what it may replace.
_SOFTWARE = "pocketvlm demo"


@dataclass(frozen=True)
class Reply:
    """A question with its true answer, and what the model said."""

    question: scenes.Question
    result: pocketvlm.GenerationResult

    @property
    def answer(self) -> str:
        """The model's answer, without the space that it begins with."""
        return self.result.text.strip()

    @property
    def correct(self) -> bool:
        """Whether the answer is the truth to the letter."""
        return self.answer == self.question.answer


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `pocketvlm demo`."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "--seed",
        type=int,
        default=DEFAULT_SEED,
        metavar="N",
        help="another picture for every N (%(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=DEFAULT_OUT,
        metavar="FILE",
        help="where to save the picture, as .png (%(default)s)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace FILE even if it is no picture of an earlier run"
    )
    parser.add_argument("--backend", default="native", help="what runs the model (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to compute with")
    parser.add_argument("--isa", metavar="ROW", help="kernels to use (POCKETVLM_ISA, else the best)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=_run)


def make_up(seed: int) -> tuple[scenes.Scene, list[scenes.Question]]:
    """Makes up a scene with a sign and at least two shapes, and three questions about it."""
    rng = random.Random(_FIRST_SEED + seed)
    scene = scenes.random_scene(rng, sign_probability=1.0)
    while len(scene.shapes) < 2:
        scene = scenes.random_scene(rng, sign_probability=1.0)
    others = [kind for kind in FEATURES if kind not in ("describe", "change")]  # that takes two pictures
    kinds = ("describe", *rng.sample(others, 2))
    return scene, [scenes.ask(scene, kind, rng) for kind in kinds]


def _run(args: argparse.Namespace) -> int:
    scene, questions = make_up(read_integer("seed", args.seed, at_least=0))
    image, _ = scenes.draw(scene)
    model = pocketvlm.load(MODEL_FOLDER, backend=args.backend, threads=args.threads, isa=args.isa)
    _save(image, args.out, force=args.force)
    # The model sees what was saved.
    replies = [Reply(question, model.generate(question.text, images=args.out)) for question in questions]
    if args.json:
        print(json.dumps(_to_dict(args.out, args.seed, replies), ensure_ascii=False))
    else:
        print(f"picture       {args.out}, {image.width}x{image.height} pixels, seed {args.seed}\n")
        print(_report(replies))
        more = f"-m {hub.DEMO_MODEL} -p 'How many shapes are there?'"
        print(f"\nAsk it more: pocketvlm describe {shlex.quote(str(args.out))} {more}")
    return 0


def _save(image: Image.Image, path: Path, *, force: bool) -> None:
    """Saves the picture. Raises InputError if it cannot, or if that would replace what is not ours."""
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: the picture is saved as PNG, give a name that ends in .png")
    mark = PngInfo()
    mark.add_text("Software", _SOFTWARE)
    try:
        if path.exists() and not force and not _is_ours(path):
            raise InputError(
                f"{path}: is there, not made by an earlier run; --force replaces it, --out names another file"
            )
        image.save(path, "PNG", pnginfo=mark)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror or error}; --out names another file"
        ) from error


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return f"Software\0{_SOFTWARE}".encode() in file.read(128)


def _figures(replies: list[Reply]) -> dict[str, Any]:
    """Sums up the costs of all questions."""
    timings = [reply.result.timings for reply in replies]
    decode_s = sum(each.decode_s for each in timings)
    further_tokens = sum(len(reply.result.token_ids) - 1 for reply in replies)
    return {
        "timings": {
            "load_s": timings[0].load_s,
            "time_to_first_token_s": median(each.time_to_first_token_s for each in timings),
            "decode_tokens_per_s": further_tokens / decode_s if further_tokens else 0.0,
        },
        "memory": {"peak_bytes": replies[-1].result.memory.peak_bytes},
    }


def _to_dict(path: Path, seed: int, replies: list[Reply]) -> dict[str, Any]:
    return {
        "picture": str(path),
        "seed": seed,
        "answers": [
            {
                "kind": reply.question.kind,
                "question": reply.question.text,
                "answer": reply.answer,
                "truth": reply.question.answer,
                "correct": reply.correct,
                "timings": dataclasses.asdict(reply.result.timings),
            }
            for reply in replies
        ],
        "correct": sum(reply.correct for reply in replies),
        **_figures(replies),
    }


def _report(replies: list[Reply]) -> str:
    lines = []
    for reply in replies:
        lines += [
            f"{'right' if reply.correct else 'WRONG'}  {reply.question.text}",
            f"       answer  {reply.answer}",
            f"       truth   {reply.question.answer}",
            "",
        ]
    figures = _figures(replies)
    timings = figures["timings"]
    correct = sum(reply.correct for reply in replies)
    lines += [
        f"right         {correct} of {len(replies)} answers",
        f"load          {timings['load_s']:8.3f} s",
        f"first token   {timings['time_to_first_token_s']:8.3f} s after the question",
        f"decode        {timings['decode_tokens_per_s']:8.1f} tokens/s",
        f"peak memory   {figures['memory']['peak_bytes'] / 1e6:8.1f} MB",
    ]
    return "\n".join(lines)
