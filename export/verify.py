"""`pocketvlm verify`: what to examine, and where the findings go.

`verify_models` holds two models against each other, `parity` all backends; `quality` examines one way to run
a model, and `quality_report` shows what was found.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from .. import _core, demo_model
from ..errors import InputError
from . import parity, verify_models
from .llama_mixtures import MIXTURES
from .markdown_page import replace_part, require_part
from .options import name_list, positive, require_writable
from .quality import Examinee, Exports, Outcome, Question, Subject, ask, ask_reference, prepare_questions
from .quality_report import (
    PAGE_PART,
    Report,
    make_report,
    read_report,
    to_markdown,
    write_report,
)
from .quantize import TYPES

REFERENCE_TYPE = "f32"
DEFAULT_EXAMPLES = 1000
DEFAULT_PARITY_EXAMPLES = 300
# It defines what the other rows compute and takes twenty times as long or more.
_SLOW_ROW = "scalar"
DEFAULT_SCALAR_EXAMPLES = 100

_DESCRIPTION = """
Hold a model B against a model A, whatever they are and whatever runs them: prompt, pixels, image features and
logits over the same pictures, and the next tokens along A's answers. With --quality instead: ask a checkpoint
about drawn pictures that it was not trained on, in every type of weights and on every row of kernels, and
print how many answers are right and how far the next tokens are from those of f32. With --parity: do that in
every backend and type.
"""


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `pocketvlm verify`."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="two models to hold against each other, as `pocketvlm describe -m` takes them; with --quality a "
        "checkpoint folder (that of the demo model, where this runs in its repository)",
    )
    parser.add_argument(
        "--quality", action="store_true", help="count right answers of a checkpoint in every type and row"
    )
    parser.add_argument(
        "--parity",
        action="store_true",
        help="run the demo model in every backend and type, and synthetic ones of every variant at float32",
    )
    parser.add_argument(
        "--types",
        metavar="LIST",
        help=f"types of weights, those that llama.cpp writes too; q4_0/q8_0 is q4_0 with the vision tower in "
        f"q8_0 ({','.join(TYPES)}; for --parity {','.join(parity.MIXTURES)} as well)",
    )
    parser.add_argument("--isas", metavar="LIST", help="rows of kernels (all that this CPU has)")
    parser.add_argument(
        "--outliers",
        type=_factors,
        default=[1.0],
        metavar="LIST",
        help="also examine twins that compute the same with some channels 20 or 100 times larger: 1,20,100; "
        "on the first row of kernels alone",
    )
    parser.add_argument(
        "--examples",
        type=positive,
        metavar="N",
        help=f"questions to ask ({DEFAULT_EXAMPLES}; for --parity {DEFAULT_PARITY_EXAMPLES})",
    )
    parser.add_argument(
        "--scalar-examples",
        type=positive,
        default=DEFAULT_SCALAR_EXAMPLES,
        metavar="N",
        help="the most to ask on the row scalar, which is slow (%(default)s)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="as in `pocketvlm describe`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all findings to FILE")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="put the tables into FILE, between the lines <!-- quality --> and <!-- /quality --> (or parity)",
    )
    parser.add_argument(
        "--from", dest="report", type=Path, metavar="FILE", help="examine nothing: show what --json wrote"
    )
    verify_models.add_arguments(parser)
    parser.set_defaults(func=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Runs `pocketvlm verify`: 0. Raises Error where something cannot be exported, run or written."""
    if args.json is not None:
        require_writable(args.json)
    if args.parity:
        return _run_parity(args)
    if not args.quality:
        if len(args.models) != 2:
            raise InputError(f"found {len(args.models)} models, expected two: pocketvlm verify A B")
        return verify_models.run(args)
    if args.markdown is not None:
        require_part(args.markdown, PAGE_PART)
    report = read_report(args.report) if args.report is not None else _examine(args)
    print(to_markdown(report))
    if args.json is not None:
        write_report(args.json, report)
    if args.markdown is not None:
        replace_part(args.markdown, PAGE_PART, to_markdown(report))
    return 0


def _run_parity(args: argparse.Namespace) -> int:
    if args.markdown is not None:
        require_part(args.markdown, parity.PAGE_PART)
    known = (*TYPES, *MIXTURES)
    default = (*TYPES, *parity.MIXTURES)
    ways = parity.plan_ways(name_list("--types", args.types, known) if args.types else default)
    examples = args.examples or DEFAULT_PARITY_EXAMPLES
    with (
        tempfile.TemporaryDirectory(prefix="pocketvlm-verify-") as work,
        # disable=None: only on a terminal
        tqdm(total=parity.requests_of(ways, examples), unit=" requests", disable=None, leave=False) as bar,
    ):
        findings = parity.examine_parity(
            _checkpoint(args),
            ways,
            examples=examples,
            threads=args.threads,
            work=Path(work),
            advance=bar.update,
        )
    table = parity.to_markdown(findings)
    print(table)
    if args.json is not None:
        args.json.write_text(json.dumps(parity.to_plain(findings), indent=1) + "\n", encoding="utf-8")
    if args.markdown is not None:
        replace_part(args.markdown, parity.PAGE_PART, table)
    return 0


def _checkpoint(args: argparse.Namespace) -> Path:
    if len(args.models) > 1:
        option = "--parity" if args.parity else "--quality"
        raise InputError(f"{option}: found {len(args.models)} checkpoints, expected one at most")
    return Path(args.models[0]) if args.models else demo_checkpoint()


def _examine(args: argparse.Namespace) -> Report:
    isas = name_list("--isas", args.isas, _core.isas()) if args.isas else _core.isas()
    types = _types(args.types) if args.types else list(TYPES)
    subjects = plan_subjects(types, isas, args.outliers)
    return examine(
        _checkpoint(args),
        subjects,
        reference=Subject(REFERENCE_TYPE, isas[0]),
        examples=args.examples or DEFAULT_EXAMPLES,
        scalar_examples=args.scalar_examples,
        threads=args.threads,
    )


def plan_subjects(types: Sequence[str], isas: Sequence[str], outliers: Sequence[float]) -> list[Subject]:
    """Returns every type on every row; of outlier twins every type on the first row."""
    plain = [Subject(type, isa) for isa in isas for type in types]
    twins = [Subject(type, isas[0], factor) for factor in outliers if factor != 1 for type in types]
    return plain + twins


def demo_checkpoint() -> Path:
    """Returns the checkpoint of the demo model, which the repository has and the installed package has not.

    Raises:
        InputError: It is not here.
    """
    inside = Path("examples") / "demo_model" / "checkpoint"
    for folder in (inside, Path(demo_model.__file__).parent / "checkpoint"):
        if folder.is_dir():
            return folder
    raise InputError(
        f"{inside}: there is no such folder. Run this in a clone of pocketvlm's repository, where the demo "
        "model's checkpoint lies, or name a checkpoint: pocketvlm verify --quality CHECKPOINT"
    )


def examine(
    checkpoint: Path,
    subjects: Sequence[Subject],
    *,
    reference: Subject,
    examples: int = DEFAULT_EXAMPLES,
    scalar_examples: int = DEFAULT_SCALAR_EXAMPLES,
    threads: int | None = None,
) -> Report:
    """Asks `subjects` the held-out questions and reports how they did.

    Args:
        checkpoint: A Hugging Face folder.
        subjects: What to ask. One model is loaded at a time.
        reference: What to hold them against.
        examples: How many questions.
        scalar_examples: The most to ask on the scalar row.
        threads: Threads to compute with; as many as this process may use if not given.

    Raises:
        FormatError: The checkpoint is incomplete or damaged.
        UnsupportedError: It is of another architecture, or a row of kernels is not there.
        InputError: The context is too short for a question.
    """
    pool = _core.ThreadPool(threads or _core.default_threads())
    counts = {
        subject: min(examples, scalar_examples) if subject.isa == _SLOW_ROW else examples
        for subject in (reference, *subjects)
    }
    # The questions are drawn once, the reference answers once.
    total = examples + counts[reference] + sum(counts[subject] for subject in subjects)
    with (
        tempfile.TemporaryDirectory(prefix="pocketvlm-verify-") as work,
        # disable=None: only on a terminal
        tqdm(total=total, unit=" questions", disable=None, leave=False) as bar,
    ):
        exports = Exports(checkpoint, Path(work))

        def examinee(subject: Subject, stage: str) -> Examinee:
            bar.set_description(stage)
            return Examinee(exports.model(subject.type, subject.outliers), subject.isa, pool)

        bar.set_description("drawing")
        questions: list[Question] = []
        for question in prepare_questions(checkpoint, examples, pool):
            questions.append(question)
            bar.update()
        references = ask_reference(
            examinee(reference, f"reference, {reference}"), questions[: counts[reference]], bar.update
        )
        outcomes: list[Outcome] = []
        for subject in subjects:
            asked = min(counts[subject], len(references))
            outcomes.append(
                ask(examinee(subject, str(subject)), subject, questions[:asked], references, bar.update)
            )
        model = exports.model(reference.type, reference.outliers)
        return make_report(checkpoint, model, reference, questions, outcomes)


def _types(text: str) -> list[str]:
    types = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for type in types:
        text_type, slash, vision_type = type.partition("/")
        name_list("--types", text_type, (*TYPES, *MIXTURES))
        if slash:
            name_list("--types", vision_type, TYPES)
    return types


def _factors(text: str) -> list[float]:
    found = list(dict.fromkeys(float(factor) for factor in text.split(",")))
    for factor in found:
        if not (math.isfinite(factor) and factor > 0):
            raise argparse.ArgumentTypeError(f"found {factor:g}, expected positive numbers")
    return found
