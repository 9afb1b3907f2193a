"""The three ONNX graphs of a model on onnxruntime: tiles to features, tokens to embeddings, both to logits.

Weights are mapped from their files, and the memory of a run is given back after it, that of the vision
encoder after the last tile. Keys and values stay where they are: a decoder with GroupQueryAttention writes
new ones into the same memory, of others the outputs of one run are the inputs of the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ..config import ModelConfig
from ..errors import BackendError, FormatError
from ..onnx_names import DECODER, EMBED_TOKENS, VISION_ENCODER
from .onnx_files import OnnxGraph

FloatArray = NDArray[np.float32]


class OnnxCache:
    """Keys and values of the positions that were read."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.values: dict[str, Any] = {}  # "0.key" -> onnxruntime.OrtValue


class OnnxGraphs:
    """Sessions of the three graphs, made when they are first needed. One call at a time."""

    def __init__(self, graphs: dict[str, OnnxGraph], config: ModelConfig, *, threads: int) -> None:
        """Takes checked graphs."""
        self._graphs = graphs
        self._config = config.text
        self._image_token_id = config.image_token_id
        self._threads = threads
        self._sessions: dict[str, Any] = {}
        self._parts = [
            f"{i}.{part}" for i in range(self._config.num_hidden_layers) for part in ("key", "value")
        ]
        decoder = graphs[DECODER]
        self._inputs = set(decoder.inputs)
        self._shares_cache = decoder.uses("GroupQueryAttention")
        cache_type = next(v for v in decoder.model.graph.input if v.name == "past_key_values.0.key")
        self._cache_dtype = onnx.helper.tensor_dtype_to_np_dtype(cache_type.type.tensor_type.elem_type)

    def open(self, graph: str) -> Any:
        """Returns the session of a graph.

        Raises:
            FormatError: onnxruntime refuses it.
        """
        if graph not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            options.inter_op_num_threads = 1
            # An arena keeps the most that any run took; without one, every tile faults its pages in anew.
            options.enable_cpu_mem_arena = graph == VISION_ENCODER
            options.log_severity_level = 3  # errors
            path = self._graphs[graph].path
            try:
                self._sessions[graph] = onnxruntime.InferenceSession(
                    path, options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # onnxruntime raises a type for each of its status codes
                raise FormatError(f"{path}: onnxruntime refuses it: {error}") from error
        return self._sessions[graph]

    def encode(self, pixel_values: FloatArray, *, is_last: bool = True) -> FloatArray:
        """Returns features [image_seq_len, hidden_size] of one tile, [3, tile_size, tile_size].

        Args:
            pixel_values: The tile.
            is_last: Whether to give the memory back that the next tile would use.

        Raises:
            BackendError: onnxruntime failed, here as in all methods.
        """
        feeds = {"pixel_values": pixel_values[None, None]}
        if "pixel_attention_mask" in self._graphs[VISION_ENCODER].inputs:
            feeds["pixel_attention_mask"] = np.ones((1, 1, *pixel_values.shape[1:]), np.bool_)
        options = onnxruntime.RunOptions()
        if is_last:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        features: NDArray[Any] = self._run(VISION_ENCODER, "image_features", feeds, options)
        flat: FloatArray = features.reshape(-1, features.shape[-1]).astype(np.float32, copy=False)
        return flat

    def embed(self, token_ids: Sequence[int]) -> FloatArray:
        """Returns the embeddings of tokens, [n, hidden_size]."""
        ids = np.array(token_ids, np.int64)[None]
        embeds: NDArray[Any] = self._run(EMBED_TOKENS, "inputs_embeds", {"input_ids": ids})
        of_prompt: FloatArray = embeds[0].astype(np.float32, copy=False)
        return of_prompt

    def embed_prompt(self, token_ids: Sequence[int], features: FloatArray) -> FloatArray:
        """Returns the embeddings of a prompt whose image tokens are `features`, [n, hidden_size]."""
        embeds = self.embed(token_ids)
        embeds[np.array(token_ids) == self._image_token_id] = features
        return embeds

    def new_cache(self, capacity: int) -> OnnxCache:
        """Returns an empty cache with room for `capacity` positions."""
        cache = OnnxCache(capacity)
        room = capacity if self._shares_cache else 0
        shape = (1, self._config.num_key_value_heads, room, self._config.head_dim)
        for part in self._parts:
            cache.values[part] = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, self._cache_dtype))
        return cache

    def truncate(self, cache: OnnxCache, length: int) -> None:
        """Forgets all positions from `length` on."""
        if not self._shares_cache:
            for part, value in cache.values.items():
                kept = np.ascontiguousarray(value.numpy()[:, :, :length])
                cache.values[part] = onnxruntime.OrtValue.ortvalue_from_numpy(kept)
        cache.length = length

    def decode(self, embeds: FloatArray, cache: OnnxCache) -> FloatArray:
        """Appends positions [n, hidden_size] to the cache; returns the logits of the last, [vocab_size]."""
        total = cache.length + len(embeds)
        feeds: dict[str, NDArray[Any]] = {
            "inputs_embeds": np.ascontiguousarray(embeds)[None],
            "attention_mask": np.ones((1, total), np.int64),
            "position_ids": np.arange(cache.length, total)[None],
            "num_logits_to_keep": np.array(1, np.int64),
        }
        session = self.open(DECODER)
        binding = session.io_binding()
        try:
            for name, array in feeds.items():
                if name in self._inputs:
                    binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
            binding.bind_output("logits", "cpu")
            for part in self._parts:
                binding.bind_ortvalue_input(f"past_key_values.{part}", cache.values[part])
                if self._shares_cache:
                    binding.bind_ortvalue_output(f"present.{part}", cache.values[part])
                else:
                    binding.bind_output(f"present.{part}", "cpu")
            session.run_with_iobinding(binding)
        except Exception as error:  # as in `open`
            raise BackendError(f"{self._graphs[DECODER].path}: onnxruntime failed: {error}") from error
        outputs = binding.get_outputs()
        if not self._shares_cache:
            cache.values = dict(zip(self._parts, outputs[1:], strict=True))
        cache.length = total
        logits: NDArray[Any] = outputs[0].numpy()
        last: FloatArray = logits[0, -1].astype(np.float32)
        return last

    def _run(
        self, graph: str, output: str, feeds: dict[str, NDArray[Any]], options: Any = None
    ) -> NDArray[Any]:
        session = self.open(graph)
        try:
            result: NDArray[Any] = session.run([output], feeds, options)[0]
        except Exception as error:  # as in `open`
            raise BackendError(f"{self._graphs[graph].path}: onnxruntime failed: {error}") from error
        return result
