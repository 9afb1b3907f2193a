"""The PIL image processor of transformers in a process of its own, under the interpreter that has it.

Calls run one at a time, when they are asked for, so that they can take turns with what runs here.
transformers_child.py is the other end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from pocketvlm.errors import BackendError, InputError

TRANSFORMERS = "5.23.0"  # the reference of the goldens

PREPARE_TRANSFORMERS = (
    "python3 -m venv build/transformers && build/transformers/bin/pip install "
    f"transformers=={TRANSFORMERS} pillow=={PIL.__version__} numpy=={np.__version__}"
    ", then --transformers-python build/transformers/bin/python"
)


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
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self._files = tempfile.TemporaryDirectory(prefix="pocketvlm-bench-")
        # -P: the folder of the script is not a place to import from. Nothing is to be looked up on the hub.
        command = [found, "-P", str(Path(__file__).with_name("transformers_child.py")), str(folder)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                env=os.environ | {"HF_HUB_OFFLINE": "1"},
            )
        except OSError as error:
            self._said.close()
            self._files.cleanup()
            raise InputError(f"--transformers-python: {python}: {error.strerror}") from error
        try:
            self.versions = self._read_answer()
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
        self._ask({"picture": str(path)})

    def run(self) -> float:
        """Calls the processor once: the seconds, measured over there."""
        return float(self._ask({"run": True})["seconds"])

    def pixel_values(self) -> NDArray[np.float32]:
        """Fetches what the last call gave: float32 [T, 3, S, S]."""
        path = Path(self._files.name, "pixel_values.npy")
        self._ask({"save": str(path)})
        values: NDArray[np.float32] = np.load(path)
        return values

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: reading says why
            print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._read_answer()

    def _read_answer(self) -> dict[str, Any]:
        """Raises BackendError, with what the process said last as its cause, if it ended instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            exit_code = self._process.wait()
            self._said.seek(0)
            said = self._said.read().strip().splitlines() or ["it said nothing; out of memory?"]
            cause = RuntimeError(f"exit code {exit_code}: {said[-1]}")
            raise BackendError(f"the process of transformers ended: {cause}") from cause
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()  # it holds nothing that would be lost
        self._process.communicate()
        self._said.close()
        self._files.cleanup()
