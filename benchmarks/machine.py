"""The facts about a machine and an installation without which a measurement says nothing."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from pocketvlm import __version__, _core


@dataclass(frozen=True)
class Machine:
    """Where and with what something was measured."""

    cpu: str
    cores: int  # that this process may use
    memory_bytes: int
    threads: int  # that computed
    isa: str  # the row of kernels that computed
    load_average: float  # of the last minute; what else runs takes time away from what is measured
    governor: str  # that sets the clock of the cores; "unknown" where the kernel does not tell
    system: str
    python: str
    pocketvlm: str
    commit: str  # that was built; "unknown" without git
    compiler: str  # that built it

    def to_text(self) -> str:
        """Returns two lines for the head of a table."""
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_bytes / 1e9:.1f} GB, {self.system}, "
            f"governor {self.governor}; load average before: {self.load_average:.2f}\n"
            f"pocketvlm {self.pocketvlm} ({self.commit}, {self.compiler}), kernels {self.isa}, "
            f"{self.threads} threads, Python {self.python}"
        )


def this_machine(*, threads: int | None = None) -> Machine:
    """Returns the facts for a computation with `threads`, by default as many as `load` would use."""
    return Machine(
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        threads=threads or _core.default_threads(),
        isa=os.environ.get("POCKETVLM_ISA") or _core.isas()[0],
        load_average=os.getloadavg()[0],
        governor=_governor(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        pocketvlm=__version__,
        commit=_core.build_info()["commit"],
        compiler=_core.build_info()["compiler"],
    )


def _cpu_name() -> str:
    """The kernel's name for the CPU; where it has none, as on ARM, the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(
        r"^model name\s*: (.+)$", cpuinfo.read_text() if cpuinfo.exists() else "", re.MULTILINE
    )
    return names[0].strip() if names else platform.machine()


def _governor() -> str:
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return governor.read_text().strip() if governor.exists() else "unknown"
