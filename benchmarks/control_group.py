"""A hard memory limit from the kernel: one control group (cgroup v1 or v2) for the time of a measurement.

Only groups made here are written to, and each is removed afterwards. What runs inside is memory.py's part.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pocketvlm.errors import UnsupportedError

_HELP = (
    "A hard limit needs Linux, the memory controller, and the right to make a control group: run as root, "
    "or in a delegated scope (systemd-run --user --scope -p Delegate=yes COMMAND)."
)


@dataclass(frozen=True)
class MemoryControlGroup:
    """One control group with a memory limit and no swap."""

    folder: Path
    version: int

    @property
    def procs(self) -> Path:
        """The file that moves a process in: its id is written there."""
        return self.folder / "cgroup.procs"

    def peak_bytes(self) -> int | None:
        """The highest use so far, page cache included.

        0 when nothing ever ran inside, None where the kernel keeps no peak (version 2 before Linux 5.19).
        """
        peak = self.folder / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")
        return int(peak.read_text()) if peak.exists() else None

    def oom_kills(self) -> int:
        """How many processes of the group the kernel killed because the limit was reached."""
        events = self.folder / ("memory.oom_control" if self.version == 1 else "memory.events")
        counts = dict(line.split() for line in events.read_text().splitlines())
        return int(counts["oom_kill"])


@dataclass(frozen=True)
class Place:
    """Where a group may be made: `folder` is the control group to make it in."""

    folder: Path
    version: int


@contextlib.contextmanager
def memory_control_group(limit_bytes: int) -> Iterator[MemoryControlGroup]:
    """Make a control group that may use `limit_bytes` of memory and no swap.

    At the end it is removed and whoever is left in it killed. Raises UnsupportedError where none can be made.
    """
    place = find_place(Path("/proc/self/cgroup"), Path("/proc/self/mountinfo"))
    folder = place.folder / f"pocketvlm-{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder.mkdir()
    except OSError as error:
        raise UnsupportedError(
            f"{place.folder}: cannot make a control group: {error.strerror}. {_HELP}"
        ) from error
    group = MemoryControlGroup(folder, place.version)
    try:
        try:
            _set_limit(group, limit_bytes)
        except OSError as error:
            raise UnsupportedError(f"{folder}: cannot limit memory: {error}. {_HELP}") from error
        yield group
    finally:
        _remove(group)


def find_place(membership: Path, mounts: Path) -> Place:
    """Find this process's own group under the memory controller from its two files in /proc/self."""
    if not membership.exists():
        raise UnsupportedError(f"{membership} is not there. {_HELP}")
    paths = {}  # controllers of a hierarchy -> this process's path in it
    for line in membership.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    for line in mounts.read_text().splitlines():
        before, after = line.split(" - ", 1)
        root, mount_point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind == "cgroup" and "memory" in options.split(","):
            path = next(path for controllers, path in paths.items() if "memory" in controllers.split(","))
            return Place(_below(mount_point, root, path), version=1)
        if kind == "cgroup2" and "" in paths:
            own = _below(mount_point, root, paths[""])
            if "memory" in (own / "cgroup.controllers").read_text().split():
                return Place(_with_memory_children(own), version=2)
    raise UnsupportedError(f"no mounted control group hierarchy has the memory controller. {_HELP}")


def _below(mount_point: str, root: str, path: str) -> Path:
    """Where `path` of a hierarchy lies in the file system, with the hierarchy's `root` at `mount_point`."""
    inside = path.removeprefix(root) if root != "/" else path
    return Path(mount_point, inside.strip("/"))


def _with_memory_children(own: Path) -> Path:
    """The version 2 group to make a child in: ours, or the one above.

    Ours holds processes, and such a group may not hand the memory controller on: mostly it is the one above.
    """
    for folder in (own, own.parent):
        control = folder / "cgroup.subtree_control"
        if control.exists() and "memory" in control.read_text().split():
            return folder
    raise UnsupportedError(
        f"neither {own} nor the group above hands the memory controller to its children. {_HELP}"
    )


def _set_limit(group: MemoryControlGroup, limit_bytes: int) -> None:
    if group.version == 2:
        (group.folder / "memory.max").write_text(str(limit_bytes))
        swap = group.folder / "memory.swap.max"
        limit_with_swap = "0"
    else:
        (group.folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
        swap = group.folder / "memory.memsw.limit_in_bytes"  # memory and swap together
        limit_with_swap = str(limit_bytes)
    if swap.exists():
        swap.write_text(limit_with_swap)
    elif len(Path("/proc/swaps").read_text().splitlines()) > 1:  # the first line is a heading
        raise UnsupportedError(
            f"{group.folder}: this kernel lets every group swap: turn swap off first (swapoff -a)"
        )


def _remove(group: MemoryControlGroup) -> None:
    """Kill what is left inside and remove the group, once the kernel has let go of the last process."""
    deadline = time.monotonic() + 5.0
    while True:
        for pid in group.procs.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            group.folder.rmdir()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
