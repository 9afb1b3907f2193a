"""Loads an exported pair in llama.cpp and decodes greedily from given embeddings.

    python llama_greedy.py TEXT.gguf MMPROJ.gguf REQUEST.npz ANSWER.json

A script of its own, because llama-cpp-python lives in another virtual environment than the tests. REQUEST.npz
holds "max_new_tokens" and one array "prompt/{name}" [positions, hidden] float32 for each prompt; ANSWER.json
gets the tokens that llama.cpp picks and the logits behind each prompt. Only the low-level API is used:
nothing stands between the test and llama.cpp.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp, mtmd_cpp

CONTEXT = 2048  # positions; more than any prompt and its answer here
GGML_TYPE_F32 = 0


def main(arguments: list[str]) -> int:
    """Answers one request. Returns the exit code: 1 if llama.cpp refuses a file or a batch (it says why on
    stderr)."""
    text_path, projector_path, request_path, answer_path = map(Path, arguments)
    request = np.load(request_path)
    max_new_tokens = int(request["max_new_tokens"])

    llama_cpp.llama_backend_init()
    model_parameters = llama_cpp.llama_model_default_params()
    model_parameters.n_gpu_layers = 0
    # Plain kernels: version 0.3.36 crashes in llama_decode where the CPU has AMX, with block weights that it
    # has repacked for it.
    model_parameters.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(bytes(text_path), model_parameters)
    if not model:
        print(f"{text_path.name}: llama.cpp cannot load it", file=sys.stderr)
        return 1
    projector_parameters = mtmd_cpp.mtmd_context_params_default()
    projector_parameters.use_gpu = False
    projector_parameters.warmup = False
    projector = mtmd_cpp.mtmd_init_from_file(bytes(projector_path), model, projector_parameters)
    if not projector:
        print(f"{projector_path.name}: llama.cpp cannot load it", file=sys.stderr)
        return 1

    vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    answer: dict[str, Any] = {
        "supports_vision": bool(mtmd_cpp.mtmd_support_vision(projector)),
        "generated": {},
        "logits": {},
    }
    for key in request.files:
        if key.startswith("prompt/"):
            with new_context(model) as context:
                generated, logits = greedy(context, request[key], vocab_size, max_new_tokens)
            answer["generated"][key.removeprefix("prompt/")] = generated
            answer["logits"][key.removeprefix("prompt/")] = logits.tolist()
    mtmd_cpp.mtmd_free(projector)
    llama_cpp.llama_model_free(model)
    answer_path.write_text(json.dumps(answer))
    return 0


@contextmanager
def new_context(model: Any) -> Iterator[Any]:
    """A context that computes in float32 throughout: f32 KV cache, no flash attention (it keeps f16 sums)."""
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = CONTEXT
    parameters.n_threads = parameters.n_threads_batch = 1
    parameters.type_k = parameters.type_v = GGML_TYPE_F32
    parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise RuntimeError("llama_init_from_model: no context")
    try:
        yield context
    finally:
        llama_cpp.llama_free(context)


def greedy(
    context: Any, embeddings: npt.NDArray[np.float32], vocab_size: int, max_new_tokens: int
) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Feeds embeddings [positions, hidden] as the prompt, then each chosen token by its id; ignores stop
    tokens. Returns the tokens, and the logits [vocab_size] that the first of them was chosen by."""
    positions, hidden = embeddings.shape
    prompt = llama_cpp.llama_batch_init(positions, hidden, 1)
    ctypes.memmove(prompt.embd, np.ascontiguousarray(embeddings, np.float32).ctypes.data, embeddings.size * 4)
    _number(prompt, first_position=0, count=positions)
    logits = first_logits = _decode(context, prompt, vocab_size)
    llama_cpp.llama_batch_free(prompt)

    step = llama_cpp.llama_batch_init(1, 0, 1)
    token_ids: list[int] = []
    while True:
        token_ids.append(int(logits.argmax()))
        if len(token_ids) == max_new_tokens:
            break
        step.token[0] = token_ids[-1]
        _number(step, first_position=positions + len(token_ids) - 1, count=1)
        logits = _decode(context, step, vocab_size)
    llama_cpp.llama_batch_free(step)
    return token_ids, first_logits


def _number(batch: Any, *, first_position: int, count: int) -> None:
    """Gives a batch its positions, all of sequence 0, logits for the last one."""
    batch.n_tokens = count
    for i in range(count):
        batch.pos[i] = first_position + i
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = 0
        batch.logits[i] = i == count - 1


def _decode(context: Any, batch: Any, vocab_size: int) -> npt.NDArray[np.float32]:
    status = llama_cpp.llama_decode(context, batch)
    if status != 0:
        raise RuntimeError(f"llama_decode: {status}")
    logits = llama_cpp.llama_get_logits_ith(context, batch.n_tokens - 1)
    return np.ctypeslib.as_array(logits, (vocab_size,)).copy()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
