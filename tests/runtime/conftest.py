"""What the tests of the runtime share: the real tokenizer, and a model whose answers a test lays down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pocketvlm import _core
from pocketvlm.backends import Generated, ProgressCallback
from pocketvlm.config import ModelConfig
from pocketvlm.engine import Model
from pocketvlm.errors import Cancelled
from pocketvlm.gguf_files import ModelFiles
from pocketvlm.image_cache import ImageCache
from pocketvlm.processor import Processor
from pocketvlm.sampling import SamplingOptions
from pocketvlm.tiles import PIXELS, TileLayout


@pytest.fixture(scope="session")
def smolvlm_256m() -> Path:
    """Tokenizer and configs of SmolVLM-256M-Instruct, without weights."""
    return Path(str(files("pocketvlm.export"))) / "data" / "smolvlm-256m-instruct"


@pytest.fixture(scope="session")
def smolvlm_processor(smolvlm_256m: Path) -> Processor:
    """The processor of SmolVLM-256M-Instruct."""
    return Processor(smolvlm_256m)


class ScriptedBackend:
    """Keeps the protocol of a backend, and answers with tokens that a test has laid down; each further answer
    leaves out one more of the first."""

    def __init__(self, answer: Sequence[int], hidden_size: int, image_seq_len: int) -> None:
        self.answer = list(answer)
        self.hidden_size = hidden_size
        self.image_seq_len = image_seq_len
        self.seconds_per_token = 0.0
        self.tiles: list[int] = []  # of each call
        self.running = 0
        self.most_running = 0

    @property
    def tile_layout(self) -> TileLayout:
        return PIXELS

    def encode_images(
        self, tiles: NDArray[Any], *, stop: _core.StopFlag, on_progress: ProgressCallback | None
    ) -> NDArray[np.float32]:
        self.tiles.append(len(tiles))
        return np.zeros((len(tiles), self.image_seq_len, self.hidden_size), np.float32)

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
        self.sampling, self.logprobs = sampling, logprobs

        def answer(sequence: int) -> Generated:
            produced: list[int] = []
            for token_id in self.answer[sequence:][:max_new_tokens]:
                time.sleep(self.seconds_per_token)
                if stop.is_set():
                    raise Cancelled("stopped")
                produced.append(token_id)
                if on_token(token_id, sequence):
                    return Generated(produced, "callback", 0.5, 0.25)
                if token_id in stop_token_ids and not ignore_eos:
                    return Generated(produced, "stop", 0.5, 0.25)
            return Generated(produced, "length", 0.5, 0.25)

        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            first, *others = map(answer, range(n))
            return first._replace(alternatives=tuple(others))
        finally:
            self.running -= 1

    def info(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def scripted(smolvlm_256m: Path) -> Callable[[str], tuple[Model, ScriptedBackend]]:
    """Makes a model with the real tokenizer that answers with the tokens of a text, markers included."""

    def make(answer: str) -> tuple[Model, ScriptedBackend]:
        processor = Processor(smolvlm_256m)
        config = ModelConfig.from_folder(smolvlm_256m)
        tokens = processor.tokenizer.encode(answer, parse_special=True)
        backend = ScriptedBackend(tokens, config.text.hidden_size, config.image_seq_len)
        model_files = ModelFiles(smolvlm_256m, smolvlm_256m / "config.json", smolvlm_256m / "config.json")
        model = Model(
            model_files,
            config,
            processor,
            backend,
            _core.ThreadPool(1),
            ImageCache(0),
            backend_name="scripted",
            pixel_limit=1000,
            load_s=1.5,
        )
        return model, backend

    return make
