"""The virtual environments of peers: what each needs, and `pocketvlm bench prepare`, which makes them.

Peers have dependencies that exclude each other, and none of them is ours: each lives in an environment of its
own. The versions are those that are known to work together.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import filelock

from pocketvlm.errors import Error
from pocketvlm.export.options import name_list

from .logged_command import run_logged
from .options import add_work_dir, default_work_dir
from .report import table

# torch comes first: other packages would bring a build of several GB.
_TORCH = ("torch==2.13.0",)


@dataclass(frozen=True)
class Environment:
    """What an environment holds.

    Attributes:
        requirements: What each run of pip installs, in this order.
        variables: Set while pip runs.
        about: What it takes to make, for people who wait.
    """

    requirements: tuple[tuple[str, ...], ...]
    about: str
    variables: Mapping[str, str] = field(default_factory=dict)


def _llama_cpp_variables() -> dict[str, str]:
    """Leaves AMX out of a build that would have it: this version crashes when it decodes q8_0 with it."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or "amx_tile" not in cpuinfo.read_text():
        return {}
    flags = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    return {"CMAKE_ARGS": f"-DCMAKE_C_FLAGS='{flags}' -DCMAKE_CXX_FLAGS='{flags}'"}


ENVIRONMENTS = {
    "llama.cpp": Environment(
        # A wheel that pip built before may have been built with other variables.
        (("--no-cache-dir", "llama-cpp-python==0.3.36"),),
        "compiles llama.cpp, about four minutes on two cores",
        _llama_cpp_variables(),
    ),
    "openvino": Environment(
        (
            _TORCH,
            ("transformers==4.57.6", "openvino==2026.4.1", "openvino-tokenizers==2026.4.1.0", "nncf==3.4.0"),
            # These ask for a torchvision that has no build for every torch; nothing here uses it.
            ("--no-deps", "optimum==2.3.0", "optimum-intel==2.2.0"),
            ("pillow>=13,<14",),
        ),
        "1.6 GB",
    ),
    "transformers": Environment((_TORCH, ("transformers==5.23.0", "pillow>=13,<14")), "1.1 GB"),
    "onnxruntime": Environment(
        (
            _TORCH,
            (
                "onnxruntime==1.32.0",
                "onnx==1.23.2",
                "onnxscript==0.7.2",
                "transformers==5.23.0",
                "pillow>=13,<14",
            ),
        ),
        "1.3 GB",
    ),
}


def environment_folder(name: str, work_dir: Path) -> Path:
    """Returns where the environment called `name` lies or would lie."""
    return work_dir.expanduser().resolve() / "environments" / name


def find_python(name: str, work_dir: Path) -> Path | None:
    """Returns the interpreter of an environment that was prepared with what it needs now; None without."""
    folder = environment_folder(name, work_dir)
    return folder / "bin" / "python" if _is_prepared(name, folder) else None


def how_to_prepare(name: str, work_dir: Path) -> str:
    """Returns the command that makes the environment called `name`."""
    option = "" if work_dir == default_work_dir() else f" --work-dir {work_dir}"
    return f"pocketvlm bench prepare {name}{option}"


def prepare(name: str, work_dir: Path) -> None:
    """Makes an environment; one that was begun and not finished is made anew.

    What pip says goes into a file beside it. Of several processes one makes it, the others wait.

    Raises:
        Error: pip, or the folder, failed.
    """
    folder = environment_folder(name, work_dir)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Error(f"{folder.parent}: cannot be made: {error.strerror}; --work-dir names another") from error
    with filelock.FileLock(f"{folder}.lock"):
        if _is_prepared(name, folder):
            return
        shutil.rmtree(folder, ignore_errors=True)
        environment = ENVIRONMENTS[name]
        print(f"{name}: {environment.about}", file=sys.stderr)
        log = folder.with_name(f"{name}.log")
        log.unlink(missing_ok=True)
        _run([sys.executable, "-m", "venv", str(folder)], log)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
        for requirements in environment.requirements:
            print(f"{name}: pip install {' '.join(requirements)}", file=sys.stderr)
            _run([*pip, *requirements], log, environment.variables)
        _stamp(folder).write_text(_content(name))


def python_environment(*, own: bool = False) -> dict[str, str]:
    """Returns the environment variables for an interpreter that measures; nothing is looked up on the hub.

    Args:
        own: Whether what PYTHONPATH puts in front of packages is meant for it too: not in an environment
            that was made here.
    """
    inherited = {name: value for name, value in os.environ.items() if own or name != "PYTHONPATH"}
    return inherited | {"HF_HUB_OFFLINE": "1"}


def _run(command: Sequence[str], log: Path, variables: Mapping[str, str] | None = None) -> None:
    if failure := run_logged(command, log, python_environment() | dict(variables or {})):
        raise Error(f"{subprocess.list2cmdline(command)}: {failure}")


def _stamp(folder: Path) -> Path:
    """The file that says what an environment was made of; without it, it was not finished."""
    return folder / "pocketvlm-environment.json"


def _content(name: str) -> str:
    environment = ENVIRONMENTS[name]
    return json.dumps(
        {"requirements": environment.requirements, "variables": dict(environment.variables)}, indent=2
    )


def _is_prepared(name: str, folder: Path) -> bool:
    return _stamp(folder).is_file() and _stamp(folder).read_text() == _content(name)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pocketvlm bench prepare`."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="PEER",
        help=f"some of {', '.join(ENVIRONMENTS)} (all of them)",
    )
    parser.add_argument("--list", action="store_true", help="only show what is prepared and what is not")
    add_work_dir(parser)
    parser.set_defaults(func=run_command)


def run_command(args: argparse.Namespace) -> int:
    """Run `pocketvlm bench prepare`: 0, or 1 when some environment could not be made."""
    names = name_list("PEER", ",".join(args.names), ENVIRONMENTS) if args.names else list(ENVIRONMENTS)
    failed = False
    if not args.list:
        for name in names:
            started = time.perf_counter()
            try:
                prepare(name, args.work_dir)
            except Error as error:  # the other peers can be there all the same
                print(f"pocketvlm: error: {name}: {error}", file=sys.stderr)
                failed = True
            else:
                print(f"{name}: ready after {time.perf_counter() - started:.0f} s", file=sys.stderr)
    rows = []
    for name in names:
        folder = environment_folder(name, args.work_dir)
        state = str(folder) if _is_prepared(name, folder) else how_to_prepare(name, args.work_dir)
        rows.append([name, "ready" if _is_prepared(name, folder) else "absent", state])
    print(table(["peer", "state", "where, or the command that prepares it"], rows, names=3))
    return 1 if failed else 0
