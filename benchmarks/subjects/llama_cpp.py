"""llama.cpp through its own multimodal library (mtmd), as a subject of `pocketvlm bench`.

subject_child.py has the protocol. The calls are those of llama.cpp's own multimodal program, with its
defaults.
"""

from __future__ import annotations

import ctypes
import time
from importlib.metadata import version
from typing import Any

import numpy as np
from llama_cpp import llama_cpp, mtmd_cpp

_CONTEXT = 4096  # positions to make room for; more when a prompt asks for it
_BATCH = 2048  # the default of llama.cpp's programs

_TEXT_CHUNK = mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT


def load(model: dict[str, str], threads: int) -> Runner:
    """Loads the GGUF pair `model["text"]`, `model["projector"]`. Raises RuntimeError if it is refused."""
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    text = llama_cpp.llama_model_load_from_file(model["text"].encode(), parameters)
    if not text:
        raise RuntimeError(f"{model['text']}: llama.cpp cannot load it")
    projector_parameters = mtmd_cpp.mtmd_context_params_default()
    projector_parameters.use_gpu = False
    projector_parameters.n_threads = threads
    projector = mtmd_cpp.mtmd_init_from_file(model["projector"].encode(), text, projector_parameters)
    if not projector:
        raise RuntimeError(f"{model['projector']}: llama.cpp cannot load it")
    return Runner(text, projector, threads)


class Runner:
    """A loaded pair, and a context for what it reads."""

    def __init__(self, model: Any, projector: Any, threads: int) -> None:
        self._model = model
        self._projector = projector
        self._threads = threads
        self._vocabulary = llama_cpp.llama_model_get_vocab(model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        self._context: Any = None
        self._make_room(_CONTEXT)
        self.versions = {"llama-cpp-python": version("llama-cpp-python")}

    def describe(self, image: str, question: str, new_tokens: int) -> dict[str, Any]:
        """Answers a question about an image file: every tile is encoded, then read, one after the other."""
        self._forget()
        started = time.perf_counter()
        marker = mtmd_cpp.mtmd_default_marker().decode()
        prompt = f"<|im_start|>User:{marker}{question}<end_of_utterance>\nAssistant:".encode()
        bitmap = mtmd_cpp.mtmd_helper_bitmap_init_from_file(self._projector, image.encode(), False)
        if not bitmap:
            raise RuntimeError(f"{image}: llama.cpp cannot read it")
        chunks = mtmd_cpp.mtmd_input_chunks_init()
        text = mtmd_cpp.mtmd_input_text(prompt, len(prompt), False, True)
        bitmaps = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
        _require(mtmd_cpp.mtmd_tokenize(self._projector, chunks, ctypes.byref(text), bitmaps, 1), "tokenize")
        mtmd_cpp.mtmd_bitmap_free(bitmap)
        spans = [("preprocess", started, time.perf_counter())]

        count = mtmd_cpp.mtmd_input_chunks_size(chunks)
        position = tiles = 0
        for i in range(count):
            chunk = mtmd_cpp.mtmd_input_chunks_get(chunks, i)
            begun = time.perf_counter()
            after = llama_cpp.llama_pos(0)  # not always set: positions are counted here
            if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == _TEXT_CHUNK:
                status = mtmd_cpp.mtmd_helper_eval_chunk_single(
                    self._projector, self._context, chunk, position, 0, _BATCH, i == count - 1,
                    ctypes.byref(after),
                )  # fmt: skip
                _require(status, "eval_chunk_single")
            else:
                tiles += 1
                _require(mtmd_cpp.mtmd_encode_chunk(self._projector, chunk), "encode_chunk")
                encoded = time.perf_counter()
                spans.append(("vision", begun, encoded))
                begun = encoded
                features = mtmd_cpp.mtmd_get_output_embd(self._projector)
                status = mtmd_cpp.mtmd_helper_decode_image_chunk(
                    self._projector, self._context, chunk, features, position, 0, _BATCH,
                    ctypes.byref(after), mtmd_cpp.mtmd_helper_post_decode_callback(), None,
                )  # fmt: skip
                _require(status, "decode_image_chunk")
            position += mtmd_cpp.mtmd_input_chunk_get_n_pos(chunk)
            spans.append(("prefill", begun, time.perf_counter()))
        mtmd_cpp.mtmd_input_chunks_free(chunks)
        return self._answer(started, spans, tiles, position, new_tokens)

    def continue_text(self, text: str, new_tokens: int) -> dict[str, Any]:
        """Goes on after a text."""
        started = time.perf_counter()
        encoded = text.encode()
        tokens = (llama_cpp.llama_token * (len(encoded) + 8))()
        count = llama_cpp.llama_tokenize(
            self._vocabulary, encoded, len(encoded), tokens, len(tokens), False, False
        )
        self._make_room(count + new_tokens)
        self._forget()
        begun = time.perf_counter()
        for first in range(0, count, _BATCH):
            part = (llama_cpp.llama_token * min(_BATCH, count - first))(
                *tokens[first : first + _BATCH][: count - first]
            )
            _require(
                llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(part, len(part))),
                "decode",
            )
        spans = [("preprocess", started, begun), ("prefill", begun, time.perf_counter())]
        return self._answer(started, spans, 0, count, new_tokens)

    def _answer(
        self,
        started: float,
        spans: list[tuple[str, float, float]],
        tiles: int,
        prompt_tokens: int,
        new_tokens: int,
    ) -> dict[str, Any]:
        """Decodes greedily from the logits that are there."""
        token_ids: list[int] = []
        token_times: list[float] = []
        token = (llama_cpp.llama_token * 1)()
        while True:
            logits = llama_cpp.llama_get_logits_ith(self._context, -1)
            token[0] = int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())
            token_ids.append(token[0])
            token_times.append(time.perf_counter())
            if len(token_ids) == new_tokens:
                break
            _require(llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(token, 1)), "decode")
        spans.append(("prefill", spans[-1][2], token_times[0]))
        return {
            "started": started,
            "spans": spans,
            "tiles": tiles,
            "prompt_tokens": prompt_tokens,
            "token_times": token_times,
            "token_ids": token_ids,
        }

    def _make_room(self, positions: int) -> None:
        """Sees to a context with room for so many positions."""
        if self._context is not None:
            if positions <= llama_cpp.llama_n_ctx(self._context):
                return
            llama_cpp.llama_free(self._context)
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = positions
        parameters.n_batch = _BATCH
        parameters.n_threads = parameters.n_threads_batch = self._threads
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot make a context of {positions} positions")

    def _forget(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)


def _require(status: int, call: str) -> None:
    if status != 0:
        raise RuntimeError(f"{call}: llama.cpp answers {status}")
