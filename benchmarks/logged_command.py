"""Long commands of others: what they say goes into a file, what went wrong into the error."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_logged(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> str | None:
    """Runs a command; what it says is added to `log`.

    Returns:
        None, or how it failed: its exit code, the last line that speaks of an error, and where the rest is.
    """
    with log.open("a") as said:
        child = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment
        )
    if child.returncode == 0:
        return None
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    errors = [line for line in lines if "error" in line.lower()] or lines
    return f"exit code {child.returncode}: {errors[-1].strip()}; all of it: {log}"
