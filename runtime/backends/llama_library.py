"""llama.cpp by the low-level bindings of llama-cpp-python: text models and contexts, with errors and an end.

The bindings pass C pointers around; here each has an owner that gives it back. Files are proven before they
come here, because llama.cpp ends the process where it finds some of the things that can be wrong with one.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..errors import BackendError

try:
    from llama_cpp import llama_cpp, mtmd_cpp
except (OSError, RuntimeError) as error:
    raise BackendError(f"llama-cpp-python cannot load its library: {error}") from error

# The most positions of a batch: a stop is heard between two.
CHUNK = 128

_GGML_TYPE_F32, _GGML_TYPE_F16 = 0, 1
_LOG_LEVEL_ERROR = 4

# What llama.cpp complained of last, for the errors here: it is to write nothing to stderr.
_complaints: deque[str] = deque(maxlen=3)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator,unused-ignore]
def _listen(level: int, text: bytes, user_data: object) -> None:
    if level == _LOG_LEVEL_ERROR and (line := text.decode(errors="replace").strip()):
        _complaints.append(line)


def start() -> None:
    """Prepares the library; further calls do no harm. Its words go to the errors raised here from now on."""
    for set_log in (llama_cpp.llama_log_set, mtmd_cpp.mtmd_log_set, mtmd_cpp.mtmd_helper_log_set):
        set_log(_listen, None)
    _complaints.clear()
    llama_cpp.llama_backend_init()


def failure(what: str) -> BackendError:
    """Returns the error for a call that failed, with what llama.cpp said lately."""
    return BackendError(": ".join([f"{what}: llama.cpp failed", "; ".join(_complaints)]).removesuffix(": "))


class LlamaModel:
    """The weights of a text model, mapped. Freed with the object.

    Attributes:
        path: Its file.
        vocab_size: Tokens.
        hidden_size: Values of an embedding.
    """

    def __init__(self, path: Path, *, threads: int, exact: bool) -> None:
        """Loads a GGUF file that was proven.

        Args:
            path: The file.
            threads: To compute with.
            exact: Whether to compute in float32 throughout: a KV cache of float32 and no flash attention,
                which keeps sums in float16. Else the cache is float16, and llama.cpp chooses.

        Raises:
            BackendError: llama.cpp refuses the file.
        """
        self.path = path
        self.exact = exact
        self._threads = threads
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        # Version 0.3.36 crashes in llama_decode where the CPU has AMX, with weights repacked for it.
        parameters.use_extra_bufts = "amx_int8" not in _core.cpu_features()
        self.pointer: Any = llama_cpp.llama_model_load_from_file(bytes(path), parameters)
        if not self.pointer:
            raise failure(str(path))
        weakref.finalize(self, llama_cpp.llama_model_free, self.pointer)
        self.hidden_size: int = llama_cpp.llama_model_n_embd(self.pointer)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.pointer))

    def new_context(self, positions: int) -> LlamaContext:
        """Makes an empty KV cache for so many positions.

        Raises:
            BackendError: There is no memory for it.
        """
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = positions
        parameters.n_batch = parameters.n_ubatch = CHUNK
        parameters.n_threads = parameters.n_threads_batch = self._threads
        parameters.type_k = parameters.type_v = _GGML_TYPE_F32 if self.exact else _GGML_TYPE_F16
        if self.exact:
            parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        pointer = llama_cpp.llama_init_from_model(self.pointer, parameters)
        if not pointer:
            raise failure(f"{self.path}: a context of {positions} positions")
        return LlamaContext(self, pointer)


class LlamaContext:
    """A KV cache and what computes over it. `close` frees it.

    Attributes:
        length: Positions it holds.
    """

    def __init__(self, model: LlamaModel, pointer: Any) -> None:
        """Takes a context of the model; `LlamaModel.new_context` makes it."""
        self.length = 0
        self._model = model  # lives as long as its contexts
        self._pointer = pointer
        self._free = weakref.finalize(self, llama_cpp.llama_free, pointer)

    def read_tokens(self, token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Appends at most `CHUNK` tokens; returns the logits behind the last, float32 [vocab_size].

        Raises:
            BackendError: llama.cpp fails.
        """
        ids = np.ascontiguousarray(token_ids, np.int32)
        pointer = ids.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token))
        return self._decode(llama_cpp.llama_batch(n_tokens=len(ids), token=pointer))

    def read_embeddings(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `read_tokens`, for positions that are no tokens: float32 [n, hidden_size]."""
        rows = np.ascontiguousarray(embeddings, np.float32)
        pointer = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        return self._decode(llama_cpp.llama_batch(n_tokens=len(rows), embd=pointer))

    def truncate(self, length: int) -> None:
        """Forgets the positions from `length` on."""
        if not llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self._pointer), 0, length, -1):
            raise failure(f"{self._model.path}: forgetting positions from {length} on")
        self.length = length

    def close(self) -> None:
        """Frees it."""
        self._free()

    def _decode(self, batch: Any) -> NDArray[np.float32]:
        """Runs a batch that leaves to llama.cpp what it defaults to: the next positions, one sequence, logits
        behind the last."""
        status = llama_cpp.llama_decode(self._pointer, batch)
        if status != 0:
            raise failure(
                f"{self._model.path}: {batch.n_tokens} positions from {self.length} (code {status})"
            )
        self.length += batch.n_tokens
        logits = llama_cpp.llama_get_logits_ith(self._pointer, -1)
        values: NDArray[np.float32] = np.ctypeslib.as_array(logits, (self._model.vocab_size,)).copy()
        return values
