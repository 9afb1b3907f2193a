"""`pocketvlm bench quality`: its prompt, and the command on the tiny model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from pocketvlm import _core
from pocketvlm.benchmarks.quality import (
    Prompt,
    build_prompt,
    compare_types,
    continue_prompt,
)
from pocketvlm.errors import InputError
from pocketvlm.gguf_files import find_model_files

STEPS = 16


@pytest.fixture(scope="module")
def pool() -> _core.ThreadPool:
    return _core.ThreadPool(1)


@pytest.fixture(scope="module")
def prompt(tiny_f32: Path, pool: _core.ThreadPool) -> Prompt:
    return build_prompt(tiny_f32, 300, pool)


def bench_quality(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pocketvlm", "bench", "quality", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | environment)


class TestPrompt:
    @pytest.mark.parametrize(("length", "tiles"), [(874, 13), (1000, 13), (873, 9), (609, 9), (400, 5)])
    def test_has_the_length_and_as_many_tiles_as_fit(
        self, length: int, tiles: int, pool: _core.ThreadPool
    ) -> None:
        """With the tokenizer of SmolVLM-256M-Instruct: 874 is the question about a photo of 13 tiles."""
        folder = Path(str(files("pocketvlm.export"))) / "data" / "smolvlm-256m-instruct"
        prompt = build_prompt(folder, length, pool)
        assert len(prompt.token_ids) == length
        assert len(prompt.patches) == tiles
        assert prompt.image_tokens == 64 * tiles

    def test_too_short_for_a_picture(self, tiny_f32: Path, pool: _core.ThreadPool) -> None:
        with pytest.raises(InputError, match="is 50, a picture and a question take 104 at least"):
            build_prompt(tiny_f32, 50, pool)


class TestModels:
    def test_the_reference_goes_on_with_its_greedy_tokens(
        self, tiny_f32: Path, prompt: Prompt, pool: _core.ThreadPool
    ) -> None:
        logits = continue_prompt(tiny_f32, prompt, STEPS, pool, forced=None)
        pair = find_model_files(tiny_f32)
        model = _core.Model(str(pair.text), str(pair.projector), pool=pool)
        answer = model.generate(
            model.new_cache(),
            np.array(prompt.token_ids, np.int32),
            model.encode_images(prompt.patches).reshape(-1, model.hidden_size),
            image_token_id=prompt.image_token_id,
            max_new_tokens=STEPS,
            stop_token_ids=[],
            ignore_eos=True,
            on_token=None,
        )
        assert logits.argmax(axis=1).tolist() == answer.token_ids

    def test_the_same_model_agrees_exactly_and_a_broken_copy_does_not(
        self, tiny_f32: Path, prompt: Prompt, pool: _core.ThreadPool, tmp_path: Path
    ) -> None:
        broken = tmp_path / "broken"
        shutil.copytree(tiny_f32, broken)
        text = find_model_files(broken).text
        with text.open("r+b") as file:
            file.seek(-4096, os.SEEK_END)
            file.write(bytes(4096))
        folders = {"f32": tiny_f32, "broken": broken}
        _, found = compare_types(folders, ["f32", "broken"], prompt, STEPS, pool)
        same = found["f32"]
        assert (same.top1, same.kl_mean, same.kl_max, same.first_other_token) == (1.0, 0.0, 0.0, None)
        assert found["broken"].kl_mean > 0

    def test_a_continuation_beyond_the_context_is_refused(
        self, tiny_f32: Path, prompt: Prompt, pool: _core.ThreadPool
    ) -> None:
        with pytest.raises(InputError, match=r"300 \+ 2000 tokens, the context holds 2048"):
            continue_prompt(tiny_f32, prompt, 2000, pool, forced=None)


class TestCommand:
    OPTIONS = ("--types", "f32,q8_0", "--prompt-tokens", "300", "--continuations", str(STEPS))

    def test_synthetic_models(self, tmp_path: Path) -> None:
        out = tmp_path / "out.json"
        arguments = ["--synthetic", "tiny", "--work-dir", tmp_path, "--json", out]
        finished = bench_quality(*self.OPTIONS, *arguments)
        assert finished.returncode == 0, finished.stderr
        rows = [line.split() for line in finished.stdout.splitlines() if line.startswith(("f32 ", "q8_0 "))]
        assert rows[-2] == ["f32", "100.0", "%", "0.0e+00", "0.0e+00", "none"]
        assert rows[-1][0] == "q8_0"
        assert "weights are made up" in finished.stdout

        report = json.loads(out.read_text())
        assert report["synthetic"] is True
        assert (report["prompt_tokens"], report["continuations"]) == (300, STEPS)
        assert report["reference"].keys() == {"type", "mean_top_probability", "mean_entropy"}
        assert report["types"]["f32"] == {
            "top1": 1.0,
            "kl_mean": 0.0,
            "kl_max": 0.0,
            "first_other_token": None,
        }
        assert 0 < report["types"]["q8_0"]["kl_mean"] < report["types"]["q8_0"]["kl_max"] < 1

    def test_a_checkpoint(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        arguments = ["-m", tiny_checkpoint, "--json", tmp_path / "out.json"]
        finished = bench_quality(*self.OPTIONS, *arguments, POCKETVLM_CACHE=str(tmp_path))
        assert finished.returncode == 0, finished.stderr
        assert "weights are made up" not in finished.stdout
        assert json.loads((tmp_path / "out.json").read_text())["subject"] == str(tiny_checkpoint)

    def test_an_exported_model_is_not_a_checkpoint(self, tiny_f32: Path) -> None:
        finished = bench_quality("--types", "q8_0", "-m", tiny_f32)
        assert finished.returncode == 1
        assert "is exported already; expected the checkpoint" in finished.stderr
