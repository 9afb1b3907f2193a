"""Streams: pieces as they come, and every way to end early leaves a model that can be used again."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import pocketvlm
from pocketvlm.engine import Model
from pocketvlm.errors import BackendError, Cancelled, InputError

Scripted: TypeAlias = Callable[[str], tuple[Model, Any]]

END = "<end_of_utterance>"


@pytest.fixture
def endless(scripted: Scripted) -> tuple[Model, Any]:
    """A model that answers for ten seconds."""
    model, backend = scripted(" word" * 1000)
    backend.seconds_per_token = 0.01
    return model, backend


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def assert_usable(model: Model, backend: Any) -> None:
    backend.seconds_per_token = 0
    assert model.generate("What?", max_new_tokens=2).text == " word word"


def test_pieces_join_to_the_text_of_the_result(scripted: Scripted) -> None:
    model, _ = scripted(f" Two 🐈🐈 here.{END}")
    stream = model.stream("What?")
    pieces = list(stream)
    assert len(pieces) > 3
    assert all(pieces)
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) == stream.result.text == " Two 🐈🐈 here."
    assert list(stream) == []


def test_pieces_come_while_the_answer_is_made(endless: tuple[Model, Any]) -> None:
    model, backend = endless
    with model.stream("What?", max_new_tokens=1000) as stream:
        assert next(stream) == " word"
        assert backend.running == 1


def test_the_result_is_not_there_before_the_end(endless: tuple[Model, Any]) -> None:
    model, _ = endless
    with model.stream("What?") as stream:
        next(stream)
        with pytest.raises(InputError, match="read to its end"):
            _ = stream.result
    with pytest.raises(Cancelled, match="closed"):
        _ = stream.result


def test_close_cancels_and_the_model_can_be_used_again(endless: tuple[Model, Any]) -> None:
    model, backend = endless
    stream = model.stream("What?", max_new_tokens=1000)
    next(stream)
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 1
    assert backend.running == 0
    assert list(stream) == []
    stream.close()
    assert_usable(model, backend)


def test_close_after_the_end_keeps_the_result(scripted: Scripted) -> None:
    model, _ = scripted(f"x{END}")
    with model.stream("What?") as stream:
        assert "".join(stream) == "x"
    assert stream.result.text == "x"


def test_dropping_a_stream_cancels_it(endless: tuple[Model, Any]) -> None:
    model, backend = endless
    next(model.stream("What?", max_new_tokens=1000))
    gc.collect()
    wait_until(lambda: backend.running == 0)
    assert_usable(model, backend)


def test_a_stream_that_waits_for_another_can_be_closed(endless: tuple[Model, Any]) -> None:
    model, backend = endless
    first = model.stream("What?", max_new_tokens=1000)
    next(first)
    second = model.stream("What?")
    closing = threading.Thread(target=second.close)
    closing.start()
    first.close()
    closing.join(timeout=5)
    assert not closing.is_alive()
    assert_usable(model, backend)


def test_an_error_of_the_generation_reaches_the_reader(scripted: Scripted) -> None:
    model, backend = scripted(f"x{END}")

    def fail(*args: Any, **options: Any) -> Any:
        raise BackendError("out of order")

    backend.generate = fail
    stream = model.stream("What?")
    with pytest.raises(BackendError, match="out of order"):
        next(stream)
    with pytest.raises(BackendError, match="out of order"):
        _ = stream.result
    assert list(stream) == []


def test_close_cancels_while_images_are_encoded(tiny_f32: Path, photo: Path) -> None:
    model = pocketvlm.load(tiny_f32, threads=1)
    encoding, closing = threading.Event(), threading.Event()
    seen: list[tuple[str, int, int]] = []

    def on_progress(stage: str, done: int, total: int) -> None:
        seen.append((stage, done, total))
        encoding.set()
        closing.wait(5)
        time.sleep(0.05)  # close() sets the flag at once, and then waits for us

    stream = model.stream("What?", images=[photo], on_progress=on_progress)
    assert encoding.wait(5)
    closing.set()
    stream.close()
    assert {stage for stage, _, _ in seen} == {"vision"}
    assert all(done < total for _, done, total in seen)
    assert len(model.generate("What?", max_new_tokens=3, ignore_eos=True).token_ids) == 3


def run_python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


LONG_ANSWER = """
import sys, pocketvlm
model = pocketvlm.load(sys.argv[1], isa="scalar", threads=1)
stream = model.stream("What?", max_new_tokens=1900, ignore_eos=True)
print(repr(next(stream)), flush=True)
"""


def test_ctrl_c_while_reading_cancels_and_leaves_the_model_usable(tiny_f32: Path) -> None:
    code = LONG_ANSWER.replace("print", "try:\n    print") + (
        "    for piece in stream: pass\n"
        "except KeyboardInterrupt:\n"
        "    print(len(model.generate('What?', max_new_tokens=3, ignore_eos=True).token_ids))\n"
    )
    process = run_python(code, tiny_f32)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("3\n", "")


def test_ctrl_c_stops_generate(tiny_f32: Path) -> None:
    code = (
        "import sys, pocketvlm\n"
        "model = pocketvlm.load(sys.argv[1], isa='scalar', threads=1)\n"
        "print('ready', flush=True)\n"
        "try:\n"
        "    while True: model.generate('What?', max_new_tokens=1900, ignore_eos=True)\n"
        "except KeyboardInterrupt:\n"
        "    print(len(model.generate('What?', max_new_tokens=3, ignore_eos=True).token_ids))\n"
    )
    process = run_python(code, tiny_f32)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("3\n", "")


def test_a_program_may_end_while_a_stream_runs(tiny_f32: Path) -> None:
    process = run_python(LONG_ANSWER, tiny_f32)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
