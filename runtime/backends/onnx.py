"""onnxruntime, on a folder of ONNX graphs as the hub has them and as `pocketvlm export onnx` writes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..config import ModelConfig, ProcessorConfig
from ..errors import Cancelled, InputError, UnsupportedError
from ..pixel_values import normalize
from ..processor import Processor
from ..sampling import SamplingOptions
from ..tiles import PIXELS, TileLayout
from . import Generated, ProgressCallback, read_result, read_steps, require_own_vision
from .onnx_files import OnnxGraph, check_graphs, find_graphs, require_type
from .onnx_graphs import OnnxGraphs
from .onnx_hub import download_graphs

# Positions per run over the weights: a stop is heard between two, and graphs that give the logits of every
# position give those of so many.
_CHUNK = 128


@dataclass(frozen=True)
class OnnxFiles:
    """The graphs of a folder."""

    folder: Path
    graphs: dict[str, OnnxGraph]

    def describe(self) -> tuple[ModelConfig, Processor]:
        """Reads the files beside the subfolder. Errors as `Files.describe`."""
        return ModelConfig.from_folder(self.folder), Processor(self.folder)

    def info(self) -> dict[str, Any]:
        """Returns names and sizes, as `Model.info` has them."""
        names = {f"{name}_file": graph.path.name for name, graph in self.graphs.items()}
        return names | {f"{name}_file_bytes": graph.nbytes for name, graph in self.graphs.items()}


def find_files(
    source: str | os.PathLike[str], type: str | None, mmproj: str | os.PathLike[str] | None = None
) -> OnnxFiles:
    """Finds the graphs of a folder, or of a repository of the hub.

    Raises:
        InputError: There is no such folder, repository or type, or `mmproj` is given.
        FormatError: A graph or its weights are missing or damaged.
        UnsupportedError: The hub cannot be reached.
    """
    if mmproj is not None:
        raise InputError("mmproj goes with a GGUF text file, of which the onnx backend reads none")
    require_type(type)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = download_graphs(str(source), type)
    return OnnxFiles(folder, find_graphs(folder, type))


def open_model(
    files: OnnxFiles,
    config: ModelConfig,
    *,
    pool: _core.ThreadPool,
    isa: str | None,
    vision_compute: str,
    vision_engine: str | None,
    on_progress: ProgressCallback | None,
) -> OnnxBackend:
    """Makes the sessions. Errors as `open_backend`."""
    require_own_vision("onnx", vision_engine)
    if isa is not None:
        raise UnsupportedError(f"isa {isa!r}: the onnx backend chooses for itself")
    if vision_compute != "auto":
        raise UnsupportedError(
            f"vision_compute {vision_compute!r}: the onnx backend computes as its graphs say"
        )
    check_graphs(files.graphs, config)
    graphs = OnnxGraphs(files.graphs, config, threads=pool.num_threads)
    for done, name in enumerate(files.graphs, 1):
        graphs.open(name)
        if on_progress is not None:
            on_progress("load", done, len(files.graphs))
    return OnnxBackend(graphs, files, config, ProcessorConfig.from_folder(files.folder))


class OnnxBackend:
    """`OnnxGraphs` as a `Backend`. Every generation has a KV cache of its own."""

    tile_layout: TileLayout = PIXELS

    def __init__(
        self, graphs: OnnxGraphs, files: OnnxFiles, config: ModelConfig, processor: ProcessorConfig
    ) -> None:
        self._graphs = graphs
        self._files = files
        self._config = config
        self._processor = processor

    def encode_images(
        self, tiles: NDArray[Any], *, stop: _core.StopFlag, on_progress: ProgressCallback | None
    ) -> NDArray[np.float32]:
        shape = (len(tiles), self._processor.image_seq_len, self._config.text.hidden_size)
        features = np.empty(shape, np.float32)
        for i, tile in enumerate(tiles):
            _check(stop)
            pixel_values = normalize(tile[None], self._processor)[0]
            features[i] = self._graphs.encode(pixel_values, is_last=i + 1 == len(tiles))
            if on_progress is not None:
                on_progress("vision", i + 1, len(tiles))
        return features

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
        result = _core.generate_with(
            self._read(token_ids, image_features, max_new_tokens, stop),
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
        return read_steps(self._read(token_ids, image_features, len(continuation), stop), continuation)

    def _read(
        self,
        token_ids: Sequence[int],
        image_features: NDArray[np.float32],
        max_new_tokens: int,
        stop: _core.StopFlag,
    ) -> _Reader:
        embeds = self._graphs.embed_prompt(token_ids, image_features)
        max_positions = self._config.text.max_position_embeddings
        return _Reader(self._graphs, embeds, max_new_tokens, max_positions, stop)

    def info(self) -> dict[str, Any]:
        return {f"{name}_type": graph.type for name, graph in self._files.graphs.items()}


class _Reader:
    """The decoder and a prompt, as `_core.generate_with` reads them."""

    def __init__(
        self,
        graphs: OnnxGraphs,
        embeds: NDArray[np.float32],
        max_new_tokens: int,
        max_positions: int,
        stop: _core.StopFlag,
    ) -> None:
        self._graphs = graphs
        self._embeds = embeds
        self._stop = stop
        self._cache = graphs.new_cache(min(len(embeds) + max_new_tokens, max_positions))
        self.max_positions = max_positions

    @property
    def length(self) -> int:
        return self._cache.length

    def read_prompt(self, on_progress: Callable[[int, int], None]) -> NDArray[np.float32]:
        logits = np.empty(0, np.float32)
        for first in range(0, len(self._embeds), _CHUNK):
            _check(self._stop)
            logits = self._graphs.decode(self._embeds[first : first + _CHUNK], self._cache)
            on_progress(self._cache.length, len(self._embeds))
        return logits

    def read_token(self, token_id: int) -> NDArray[np.float32]:
        _check(self._stop)
        return self._graphs.decode(self._graphs.embed([token_id]), self._cache)

    def truncate(self, length: int) -> None:
        self._graphs.truncate(self._cache, length)


def _check(stop: _core.StopFlag) -> None:
    if stop.is_set():
        raise Cancelled("stopped by request")
