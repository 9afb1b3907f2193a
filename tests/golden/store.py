"""Writes goldens, or compares freshly made ones with those on disk; knows nothing of what they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class Store:
    """The golden folder: put_json and put_arrays write a file, or with check=True list how it differs."""

    def __init__(self, folder: Path, *, check: bool) -> None:
        self.folder = folder
        self.check = check
        self.differences: list[str] = []

    def put_json(self, name: str, golden: dict[str, Any]) -> None:
        """Writes {name}.json."""
        path = self.folder / f"{name}.json"
        text = _render(golden) + "\n"
        if not self.check:
            path.write_text(text)
            print(f"{path.name}: {path.stat().st_size:,} bytes")
            return
        self._compare(path.name, json.loads(path.read_text()), json.loads(text))

    def put_arrays(
        self,
        name: str,
        arrays: Mapping[str, npt.NDArray[Any]],
        tolerances: Mapping[str, npt.NDArray[np.float64]],
    ) -> None:
        """Writes {name}.npz. A check asks for equality, or for closeness within the arrays named in
        `tolerances`: float32 sums differ between processors, and a golden made on another one is right all
        the same."""
        path = self.folder / f"{name}.npz"
        if not self.check:
            np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
            print(f"{path.name}: {path.stat().st_size:,} bytes")
            return
        with np.load(path) as old:
            for key in sorted(set(old.files) ^ set(arrays)):
                self.differences.append(
                    f"{path.name}: {key} is only {'on disk' if key in old.files else 'new'}"
                )
            for key in sorted(set(old.files) & set(arrays)):
                if np.array_equal(old[key], arrays[key]):
                    continue
                if old[key].shape != arrays[key].shape or key not in tolerances:
                    self.differences.append(f"{path.name}: {key} differs")
                    continue
                excess = float((np.abs(old[key] - arrays[key]) / tolerances[key]).max())
                print(f"{path.name}: {key} differs by {excess:.3g} of its tolerance")
                if excess > 1:
                    self.differences.append(f"{path.name}: {key} differs by {excess:.3g} of its tolerance")

    def _compare(self, where: str, old: Any, new: Any) -> None:
        if isinstance(old, dict) and isinstance(new, dict):
            for key in sorted(set(old) | set(new)):
                if key not in old or key not in new:
                    self.differences.append(f"{where}.{key}: only {'on disk' if key in old else 'new'}")
                elif key != "observed":  # measurements of float error, for the reader
                    self._compare(f"{where}.{key}", old[key], new[key])
        elif isinstance(old, float) and isinstance(new, float):
            if abs(old - new) > 1e-2 * max(abs(old), abs(new)):
                self.differences.append(f"{where}: {old} on disk, {new} new")
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            for i, (a, b) in enumerate(zip(old, new, strict=True)):
                self._compare(f"{where}[{i}]", a, b)
        elif old != new:
            self.differences.append(f"{where}: {old!r:.200} on disk, {new!r:.200} new")


def _plain(value: Any) -> Any:
    """NumPy scalars as Python's own, for json."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} in a golden")


def _render(value: Any, indent: int = 0) -> str:
    """JSON with everything on one line that fits there, and lists of numbers on one line always."""
    flat = json.dumps(value, ensure_ascii=True, default=_plain)
    numbers = isinstance(value, list) and not any(isinstance(item, dict | list | str) for item in value)
    if not isinstance(value, dict | list) or numbers or len(flat) + indent <= 110:
        return flat
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        lines = [f"{pad}{json.dumps(key)}: {_render(item, indent + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + _render(item, indent + 1) for item in value) + "\n" + " " * indent + "]"
