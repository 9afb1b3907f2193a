"""Holds exported ONNX graphs against their checkpoint, stage by stage: how far they are, whether they pass.

What the checkpoint computes comes from our own engine at float32, and from the rows of its embedding.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ... import _core
from ...backends.onnx_files import find_graphs
from ...backends.onnx_graphs import OnnxGraphs
from ...config import ModelConfig
from ...errors import Error
from ...onnx_names import DECODER, EMBED_TOKENS, GRAPHS, VISION_ENCODER, graph_file
from ..agreement import Agreement, agreement, step_logits
from ..checkpoint import Checkpoint
from ..gguf_export import export_gguf
from ..tensor_map import EMBED_TOKENS as EMBED_TOKENS_TENSOR
from ..tensor_map import all_tensors
from .types import OnnxType

FloatArray = NDArray[np.float32]

# How far a stage may be from the checkpoint, in parts of its RMS. Between float types it is rounding, for
# quantised ones the bounds only tell a wrong graph from a coarse one: how good it is, the report says.
_BOUNDS = {
    "fp32": {EMBED_TOKENS: 0.0, VISION_ENCODER: 1e-4, DECODER: 1e-4},
    "fp16": {EMBED_TOKENS: 1e-3, VISION_ENCODER: 0.03, DECODER: 0.03},
    "int8": {EMBED_TOKENS: 0.03, VISION_ENCODER: 0.3, DECODER: 0.3},
    "q4": {EMBED_TOKENS: 0.03, VISION_ENCODER: 0.7, DECODER: 0.7},
}
_SAME_BOUNDS = {"uint8": "int8", "q8": "int8", "q4f16": "q4", "bnb4": "q4"}

_TEXT_TOKENS = 24
_STEPS = 16
_SEED = 8


@dataclass(frozen=True)
class Expected:
    """Inputs, and what the checkpoint makes of them."""

    tile: NDArray[np.uint8]  # [3, tile, tile]
    features: FloatArray  # [image_seq_len, hidden]
    token_ids: list[int]  # a prompt with the tile in its middle
    embeds: FloatArray  # of the prompt, [n, hidden]
    forced: list[int]  # its own greedy tokens, [_STEPS]
    forced_embeds: FloatArray  # [_STEPS, hidden]
    logits: FloatArray  # from which it took them, [_STEPS, vocab]


@dataclass(frozen=True)
class Checked:
    """What `check_type` found."""

    relative_errors: dict[str, float]  # graph -> RMS of the difference in parts of that of the output
    agreement: Agreement  # of the decoder's logits with the checkpoint's


def compute_expected(source: Checkpoint, work: Path, threads: int) -> Expected:
    """Runs the checkpoint in our own engine.

    Args:
        source: The checkpoint.
        work: A folder on a disk with room for a float32 model, which is removed again.
        threads: To compute with.

    Raises:
        FormatError, UnsupportedError, Error: As `export_gguf`.
    """
    config = source.config
    pool = _core.ThreadPool(threads)
    random = np.random.default_rng(_SEED)
    side = config.vision.image_size
    picture = random.integers(0, 256, (side, side, 3), np.uint8)
    text = random.integers(0, config.text.vocab_size, _TEXT_TOKENS).tolist()
    # An image token outside its place would ask for a feature of its own.
    text = [0 if token_id == config.image_token_id else token_id for token_id in text]
    half = _TEXT_TOKENS // 2
    token_ids = text[:half] + [config.image_token_id] * config.image_seq_len + text[half:]
    cut = partial(
        _core.preprocess, picture, resized=(side, side), split=None, tile_size=side, resample=1, pool=pool
    )
    with tempfile.TemporaryDirectory(dir=work, prefix="float32-") as folder:
        pair = export_gguf(source.folder, Path(folder) / "model", type="f32")
        engine = _core.Model(str(pair.text), str(pair.projector), pool=pool)
        patches = cut(layout="patches_f32", patch_size=config.vision.patch_size)
        features = engine.encode_images(patches).reshape(-1, config.text.hidden_size)
        logits = step_logits(engine, token_ids, features, config.image_token_id, steps=_STEPS, forced=None)
    forced = logits.argmax(axis=1).tolist()
    embeds = _embedding_rows(source, token_ids)
    embeds[np.array(token_ids) == config.image_token_id] = features
    return Expected(
        cut(layout="tiles")[0], features, token_ids, embeds, forced, _embedding_rows(source, forced), logits
    )


def _embedding_rows(source: Checkpoint, token_ids: Sequence[int]) -> FloatArray:
    """Returns the rows of the token embedding as the checkpoint has them, [n, hidden]."""
    spec = next(spec for spec in all_tensors(source.config) if spec.hf_name == EMBED_TOKENS_TENSOR)
    return np.concatenate([source.read_rows(spec, token_id, token_id + 1).values for token_id in token_ids])


def check_type(
    folder: Path, type: OnnxType, config: ModelConfig, expected: Expected, threads: int
) -> Checked:
    """Runs the three graphs of a type on `expected`.

    Each gets what the checkpoint's stage before it gives: an error does not pass from one to the next.

    Args:
        folder: That of the model, which has them in its subfolder `onnx`.
        type: Theirs.
        config: Of the model.
        expected: From `compute_expected`.
        threads: To compute with.

    Raises:
        Error: A graph is too far from the checkpoint, or its weights are not the ones it names.
        FormatError, BackendError: onnxruntime does not open it, or run it.
    """
    for graph in GRAPHS:
        _check_files(folder / "onnx" / graph_file(graph, type.name))
    model = open_graphs(folder, type, config, threads)
    pixels = (expected.tile.astype(np.float32) / np.float32(127.5)) - np.float32(1)
    text = [token_id for token_id in expected.token_ids if token_id != config.image_token_id]
    is_text = np.array(expected.token_ids) != config.image_token_id
    logits = decoder_logits(model, expected.embeds, expected.forced_embeds)
    errors = {
        VISION_ENCODER: _relative_error(model.encode(pixels), expected.features),
        EMBED_TOKENS: _relative_error(model.embed(text), expected.embeds[is_text]),
        DECODER: _relative_error(logits, expected.logits),
    }
    bounds = _BOUNDS[_SAME_BOUNDS.get(type.name, type.name)]
    for graph, error in errors.items():
        if not error <= bounds[graph]:
            raise Error(
                f"{graph_file(graph, type.name)}: its output is {error:.3g} of its RMS away from what the "
                f"checkpoint computes, expected at most {bounds[graph]:g}; nothing was written"
            )
    return Checked(errors, agreement(expected.logits, logits))


def open_graphs(folder: Path, type: OnnxType, config: ModelConfig, threads: int) -> OnnxGraphs:
    """Returns the graphs of a type as the backend runs them. Raises FormatError.

    Args:
        folder: That of the model, which has them in its subfolder `onnx`.
        type: Theirs.
        config: Of the model.
        threads: To compute with.
    """
    return OnnxGraphs(find_graphs(folder, type.name), config, threads=threads)


def decoder_logits(graphs: OnnxGraphs, prompt: FloatArray, forced: FloatArray) -> FloatArray:
    """Returns the logits after a prompt [n, hidden] and after each of the following tokens but the last.

    float32 [steps, vocab] for `forced` [steps, hidden]: those that its tokens are held against.

    Raises:
        BackendError: onnxruntime failed.
    """
    cache = graphs.new_cache(len(prompt) + len(forced))
    pieces = [prompt, *(forced[i : i + 1] for i in range(len(forced) - 1))]
    return np.stack([graphs.decode(piece, cache) for piece in pieces])


def _check_files(path: Path) -> None:
    """Raises Error unless the graph can be read and its weights fill the file beside it, to the byte."""
    data = path.with_name(f"{path.name}_data")
    end = 0
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            if place["location"] != data.name:
                raise Error(f"{path.name}: tensor {tensor.name} lies in {place['location']}, not {data.name}")
            end = max(end, int(place["offset"]) + int(place["length"]))
    if data.stat().st_size != end:
        raise Error(f"{data.name}: has {data.stat().st_size} bytes, {path.name} describes {end}")


def _relative_error(found: FloatArray, expected: FloatArray) -> float:
    """Returns the RMS of the difference in parts of that of `expected`; infinite for numbers that are not."""
    difference = np.sqrt(np.mean(np.square(found - expected, dtype=np.float64)))
    scale = np.sqrt(np.mean(np.square(expected, dtype=np.float64)))
    return float(difference / scale) if np.isfinite(difference) else math.inf
