"""A child process that answers every line of JSON on its stdin with one on its stdout.

Peers of ours live in environments of their own: what they do runs there, when it is asked for, so that
subjects can take turns.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any

from pocketvlm.errors import BackendError


class JsonProcess(AbstractContextManager["JsonProcess"]):
    """A running child; leaving the context kills it, since it holds nothing that would be lost."""

    def __init__(self, name: str, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        """Starts `command`, called `name` in errors. Raises OSError if it cannot be started."""
        self._name = name
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed with the process)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                env=environment,
            )
        except BaseException:
            self._said.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and waits for its answer. Raises BackendError as `read_answer` does."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: reading says why
            print(json.dumps(request), file=self._process.stdin, flush=True)
        return self.read_answer()

    def read_answer(self) -> dict[str, Any]:
        """Waits for a line. Raises BackendError if the process ended; its cause has what was said last."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            exit_code = self._process.wait()
            self._said.seek(0)
            said = self._said.read().strip().splitlines() or ["it said nothing; out of memory?"]
            cause = RuntimeError(f"exit code {exit_code}: {said[-1]}")
            raise BackendError(f"the process of {self._name} ended: {cause}") from cause
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Kills the process and waits until it is gone."""
        self._process.kill()
        self._process.communicate()
        self._said.close()
