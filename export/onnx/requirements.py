"""The packages that the ONNX export needs beside pocketvlm's own, and the versions it was tried with."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping

from ...errors import UnsupportedError

# package -> oldest version, first version too new; pyproject.toml has the same
NEEDED = {"onnx": ((1, 17), (2,)), "onnxruntime": ((1, 23), (2,))}
NEEDED_BY_OPTIMUM = NEEDED | {
    "torch": ((2, 6), (3,)),
    "transformers": ((4, 57), (4, 58)),
    "optimum-onnx": ((0, 1), (0, 2)),
}
INSTALL_OPTIMUM = "pip install 'pocketvlm[export]'"
# onnxruntime under other names: built for other processors, and newer than released
_ALSO = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu", "ort-nightly")}

Range = tuple[tuple[int, ...], tuple[int, ...]]


def require_packages(
    needed: Mapping[str, Range] = NEEDED, *, install: str = "pip install 'pocketvlm[onnx]'"
) -> dict[str, str]:
    """Returns the version of every needed package.

    Args:
        needed: package -> oldest version, first version too new.
        install: The command that brings them all, for errors.

    Raises:
        UnsupportedError: One is missing, too old or too new.
    """
    return {name: _version(name, bounds, install) for name, bounds in needed.items()}


def _version(package: str, bounds: Range, install: str) -> str:
    oldest, too_new = bounds
    expected = f"at least {_text(oldest)} and less than {_text(too_new)}: {install}"
    for name in _ALSO.get(package, (package,)):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if not oldest <= tuple(int(part) for part in re.findall(r"\d+", found)[:3]) < too_new:
            raise UnsupportedError(f"{name} {found} is installed, the ONNX export needs {expected}")
        return found
    raise UnsupportedError(f"{package} is not installed, the ONNX export needs it, {expected}")


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
