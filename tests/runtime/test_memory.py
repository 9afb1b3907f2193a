"""Peak memory counts what was held at most, and never goes down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def numbers_printed_by(code: str) -> tuple[int, ...]:
    """What a process of its own prints, which runs `code`."""
    command = [sys.executable, "-P", "-c", code]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return tuple(map(int, output.split()))


def test_the_peak_follows_what_is_held_and_stays() -> None:
    code = (
        "from pocketvlm.memory import peak_resident_bytes as peak\n"
        "before = peak()\n"
        "block = bytearray(b'x') * 50_000_000\n"
        "held = peak()\n"
        "del block\n"
        "print(before, held, peak())\n"
    )
    before, held, after = numbers_printed_by(code)
    assert 45_000_000 < held - before < 60_000_000
    assert abs(after - held) < 5_000_000  # the system counts in lots of some pages


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no large pages to ask for"
)
def test_packed_weights_ask_for_large_pages() -> None:
    code = (
        "import re\n"
        "import pocketvlm\n"
        "model = pocketvlm.load('demo')\n"
        "maps = re.split(r'\\n(?=[0-9a-f]+-[0-9a-f]+ )', open('/proc/self/smaps').read())\n"
        "asked = [m for m in maps if ' hg' in m[m.index('VmFlags'):]]\n"
        "held = sum(int(re.search(r'Rss: *(\\d+)', m)[1]) for m in asked) * 1024\n"
        "print(held, model.info()['weight_bytes'])\n"
    )
    held, weights = numbers_printed_by(code)
    assert weights > 1_000_000
    # Norms and biases are held elsewhere; a chunk's last page is whole.
    assert 0.95 * weights < held < weights + 2 * 2**21
