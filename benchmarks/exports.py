"""What `pocketvlm export` makes for measurements, in child processes, and keeps for the next run.

What is kept is used again only by the export that made it: a change of its code makes everything anew.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import filelock

from pocketvlm.errors import Error


def make(out: Path, *arguments: str) -> None:
    """Runs `pocketvlm export ARGUMENTS --force`, which writes `out`, and stamps it. Raises Error."""
    print(f"making {out.name} in {out.parent}", file=sys.stderr)
    stamp(out).unlink(missing_ok=True)
    # -P: the folder we are started in is not a place to import from.
    command = [sys.executable, "-P", "-m", "pocketvlm.export", *arguments, "--force"]
    # On a terminal the child shows its progress bar; elsewhere its words go into the error.
    stderr = None if sys.stderr.isatty() else subprocess.PIPE
    child = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=stderr, text=True)
    if child.returncode:
        said = (child.stderr or "see above").strip().splitlines()
        raise Error(f"{out}: cannot be made (exit code {child.returncode}): {said[-1].split('error: ')[-1]}")
    stamp(out).write_text(_export_code())


def is_made(out: Path) -> bool:
    """Whether `out` was made by the export that is installed."""
    return out.is_dir() and stamp(out).is_file() and stamp(out).read_text() == _export_code()


def stamp(out: Path) -> Path:
    """The file that says what code made `out`; beside it, since `out` holds what an export writes alone."""
    return out.with_name(f"{out.name}.export-sha256")


def make_graphs(checkpoint: Path, type: str, work_dir: Path) -> Path:
    """Returns the folder of ONNX graphs of a checkpoint at a type; made unless that was done before.

    Of several processes one makes it, the others wait.

    Raises:
        Error: The export failed, or the folder cannot be made.
    """
    name = f"{checkpoint.name}--{type}--{checkpoint_identity(checkpoint)}"
    out = work_dir.expanduser().resolve() / "graphs" / name
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Error(f"{out.parent}: cannot be made: {error.strerror}; --work-dir names another") from error
    with filelock.FileLock(f"{out}.lock"):
        if not is_made(out):
            make(out, "onnx", str(checkpoint), str(out), "--type", type)
    return out


def checkpoint_identity(checkpoint: Path, made_by: bytes = b"") -> str:
    """Returns 16 hex digits that change with the place of a checkpoint, its files, and `made_by`."""
    digest = hashlib.sha256(f"{checkpoint.resolve()}\n".encode() + made_by)
    for path in sorted(path for path in checkpoint.iterdir() if path.is_file()):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _export_code() -> str:
    """The sha256 over the sources and data of pocketvlm.export."""
    digest = hashlib.sha256()
    package = Path(str(files("pocketvlm"))) / "export"
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(package)} {path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
