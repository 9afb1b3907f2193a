"""The nm gate: an object compiled for one instruction set defines no symbol that the linker may merge.

An inline function or template that is instantiated in such an object (a std header is enough) becomes a weak
symbol full of AVX code, and the linker is free to pick that copy for the whole program: on a CPU without AVX
the program then dies anywhere. `make lint` runs this file over the objects that went into the wheel:

    python tests/house/check_isa_objects.py SOURCE_FOLDER BUILD_FOLDER [BUILD_FOLDER...]
"""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

# nm's letters for definitions that may be merged: weak functions, weak objects, unique globals.
MERGEABLE = "WwVvu"

# The address of the exception handler, for noexcept functions: no code, and the same in every object.
HARMLESS = {"DW.ref.__gxx_personality_v0"}

ISA_PREFIX = {"x86_64": "x86_", "AMD64": "x86_", "aarch64": "arm_", "arm64": "arm_"}


def mergeable_symbols(objects: list[Path]) -> list[str]:
    """List `object: letter symbol` for each mergeable definition in `objects`."""
    found = []
    for path in objects:
        command = ["nm", "--defined-only", "--demangle", str(path)]
        for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
            _, letter, symbol = line.split(maxsplit=2)
            if letter in MERGEABLE and symbol not in HARMLESS:
                found.append(f"{path}: {letter} {symbol}")
    return found


def objects_of(source_folder: Path, build_folder: Path) -> list[Path]:
    """The objects of every ISA kernel for this machine, by their sources' names; exits if one is missing."""
    prefix = ISA_PREFIX[platform.machine()]
    sources = sorted(source_folder.glob(f"kernels/**/{prefix}*.cc"))
    if not sources:
        sys.exit(f"{source_folder}/kernels: no file {prefix}*.cc: nothing to check, which cannot be right")
    objects = []
    for source in sources:
        tail = str(source.relative_to(source_folder.parent)) + ".o"
        matching = [path for path in build_folder.rglob(f"{source.name}.o") if str(path).endswith(tail)]
        if not matching:
            sys.exit(
                f"{build_folder}: no object of {source}: is it in CMakeLists.txt, is the build complete?"
            )
        objects += matching
    return objects


def main(argv: list[str]) -> int:
    """Check the objects of the sources below argv[0] in each folder after it: 1 when a symbol can leak."""
    source_folder, *build_folders = (Path(argument).resolve() for argument in argv)
    objects = [path for folder in build_folders for path in objects_of(source_folder, folder)]
    leaks = mergeable_symbols(objects)
    if leaks:
        print("\n".join(leaks))
        print("These can replace code of the whole program: put them into an anonymous namespace.")
        return 1
    print(f"nm: {len(objects)} objects of instruction-set kernels, no mergeable symbol")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
