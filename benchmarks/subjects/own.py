"""pocketvlm itself, as a subject of `pocketvlm bench`: subject_child.py has the protocol."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

import pocketvlm


def load(model: dict[str, str], threads: int) -> Runner:
    """Loads `model["folder"]` in the backend `model["backend"]`, its ONNX graphs of `model["type"]`."""
    return Runner(
        pocketvlm.load(
            model["folder"],
            backend=model["backend"],
            type=model["type"],
            vision_compute=model["vision_compute"],
            threads=threads,
        )
    )


class Runner:
    """A loaded model."""

    def __init__(self, model: pocketvlm.Model) -> None:
        self._model = model
        info = model.info()
        self.versions = {"pocketvlm": pocketvlm.__version__}
        if "isa" in info:
            self.versions["kernels"] = info["isa"]
        if info["backend"] == "onnx":
            self.versions["onnxruntime"] = version("onnxruntime")

    def describe(self, image: str, question: str, new_tokens: int) -> dict[str, Any]:
        """Answers a question about an image file, as if it had never been seen."""
        self._model.clear_image_cache()
        return self._generate(question, [image], new_tokens)

    def continue_text(self, text: str, new_tokens: int) -> dict[str, Any]:
        """Answers a text, which gets the few tokens of a template around it."""
        return self._generate(text, [], new_tokens)

    def _generate(self, prompt: str, images: list[str], new_tokens: int) -> dict[str, Any]:
        token_times: list[float] = []

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage == "decode":
                token_times.append(time.perf_counter())

        started = time.perf_counter()
        result = self._model.generate(
            prompt, images=images, max_new_tokens=new_tokens, ignore_eos=True, on_progress=on_progress
        )
        timings = result.timings
        preprocessed = started + timings.preprocess_s
        encoded = preprocessed + timings.vision_s
        return {
            "started": started,
            "spans": [
                ("preprocess", started, preprocessed),
                ("vision", preprocessed, encoded),
                ("prefill", encoded, encoded + timings.prefill_s),
            ],
            "tiles": result.tiles,
            "prompt_tokens": result.prompt_tokens,
            "token_times": token_times,
            "token_ids": result.token_ids,
        }
