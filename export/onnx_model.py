"""Runs an exported set of ONNX graphs to see whether it is right; what runs it for people is a backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..config import ModelConfig
from ..errors import BackendError
from .onnx_types import OnnxType

VISION_ENCODER = "vision_encoder"
EMBED_TOKENS = "embed_tokens"
DECODER = "decoder_model_merged"
GRAPHS = (VISION_ENCODER, EMBED_TOKENS, DECODER)


def graph_file(graph: str, type: OnnxType) -> str:
    """Returns the name of a graph's file in the folder `onnx`."""
    return f"{graph}{type.suffix}.onnx"


class OnnxModel:
    """The three graphs of one type, on onnxruntime's CPU provider. Each is loaded when it is first run."""

    def __init__(self, folder: Path, type: OnnxType, config: ModelConfig, *, threads: int) -> None:
        """Takes the folder of the graphs, their type, and the configuration of the model."""
        self._folder = folder
        self._type = type
        self._config = config.text
        self._image_token_id = config.image_token_id
        self._threads = threads
        self._sessions: dict[str, Any] = {}

    def encode(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns features [tiles * image_seq_len, hidden] of pixel values [tiles, 3, tile, tile].

        Raises:
            BackendError: onnxruntime failed, here as in all methods.
        """
        features = []
        for tile in pixel_values:
            feeds = {
                "pixel_values": tile[None, None],
                "pixel_attention_mask": np.ones((1, 1, *tile.shape[1:]), np.bool_),
            }
            features.append(self._run(VISION_ENCODER, ["image_features"], feeds)[0][0])
        return np.concatenate([np.empty((0, self._config.hidden_size), np.float32), *features])

    def embed(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Returns the embeddings of tokens, [n, hidden]."""
        ids = np.array([token_ids], np.int64)
        embeds: NDArray[np.float32] = self._run(EMBED_TOKENS, ["inputs_embeds"], {"input_ids": ids})[0][0]
        return embeds

    def embed_prompt(self, token_ids: Sequence[int], features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the embeddings of a prompt whose image tokens are `features`, [n, hidden]."""
        embeds = self.embed(token_ids)
        embeds[np.array(token_ids) == self._image_token_id] = features
        return embeds

    def decode(
        self, embeds: NDArray[np.float32], cache: list[NDArray[Any]]
    ) -> tuple[NDArray[np.float32], list[NDArray[Any]]]:
        """Returns the logits [vocab] after tokens [n, hidden] that follow `cache`, and the cache after them.

        A cache is keys and values of layer 0, of layer 1, ..., each [1, num_key_value_heads, past, head_dim].
        """
        names = [f"{i}.{part}" for i in range(self._config.num_hidden_layers) for part in ("key", "value")]
        past = cache[0].shape[2]
        total = past + len(embeds)
        feeds = {
            "inputs_embeds": embeds[None],
            "attention_mask": np.ones((1, total), np.int64),
            "position_ids": np.arange(past, total)[None],
            "num_logits_to_keep": np.array(1, np.int64),
        }
        feeds |= {f"past_key_values.{name}": part for name, part in zip(names, cache, strict=True)}
        outputs = ["logits", *(f"present.{name}" for name in names)]
        logits, *present = self._run(DECODER, outputs, feeds)
        return logits[0, -1], present

    def empty_cache(self) -> list[NDArray[Any]]:
        """Returns the cache before the first token."""
        shape = (1, self._config.num_key_value_heads, 0, self._config.head_dim)
        return [np.empty(shape, self._type.dtype) for _ in range(2 * self._config.num_hidden_layers)]

    def step_logits(self, prompt: NDArray[np.float32], forced: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the logits after a prompt [n, hidden] and after each of the following tokens but the last.

        float32 [steps, vocab] for `forced` [steps, hidden]: those that its tokens are held against.
        """
        logits, cache = self.decode(prompt, self.empty_cache())
        steps = [logits]
        for i in range(len(forced) - 1):
            logits, cache = self.decode(forced[i : i + 1], cache)
            steps.append(logits)
        return np.stack(steps)

    def _run(self, graph: str, outputs: list[str], feeds: dict[str, NDArray[Any]]) -> list[Any]:
        try:
            if graph not in self._sessions:
                self._sessions[graph] = self._open(graph)
            session = self._sessions[graph]
            known = {spec.name for spec in session.get_inputs() + session.get_overridable_initializers()}
            feeds = {name: value for name, value in feeds.items() if name in known}
            results: list[Any] = session.run(outputs, feeds)
        except Exception as error:  # onnxruntime raises a type for each of its status codes
            path = self._folder / graph_file(graph, self._type)
            raise BackendError(f"{path}: onnxruntime failed: {error}") from error
        return results

    def _open(self, graph: str) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3  # errors
        return onnxruntime.InferenceSession(
            self._folder / graph_file(graph, self._type), options, providers=["CPUExecutionProvider"]
        )
