"""llama.cpp, on the GGUF pair: its decoder reads our prompts, with image features from either of two towers.

`vision_engine="native"` makes features with our own preprocessing and tower; "mtmd" with llama.cpp's, see
`llama_mtmd`. The loop over tokens is the core's, the same as for every backend.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core, hub
from ..config import ModelConfig
from ..errors import Cancelled, FormatError, InputError, UnsupportedError
from ..gguf_files import ModelFiles
from ..sampling import SamplingOptions
from ..tiles import TileLayout
from . import Backend, Generated, ProgressCallback, read_result, read_steps
from .llama_library import CHUNK, LlamaModel, start

VISION_ENGINES = ("native", "mtmd")


def find_files(
    source: str | os.PathLike[str], type: str | None, mmproj: str | os.PathLike[str] | None
) -> ModelFiles:
    """Finds the GGUF pair, which a checkpoint is converted to first. Errors as `hub.resolve`."""
    return hub.resolve(source, type=type or hub.DEFAULT_TYPE, mmproj=mmproj)


def open_model(
    files: ModelFiles,
    config: ModelConfig,
    *,
    pool: _core.ThreadPool,
    isa: str | None,
    vision_compute: str,
    vision_engine: str | None,
    on_progress: ProgressCallback | None,
) -> Backend:
    """Loads the text model into llama.cpp, and the tower into our engine or llama.cpp. Errors as
    `open_backend`."""
    vision_engine = vision_engine or VISION_ENGINES[0]
    if vision_engine not in VISION_ENGINES:
        raise InputError(f"vision_engine is {vision_engine!r}, expected {' or '.join(VISION_ENGINES)}")
    if vision_engine == "mtmd":
        from .llama_mtmd import open_mtmd

        if isa is not None:
            raise UnsupportedError(f"isa {isa!r}: with vision_engine 'mtmd', llama.cpp chooses for itself")
        if vision_compute != "auto":
            raise UnsupportedError(
                f"vision_compute {vision_compute!r}: with vision_engine 'mtmd', llama.cpp computes as it does"
            )
        return open_mtmd(files, config, threads=pool.num_threads, on_progress=on_progress)
    tower = _core.Model(
        str(files.text),
        str(files.projector),
        pool=pool,
        isa=isa or os.environ.get("POCKETVLM_ISA") or None,
        vision_compute=vision_compute,
        vision_only=True,
        on_progress=on_progress,
    )
    text = open_text(files, config, threads=pool.num_threads)
    return NativeVisionBackend(text, weight_type(files), config, tower)


def open_text(files: ModelFiles, config: ModelConfig, *, threads: int) -> LlamaModel:
    """Loads the text model; of float32 it computes in float32 throughout.

    Raises:
        BackendError: llama.cpp refuses it.
        FormatError: Its sizes are not those of config.json.
    """
    start()
    model = LlamaModel(files.text, threads=threads, exact=weight_type(files) == "f32")
    for name, found, expected in (
        ("tokens", model.vocab_size, config.text.vocab_size),
        ("values of an embedding", model.hidden_size, config.text.hidden_size),
    ):
        if found != expected:
            raise FormatError(f"{files.text}: {found} {name}, config.json has {expected}")
    return model


def weight_type(files: ModelFiles) -> str:
    """Returns the type of the matrices of a text file, as its first attention layer has it.

    Raises:
        FormatError: It has no such layer.
    """
    name = "blk.0.attn_q.weight"
    tensors = _core.GgufFile(files.text).tensors
    if name not in tensors:
        raise FormatError(f"{files.text}: has no tensor {name}")
    return tensors[name][0]


class LlamaCppBackend:
    """The half of a `Backend` that is llama.cpp's in either case: prompt and features to tokens."""

    def __init__(self, text: LlamaModel, text_type: str, config: ModelConfig) -> None:
        self._text = text
        self._text_type = text_type
        self._config = config

    def generate(
        self,
        token_ids: Sequence[int],
        image_features: NDArray[np.float32],
        *,
        max_new_tokens: int,
        stop_token_ids: Sequence[int],
        ignore_eos: bool,
        sampling: SamplingOptions,
        n: int,
        logprobs: int | None,
        on_token: Callable[[int, int], bool],
        stop: _core.StopFlag,
        on_progress: ProgressCallback | None,
    ) -> Generated:
        text = self._config.text
        with closing(self._read(token_ids, image_features, max_new_tokens, stop)) as reader:
            result = _core.generate_with(
                reader,
                np.array(token_ids, np.int32),
                vocab_size=text.vocab_size,
                max_new_tokens=max_new_tokens,
                stop_token_ids=list(stop_token_ids),
                ignore_eos=ignore_eos,
                on_token=on_token,
                sampling=sampling.for_core(text.vocab_size),
                n=n,
                logprobs=logprobs,
                on_progress=on_progress,
            )
        return read_result(result, with_logprobs=logprobs is not None)

    def step_logits(
        self,
        token_ids: Sequence[int],
        image_features: NDArray[np.float32],
        continuation: Sequence[int],
        *,
        stop: _core.StopFlag,
    ) -> NDArray[np.float32]:
        with closing(self._read(token_ids, image_features, len(continuation), stop)) as reader:
            return read_steps(reader, continuation)

    def _read(
        self,
        token_ids: Sequence[int],
        image_features: NDArray[np.float32],
        max_new_tokens: int,
        stop: _core.StopFlag,
    ) -> _Reader:
        ids = np.array(token_ids, np.int32)
        is_image = ids == self._config.image_token_id
        max_positions = self._config.text.max_position_embeddings
        return _Reader(self._text, ids, is_image, image_features, max_new_tokens, max_positions, stop)

    def info(self) -> dict[str, Any]:
        """Returns what both kinds have to say."""
        return {"text_type": self._text_type, "kv_cache_type": "f32" if self._text.exact else "f16"}


class NativeVisionBackend(LlamaCppBackend):
    """Our tower before llama.cpp's decoder, as a `Backend`."""

    def __init__(self, text: LlamaModel, text_type: str, config: ModelConfig, tower: _core.Model) -> None:
        super().__init__(text, text_type, config)
        self._tower = tower

    @property
    def tile_layout(self) -> TileLayout:
        is_f32 = self._tower.vision_type == "f32"
        return TileLayout("patches_f32" if is_f32 else "patches_bf16", self._tower.patch_size)

    def encode_images(
        self, tiles: NDArray[Any], *, stop: _core.StopFlag, on_progress: ProgressCallback | None
    ) -> NDArray[np.float32]:
        return self._tower.encode_images(tiles, stop=stop, on_progress=on_progress)

    def info(self) -> dict[str, Any]:
        tower = self._tower
        return {
            **super().info(),
            "vision_engine": "native",
            "isa": tower.isa,
            "vision_type": tower.vision_type,
            "vision_compute": tower.vision_compute,
        }


class _Reader:
    """A context and a prompt, as `_core.generate_with` reads them."""

    def __init__(
        self,
        model: LlamaModel,
        token_ids: NDArray[np.int32],
        is_image: NDArray[np.bool_],
        image_features: NDArray[np.float32],
        max_new_tokens: int,
        max_positions: int,
        stop: _core.StopFlag,
    ) -> None:
        self._token_ids = token_ids
        self._is_image = is_image
        self._image_features = image_features
        self._stop = stop
        self._context = model.new_context(min(len(token_ids) + max_new_tokens, max_positions))
        self.max_positions = max_positions

    @property
    def length(self) -> int:
        return self._context.length

    def read_prompt(self, on_progress: Callable[[int, int], None]) -> NDArray[np.float32]:
        logits = np.empty(0, np.float32)
        used = 0  # image features
        for first, last in _batches(self._is_image):
            _check(self._stop)
            if self._is_image[first]:
                rows = self._image_features[used : used + last - first]
                used += len(rows)
                logits = self._context.read_embeddings(rows)
            else:
                logits = self._context.read_tokens(self._token_ids[first:last])
            on_progress(last, len(self._token_ids))
        return logits

    def read_token(self, token_id: int) -> NDArray[np.float32]:
        _check(self._stop)
        return self._context.read_tokens(np.array([token_id], np.int32))

    def truncate(self, length: int) -> None:
        self._context.truncate(length)

    def close(self) -> None:
        self._context.close()


def _batches(is_image: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yields first and last + 1 of runs of tokens and of features: a batch holds one kind or the other."""
    ends = [*(np.flatnonzero(np.diff(is_image)) + 1).tolist(), len(is_image)]
    start = 0
    for end in ends:
        for first in range(start, end, CHUNK):
            yield first, min(first + CHUNK, end)
        start = end


def _check(stop: _core.StopFlag) -> None:
    if stop.is_set():
        raise Cancelled("stopped by request")
