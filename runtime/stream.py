"""An answer while it is made: a generation in a thread of its own, read piece by piece."""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self, TypeAlias

from . import _core
from .errors import Cancelled, InputError
from .result import GenerationResult

# run(stop, emit): generates until done or stopped, and hands every piece of text to emit.
Run: TypeAlias = Callable[[_core.StopFlag, Callable[[str], None]], GenerationResult]


class Stream(Iterator[str]):
    """Iterates over pieces of text; never half a character, never a part of a stop string.

    Ending early (`close`, leaving a `with` block, dropping the last reference, Ctrl-C while waiting for the
    next piece) cancels the generation within a layer's time; the model can be used again at once.
    """

    def __init__(self, run: Run) -> None:
        self._stop = _core.StopFlag()
        self._items: queue.SimpleQueue[str | GenerationResult | BaseException] = queue.SimpleQueue()
        self._outcome: GenerationResult | BaseException | None = None
        # The worker knows queue and flag but not this object, which can thus be collected while it runs.
        self._worker = _Worker(run, self._stop, self._items)
        weakref.finalize(self, self._stop.set)
        self._worker.start()

    def __next__(self) -> str:
        """Returns the next piece of text, waiting for it.

        Raises:
            StopIteration: The answer is complete, or the stream was closed.
            Error: Whatever ended the generation.
        """
        if self._outcome is not None:
            raise StopIteration
        try:
            item = self._items.get()
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if isinstance(item, str):
            return item
        self._outcome = item
        self._worker.join()
        if isinstance(item, BaseException):
            raise item
        raise StopIteration

    @property
    def result(self) -> GenerationResult:
        """The answer as a whole, once all pieces were read.

        Raises:
            InputError: There are pieces left to read.
            Cancelled: The stream was closed before its end.
            Error: Whatever ended the generation.
        """
        if self._outcome is None:
            raise InputError("the result is there when the stream was read to its end")
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def close(self) -> None:
        """Cancels what is left, and waits until it has ended. Does nothing after the end."""
        if self._outcome is None:
            self._outcome = Cancelled("the stream was closed before its end")
            self._stop.set()
            self._worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Worker(threading.Thread):
    """Runs one generation. A daemon, so that an abandoned stream does not keep the program from ending."""

    def __init__(
        self, run: Run, stop: _core.StopFlag, items: queue.SimpleQueue[str | GenerationResult | BaseException]
    ) -> None:
        super().__init__(name="pocketvlm-stream", daemon=True)
        self.stop_flag = stop
        self._run = run
        self._items = items

    def run(self) -> None:
        _workers.add(self)
        try:
            self._items.put(self._run(self.stop_flag, self._items.put))
        except BaseException as error:
            self._items.put(error)


_workers: weakref.WeakSet[_Worker] = weakref.WeakSet()


@atexit.register
def _stop_workers() -> None:
    """Ends running generations while there still is an interpreter for them to return to."""
    for worker in list(_workers):
        worker.stop_flag.set()
        worker.join()
