"""`pocketvlm bench kernels`: every kernel by itself, as a fraction of the roof that bounds it.

What is called, and with which shapes, is one table in csrc/benchmarks/kernel_cases.cc, which also sets the
calls up; roofs.py measures the roofs. benchmarks/README.md states the method.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pocketvlm import _core
from pocketvlm.errors import InputError
from pocketvlm.export.options import name_list, positive, require_writable

from .machine import Machine, this_machine
from .report import Spread, number, table, write_json
from .roofs import Roofs, measure_roofs

# What a row of the kernel table multiplies with: (row, what it computes in) -> instruction of the roofs.
# Weights in bfloat16 and float16 become float32 unless the activations are bfloat16 too.
_INSTRUCTIONS = {
    ("amx", "bf16"): "tdpbf16ps",
    ("amx", "int8"): "vpdpbusd zmm",
    ("amx", "fp32"): "vfmadd231ps zmm",
    ("avx512_bf16", "bf16"): "vdpbf16ps zmm",
    ("avx512_bf16", "int8"): "vpdpbusd zmm",
    ("avx512_bf16", "fp32"): "vfmadd231ps zmm",
    ("avx512_vnni", "int8"): "vpdpbusd zmm",
    ("avx512_vnni", "fp32"): "vfmadd231ps zmm",
    ("avx512", "int8"): "vpmaddubsw ymm",
    ("avx512", "fp32"): "vfmadd231ps zmm",
    ("avx2", "int8"): "vpmaddubsw ymm",
    ("avx2", "fp32"): "vfmadd231ps ymm",
    ("neon", "int8"): "int32 in C++",
    ("neon", "fp32"): "float in C++",
    ("scalar", "bf16"): "float in C++",
    ("scalar", "int8"): "int32 in C++",
    ("scalar", "fp32"): "float in C++",
}
READ = "read"


@dataclass(frozen=True)
class Case:
    """A kernel and a shape that the model calls it with."""

    index: int  # in the list of the compiled module
    kernel: str
    kind: str  # of arithmetic, a kind of roof; empty where only memory bounds it
    use: str
    shape: tuple[int, ...]  # m, k, n, heads; 0 where a kernel has none


@dataclass(frozen=True)
class Measured:
    """What one call took on one row of the kernel table."""

    case: Case
    isa: str
    threads: int
    seconds: Spread
    gb_s: float
    gop_s: float
    roof: str  # "read", or the instruction
    of_roof: float


@dataclass(frozen=True)
class Report:
    """All that one run of the command found."""

    machine: Machine
    roofs: list[Roofs] = field(default_factory=list)  # one for each number of threads
    measured: list[Measured] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pocketvlm bench kernels`."""
    parser.add_argument(
        "--isas",
        metavar="LIST",
        help=f"measure other rows of the kernel table too: some of {','.join(_core.isas())}",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="measure on N threads beside one (as many as this process may use)",
    )
    parser.add_argument(
        "--repeat", type=positive, default=15, metavar="N", help="samples of each kernel (%(default)s)"
    )
    parser.add_argument(
        "--filter", default="", metavar="TEXT", help="kernels and uses that contain TEXT only"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.set_defaults(func=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Run `pocketvlm bench kernels`: 0. Raises InputError for options that fit nothing here."""
    isas = name_list("--isas", args.isas, _core.isas()) if args.isas is not None else []
    if args.json is not None:
        require_writable(args.json)
    machine = this_machine(threads=args.threads)
    name_list("POCKETVLM_ISA", machine.isa, _core.isas())
    cases = {isa: select_cases(args.filter, isa) for isa in dict.fromkeys([machine.isa, *isas])}
    report = Report(machine)
    for threads in sorted({1, machine.threads}):
        roofs = measure_roofs(threads)
        report.roofs.append(roofs)
        pool = _core.ThreadPool(threads)
        for isa, chosen in cases.items():
            print(f"measuring {isa} on {_threads(threads)}: {len(chosen)} calls", file=sys.stderr)
            report.measured.extend(measure(case, isa, pool, roofs, repeat=args.repeat) for case in chosen)
    print(to_text(report))
    if args.json is not None:
        write_json(args.json, to_dict(report))
    return 0


def select_cases(text: str, isa: str) -> list[Case]:
    """Returns the cases of a row whose kernel or use contains `text`. Raises InputError where none does."""
    cases = [Case(*listed[:4], tuple(listed[4])) for listed in _core.kernel_cases(isa)]
    chosen = [case for case in cases if text in f"{case.kernel} {case.use}"]
    if not chosen:
        kernels = ", ".join(dict.fromkeys(case.kernel for case in cases))
        raise InputError(f"--filter: found {text!r}, expected part of one of: {kernels}")
    return chosen


def measure(case: Case, isa: str, pool: _core.ThreadPool, roofs: Roofs, *, repeat: int) -> Measured:
    """Times one case on one row of the kernel table and holds it against the roofs of as many threads."""
    samples, moved, operations = _core.time_kernel(case.index, isa=isa, pool=pool, repeat=repeat)
    seconds = Spread.of(samples)
    roof, shortest = bound(case.kind, isa, moved, operations, roofs)
    return Measured(
        case=case,
        isa=isa,
        threads=pool.num_threads,
        seconds=seconds,
        gb_s=moved / seconds.median / 1e9,
        gop_s=operations / seconds.median / 1e9,
        roof=roof,
        of_roof=shortest / seconds.median,
    )


def bound(kind: str, isa: str, moved: float, operations: float, roofs: Roofs) -> tuple[str, float]:
    """Returns the roof that bounds a call, and the seconds that it would take under it.

    Args:
        kind: What it computes in; empty where that is no bound.
        isa: The row of the kernel table.
        moved: Bytes that it fetches from memory and writes back.
        operations: Multiplications and additions.
        roofs: Of as many threads as share the call.
    """
    bounds = {READ: moved / roofs.read_gb_s / 1e9}
    if kind:
        instruction = _INSTRUCTIONS[isa, kind]
        bounds[instruction] = operations / roofs.by_instruction[instruction] / 1e9
    roof = max(bounds, key=lambda name: bounds[name])
    return roof, bounds[roof]


def shape_text(case: Case) -> str:
    """Writes a shape as m, k, n and heads, of those that the kernel has."""
    m, k, n, heads = case.shape
    return "x".join(str(size) for size in (m, k, n, heads if heads > 1 else 0) if size)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def to_text(report: Report) -> str:
    """Writes the report for people: a table for each row of the kernel table and number of threads."""
    lines = [report.machine.to_text()]
    for roofs in report.roofs:
        lines.append(
            f"Roofs on {_threads(roofs.threads)}: read {number(roofs.read_gb_s)} GB/s, "
            f"fp32 {number(roofs.fp32_gflop_s)} GFLOP/s, bf16 {number(roofs.bf16_gflop_s)} GFLOP/s, "
            f"int8 {number(roofs.int8_gop_s)} GOP/s; "
            + ", ".join(f"{name} {number(rate)}" for name, rate in roofs.by_instruction.items())
        )
    groups = dict.fromkeys((measured.isa, measured.threads) for measured in report.measured)
    headings = ["kernel", "use", "m x k x n\n(x heads)", "us", "GB/s", "GOP/s", "of roof", "roof"]
    for isa, threads in groups:
        rows = [
            [
                one.case.kernel,
                one.case.use,
                shape_text(one.case),
                number(one.seconds.median * 1e6),
                number(one.gb_s),
                number(one.gop_s) if one.gop_s else "-",
                f"{one.of_roof:.2f}",
                one.roof,
            ]
            for one in report.measured
            if (one.isa, one.threads) == (isa, threads)
        ]
        lines += ["", f"{isa}, {_threads(threads)}", "", table(headings, rows, names=3)]
    return "\n".join(lines)


def to_dict(report: Report) -> dict[str, Any]:
    """Gives the report to programs; benchmarks/README.md lists the keys."""
    return {
        "measurement": "kernels",
        "machine": asdict(report.machine),
        "roofs": [asdict(roofs) for roofs in report.roofs],
        "kernels": [
            {
                "kernel": one.case.kernel,
                "use": one.case.use,
                "shape": dict(zip(("m", "k", "n", "heads"), one.case.shape, strict=True)),
                "isa": one.isa,
                "threads": one.threads,
                "seconds": one.seconds.to_dict(),
                "gb_s": one.gb_s,
                "gop_s": one.gop_s,
                "roof": one.roof,
                "of_roof": one.of_roof,
            }
            for one in report.measured
        ],
    }
