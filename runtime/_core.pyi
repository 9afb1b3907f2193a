"""Types of the compiled module. Arrays are C-contiguous and of the exact dtype named here, never cast.

Long calls release the GIL, poll `stop` (errors.Cancelled) and run signal handlers (KeyboardInterrupt).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Progress = Callable[[str, int, int], None]

def default_threads() -> int: ...
def isas() -> list[str]: ...
def cpu_features() -> list[str]: ...

class ThreadPool:
    num_threads: int
    def __init__(self, num_threads: int) -> None: ...

class StopFlag:
    def __init__(self) -> None: ...
    def set(self) -> None: ...
    def is_set(self) -> bool: ...

def preprocess(
    image: NDArray[np.uint8],
    *,
    resized: tuple[int, int],
    split: tuple[int, int] | None,
    tile_size: int,
    resample: int,
    pool: ThreadPool,
    stop: StopFlag | None = None,
) -> NDArray[np.uint8]: ...

class KVCache:
    length: int
    capacity: int
    nbytes: int

class GenerateResult:
    token_ids: list[int]
    finish_reason: str
    prefill_s: float
    decode_s: float

class Model:
    isa: str
    hidden_size: int
    vocab_size: int
    max_position_embeddings: int
    tile_size: int
    image_seq_len: int
    num_parameters: int
    weight_bytes: int
    text_type: str
    vision_type: str
    def __init__(
        self,
        text_path: str,
        projector_path: str,
        *,
        pool: ThreadPool,
        isa: str | None = None,
        stop: StopFlag | None = None,
        on_progress: _Progress | None = None,
    ) -> None: ...
    def encode_images(
        self, tiles: NDArray[np.uint8], *, stop: StopFlag | None = None, on_progress: _Progress | None = None
    ) -> NDArray[np.float32]: ...
    def new_cache(self) -> KVCache: ...
    def prefill(
        self,
        cache: KVCache,
        token_ids: NDArray[np.int32],
        image_features: NDArray[np.float32],
        image_token_id: int,
        *,
        stop: StopFlag | None = None,
        on_progress: _Progress | None = None,
    ) -> NDArray[np.float32]: ...
    def decode(
        self, cache: KVCache, token_id: int, *, stop: StopFlag | None = None
    ) -> NDArray[np.float32]: ...
    def generate(
        self,
        cache: KVCache,
        token_ids: NDArray[np.int32],
        image_features: NDArray[np.float32],
        *,
        image_token_id: int,
        max_new_tokens: int,
        stop_token_ids: list[int],
        ignore_eos: bool,
        on_token: Callable[[int], bool] | None,
        stop: StopFlag | None = None,
        on_progress: _Progress | None = None,
    ) -> GenerateResult: ...

class GgufFile:
    metadata: dict[str, Any]
    tensors: dict[str, tuple[str, list[int], int]]
    def __init__(self, path: str) -> None: ...
