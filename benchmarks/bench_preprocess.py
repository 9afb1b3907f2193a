"""`pocketvlm bench preprocess`: how long it takes from an image to what a vision encoder takes.

preprocess_subjects.py has what is compared; here is what is measured when, and how it is shown. Nothing is
measured before it is shown to give equal pixels. benchmarks/README.md states the method.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketvlm import _core
from pocketvlm.config import ProcessorConfig
from pocketvlm.errors import Error
from pocketvlm.export.options import name_list, positive, require_writable
from pocketvlm.processor import ImageSize, TilePlan, plan_tiles

from .environments import find_python
from .machine import Machine, this_machine
from .options import default_work_dir, read_sizes
from .picture import noisy_pixels
from .preprocess_subjects import (
    PILLOW_RESIZES,
    PREPARE_OPENCV,
    TRANSFORMERS,
    Job,
    Subject,
    import_opencv,
    opencv_is_there,
    opencv_subjects,
    our_subjects,
    pillow_subjects,
    transformers_subject,
)
from .report import Spread, number, table, write_json
from .transformers_process import PREPARE_TRANSFORMERS, TransformersProcess

# The photo that our speeds are stated for is the third; 1024x1024 takes most tiles, 1920x1080 two resizes.
SIZES = "320x240,1024x1024,1536x1152,1920x1080,4000x3000"
SEED = 5
_WARM_UP_TURNS = 2
# A processor that has waited takes about 20 ms to be at its clock again.
_LEAST_TURN_S = 0.05


@dataclass(frozen=True)
class Processing:
    """What every subject does to a picture: the processor of SmolVLM-256M, and its patches."""

    folder: Path  # with preprocessor_config.json, which transformers reads too
    config: ProcessorConfig
    patch_size: int


@dataclass(frozen=True)
class Absent:
    """A subject that could not be measured here."""

    name: str
    title: str
    how_to_prepare: str


@dataclass(frozen=True)
class Measured:
    """What one subject took for one picture."""

    name: str
    title: str
    threads: int
    isa: str | None
    equal_pixels: bool | None  # None: it promises none
    seconds: Spread  # of the last call of a turn
    first_seconds: Spread  # of the first, right after the other subjects


@dataclass(frozen=True)
class PictureReport:
    """What all subjects took for one picture."""

    size: ImageSize
    plan: TilePlan
    measured: list[Measured]

    def times_as_fast(self, than: str, measured: Measured) -> float | None:
        """The ratio of medians, of the subject `than` over `measured`; None without such a subject."""
        medians = [other.seconds.median for other in self.measured if other.name == than]
        return medians[0] / measured.seconds.median if medians else None


@dataclass(frozen=True)
class Report:
    """All that one run of the command found."""

    machine: Machine
    processing: Processing
    repeat: int
    versions: dict[str, str]  # library -> version
    absent: list[Absent]
    pictures: list[PictureReport] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pocketvlm bench preprocess`."""
    parser.add_argument(
        "--sizes", default=SIZES, metavar="LIST", help="pictures to make, width x height (%(default)s)"
    )
    parser.add_argument(
        "--repeat", type=positive, default=20, metavar="N", help="turns of each subject (%(default)s)"
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="measure with N threads beside one (as many as this process may use)",
    )
    parser.add_argument(
        "--isas",
        metavar="LIST",
        help=f"measure other rows of our kernels too: some of {','.join(_core.isas())}",
    )
    parser.add_argument(
        "--transformers-python",
        default=os.environ.get("POCKETVLM_TRANSFORMERS_PYTHON")
        or find_python("transformers", default_work_dir()),
        metavar="PATH",
        help="interpreter of an environment that has transformers (POCKETVLM_TRANSFORMERS_PYTHON, else what "
        "`pocketvlm bench prepare transformers` made); without, transformers is not measured",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.set_defaults(func=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Run `pocketvlm bench preprocess`: 0. Raises Error where a subject fails or gives other pixels."""
    sizes = read_sizes(args.sizes)
    isas = name_list("--isas", args.isas, _core.isas()) if args.isas is not None else []
    if args.json is not None:
        require_writable(args.json)
    machine = this_machine(threads=args.threads)
    name_list("POCKETVLM_ISA", machine.isa, _core.isas())
    processing = read_processing()
    opencv = import_opencv() if opencv_is_there() else None
    python = args.transformers_python
    with TransformersProcess(str(python), processing.folder) if python else nullcontext() as process:
        report = Report(
            machine, processing, args.repeat, _versions(process, opencv), _absent(process, opencv)
        )
        pools = [_core.ThreadPool(threads) for threads in sorted({1, machine.threads})]
        for size in sizes:
            job = _job(size, processing)
            subjects = pillow_subjects(job)
            if process is not None:
                subjects.append(transformers_subject(process, job))
            if opencv is not None:
                subjects += opencv_subjects(job, [pool.num_threads for pool in pools])
            other_isas = [isa for isa in isas if isa != machine.isa]
            subjects += our_subjects(job, pools, isa=machine.isa, other_isas=other_isas)
            turns = _counted(args.repeat, "turn")
            print(f"measuring {_size_text(size)}: {turns} of {len(subjects)} subjects", file=sys.stderr)
            report.pictures.append(PictureReport(size, job.plan, measure(subjects, args.repeat)))
    print(to_text(report))
    if args.json is not None:
        write_json(args.json, to_dict(report))
    return 0


def _versions(process: TransformersProcess | None, opencv: ModuleType | None) -> dict[str, str]:
    versions = {"Pillow": version("pillow"), "NumPy": version("numpy")}
    if opencv is not None:
        versions["OpenCV"] = opencv.__version__
    if process is not None:
        versions |= process.versions
    return versions


def _absent(process: TransformersProcess | None, opencv: ModuleType | None) -> list[Absent]:
    absent = []
    if process is None:
        absent.append(Absent(TRANSFORMERS, "the PIL processor of transformers", PREPARE_TRANSFORMERS))
    if opencv is None:
        absent.append(Absent("opencv", "OpenCV", PREPARE_OPENCV))
    return absent


def read_processing() -> Processing:
    """Reads the processor of SmolVLM-256M, whose files come with the export."""
    folder = Path(str(files("pocketvlm.export"))) / "data" / "smolvlm-256m-instruct"
    model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return Processing(folder, ProcessorConfig.from_folder(folder), model["vision_config"]["patch_size"])


def _job(size: ImageSize, processing: Processing) -> Job:
    return Job(
        noisy_pixels(size.height, size.width, seed=SEED),
        plan_tiles(size, processing.config, split=True),
        processing.config,
        processing.patch_size,
    )


def measure(subjects: Sequence[Subject], repeat: int) -> list[Measured]:
    """Runs every subject in `repeat` turns (A B C A B C): what disturbs a while disturbs all alike.

    A turn is two calls, or more until it has taken 50 ms. The first call finds the caches and the clock as
    the other subjects left them, the last as they are when images come one after the other. Two turns come
    before and do not count. After the first all pixels are compared.

    Raises:
        Error: A subject gives other pixels than the first that promises equal ones.
    """
    equal = compare_pixels(subjects)
    for _ in range(_WARM_UP_TURNS - 1):
        for subject in subjects:
            subject.run()
    calls: list[list[tuple[float, float]]] = [[] for _ in subjects]
    for _ in range(repeat):
        for subject, taken in zip(subjects, calls, strict=True):
            taken.append(_take_turn(subject))
    measured = []
    for subject, pixels, taken in zip(subjects, equal, calls, strict=True):
        first, second = (Spread.of(seconds) for seconds in zip(*taken, strict=True))
        measured.append(
            Measured(subject.name, subject.title, subject.threads, subject.isa, pixels, second, first)
        )
    return measured


def _take_turn(subject: Subject) -> tuple[float, float]:
    """Returns the seconds of the first call and of the last."""
    first = total = subject.run()
    while True:
        last = subject.run()
        total += last
        if total >= _LEAST_TURN_S:
            return first, last


def compare_pixels(subjects: Sequence[Subject]) -> list[bool | None]:
    """Runs every subject once and holds its pixels against the first's: True each, None where it has none.

    Raises:
        Error: They differ; the message names subject, place and values.
    """
    first = None
    equal: list[bool | None] = []
    for subject in subjects:
        subject.run()
        tiles = subject.tiles()
        if tiles is not None:
            if first is None:
                first = tiles.copy()
                expected_from = subject.title
            elif tiles.shape != first.shape or not np.array_equal(tiles, first):
                raise Error(f"{_who(subject)}: {_difference(tiles, first)} of {expected_from}")
        equal.append(None if tiles is None else True)
    return equal


def _difference(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> str:
    if found.shape != expected.shape:
        return f"found tiles {list(found.shape)}, expected {list(expected.shape)}, those"
    wrong = found != expected
    place = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
    return (
        f"{int(wrong.sum()):,} of {wrong.size:,} values are wrong, the first at tile {place[0]}, "
        f"channel {place[1]}, row {place[2]}, column {place[3]}: found {found[place]}, "
        f"expected {expected[place]}, that"
    )


def _who(subject: Subject) -> str:
    details = [_counted(subject.threads, "thread"), *([subject.isa] if subject.isa else [])]
    return f"{subject.title} ({', '.join(details)})"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _size_text(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"


def to_text(report: Report) -> str:
    """Writes the report for people: a table for each picture."""
    config = report.processing.config
    lines = [
        report.machine.to_text(),
        ", ".join(f"{name} {found}" for name, found in report.versions.items()),
        f"An RGB array becomes the input of SmolVLM-256M: longest edge {config.longest_edge}, tiles of "
        f"{config.tile_size}, LANCZOS, patches of {report.processing.patch_size}.",
        f"Median of {_counted(report.repeat, 'turn')}, and the lowest and highest, of the last of several "
        "calls; first: of the",
        "first, with caches and clock as other subjects left them; x: how many times as fast by the median.",
        *(
            f"Not measured: {absent.title}. To prepare it: {absent.how_to_prepare}"
            for absent in report.absent
        ),
    ]
    for picture in report.pictures:
        lines += ["", *_picture_lines(picture)]
    lines += ["", *_NOTES]
    return "\n".join(lines)


_NOTES = (
    "Resizes alone go from the library's image to the library's image: no tiles, no floats. transformers",
    "gets a PIL image, the others the array. OpenCV gives other pixels: INTER_LANCZOS4 reads 8x8 pixels",
    "however much it shrinks, so it is no antialiasing filter; it stands here for scale.",
)


def _picture_lines(picture: PictureReport) -> list[str]:
    plan = picture.plan
    steps = dict.fromkeys(
        _size_text(size) for size in (picture.size, plan.resized, plan.split or plan.resized)
    )
    equal = dict.fromkeys(
        measured.title.split(",")[0] for measured in picture.measured if measured.equal_pixels
    )

    def ratio(than: str, measured: Measured) -> str:
        value = picture.times_as_fast(than, measured)
        return "-" if value is None else f"{number(value)}x"

    rows = [
        [
            measured.title,
            str(measured.threads),
            number(measured.seconds.median * 1e3),
            f"{number(measured.seconds.min * 1e3)}-{number(measured.seconds.max * 1e3)}",
            number(measured.first_seconds.median * 1e3),
            ratio(PILLOW_RESIZES, measured),
            ratio(TRANSFORMERS, measured),
        ]
        for measured in picture.measured
    ]
    headings = ["", "threads", "ms", "low-high", "first\nms", "vs Pillow\nresizes", "vs trans-\nformers"]
    return [
        f"{' -> '.join(steps)}: {plan.grid.rows * plan.grid.cols} tiles and the global one. "
        f"Equal in every pixel: {', '.join(equal)}.",
        "",
        table(headings, rows),
    ]


def to_dict(report: Report) -> dict[str, Any]:
    """Gives the report to programs; benchmarks/README.md lists the keys."""
    config = report.processing.config
    return {
        "measurement": "preprocess",
        "machine": asdict(report.machine),
        "versions": report.versions,
        "repeat": report.repeat,
        "seed": SEED,
        "processor": {
            "longest_edge": config.longest_edge,
            "tile_size": config.tile_size,
            "resample": config.resample,
            "patch_size": report.processing.patch_size,
        },
        "absent": [asdict(absent) for absent in report.absent],
        "pictures": [
            {
                "size": picture.size._asdict(),
                "resized": picture.plan.resized._asdict(),
                "split": picture.plan.split._asdict() if picture.plan.split else None,
                "tiles": picture.plan.num_tiles,
                "subjects": [
                    asdict(measured)
                    | {
                        "times_as_fast_as_pillow_resizes": picture.times_as_fast(PILLOW_RESIZES, measured),
                        "times_as_fast_as_transformers": picture.times_as_fast(TRANSFORMERS, measured),
                    }
                    for measured in picture.measured
                ],
            }
            for picture in report.pictures
        ],
    }
