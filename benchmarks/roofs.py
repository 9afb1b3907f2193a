"""What the machine can do at most: the roofs that other measurements are stated as fractions of.

The loops are csrc/kernels/roof; they compute in registers, or read memory once. A roof is measured in the run
that uses it: the same machine gives another one a minute later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pocketvlm import _core

# Long enough to meet a few quiet milliseconds, short enough to be measured in every run.
_SECONDS = 0.06
_READ_SECONDS = 0.2


@dataclass(frozen=True)
class Roofs:
    """The best rate of each kind on some threads together; a multiplication and an addition are two."""

    threads: int
    read_gb_s: float
    fp32_gflop_s: float
    bf16_gflop_s: float  # what fp32 gives where the processor has no instruction for it
    int8_gop_s: float
    by_instruction: dict[str, float] = field(default_factory=dict)  # GFLOP/s, GOP/s or GB/s

    @classmethod
    def of(cls, rates: Iterable[tuple[str, str, float]], *, threads: int) -> Roofs:
        """Returns the roofs that (kind, instruction, rate) make: of each kind the best instruction."""
        rates = list(rates)
        best: dict[str, float] = {}
        for kind, _, rate in rates:
            best[kind] = max(rate, best.get(kind, 0.0))
        return cls(
            threads=threads,
            read_gb_s=best["read"],
            fp32_gflop_s=best["fp32"],
            bf16_gflop_s=best.get("bf16", best["fp32"]),
            int8_gop_s=best["int8"],
            by_instruction={instruction: rate for _, instruction, rate in rates},
        )

    @classmethod
    def best_of(cls, measured: Sequence[Roofs]) -> Roofs:
        """Returns the highest of each rate: what else ran may lower a roof, nothing makes it too high."""
        rates = [roofs.by_instruction for roofs in measured]
        return cls(
            threads=measured[0].threads,
            read_gb_s=max(roofs.read_gb_s for roofs in measured),
            fp32_gflop_s=max(roofs.fp32_gflop_s for roofs in measured),
            bf16_gflop_s=max(roofs.bf16_gflop_s for roofs in measured),
            int8_gop_s=max(roofs.int8_gop_s for roofs in measured),
            by_instruction={name: max(each[name] for each in rates) for name in rates[0]},
        )


def measure_roofs(threads: int) -> Roofs:
    """Measures every instruction that this processor has, on `threads` threads: about a second and a half.

    Reads 256 MiB, split among the threads, again and again: more than most last-level caches hold. Where a
    cache is larger, the roof is that of the cache.

    Raises:
        Error: A loop did not compute what it should have.
    """
    pool = _core.ThreadPool(threads)
    rates = []
    for roof in _core.roofs(_core.cpu_features()):
        seconds = _READ_SECONDS if roof.kind == "read" else _SECONDS
        rate = _core.measure_roof(roof.instruction, pool, seconds=seconds) / 1e9
        rates.append((roof.kind, roof.instruction, rate))
    return Roofs.of(rates, threads=threads)
