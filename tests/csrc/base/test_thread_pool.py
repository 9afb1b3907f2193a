"""The thread pool behind every kernel, seen through a resize: sizes, many callers, fork, idleness."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pocketvlm import _core
from pocketvlm.errors import InputError

from ..forking import in_forked_child

SIDE = 512  # which up to eight threads share


def resize(pool: _core.ThreadPool, image: np.ndarray) -> np.ndarray:
    """Work that goes through the pool."""
    return _core.preprocess(image, resized=(SIDE, SIDE), split=None, tile_size=SIDE, resample=1, pool=pool)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(6).integers(0, 256, (200, 300, 3), dtype=np.uint8)


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_a_size_out_of_range_is_named(threads: int) -> None:
    with pytest.raises(InputError, match=rf"threads: {threads}, expected 1 to 1024"):
        _core.ThreadPool(threads)


def test_the_default_respects_affinity() -> None:
    assert 1 <= _core.default_threads() <= len(os.sched_getaffinity(0))


def test_more_threads_than_cores_or_work(image: np.ndarray) -> None:
    alone = resize(_core.ThreadPool(1), image)
    for threads in (2, 7, 64):
        assert np.array_equal(resize(_core.ThreadPool(threads), image), alone)


def test_callers_queue(image: np.ndarray) -> None:
    """Many threads may use one pool: its regions run one at a time."""
    pool = _core.ThreadPool(3)
    expected = resize(pool, image)
    wrong: list[int] = []

    def call(index: int) -> None:
        for _ in range(20):
            if not np.array_equal(resize(pool, image), expected):
                wrong.append(index)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
        assert not caller.is_alive(), "a caller hangs"
    assert wrong == []


def test_a_forked_child_has_workers_of_its_own(image: np.ndarray) -> None:
    pool = _core.ThreadPool(3)
    expected = resize(pool, image)
    in_forked_child(lambda: all(np.array_equal(resize(pool, image), expected) for _ in range(5)))
    assert np.array_equal(resize(pool, image), expected)


def test_an_idle_pool_uses_no_cpu(image: np.ndarray) -> None:
    """After the work the process sleeps: its clock of CPU time stands all but still."""
    pool = _core.ThreadPool(4)
    resize(pool, image)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(1.0)
    assert time.process_time() - before < 0.1


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="takes two processors to choose from")
def test_workers_that_were_woken_may_use_all_processors_again(image: np.ndarray) -> None:
    """They are woken on another processor than the caller's, and must not be kept from it."""
    pool = _core.ThreadPool(4)
    allowed = os.sched_getaffinity(0)
    for _ in range(5):
        time.sleep(0.02)  # all sleep by then
        resize(pool, image)
        time.sleep(0.02)  # the last to wake is awake by then
        for task in Path("/proc/self/task").iterdir():
            assert os.sched_getaffinity(int(task.name)) == allowed
