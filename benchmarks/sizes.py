"""`pocketvlm bench sizes`: memory and the time of every stage for each size and type, in one table.

Each run is `pocketvlm describe` in a process of its own: its `--json` gives the times, memory.py the peak.
synthetic_models.py makes the models.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pocketvlm.errors import Error, InputError
from pocketvlm.export.options import name_list, positive, require_writable

from .machine import Machine, this_machine
from .memory import measure
from .options import add_common_options
from .picture import write_generated_picture
from .report import Spread, number, table, write_json
from .synthetic_models import SIZES, TYPES, SyntheticModel, make_synthetic_models

# metric -> (heading, divisor): the columns of the table. JSON has the metrics by these names.
_COLUMNS = {
    "load_s": ("load\ns", 1.0),
    "preprocess_s": ("preprocess\ns", 1.0),
    "vision_tile_s": ("vision\ns/tile", 1.0),
    "prefill_tokens_per_s": ("prefill\ntok/s", 1.0),
    "decode_tokens_per_s": ("decode\ntok/s", 1.0),
    "time_to_first_token_s": ("1st token\ns", 1.0),
    "peak_memory_bytes": ("peak\nMB", 1e6),
}


@dataclass(frozen=True)
class Row:
    """What the runs of one model gave."""

    size: str
    type: str
    isa: str
    file_bytes: int  # of the GGUF pair
    weight_bytes: int  # packed, resident
    prompt_tokens: int
    tiles: int
    new_tokens: int
    metrics: dict[str, Spread]  # the keys of _COLUMNS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pocketvlm bench sizes`."""
    parser.add_argument(
        "--sizes",
        default="256m,500m,2.2b",
        metavar="LIST",
        help="some of " + ",".join(SIZES) + " (%(default)s)",
    )
    parser.add_argument(
        "--types", default="q8_0,q4_0", metavar="LIST", help=f"some of {','.join(TYPES)} (%(default)s)"
    )
    parser.add_argument("--image", type=Path, metavar="FILE", help="default: a generated one, 1536x1152")
    parser.add_argument(
        "--max-new-tokens", type=positive, default=64, metavar="N", help="tokens to decode (%(default)s)"
    )
    parser.add_argument(
        "--repeat", type=positive, default=3, metavar="N", help="runs of each model (%(default)s)"
    )
    add_common_options(parser)
    parser.set_defaults(func=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Run `pocketvlm bench sizes`: 0. Raises Error where a run fails."""
    wanted = [
        SyntheticModel(size, type)
        for size in name_list("--sizes", args.sizes, SIZES)
        for type in name_list("--types", args.types, TYPES)
    ]
    if args.json is not None:
        require_writable(args.json)
    if args.image is not None and not args.image.is_file():
        raise InputError(f"{args.image}: no such file")
    if args.max_new_tokens < 2:
        raise InputError("--max-new-tokens is 1, expected at least 2: the first token is the prefill's")
    folders = make_synthetic_models(wanted, args.work_dir, keep_checkpoints=args.keep)
    machine = this_machine(threads=args.threads)
    with tempfile.TemporaryDirectory(prefix="pocketvlm-bench-") as scratch:
        image = args.image
        if image is None:
            image = write_generated_picture(Path(scratch))
        rows = measure_models(
            folders,
            image,
            threads=machine.threads,
            max_new_tokens=args.max_new_tokens,
            repeat=args.repeat,
        )
    print(_to_text(machine, rows, image=args.image, repeat=args.repeat))
    if args.json is not None:
        write_json(args.json, _to_dict(machine, rows, repeat=args.repeat))
    return 0


def measure_models(
    folders: dict[SyntheticModel, Path], image: Path, *, threads: int, max_new_tokens: int, repeat: int
) -> list[Row]:
    """Runs every model `repeat` times, in turns (A B C A B C): what disturbs a while disturbs all alike.

    A first look at each, not measured, leaves its files in the page cache where that is large enough.
    """
    infos = {model: _run_json(["info", str(folder)], threads)[0] for model, folder in folders.items()}
    runs: dict[SyntheticModel, list[tuple[dict[str, Any], int]]] = {model: [] for model in folders}
    for turn in range(repeat):
        for model, folder in folders.items():
            print(f"running {model.name}, {turn + 1} of {repeat}", file=sys.stderr)
            # --ignore-eos: every run decodes the same number of tokens.
            options = ["-m", str(folder), "--max-new-tokens", str(max_new_tokens), "--ignore-eos"]
            runs[model].append(_run_json(["describe", str(image), *options], threads))
    return [_row(model, infos[model], runs[model]) for model in folders]


def _run_json(arguments: Sequence[str], threads: int) -> tuple[dict[str, Any], int]:
    """Runs `pocketvlm ARGUMENTS --json`: (the object it printed, peak resident bytes)."""
    # -P: the folder we are started in is not a place to import from.
    command = [sys.executable, "-P", "-m", "pocketvlm", *arguments, "--json", "--threads", str(threads)]
    report = measure(command)
    if report.exit_code != 0:
        said = report.stderr.strip().splitlines() or ["it said nothing; out of memory?"]
        raise Error(
            f"{subprocess.list2cmdline(['pocketvlm', *arguments])}: "
            f"exit code {report.exit_code}: {said[-1].removeprefix('pocketvlm: error: ')}"
        )
    printed: dict[str, Any] = json.loads(report.stdout)
    return printed, report.peak_rss_bytes


def _row(model: SyntheticModel, info: dict[str, Any], runs: Sequence[tuple[dict[str, Any], int]]) -> Row:
    def metrics(result: dict[str, Any], peak_rss_bytes: int) -> dict[str, float]:
        timings = result["timings"]
        return {
            "load_s": timings["load_s"],
            "preprocess_s": timings["preprocess_s"],
            "vision_tile_s": timings["vision_s"] / (result["tiles"] - result["tiles_saved"]),
            "prefill_tokens_per_s": result["prompt_tokens"] / timings["prefill_s"],
            "decode_tokens_per_s": timings["decode_tokens_per_s"],
            "time_to_first_token_s": timings["time_to_first_token_s"],
            "peak_memory_bytes": peak_rss_bytes,
        }

    measured = [metrics(*run) for run in runs]
    result = runs[0][0]
    return Row(
        size=model.size,
        type=model.type,
        isa=info["isa"],
        file_bytes=info["text_file_bytes"] + info["projector_file_bytes"],
        weight_bytes=info["weight_bytes"],
        prompt_tokens=result["prompt_tokens"],
        tiles=result["tiles"],
        new_tokens=len(result["token_ids"]),
        metrics={name: Spread.of([values[name] for values in measured]) for name in _COLUMNS},
    )


def _to_text(machine: Machine, rows: Sequence[Row], *, image: Path | None, repeat: int) -> str:
    def ends(spread: Spread, divisor: float) -> str:
        return f"{number(spread.min / divisor)}-{number(spread.max / divisor)}"

    lines: list[list[str]] = []
    for row in rows:
        lines.append(
            [row.size, row.type, f"{row.weight_bytes / 1e6:,.0f}", str(row.tiles), str(row.prompt_tokens)]
            + [number(row.metrics[name].median / divisor) for name, (_, divisor) in _COLUMNS.items()]
        )
        if repeat > 1:
            lines.append(
                [""] * 5 + [ends(row.metrics[name], divisor) for name, (_, divisor) in _COLUMNS.items()]
            )
    headings = [
        "size",
        "type",
        "weights\nMB",
        "tiles",
        "prompt\ntok",
        *(text for text, _ in _COLUMNS.values()),
    ]
    subject = str(image) if image is not None else "a generated picture, 1536x1152"
    runs = "one run of each" if repeat == 1 else f"median of {repeat} runs in turns, below it lowest-highest"
    return "\n".join(
        [
            machine.to_text(),
            f"`pocketvlm describe` of {subject}, {rows[0].new_tokens} new tokens; {runs}.",
            "",
            table(headings, lines, names=2),
            "",
            "The weights are made up: times and memory are those of the shape. weights: packed, resident.",
            "1st token: from the request to a loaded model. peak: resident memory of the whole process,",
            "mapped files included, measured from outside.",
        ]
    )


def _to_dict(machine: Machine, rows: Sequence[Row], *, repeat: int) -> dict[str, Any]:
    return {
        "measurement": "sizes",
        "machine": asdict(machine),
        "repeat": repeat,
        "rows": [asdict(r) for r in rows],
    }
