"""onnxruntime on a plain export, as a subject of `pocketvlm bench`: subject_child.py has the protocol.

The graphs are what conversions/plain_onnx.py made. Keys and values stay where onnxruntime wrote them: through
an I/O binding, what one run put out is what the next one reads.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from .hugging_face import load_processor, read_image_request, read_text_request


def load(model: dict[str, str], threads: int) -> Runner:
    """Loads the graphs of `model["folder"]`, "fp32" or "int8" by `model["type"]`, and the processor."""
    folder = Path(model["folder"]) / model["type"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    vision, embedding, decoder = (
        onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
        for name in ("vision_encoder", "embed_tokens", "decoder_model_merged")
    )
    return Runner(vision, embedding, decoder, load_processor(model["checkpoint"]))


class Runner:
    """The three graphs of a model with its processor."""

    def __init__(self, vision: Any, embedding: Any, decoder: Any, processor: Any) -> None:
        self._vision = vision
        self._embedding = embedding
        self._decoder = decoder
        self._processor = processor
        self._image_token = processor.tokenizer.convert_tokens_to_ids("<image>")
        self._cached = [spec for spec in decoder.get_inputs() if spec.name.startswith("past_key_values.")]
        self.versions = {
            name: version(name) for name in ("onnxruntime", "onnx", "transformers", "torch", "pillow")
        }

    def describe(self, image: str, question: str, new_tokens: int) -> dict[str, Any]:
        """Answers a question about an image file, whose tiles are encoded one after the other."""
        started = time.perf_counter()
        inputs = read_image_request(self._processor, image, question, tensors="np")
        token_ids, tiles = inputs["input_ids"].astype(np.int64), inputs["pixel_values"][0]
        prepared = time.perf_counter()
        features = [self._vision.run(None, {"pixel_values": tile[None]})[0][0] for tile in tiles]
        encoded = time.perf_counter()
        embeds = self._embed(token_ids)
        embeds[token_ids == self._image_token] = np.concatenate(features)
        spans = [("preprocess", started, prepared), ("vision", prepared, encoded)]
        return self._answer(embeds, new_tokens, started, spans, len(tiles))

    def continue_text(self, text: str, new_tokens: int) -> dict[str, Any]:
        """Goes on after a text."""
        started = time.perf_counter()
        inputs = read_text_request(self._processor, text, tensors="np")
        token_ids = inputs["input_ids"].astype(np.int64)
        spans = [("preprocess", started, time.perf_counter())]
        return self._answer(self._embed(token_ids), new_tokens, started, spans, 0)

    def _embed(self, token_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """int64 [1, n] -> float32 [1, n, hidden]"""
        embeds: npt.NDArray[np.float32] = self._embedding.run(None, {"input_ids": token_ids})[0]
        return embeds

    def _answer(
        self,
        embeds: npt.NDArray[np.float32],
        new_tokens: int,
        started: float,
        spans: list[tuple[str, float, float]],
        tiles: int,
    ) -> dict[str, Any]:
        """Reads the prompt from its embeddings, float32 [1, n, hidden], and decodes greedily.

        Prefill begins where the last of the `spans` ended.
        """
        prompt_tokens = position = embeds.shape[1]
        # [1, num_key_value_heads, 0, head_dim]: nothing was read before
        past = [
            onnxruntime.OrtValue.ortvalue_from_numpy(
                np.empty((1, spec.shape[1], 0, spec.shape[3]), np.float32)
            )
            for spec in self._cached
        ]
        positions = np.arange(prompt_tokens)[None]
        token_ids: list[int] = []
        token_times: list[float] = []
        while True:
            logits, past = self._decode(embeds, positions, past)
            token_ids.append(int(logits[0, -1].argmax()))
            token_times.append(time.perf_counter())
            if len(token_ids) == new_tokens:
                break
            embeds = self._embed(np.array([[token_ids[-1]]]))
            positions = np.array([[position]])
            position += 1
        return {
            "started": started,
            "spans": [*spans, ("prefill", spans[-1][2], token_times[0])],
            "tiles": tiles,
            "prompt_tokens": prompt_tokens,
            "token_times": token_times,
            "token_ids": token_ids,
        }

    def _decode(
        self, embeds: npt.NDArray[np.float32], positions: npt.NDArray[np.int64], past: list[Any]
    ) -> tuple[npt.NDArray[np.float32], list[Any]]:
        """Returns the last token's logits, float32 [1, 1, vocab], and all keys and values, in onnxruntime."""
        binding = self._decoder.io_binding()
        binding.bind_cpu_input("inputs_embeds", embeds)
        binding.bind_cpu_input("position_ids", positions)
        for spec, value in zip(self._cached, past, strict=True):
            binding.bind_ortvalue_input(spec.name, value)
        for output in self._decoder.get_outputs():
            binding.bind_output(output.name, "cpu")
        self._decoder.run_with_iobinding(binding)
        logits, *present = binding.get_outputs()
        return logits.numpy(), present
