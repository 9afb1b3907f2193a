"""The graph of the token embedding: input_ids int64 [batch, n] -> inputs_embeds float32 [batch, n, hidden].

In quantised types a row has 8 bits per number and a scale.
"""

from __future__ import annotations

import numpy as np

from ...config import TextConfig
from ..tensor_map import EMBED_TOKENS
from .graph_builder import FLOAT, GraphBuilder
from .types import OnnxType
from .weights import Weights, quantise_rows, to_dtype


def build_embedding(graph: GraphBuilder, config: TextConfig, weights: Weights, type: OnnxType) -> None:
    """Adds the nodes and weights of the embedding. Raises FormatError, UnsupportedError, OSError."""
    ids = graph.input("input_ids", np.int64, ["batch_size", "n"])
    embeds = graph.output("inputs_embeds", np.float32, ["batch_size", "n", config.hidden_size])
    rows = weights.read(EMBED_TOKENS)
    if type.bits is None:
        gathered = graph.op("Gather", [graph.weight(EMBED_TOKENS, to_dtype(rows, type, EMBED_TOKENS)), ids])
        graph.op("Cast", [gathered], name=embeds, to=FLOAT)
        return
    quants, scales = quantise_rows(rows)
    gathered = graph.op("Gather", [graph.weight(f"{EMBED_TOKENS}_quants", quants), ids])
    factors = graph.op("Gather", [graph.weight(f"{EMBED_TOKENS}_scales", scales[:, None]), ids])
    graph.op("Mul", [graph.op("Cast", [gathered], to=FLOAT), factors], name=embeds)
