"""How much memory this process has held at most, as the operating system counts it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_resident_bytes() -> int:
    """Returns the peak resident set of this process so far, in bytes. Child processes are not in it."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    # getrusage would, on Linux, count what the process was before exec.
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
