"""Counts the instructions of the scalar and AVX2 kernels: builds main.cc and runs it under callgrind.

python count.py              prints the counts
python count.py --rewrite    makes them the expected ones of this compiler, in expected.json
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
EXPECTED = FOLDER / "expected.json"


def run(*command: str | Path) -> str:
    """Returns what the command prints; exits with that where the command fails."""
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{command[0]}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def build(folder: Path) -> Path:
    """Builds the program and the kernels, not the rest of the core, with the flags of a release."""
    options = ("-DPOCKETVLM_PYTHON=OFF", "-DPOCKETVLM_BUILD_TESTS=ON", "-DCMAKE_BUILD_TYPE=Release")
    run("cmake", "-S", FOLDER.parents[2], "-B", folder, *options)
    run("cmake", "--build", folder, "--target", "instruction_counts", "--parallel", str(os.cpu_count() or 1))
    return folder / "instruction_counts"


def count(program: Path, folder: Path) -> tuple[str, dict[str, int]]:
    """Returns the compiler, as "GNU 12", and the instructions of each call by its name.

    callgrind writes a file each time run_kernel returns, with what happened inside it since the file before.
    """
    function = "run_kernel"
    output = folder / "callgrind.out"
    lines = run(
        "valgrind",
        "--tool=callgrind",
        f"--toggle-collect={function}",
        f"--dump-after={function}",
        f"--callgrind-out-file={output}",
        program,
    ).splitlines()
    compiler, names = lines[0], lines[1:]
    counts = {}
    for part, name in enumerate(names, 1):
        text = Path(f"{output}.{part}").read_text(encoding="utf-8")
        found = re.search(r"^(?:summary|totals): (\d+)", text, re.MULTILINE)
        if found is None:
            sys.exit(f"{output}.{part}: no line of totals")
        counts[name] = int(found[1])
    return compiler, counts


def main(arguments: list[str]) -> int:
    """Print the counts as JSON, or make them the expected ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compiler, counts = count(build(folder / "build"), folder)
    if arguments == ["--rewrite"]:
        expected = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
        expected[compiler] = counts
        EXPECTED.write_text(json.dumps(expected, indent=2) + "\n")
        print(f"{EXPECTED}: {len(counts)} counts of {compiler}")
    else:
        print(json.dumps({"compiler": compiler, "counts": counts}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
