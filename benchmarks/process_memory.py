"""Memory of a process and all its descendants as the kernel counts it: at one moment, and over time."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of all processes of a tree together."""

    resident: int  # RssAnon + RssFile + VmSwap: what they hold now
    high_water: int  # VmHWM, the kernel's own mark of the most that each ever held resident


def memory_of_tree(pid: int) -> MemoryUse:
    """Returns the memory of a process and its descendants; zeros when they have ended."""
    marks = [status_bytes(member) for member in process_tree(pid)]
    return MemoryUse(
        resident=resident_bytes(marks),
        high_water=sum(mark.get("VmHWM", 0) for mark in marks),
    )


def resident_bytes(marks: Iterable[Mapping[str, int]]) -> int:
    """Returns RssAnon + RssFile + VmSwap of processes together, from what `status_bytes` says of each."""
    return sum(mark.get(part, 0) for mark in marks for part in ("RssAnon", "RssFile", "VmSwap"))


def process_tree(pid: int) -> Iterator[int]:
    """Yields `pid` and all its living descendants."""
    yield pid
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from process_tree(int(child))


def status_bytes(pid: int) -> dict[str, int]:
    """Returns the memory lines of /proc/PID/status in bytes; empty for a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    lines = re.findall(r"^(Vm\w+|Rss\w+):\s+(\d+) kB$", text, re.MULTILINE)
    return {name: int(kilobytes) * 1024 for name, kilobytes in lines}


class MemorySampler(AbstractContextManager["MemorySampler"]):
    """Looks at the memory of a process tree again and again, from a thread, while the context lasts.

    Attributes:
        samples: (time.perf_counter() in seconds, resident bytes), oldest first.
        high_water: The largest `MemoryUse.high_water` seen.
    """

    def __init__(self, pid: int, *, interval_s: float = 0.05) -> None:
        self.samples: list[tuple[float, int]] = []
        self.high_water = 0
        self._pid = pid
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def peak(self) -> int:
        """The most resident bytes of any sample."""
        return max((bytes for _, bytes in self.samples), default=0)

    def __enter__(self) -> MemorySampler:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._sample()  # a peak that was reached since the last look is in the mark of the kernel

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self._sample()

    def _sample(self) -> None:
        use = memory_of_tree(self._pid)
        self.samples.append((time.perf_counter(), use.resident))
        self.high_water = max(self.high_water, use.high_water)
