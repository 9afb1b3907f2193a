"""The PIL image processor of transformers in a process of its own, under the interpreter that has it.

Calls run one at a time, when they are asked for, so that they can take turns with what runs here.
transformers_child.py is the other end.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pocketvlm.errors import BackendError, InputError

from .environments import python_environment
from .json_process import JsonProcess

PREPARE_TRANSFORMERS = "pocketvlm bench prepare transformers"


class TransformersProcess(AbstractContextManager["TransformersProcess"]):
    """A running processor; leaving the context ends it."""

    versions: dict[str, str]  # of transformers and of the Pillow and NumPy that it uses

    def __init__(self, python: str, folder: Path) -> None:
        """Starts `python` and loads the processor of `folder`, which holds a preprocessor_config.json.

        Raises:
            InputError: `python` is no interpreter, or has no such transformers.
        """
        found = shutil.which(python)
        if found is None:
            raise InputError(f"--transformers-python: {python}: no such interpreter; {PREPARE_TRANSFORMERS}")
        self._files = tempfile.TemporaryDirectory(prefix="pocketvlm-bench-")
        # -P: the folder of the script is not a place to import from.
        command = [found, "-P", str(Path(__file__).with_name("transformers_child.py")), str(folder)]
        try:
            self._process = JsonProcess("transformers", command, environment=python_environment(own=True))
        except OSError as error:
            self._files.cleanup()
            raise InputError(f"--transformers-python: {python}: {error.strerror}") from error
        try:
            self.versions = self._process.read_answer()
        except BackendError as error:
            self._end()
            raise InputError(
                f"--transformers-python: {python}: {error.__cause__}; {PREPARE_TRANSFORMERS}"
            ) from error
        except BaseException:
            self._end()
            raise

    def set_picture(self, pixels: NDArray[np.uint8]) -> None:
        """Takes uint8 [H, W, 3] for the calls that follow, as a PIL image: what people pass."""
        path = Path(self._files.name, "picture.npy")
        np.save(path, pixels)
        self._process.ask({"picture": str(path)})

    def run(self) -> float:
        """Calls the processor once: the seconds, measured over there."""
        return float(self._process.ask({"run": True})["seconds"])

    def pixel_values(self) -> NDArray[np.float32]:
        """Fetches what the last call gave: float32 [T, 3, S, S]."""
        path = Path(self._files.name, "pixel_values.npy")
        self._process.ask({"save": str(path)})
        values: NDArray[np.float32] = np.load(path)
        return values

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.end()
        self._files.cleanup()
