"""`pocketvlm bench sweep`: how cost grows with threads, image size and context length."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pocketvlm.backends import BACKENDS, require_backend
from pocketvlm.config import ModelConfig
from pocketvlm.errors import InputError
from pocketvlm.export.options import positive, require_writable

from .machine import this_machine
from .model_choice import TYPES, add_model_choice, choose_types, read_model
from .options import add_work_dir, read_lengths, read_sizes
from .picture import SIZE, write_generated_picture
from .report import Spread, number, table, write_json
from .run_report import METRICS
from .subject_process import SubjectProcess, stage_metrics
from .subjects import Subject, own_subject
from .turn import fitting_contexts, text_of

QUESTION = "Describe this image."
# With the 256M: 5, 9, 13 and 17 tiles.
IMAGE_SIZES = "1600x400,800x1600,1536x1152,1024x1024"
CONTEXTS = "128,512,2048,4096"


@dataclass
class Point:
    """One setting of what is varied, and what its turns gave."""

    setting: str
    measured: list[dict[str, float]] = field(default_factory=list)

    def spreads(self) -> dict[str, Spread]:
        """Returns metric -> its spread over the turns."""
        names = self.measured[0]
        return {name: Spread.of([values[name] for values in self.measured]) for name in names}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pocketvlm bench sweep`."""
    add_model_choice(parser)
    parser.add_argument("--type", choices=TYPES, help="(q8_0; int8 for the backend onnx)")
    parser.add_argument("--backend", default="native", help=f"one of {','.join(BACKENDS)} (%(default)s)")
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="from 1 to N (as many as this process may use)"
    )
    parser.add_argument(
        "--sizes", default=IMAGE_SIZES, metavar="LIST", help="of pictures, width x height (%(default)s)"
    )
    parser.add_argument("--contexts", default=CONTEXTS, metavar="LIST", help="lengths of texts (%(default)s)")
    parser.add_argument(
        "--new-tokens", type=positive, default=32, metavar="N", help="to decode (%(default)s)"
    )
    parser.add_argument("--repeat", type=positive, default=3, metavar="N", help="turns (%(default)s)")
    add_work_dir(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.set_defaults(func=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Run `pocketvlm bench sweep`: 0. Raises Error where the model fails."""
    require_backend(args.backend)
    sizes = read_sizes(args.sizes)
    contexts = read_lengths("--contexts", args.contexts)
    if args.new_tokens < 2:
        raise InputError("--new-tokens is 1, expected at least 2: the first token is the prefill's")
    if args.json is not None:
        require_writable(args.json)
    types = choose_types([args.type] if args.type else [], [args.backend])
    name, sources = read_model(args, types, wants_checkpoint=False)
    machine = this_machine(threads=args.threads)
    [type] = sources.types(args.backend)
    subject = own_subject(args.backend, type, name=args.backend)
    model = subject.model(sources)
    by_threads = [Point(str(threads)) for threads in range(1, machine.threads + 1)]
    by_size = [Point(f"{width}x{height}") for height, width in sizes]
    config = ModelConfig.from_folder(sources.folder)
    contexts = fitting_contexts(contexts, config, args.new_tokens)
    by_context = [Point(str(context)) for context in contexts]
    with tempfile.TemporaryDirectory(prefix="pocketvlm-bench-") as scratch:
        picture = write_generated_picture(Path(scratch), SIZE)
        pictures = [write_generated_picture(Path(scratch), (size.width, size.height)) for size in sizes]
        for turn in range(args.repeat):
            for threads, point in enumerate(by_threads, 1):
                _say(turn, args.repeat, f"{threads} threads")
                with _loaded(subject, model, threads) as process:
                    point.measured.append(_describe(process, picture, args.new_tokens))
            _say(turn, args.repeat, f"{len(sizes)} sizes and {len(contexts)} lengths of text")
            with _loaded(subject, model, machine.threads) as process:
                for path, point in zip(pictures, by_size, strict=True):
                    point.measured.append(_describe(process, path, args.new_tokens))
                for context, point in zip(contexts, by_context, strict=True):
                    point.measured.append(_continue(process, context, args.new_tokens))
    turns = "one turn" if args.repeat == 1 else f"median of {args.repeat} turns"
    print(machine.to_text())
    print(f"{name}, {type}, {args.new_tokens} new tokens; {turns}")
    axes = {"threads": by_threads, "images": by_size, "contexts": by_context}
    titles = {
        "threads": f"Threads (a picture of {SIZE[0]}x{SIZE[1]})",
        "images": f"Pictures ({machine.threads} threads)",
        "contexts": f"Tokens read before ({machine.threads} threads)",
    }
    for axis, points in axes.items():
        if points:
            print(f"\n{titles[axis]}:\n{_table(points)}")
    if args.json is not None:
        content = {
            "schema": 1,
            "measurement": "sweep",
            "machine": asdict(machine),
            "model": {"name": name, "synthetic": args.model is None, "type": type},
            "new_tokens": args.new_tokens,
            "repeat": args.repeat,
        }
        write_json(args.json, content | {axis: _to_list(points) for axis, points in axes.items()})
    return 0


def _loaded(subject: Subject, model: dict[str, str], threads: int) -> SubjectProcess:
    """A process in which the model is loaded."""
    process = SubjectProcess(subject.name, subject.module, None)
    try:
        process.load(model, threads)
    except BaseException:
        process.__exit__(None, None, None)
        raise
    return process


def _describe(process: SubjectProcess, picture: Path, new_tokens: int) -> dict[str, float]:
    """One answer, after one of two tokens that fills caches and touches memory."""
    process.describe(picture, QUESTION, 2)
    answer = process.describe(picture, QUESTION, new_tokens)
    return {"tiles": answer.tiles, "prompt_tokens": answer.prompt_tokens, **stage_metrics([answer])}


def _continue(process: SubjectProcess, context: int, new_tokens: int) -> dict[str, float]:
    answer = process.continue_text(text_of(context), new_tokens)
    return {
        "prompt_tokens": answer.prompt_tokens,
        "prefill_tokens_per_s": answer.prompt_tokens / answer.seconds("prefill"),
        "decode_tokens_per_s": answer.decode_tokens_per_s,
    }


def _say(turn: int, repeat: int, what: str) -> None:
    print(f"turn {turn + 1} of {repeat}: {what}", file=sys.stderr)


def _table(points: Sequence[Point]) -> str:
    """Two lines for each setting: medians, lowest and highest."""
    counts = {"tiles": "tiles", "prompt_tokens": "prompt\ntok"}
    metrics = {name: metric.heading for name, metric in METRICS.items() if name in points[0].measured[0]}
    rows = []
    for point in points:
        spreads = point.spreads()
        said = [f"{spreads[name].median:,.0f}" if name in spreads else "" for name in counts]
        rows.append([point.setting, *said, *(number(spreads[name].median) for name in metrics)])
        if len(point.measured) > 1:
            ends = [f"{number(spreads[name].min)}-{number(spreads[name].max)}" for name in metrics]
            rows.append(["", *("" for _ in counts), *ends])
    return table(["", *counts.values(), *metrics.values()], rows)


def _to_list(points: Sequence[Point]) -> list[dict[str, Any]]:
    return [
        {
            "setting": point.setting,
            "metrics": {name: spread.to_dict() for name, spread in point.spreads().items()},
        }
        for point in points
    ]
