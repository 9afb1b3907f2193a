"""Peak memory counts what was held at most, and never goes down."""

from __future__ import annotations

import subprocess
import sys


def test_the_peak_follows_what_is_held_and_stays() -> None:
    code = (
        "from pocketvlm.memory import peak_resident_bytes as peak\n"
        "before = peak()\n"
        "block = bytearray(b'x') * 50_000_000\n"
        "held = peak()\n"
        "del block\n"
        "print(before, held, peak())\n"
    )
    output = subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True
    ).stdout
    before, held, after = map(int, output.split())
    assert 45_000_000 < held - before < 60_000_000
    assert abs(after - held) < 5_000_000  # the system counts in lots of some pages
