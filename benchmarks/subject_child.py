"""Runs one subject of `pocketvlm bench`, under its own interpreter: the other end of subject_process.py.

    python subject_child.py SUBJECT.py

A script of its own that knows nothing of pocketvlm, as most of the modules in subjects/ do. It answers each
line of JSON on stdin with one on stdout:

    {"load": {"model": {...}, "threads": n}}                  {"started": t, "loaded": t, "versions": {...}}
    {"describe": {"image", "question", "new_tokens"}}         an answer, see below
    {"continue_text": {"text", "new_tokens"}}                 an answer, without an image and without template

A subject's module has `load(model, threads)`, which returns an object with `versions` and these two methods.
Both decode greedily exactly `new_tokens` tokens, past those that end an answer, and return

    started       of the request
    spans         [name, from, to]: "preprocess" up to the inputs of the model, reading the image included,
                  "vision" tower and connector, "prefill" everything else up to the first token; a name may
                  occur several times
    tiles         of the image
    prompt_tokens image tokens included
    token_times   when each token was known
    token_ids

All times are seconds of time.perf_counter(), which on Linux is one clock for all processes.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import IO, Any


def main(path: str, answers: IO[str]) -> None:
    """Answers requests until stdin ends."""
    subject = _import_subject(path)
    runner: Any = None
    for line in sys.stdin:
        [(name, arguments)] = json.loads(line).items()
        if name == "load":
            started = time.perf_counter()
            runner = subject.load(**arguments)
            answer = {"started": started, "loaded": time.perf_counter(), "versions": runner.versions}
        else:
            answer = getattr(runner, name)(**arguments)
        print(json.dumps(answer), file=answers, flush=True)


def _import_subject(path: str) -> ModuleType:
    """Imports a file as a part of a package of its folder alone.

    By its own name it might hide the library that it runs, and the package that it is installed in is ours.
    """
    package = ModuleType("benchmark_subjects")
    package.__path__ = [str(Path(path).parent)]
    sys.modules[package.__name__] = package
    return importlib.import_module(f"{package.__name__}.{Path(path).stem}")


if __name__ == "__main__":
    # Whatever a library prints goes to stderr: our end of the pipe carries answers alone.
    own_stdout = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    main(sys.argv[1], own_stdout)
