"""The reference implementation, as a subject of `pocketvlm bench`: subject_child.py has the protocol."""

from __future__ import annotations

import time
from typing import Any

import PIL
import torch
import transformers

from .hugging_face import TokenClock, load_processor, read_image_request, read_text_request


def load(model: dict[str, str], threads: int) -> Runner:
    """Loads the checkpoint folder `model["checkpoint"]` with `model["dtype"]`: "bfloat16" or "float32"."""
    torch.set_num_threads(threads)
    loaded = transformers.AutoModelForImageTextToText.from_pretrained(
        model["checkpoint"], dtype=getattr(torch, model["dtype"])
    )
    return Runner(loaded.eval(), load_processor(model["checkpoint"]))


class Runner:
    """A loaded model with its processor."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._processor = processor
        self.versions = {
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "Pillow": PIL.__version__,
        }
        self._vision: list[float] = []  # when the vision tower began, when the connector ended
        model.model.vision_model.register_forward_pre_hook(
            lambda *_: self._vision.append(time.perf_counter())
        )
        model.model.connector.register_forward_hook(lambda *_: self._vision.append(time.perf_counter()))

    def describe(self, image: str, question: str, new_tokens: int) -> dict[str, Any]:
        """Answers a question about an image file."""
        started = time.perf_counter()
        inputs = read_image_request(self._processor, image, question, tensors="pt")
        return self._generate(inputs, new_tokens, started)

    def continue_text(self, text: str, new_tokens: int) -> dict[str, Any]:
        """Goes on after a text."""
        started = time.perf_counter()
        inputs = read_text_request(self._processor, text, tensors="pt")
        return self._generate(inputs, new_tokens, started)

    def _generate(self, inputs: Any, new_tokens: int, started: float) -> dict[str, Any]:
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        clock = TokenClock()
        self._vision.clear()
        prepared = time.perf_counter()
        output = self._model.generate(
            **inputs,
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            streamer=clock,
        )
        vision = self._vision or [prepared, prepared]
        prompt_tokens = inputs["input_ids"].shape[1]
        return {
            "started": started,
            "spans": [
                ("preprocess", started, prepared),
                ("prefill", prepared, vision[0]),
                ("vision", vision[0], vision[-1]),
                ("prefill", vision[-1], clock.times[0]),
            ],
            "tiles": inputs["pixel_values"].shape[1] if "pixel_values" in inputs else 0,
            "prompt_tokens": prompt_tokens,
            "token_times": clock.times,
            "token_ids": output[0, prompt_tokens:].tolist(),
        }
