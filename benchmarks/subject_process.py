"""A subject of `pocketvlm bench` in a process of its own: the end of subject_child.py that asks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any, NamedTuple

from pocketvlm.errors import BackendError

from .environments import python_environment
from .json_process import JsonProcess


class Span(NamedTuple):
    """Something that lasted: seconds on the clock of time.perf_counter()."""

    name: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Answer:
    """What subject_child.py says of an answer, on the clock of time.perf_counter()."""

    started: float
    spans: list[Span]  # "preprocess", "vision" and "prefill", each once or several times
    tiles: int
    prompt_tokens: int  # image tokens included
    token_times: list[float]

    @property
    def decode(self) -> Span:
        """From the first token to the last."""
        return Span("decode", self.token_times[0], self.token_times[-1])

    @property
    def decode_tokens_per_s(self) -> float:
        return (len(self.token_times) - 1) / self.decode.seconds

    def seconds(self, name: str) -> float:
        """All spans of that name together."""
        return sum(span.seconds for span in self.spans if span.name == name)


def stage_metrics(answers: Sequence[Answer]) -> dict[str, float]:
    """Returns what the stages took, for one answer: means where there are several; rates over all of them."""
    tiles = sum(answer.tiles for answer in answers)
    prompt_tokens = sum(answer.prompt_tokens for answer in answers)
    decoded = sum(len(answer.token_times) - 1 for answer in answers)
    return {
        "preprocess_s": fmean(answer.seconds("preprocess") for answer in answers),
        "vision_tile_s": sum(answer.seconds("vision") for answer in answers) / tiles,
        "prefill_tokens_per_s": prompt_tokens / sum(answer.seconds("prefill") for answer in answers),
        "time_to_first_token_s": fmean(answer.token_times[0] - answer.started for answer in answers),
        "decode_tokens_per_s": decoded / sum(answer.decode.seconds for answer in answers),
        "end_to_end_s": fmean(answer.token_times[-1] - answer.started for answer in answers),
    }


class SubjectProcess(AbstractContextManager["SubjectProcess"]):
    """A started subject that has not loaded anything; leaving the context ends it."""

    def __init__(self, name: str, module: str, python: Path | None) -> None:
        """Starts `module` of the folder subjects under `python`, by default the one that runs this.

        Raises:
            BackendError: It cannot be started.
        """
        script = Path(__file__).with_name("subject_child.py")
        # -P: neither the folder we are started in nor that of the script is a place to import from.
        command = [str(python or sys.executable), "-P", str(script), str(script.parent / "subjects" / module)]
        environment = python_environment(own=python is None)
        try:
            self._process = JsonProcess(name, command, environment=environment)
        except OSError as error:
            raise BackendError(f"{name}: {command[0]}: {error.strerror}") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    def load(self, model: dict[str, str], threads: int) -> tuple[Span, dict[str, str]]:
        """Loads a model: how long it took, and versions of what runs it. Raises BackendError."""
        answer = self._process.ask({"load": {"model": model, "threads": threads}})
        return Span("load", answer["started"], answer["loaded"]), answer["versions"]

    def describe(self, image: Path, question: str, new_tokens: int) -> Answer:
        """Has a question about an image file answered.

        Raises:
            BackendError: The process ended, or answered with another number of tokens.
        """
        request = {"image": str(image), "question": question, "new_tokens": new_tokens}
        return self._answer({"describe": request}, new_tokens)

    def continue_text(self, text: str, new_tokens: int) -> Answer:
        """Has a text continued. Raises BackendError as `describe`."""
        return self._answer({"continue_text": {"text": text, "new_tokens": new_tokens}}, new_tokens)

    def _answer(self, request: dict[str, Any], new_tokens: int) -> Answer:
        said = self._process.ask(request)
        if len(said["token_times"]) != new_tokens:
            raise BackendError(f"{len(said['token_times'])} tokens came, {new_tokens} were asked for")
        return Answer(
            started=said["started"],
            spans=[Span(*span) for span in said["spans"]],
            tiles=said["tiles"],
            prompt_tokens=said["prompt_tokens"],
            token_times=said["token_times"],
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.end()
