"""A check that runs in a forked child, as servers fork their workers."""

import os
import signal
import time
from collections.abc import Callable

import pytest


def in_forked_child(check: Callable[[], bool], *, seconds: float = 60) -> None:
    """Fails the test unless `check` returns True in a child forked from this process, within the time."""
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            outcome = 0 if check() else 2
        finally:
            os._exit(outcome)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the forked child hangs")
