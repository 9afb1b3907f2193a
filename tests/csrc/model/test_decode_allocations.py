"""A token of an answer allocates nothing: an answer of many tokens as often as one of few."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

ANSWER = """
import ctypes, sys
import numpy as np
from pocketvlm import _core

allocations = ctypes.CDLL(None).allocations
allocations.restype = ctypes.c_long
model = _core.Model(sys.argv[1], sys.argv[2], pool=_core.ThreadPool(2))
prompt, nothing = np.arange(20, dtype=np.int32), np.empty((0, model.hidden_size), np.float32)

def allocated_by(tokens):
    cache = model.new_cache()
    before = allocations()
    model.generate(
        cache, prompt, nothing, image_token_id=-1, max_new_tokens=tokens, stop_token_ids=[], ignore_eos=True,
        on_token=None,
    )
    return allocations() - before

allocated_by(10)
print(allocated_by(10), allocated_by(100))
"""


def test_a_token_of_an_answer_allocates_nothing(tiny_f32: Path, tmp_path: Path) -> None:
    if "LD_PRELOAD" in os.environ:
        pytest.skip("allocations are counted by what is preloaded already")
    library = tmp_path / "count_allocations.so"
    compiler = [
        os.environ.get("CC", "cc"),
        "-shared",
        "-fPIC",
        "-O1",
        str(HERE / "count_allocations.c"),
        "-ldl",
    ]
    subprocess.run([*compiler, "-o", str(library)], check=True)
    text = next(path for path in tiny_f32.glob("*.gguf") if "mmproj" not in path.name)
    projector = next(tiny_f32.glob("mmproj*.gguf"))
    result = subprocess.run(
        [sys.executable, "-c", ANSWER, str(text), str(projector)],
        env={**os.environ, "LD_PRELOAD": str(library)},
        check=True,
        capture_output=True,
        text=True,
    )
    few, many = map(int, result.stdout.split())
    assert few > 10, "the prompt's own are counted"
    assert many == few
