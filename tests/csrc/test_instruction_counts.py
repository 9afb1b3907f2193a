"""The hot kernels take as many instructions as they did: a guard of their speed that needs no quiet machine.

Counts are the compiler's: instruction_counts/expected.json has them by name and version, as "GNU 12". After a
change that is meant to change them: `python tests/csrc/instruction_counts/count.py --rewrite`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pocketvlm import _core

FOLDER = Path(__file__).parent / "instruction_counts"
EXPECTED: dict[str, dict[str, int]] = json.loads((FOLDER / "expected.json").read_text())

# A compiler's minor versions and libc differ by less; losing a vector or an unrolling costs more.
TOLERANCE = 0.03


def needs(there: bool, what: str) -> None:
    """Skips where something is missing; in CI that is a failure."""
    if not there and os.environ.get("CI") == "true":
        pytest.fail(f"missing: {what}")
    if not there:
        pytest.skip(f"missing: {what}")


def test_counts_are_the_expected_ones() -> None:
    if platform.machine() != "x86_64":
        pytest.skip("counts are of x86-64")
    needs(shutil.which("valgrind") is not None, "valgrind (Debian: valgrind)")
    needs("avx2" in _core.isas(), "a processor with AVX2")
    command = [sys.executable, str(FOLDER / "count.py")]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    if found["compiler"] not in EXPECTED:
        pytest.skip(f"no counts of {found['compiler']}, only of {', '.join(EXPECTED)}")
    expected = EXPECTED[found["compiler"]]
    assert found["counts"].keys() == expected.keys()
    changed = [
        f"{name}: {count:,} instructions, expected {expected[name]:,} ({count / expected[name] - 1:+.1%})"
        for name, count in found["counts"].items()
        if abs(count - expected[name]) > TOLERANCE * expected[name]
    ]
    assert not changed, "\n".join(changed)
