"""Peak memory of a command, measured from outside; `pocketvlm bench memory` does it for `describe`.

The figure is the resident set as the kernel counts it, so it holds everything: the interpreter, the
libraries, mapped file pages, the packed weights. control_group.py adds the hard limit.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pocketvlm.errors import InputError, UnsupportedError

from .control_group import MemoryControlGroup, memory_control_group
from .picture import write_generated_picture
from .process_memory import process_tree, resident_bytes, status_bytes

SAMPLE_INTERVAL_S = 0.005

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class MemoryReport:
    """What one run of a command used, and how it ended.

    Attributes:
        exit_code: The command's exit code, or minus the signal that ended it.
        killed_for_memory: Whether the kernel killed a process at the limit; False without a limit.
        peak_rss_bytes: Highest resident memory of the process tree: the larger of samples and of the marks
            that the kernel keeps.
        sampled_peak_bytes: The highest sample of RssAnon + RssFile + VmSwap of the tree.
        control_group_peak_bytes: Highest memory charged to the group, page cache included; None without a
            limit and where the kernel keeps no peak.
    """

    command: tuple[str, ...]
    exit_code: int
    killed_for_memory: bool
    peak_rss_bytes: int
    sampled_peak_bytes: int
    control_group_peak_bytes: int | None
    limit_bytes: int | None
    wall_s: float
    stdout: str
    stderr: str


def measure(command: Sequence[str], *, limit_bytes: int | None = None) -> MemoryReport:
    """Run `command` and measure it from outside.

    With `limit_bytes` it runs inside a control group with that hard limit and no swap.
    Raises UnsupportedError where /proc or the control group is missing.
    """
    if limit_bytes is None:
        return _run(tuple(command), limit_bytes=None, group=None)
    with memory_control_group(limit_bytes) as group:
        return _run(tuple(command), limit_bytes=limit_bytes, group=group)


def _run(
    command: tuple[str, ...], *, limit_bytes: int | None, group: MemoryControlGroup | None
) -> MemoryReport:
    launched: tuple[str, ...] = command
    if group is not None:
        # The shell moves itself into the group, then becomes the command: no page of it is charged elsewhere.
        launched = ("/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group.procs), *command)
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        started = time.perf_counter()
        exit_code, peak_rss_bytes, sampled_peak_bytes = _run_and_sample(launched, stdout, stderr)
        wall_s = time.perf_counter() - started
        stdout.seek(0)
        stderr.seek(0)
        report = MemoryReport(
            command=command,
            exit_code=exit_code,
            killed_for_memory=group is not None and group.oom_kills() > 0,
            peak_rss_bytes=peak_rss_bytes,
            sampled_peak_bytes=sampled_peak_bytes,
            control_group_peak_bytes=group.peak_bytes() if group is not None else None,
            limit_bytes=limit_bytes,
            wall_s=wall_s,
            stdout=stdout.read(),
            stderr=stderr.read(),
        )
    if report.control_group_peak_bytes == 0:
        raise UnsupportedError(f"the command could not enter its control group: {report.stderr.strip()}")
    return report


def _run_and_sample(command: Sequence[str], stdout: IO[str], stderr: IO[str]) -> tuple[int, int, int]:
    """Run `command` to its end: (exit code or minus the signal, peak of its process tree, highest sample).

    The peak has three sources, the largest counts. Samples miss what is between them. VmHWM in /proc is each
    process's own high-water mark, exact but gone when the process is, so a rise in the last milliseconds can
    be missed. ru_maxrss from wait4 misses nothing, but a child inherits the high-water mark of the process
    that forked it and keeps it through exec: at or below our own mark it says nothing about the child. Ours
    is read after the start, which itself may raise it.
    """
    if "VmHWM" not in status_bytes(os.getpid()):
        raise UnsupportedError("/proc/self/status has no VmHWM: memory is measured on Linux only")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
    inherited_peak = status_bytes(os.getpid())["VmHWM"] + _mark_error_bytes()
    peak = sampled_peak = 0
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid != 0:
                process.returncode = os.waitstatus_to_exitcode(status)
                break
            marks = [status_bytes(member) for member in process_tree(process.pid)]
            sampled_peak = max(sampled_peak, resident_bytes(marks))
            peak = max(peak, sampled_peak, *(mark.get("VmHWM", 0) for mark in marks))
            time.sleep(SAMPLE_INTERVAL_S)
    except BaseException:
        process.kill()
        process.wait()
        raise
    at_exit = usage.ru_maxrss * 1024
    return process.returncode, max(peak, at_exit) if at_exit > inherited_peak else peak, sampled_peak


def _mark_error_bytes() -> int:
    """How far two readings of one high-water mark may be apart.

    The kernel counts pages of files, of shared and of anonymous memory on each processor and adds a count
    to the sum when it reaches a batch: 32, or twice the number of processors where that is more.
    """
    processors = os.cpu_count() or 1
    return 3 * processors * max(32, 2 * processors) * os.sysconf("SC_PAGE_SIZE")


def parse_size(text: str) -> int:
    """Read a size such as 1GB (10**9 bytes), 512MiB (2**20 each) or 1000000. Raises InputError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise InputError(f"size {text!r}: expected a number with one of B, KB, MB, GB, KiB, MiB, GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def evict_from_page_cache(folder: Path) -> None:
    """Drop a folder's files from the page cache, so that whoever reads them next is charged for it."""
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())  # only clean pages can be dropped
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pocketvlm bench memory`."""
    parser.add_argument(
        "image", nargs="?", type=Path, help="image file (default: a generated one, 1536x1152)"
    )
    parser.add_argument("-m", "--model", help="as in `pocketvlm describe`")
    parser.add_argument("--threads", type=int, metavar="N", help="as in `pocketvlm describe`")
    parser.add_argument("--max-new-tokens", type=int, default=32, metavar="N", help="default: %(default)s")
    parser.add_argument("--limit", metavar="SIZE", help="hard memory limit, without swap: 1GB, 512MiB, ...")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Run `pocketvlm bench memory`: 0 when the description succeeded, 1 when it failed or was killed."""
    limit_bytes = parse_size(args.limit) if args.limit is not None else None
    if limit_bytes is not None and args.model is not None and Path(args.model).is_dir():
        evict_from_page_cache(Path(args.model))
    with tempfile.TemporaryDirectory(prefix="pocketvlm-bench-") as scratch:
        image = args.image
        if image is None:
            image = write_generated_picture(Path(scratch))
        command = [sys.executable, "-m", "pocketvlm", "describe", str(image), "--json"]
        command += ["--max-new-tokens", str(args.max_new_tokens)]
        if args.model is not None:
            command += ["-m", args.model]
        if args.threads is not None:
            command += ["--threads", str(args.threads)]
        report = measure(command, limit_bytes=limit_bytes)
    print(json.dumps(_to_dict(report)) if args.json else _to_text(report))
    if report.exit_code != 0:
        sys.stderr.write(report.stderr)
    return 0 if report.exit_code == 0 else 1


def _to_dict(report: MemoryReport) -> dict[str, Any]:
    return {
        "command": list(report.command),
        "exit_code": report.exit_code,
        "killed_for_memory": report.killed_for_memory,
        "peak_rss_bytes": report.peak_rss_bytes,
        "sampled_peak_bytes": report.sampled_peak_bytes,
        "control_group_peak_bytes": report.control_group_peak_bytes,
        "limit_bytes": report.limit_bytes,
        "wall_s": round(report.wall_s, 3),
        "result": json.loads(report.stdout) if report.exit_code == 0 else None,
    }


def _to_text(report: MemoryReport) -> str:
    def megabytes(count: int) -> str:
        return f"{count / 1e6:,.1f} MB"

    lines = [
        f"peak resident memory   {megabytes(report.peak_rss_bytes)}, whole process tree, from outside",
        f"highest sample         {megabytes(report.sampled_peak_bytes)}, one in {SAMPLE_INTERVAL_S:g} s",
    ]
    if report.limit_bytes is not None:
        lines.append(f"hard limit             {megabytes(report.limit_bytes)}, no swap")
    if report.control_group_peak_bytes is not None:
        charged = megabytes(report.control_group_peak_bytes)
        lines.append(f"charged to the group   {charged} at most, page cache included")
    if report.killed_for_memory:
        ending = "killed by the kernel: out of memory at the limit"
    elif report.exit_code < 0:
        ending = f"ended by {signal.Signals(-report.exit_code).name}"
    else:
        ending = "succeeded" if report.exit_code == 0 else f"failed with exit code {report.exit_code}"
    lines.append(f"pocketvlm describe     {ending} after {report.wall_s:.1f} s")
    return "\n".join(lines)
