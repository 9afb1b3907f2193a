"""Energy that the processor counts (RAPL), where the kernel lets it be read."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

# One folder for each package of the machine; its parts have names with another colon.
_ZONES = Path("/sys/class/powercap")


class EnergyMeter(AbstractContextManager["EnergyMeter"]):
    """Counts joules of all processor packages while its context lasts.

    Attributes:
        joules: After the context; None where there is no such counter, or it may not be read.
    """

    def __init__(self, zones: Path = _ZONES) -> None:
        self.joules: float | None = None
        self._zones = sorted(zones.glob("intel-rapl:[0-9]*"))
        self._zones = [zone for zone in self._zones if zone.name.count(":") == 1]
        self._before: list[int] = []

    @property
    def is_readable(self) -> bool:
        """Whether there is something to count."""
        return bool(self._zones) and bool(self._read())

    def __enter__(self) -> EnergyMeter:
        self.joules = None
        self._before = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        after = self._read()
        if self._before and len(after) == len(self._before):
            self.joules = sum(map(self._difference, self._zones, self._before, after)) / 1e6

    def _read(self) -> list[int]:
        """Microjoules of each zone; none unless all can be read."""
        try:
            return [int((zone / "energy_uj").read_text()) for zone in self._zones]
        except OSError:
            return []

    @staticmethod
    def _difference(zone: Path, before: int, after: int) -> int:
        """The counter begins again at its end."""
        return (
            after - before
            if after >= before
            else after - before + int((zone / "max_energy_range_uj").read_text())
        )
