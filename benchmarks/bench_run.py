"""`pocketvlm bench run`: one model, on our backends and beside its peers, in turns.

Here is what is measured when; turn.py measures a turn, run_report.py shows what came out.
benchmarks/README.md states the method.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pocketvlm import hub
from pocketvlm.backends import BACKENDS
from pocketvlm.config import ModelConfig
from pocketvlm.errors import BackendError, Error, InputError
from pocketvlm.export.onnx.types import TYPES as ONNX_TYPES
from pocketvlm.export.options import name_list, positive, require_writable
from pocketvlm.processor import ImageSize

from .baseline import DEFAULT_THRESHOLD, compare, read_report
from .conversions import convert
from .environments import find_python, how_to_prepare
from .machine import this_machine
from .model_choice import TYPES, add_model_choice, choose_types, read_model
from .options import add_work_dir, read_lengths
from .picture import write_generated_picture
from .report import write_json
from .roofs import Roofs, measure_roofs
from .run_plot import draw, require_matplotlib
from .run_report import Report, Result, to_dict, to_text
from .subject_process import SubjectProcess
from .subjects import (
    CHECKPOINT_SUBJECTS,
    PEERS,
    Sources,
    Subject,
    llama_cpp_subject,
    own_subject,
)
from .turn import CONTEXT_TOKENS, Question, Turn, fitting_contexts, run_turn

VISION_COMPUTES = ("auto", "int8", "bf16")
QUESTION = "Describe this image."
CONTEXTS = "256,1024,3072"


@dataclass(frozen=True)
class _Ready:
    """A subject that can be measured."""

    subject: Subject
    model: dict[str, str]
    python: Path | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pocketvlm bench run`."""
    add_model_choice(parser)
    parser.add_argument(
        "--type",
        metavar="LIST",
        help=f"some of {','.join(hub.TYPES)}, for the backend onnx of {','.join(ONNX_TYPES)} (q8_0; int8)",
    )
    parser.add_argument(
        "--backend", default="native", metavar="LIST", help=f"some of {','.join(BACKENDS)} (%(default)s)"
    )
    parser.add_argument(
        "--vision-compute",
        default="auto",
        metavar="LIST",
        help=f"some of {','.join(VISION_COMPUTES)}, as in `pocketvlm describe`; the backend onnx computes as "
        "its graphs say (%(default)s)",
    )
    parser.add_argument(
        "--compare",
        metavar="LIST",
        help=f"measure beside it some of {','.join(PEERS)}, in the environments of `bench prepare`",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="each is asked about by itself; figures are means (a generated one, 1536x1152)",
    )
    parser.add_argument("-p", "--prompt", default=QUESTION, help="question (%(default)r)")
    parser.add_argument(
        "--new-tokens", type=positive, default=64, metavar="N", help="to decode (%(default)s)"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="as in `pocketvlm describe`")
    parser.add_argument(
        "--repeat", type=positive, default=3, metavar="N", help="turns of each subject (%(default)s)"
    )
    parser.add_argument(
        "--contexts",
        default=CONTEXTS,
        metavar="LIST",
        help="context lengths to measure decoding at, in the last turn; none: '' (%(default)s)",
    )
    add_work_dir(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw a picture of them: .png, .svg or .pdf"
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="FILE",
        help="compare with the --json of another run; exit code 1 if worse",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=DEFAULT_THRESHOLD,
        metavar="X",
        help="with --baseline: how much worse is worse (%(default)s, for a tenth)",
    )
    parser.set_defaults(func=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Run `pocketvlm bench run`: 0; 1 where a subject failed or is worse than the baseline."""
    asked = name_list("--type", args.type, TYPES) if args.type else []
    backends = name_list("--backend", args.backend, BACKENDS)
    computes = name_list("--vision-compute", args.vision_compute, VISION_COMPUTES)
    peers = name_list("--compare", args.compare, PEERS) if args.compare else []
    contexts = read_lengths("--contexts", args.contexts)
    if args.new_tokens < 2:
        raise InputError("--new-tokens is 1, expected at least 2: the first token is the prefill's")
    types = choose_types(asked, [*backends, *(["llama.cpp"] if "llama.cpp" in peers else [])])
    baseline = read_report(args.baseline) if args.baseline else None
    for path in (args.json, args.plot):
        if path is not None:
            require_writable(path)
    if args.plot is not None:
        require_matplotlib(args.plot)
    with tempfile.TemporaryDirectory(prefix="pocketvlm-bench-") as scratch:
        images = args.images or [write_generated_picture(Path(scratch))]
        sizes = [_read_size(image) for image in images]
        question = Question(tuple(path.resolve() for path in images), args.prompt, args.new_tokens)
        wants_checkpoint = any(name in CHECKPOINT_SUBJECTS for peer in peers for name in PEERS[peer])
        name, sources = read_model(args, types, wants_checkpoint=wants_checkpoint)
        config = ModelConfig.from_folder(sources.folder)
        contexts = fitting_contexts(contexts, config, CONTEXT_TOKENS)
        machine = this_machine(threads=args.threads)
        subjects = _subjects(sources, backends, computes, peers)
        results = {subject.name: Result(subject) for subject in subjects}
        ready = _prepare(results, sources, args.work_dir)
        roofs = _run_turns(ready, results, question, args.repeat, machine.threads, contexts)
        report = Report(
            machine=machine,
            model=name,
            synthetic=args.model is None,
            config=config,
            question=question,
            images=list(zip(map(str, args.images or ["a generated picture"]), sizes, strict=True)),
            repeat=args.repeat,
            contexts=contexts,
            roofs=roofs,
            results=list(results.values()),
        )
    print(to_text(report))
    content = to_dict(report)
    if args.json is not None:
        write_json(args.json, content)
    if args.plot is not None:
        draw(content, args.plot)
    worse = False
    if baseline is not None:
        comparison = compare(baseline, content, threshold=args.threshold)
        print()
        print(comparison.to_text())
        worse = comparison.is_worse
    return 1 if worse or any(result.error for result in results.values()) else 0


def _read_size(path: Path) -> ImageSize:
    """Decodes an image, so that a damaged one is known before hours of work."""
    try:
        with Image.open(path) as image:
            image.load()
            return ImageSize(image.height, image.width)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # each format of Pillow has errors of its own
        raise InputError(f"{path}: not an image that can be read: {error}") from error


def _subjects(
    sources: Sources, backends: Sequence[str], computes: Sequence[str], peers: Sequence[str]
) -> list[Subject]:
    """Ours, then the peers; what there are several of, those that have one carry in their names."""

    def name(of: str, type: str, compute: str = "auto") -> str:
        several = len(sources.types(of)) > 1
        return "-".join([of, *([type] if several else []), *([compute] if compute != "auto" else [])])

    subjects = [
        own_subject(backend, type, name=name(backend, type, compute), vision_compute=compute)
        for backend in backends
        for type in sources.types(backend)
        for compute in (computes if backend != "onnx" else ["auto"])
    ]
    for peer in dict.fromkeys(name for listed in peers for name in PEERS[listed]):
        if peer == "llama.cpp":
            subjects += [
                llama_cpp_subject(type, name=name(peer, type)) for type in sources.types("llama.cpp")
            ]
        else:
            subjects.append(CHECKPOINT_SUBJECTS[peer])
    return subjects


def _prepare(results: Mapping[str, Result], sources: Sources, work_dir: Path) -> list[_Ready]:
    """Finds environments and converts; a subject that lacks something is marked absent, with what helps."""
    ready = []
    for result in results.values():
        subject, python = result.subject, None
        if subject.environment is not None:
            python = find_python(subject.environment, work_dir)
            if python is None:
                result.how_to_prepare = how_to_prepare(subject.environment, work_dir)
                continue
        if subject.name in CHECKPOINT_SUBJECTS and sources.checkpoint is None:
            result.how_to_prepare = "it takes a checkpoint: -m with the folder that was exported"
            continue
        model = subject.model(sources)
        if subject.conversion is not None:
            assert sources.checkpoint is not None
            try:
                model["folder"] = str(convert(subject.conversion, sources.checkpoint, work_dir))
            except BackendError as error:
                _fail(result, error)
                continue
        ready.append(_Ready(subject, model, python))
    return ready


def _run_turns(
    subjects: Sequence[_Ready],
    results: Mapping[str, Result],
    question: Question,
    repeat: int,
    threads: int,
    contexts: Sequence[int],
) -> Roofs:
    """Gives every subject a turn, `repeat` times (A B C A B C): what disturbs a while disturbs all alike.

    The roofs are measured between the rounds too, and the best of each counts.
    """
    roofs = [measure_roofs(threads)]
    for turn in range(repeat):
        for ready in subjects:
            name = ready.subject.name
            if results[name].error is not None:
                continue
            started = time.perf_counter()
            try:
                with SubjectProcess(name, ready.subject.module, ready.python) as process:
                    measured = run_turn(
                        process,
                        ready.model,
                        question,
                        threads=threads,
                        contexts=contexts if turn == repeat - 1 else (),
                    )
            except BackendError as error:  # the others go on
                _fail(results[name], error)
            else:
                results[name].turns.append(measured)
                _say(name, turn, repeat, measured, time.perf_counter() - started)
        roofs.append(measure_roofs(threads))
    return Roofs.best_of(roofs)


def _fail(result: Result, error: Error) -> None:
    result.error = str(error)
    print(f"{result.subject.name}: failed: {error}", file=sys.stderr)


def _say(name: str, turn: int, repeat: int, measured: Turn, took_s: float) -> None:
    metrics = measured.metrics
    print(
        f"turn {turn + 1} of {repeat}: {name:20} {metrics['time_to_first_token_s']:6.2f} s to 1st token, "
        f"{metrics['decode_tokens_per_s']:6.1f} tokens/s, {metrics['peak_memory_bytes'] / 1e6:6,.0f} MB "
        f"(took {took_s:.0f} s)",
        file=sys.stderr,
    )
