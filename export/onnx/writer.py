"""Writes the three graphs of every type: from the weights that it needs, by the module that builds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ...onnx_names import EMBED_TOKENS, GRAPHS, VISION_ENCODER, graph_file
from ..checkpoint import Checkpoint
from ..equalization import Equalization
from ..tensor_map import LM_HEAD, all_tensors
from .decoder import build_decoder
from .embedding import build_embedding
from .graph_builder import GraphBuilder
from .types import OnnxType
from .vision import build_vision
from .weights import Weights


def write_graphs(
    source: Checkpoint, types: Sequence[OnnxType], folder: Path, advance: Callable[[str], None]
) -> None:
    """Writes the graphs of `types` into `folder`; `advance` is called with the name of each before it is.

    Raises:
        FormatError: The checkpoint is damaged.
        UnsupportedError: A value does not fit a type.
        OSError: The disk is full.
    """
    plain = evened = Weights(source)
    if any(type.bits is not None for type in types):
        specs = [
            spec
            for spec in all_tensors(source.config)
            if not (spec.hf_name == LM_HEAD and source.has_shared_head)
        ]
        evened = Weights(source, Equalization(source, specs))
    for type in types:
        weights = plain if type.bits is None else evened
        for name in GRAPHS:
            advance(graph_file(name, type.name))
            _write_graph(source, weights, name, type, folder / graph_file(name, type.name))


def _write_graph(source: Checkpoint, weights: Weights, name: str, type: OnnxType, path: Path) -> None:
    config = source.config
    with GraphBuilder(path) as graph:
        if name == VISION_ENCODER:
            build_vision(graph, config, weights, type)
        elif name == EMBED_TOKENS:
            build_embedding(graph, config.text, weights, type)
        else:
            build_decoder(graph, config.text, weights, type, has_shared_head=source.has_shared_head)
        facts = {"graph": name, "type": type.name, "checkpoint": source.name, "revision": source.revision}
        graph.save(metadata=facts)
