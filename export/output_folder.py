"""An output folder that appears complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import Error, InputError


def require_replaceable(out: Path, *, force: bool, replaceable: tuple[str, ...]) -> None:
    """Raises InputError where `output_folder` would, for commands that have long work to do before it."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out}: is a file, expected a folder or nothing")
    found = sorted(out.rglob("*"))
    if found and not force:
        raise InputError(f"{out}: is not empty; --force replaces it")
    for path in found:
        if not any(_is_written_as(path, path.relative_to(out), Path(pattern)) for pattern in replaceable):
            raise InputError(f"{path}: was not written by this command, so {out} is not replaced")


@contextlib.contextmanager
def output_folder(out: Path, *, force: bool, replaceable: tuple[str, ...]) -> Iterator[Path]:
    """Yields a fresh folder beside `out` and renames it to `out` when the block ends well.

    When the block raises, Ctrl-C included, everything written is removed and `out` stays as it was.

    Args:
        out: The folder to make. Its parents are created.
        force: Whether a folder that is already there, and not empty, may be replaced.
        replaceable: Patterns of the files that an earlier run may have left in `out`, such as "*.gguf" and
            "onnx/*.onnx". A folder that holds any other file is never replaced.

    Raises:
        InputError: `out` is there and must not be replaced.
        Error: The disk is full.
    """
    out = Path(out).resolve()
    require_replaceable(out, force=force, replaceable=replaceable)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    partial.mkdir()
    try:
        yield partial
        if out.exists():
            _replace(out, partial)
        else:
            partial.rename(out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Error(f"{out}: the disk is full, nothing was written") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(out: Path, new: Path) -> None:
    """Puts `new` in the place of `out`, which comes back if that fails."""
    old = new.with_suffix(".replaced")
    out.rename(old)
    try:
        new.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old)


def _is_written_as(path: Path, relative: Path, pattern: Path) -> bool:
    """Whether `path` is a file that matches a pattern part by part, or a folder on the way to such files."""
    if path.is_dir() and not path.is_symlink():
        return relative in pattern.parents
    return path.is_file() and len(relative.parts) == len(pattern.parts) and relative.match(str(pattern))
