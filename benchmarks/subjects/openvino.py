"""OpenVINO through optimum-intel, as a subject of `pocketvlm bench`: subject_child.py has the protocol.

The model is what conversions/openvino_int8.py made. It runs by `generate`, as it does for users of the
library; the clock is read around its vision part and in a streamer.
"""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import openvino
import torch
import transformers
from optimum.intel import OVModelForVisualCausalLM
from PIL import Image

# By its module: the automatic choice is the torchvision image processor, which resamples differently.
from transformers.models.idefics3.image_processing_idefics3 import Idefics3ImageProcessor
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor


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
    return Runner(loaded, _load_processor(Path(model["checkpoint"])))


def _load_processor(folder: Path) -> Idefics3Processor:
    """The processor with PIL images and the tokens of tokenizer.json."""
    config = json.loads((folder / "processor_config.json").read_text())
    template_file = folder / "chat_template.json"
    return Idefics3Processor(
        image_processor=Idefics3ImageProcessor.from_pretrained(folder),
        tokenizer=transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")),
        image_seq_len=config["image_seq_len"],
        chat_template=json.loads(template_file.read_text())["chat_template"]
        if template_file.exists()
        else (folder / "chat_template.jinja").read_text(),
    )


class _TokenClock(transformers.generation.BaseStreamer):
    """Notes when tokens come."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Takes the prompt at first, then each token."""
        if self._prompt_seen:
            self.times.append(time.perf_counter())
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing is left to be done."""


class Runner:
    """A compiled model with its processor."""

    def __init__(self, model: Any, processor: Idefics3Processor) -> None:
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
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        with Image.open(image) as opened:
            inputs = self._processor(
                text=text, images=[opened.convert("RGB")], add_special_tokens=False, return_tensors="pt"
            )
        return self._generate(inputs, new_tokens, started)

    def continue_text(self, text: str, new_tokens: int) -> dict[str, Any]:
        """Goes on after a text."""
        started = time.perf_counter()
        inputs = self._processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        return self._generate(inputs, new_tokens, started)

    def _encode_images_timed(self, *args: Any, **kwargs: Any) -> Any:
        """The model's `get_vision_embeddings`; when tokens are decoded it is called too, and returns None."""
        begun = time.perf_counter()
        features = self._encode_images(*args, **kwargs)
        if features is not None:
            self._vision.append((begun, time.perf_counter()))
        return features

    def _generate(self, inputs: Any, new_tokens: int, started: float) -> dict[str, Any]:
        inputs.pop("token_type_ids", None)
        clock = _TokenClock()
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
