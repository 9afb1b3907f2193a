"""The backend of our own: the C++ core, on the GGUF pair."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core, hub
from ..config import ModelConfig
from ..gguf_files import ModelFiles
from ..sampling import SamplingOptions
from ..tiles import TileLayout
from . import Generated, ProgressCallback, read_result, require_own_vision


def find_files(
    source: str | os.PathLike[str], type: str | None, mmproj: str | os.PathLike[str] | None = None
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
) -> NativeBackend:
    """Maps and packs the weights. Errors as `open_backend`."""
    require_own_vision("native", vision_engine)
    model = _core.Model(
        str(files.text),
        str(files.projector),
        pool=pool,
        isa=isa or os.environ.get("POCKETVLM_ISA") or None,
        vision_compute=vision_compute,
        on_progress=on_progress,
    )
    return NativeBackend(model, config.image_token_id)


class NativeBackend:
    """`_core.Model` as a `Backend`. Every generation has a KV cache of its own."""

    def __init__(self, model: _core.Model, image_token_id: int) -> None:
        self._model = model
        self._image_token_id = image_token_id

    @property
    def tile_layout(self) -> TileLayout:
        is_f32 = self._model.vision_type == "f32"
        return TileLayout("patches_f32" if is_f32 else "patches_bf16", self._model.patch_size)

    def encode_images(
        self, tiles: NDArray[Any], *, stop: _core.StopFlag, on_progress: ProgressCallback | None
    ) -> NDArray[np.float32]:
        return self._model.encode_images(tiles, stop=stop, on_progress=on_progress)

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
        result = self._model.generate(
            self._model.new_cache(),
            np.array(token_ids, np.int32),
            image_features,
            image_token_id=self._image_token_id,
            max_new_tokens=max_new_tokens,
            stop_token_ids=list(stop_token_ids),
            ignore_eos=ignore_eos,
            on_token=on_token,
            sampling=sampling.for_core(self._model.vocab_size),
            n=n,
            logprobs=logprobs,
            stop=stop,
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
        cache = self._model.new_cache()
        prompt = np.array(token_ids, np.int32)
        logits = [self._model.prefill(cache, prompt, image_features, self._image_token_id, stop=stop)]
        logits += [self._model.decode(cache, token_id, stop=stop) for token_id in continuation]
        return np.stack(logits)

    def info(self) -> dict[str, Any]:
        model = self._model
        return {
            "isa": model.isa,
            "text_type": model.text_type,
            "vision_type": model.vision_type,
            "vision_compute": model.vision_compute,
            "num_parameters": model.num_parameters,
            "weight_bytes": model.weight_bytes,
        }
