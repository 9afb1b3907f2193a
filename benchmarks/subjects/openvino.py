"""OpenVINO through optimum-intel, as a subject of `pocketvlm bench`: subject_child.py has the protocol.

The model is what conversions/openvino_int8.py made. It runs by `generate`, as it does for users of the
library; the clock is read around its vision part and in a streamer.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

import openvino
import torch
from optimum.intel import OVModelForVisualCausalLM

from .hugging_face import TokenClock, load_processor, read_image_request, read_text_request


def load(model: dict[str, str], threads: int) -> Runner:
    """Loads and compiles the converted `model["folder"]`, and the processor of `model["checkpoint"]`."""
    # What is left of PyTorch between the graphs (masks, the argmax) would else start threads of its own.
    torch.set_num_threads(threads)
    has_bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    loaded = OVModelForVisualCausalLM.from_pretrained(
        model["folder"],
        device="CPU",
        ov_config={
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": "bf16" if has_bf16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    loaded.generation_config.eos_token_id = None  # an answer is as long as it is asked to be
    return Runner(loaded, load_processor(model["checkpoint"]))


class Runner:
    """A compiled model with its processor."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._processor = processor
        self._vision: list[tuple[float, float]] = []
        self._encode_images = model.get_vision_embeddings
        model.get_vision_embeddings = self._encode_images_timed
        self.versions = {
            name: version(name)
            for name in ("openvino", "optimum-intel", "nncf", "transformers", "torch", "pillow")
        }

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

    def _encode_images_timed(self, *args: Any, **kwargs: Any) -> Any:
        """The model's `get_vision_embeddings`; when tokens are decoded it is called too, and returns None."""
        begun = time.perf_counter()
        features = self._encode_images(*args, **kwargs)
        if features is not None:
            self._vision.append((begun, time.perf_counter()))
        return features

    def _generate(self, inputs: Any, new_tokens: int, started: float) -> dict[str, Any]:
        clock = TokenClock()
        self._vision.clear()
        prepared = time.perf_counter()
        output = self._model.generate(**inputs, do_sample=False, max_new_tokens=new_tokens, streamer=clock)
        [(begun, encoded)] = self._vision or [(prepared, prepared)]
        prompt_tokens = inputs["input_ids"].shape[1]
        return {
            "started": started,
            "spans": [
                ("preprocess", started, prepared),
                ("prefill", prepared, begun),  # the embedding of the tokens
                ("vision", begun, encoded),
                ("prefill", encoded, clock.times[0]),
            ],
            "tiles": inputs["pixel_values"].shape[1] if "pixel_values" in inputs else 0,
            "prompt_tokens": prompt_tokens,
            "token_times": clock.times,
            "token_ids": output[0, prompt_tokens:].tolist(),
        }
