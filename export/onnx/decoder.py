"""The graph of the text model with its head, on onnxruntime's fused operators.

inputs_embeds float32 [batch, n, hidden], attention_mask int64 [batch, total], position_ids int64 [batch, n],
past_key_values.{i}.{key,value} [batch, num_key_value_heads, past, head_dim]
-> logits float32 [batch, n, vocab], present.{i}.{key,value} [batch, num_key_value_heads, past + n, head_dim]

Keys and values are float16 in types whose activations are. Token t of the mask is token t of past and new
ones together; 0 hides it. Instead of total - n, `past` may be `total` or more: then present has its shape,
and where both are bound to the same memory nothing is copied. The optional input num_logits_to_keep, int64,
asks for the logits of that many last tokens; 0, its default, for all.
"""

from __future__ import annotations

import numpy as np

from ...config import TextConfig
from ..tensor_map import EMBED_TOKENS, LM_HEAD
from .graph_builder import FLOAT, FLOAT16, MICROSOFT, Dim, GraphBuilder, element_type
from .types import OnnxType
from .weights import Floats, Weights, linear

_PREFIX = "model.text_model"

# As far below 0 as hides a token, and as float16 reaches.
_HIDDEN = -65504.0


def build_decoder(
    graph: GraphBuilder, config: TextConfig, weights: Weights, type: OnnxType, *, has_shared_head: bool
) -> None:
    """Adds the nodes and weights of the decoder. Raises FormatError, UnsupportedError, OSError."""
    decoder = _Decoder(graph, config, weights, type)
    decoder.build(EMBED_TOKENS if has_shared_head else LM_HEAD)


class _Decoder:
    def __init__(self, graph: GraphBuilder, config: TextConfig, weights: Weights, type: OnnxType) -> None:
        self._graph = graph
        self._config = config
        self._weights = weights
        self._type = type

    def build(self, head: str) -> None:
        graph, config, type = self._graph, self._config, self._type
        # transformers.js makes an empty cache by the name of this dimension.
        x = graph.input("inputs_embeds", np.float32, ["batch_size", "n", config.hidden_size])
        mask = graph.input("attention_mask", np.int64, ["batch_size", "total"])
        self._position_ids = graph.input("position_ids", np.int64, ["batch_size", "n"])
        for i in range(config.num_hidden_layers):
            for part in ("key", "value"):
                past: list[Dim] = ["batch_size", config.num_key_value_heads, "past", config.head_dim]
                graph.input(f"past_key_values.{i}.{part}", type.dtype, past)
        graph.output("logits", np.float32, ["batch_size", "kept", config.vocab_size])
        for i in range(config.num_hidden_layers):
            for part in ("key", "value"):
                present: list[Dim] = [
                    "batch_size",
                    config.num_key_value_heads,
                    "past and new",
                    config.head_dim,
                ]
                graph.output(f"present.{i}.{part}", type.dtype, present)

        self._add_lengths(mask, x)
        cos, sin = rotary_tables(config)
        self._cos = graph.weight("cos_cache", cos.astype(type.dtype))
        self._sin = graph.weight("sin_cache", sin.astype(type.dtype))

        hidden = self._cast(x)
        normed = graph.op(
            "SimplifiedLayerNormalization",
            [hidden, self._norm(f"{_PREFIX}.layers.0.input_layernorm.weight")],
            axis=-1,
            epsilon=config.rms_norm_eps,
            stash_type=1,
        )
        for i in range(config.num_hidden_layers):
            layer = f"{_PREFIX}.layers.{i}"
            # hidden = hidden + self_attn(input_layernorm(hidden))
            attended = self._attention(i, layer, normed)
            hidden, normed = self._add_and_norm(hidden, attended, f"{layer}.post_attention_layernorm.weight")
            # hidden = hidden + mlp(post_attention_layernorm(hidden))
            last = i + 1 == config.num_hidden_layers
            following = "norm" if last else f"layers.{i + 1}.input_layernorm"
            hidden, normed = self._add_and_norm(
                hidden, self._mlp(layer, normed), f"{_PREFIX}.{following}.weight"
            )
        self._logits(normed, head)

    def _add_lengths(self, mask: str, x: str) -> None:
        """Adds what GroupQueryAttention wants to know: its lengths, and a bias that hides masked tokens."""
        graph = self._graph
        # [batch, total]
        shape = graph.op("Shape", [mask])
        total = graph.op("Gather", [shape, graph.constant(1, np.int64)], axis=0)
        self._total = graph.op("Cast", [total], to=element_type(np.int32))
        before_last = graph.op("Sub", [self._total, graph.constant(1, np.int32)])
        batch = graph.op("Gather", [shape, graph.constant([0], np.int64)], axis=0)
        self._seqlens = graph.op("Expand", [before_last, batch])
        # [batch, 1, n, total]: 0, or _HIDDEN where the mask is 0
        hidden = graph.op("Sub", [graph.constant(1, np.int64), mask])
        hidden = self._cast(hidden)
        hidden = graph.op("Mul", [hidden, graph.constant(_HIDDEN, self._type.dtype)])
        hidden = graph.op("Unsqueeze", [hidden, graph.constant([1, 2], np.int64)])
        n = graph.op("Slice", [graph.op("Shape", [x]), *(graph.constant([k], np.int64) for k in (1, 2))])
        one = graph.constant([1], np.int64)
        self._bias = graph.op("Expand", [hidden, graph.op("Concat", [one, one, n, one], axis=0)])

    def _attention(self, i: int, layer: str, normed: str) -> str:
        """[batch, n, hidden] -> o_proj of the attention, [batch, n, hidden]"""
        graph, config = self._graph, self._config
        parts = [f"{layer}.self_attn.{part}_proj.weight" for part in "qkv"]
        # [batch, n, (num_attention_heads + 2 num_key_value_heads) * head_dim]
        qkv = self._linear(normed, self._weights.read_rows(parts), f"{layer}.self_attn.qkv_proj.weight")
        attended = f"{layer}.self_attn"
        graph.node(
            "GroupQueryAttention",
            [
                qkv,
                "",
                "",
                f"past_key_values.{i}.key",
                f"past_key_values.{i}.value",
                self._seqlens,
                self._total,
                self._cos,
                self._sin,
                self._position_ids,
                self._bias,
            ],
            [attended, f"present.{i}.key", f"present.{i}.value"],
            domain=MICROSOFT,
            num_heads=config.num_attention_heads,
            kv_num_heads=config.num_key_value_heads,
            scale=config.head_dim**-0.5,
            do_rotary=1,
            rotary_interleaved=0,
        )
        name = f"{layer}.self_attn.o_proj.weight"
        return self._linear(attended, self._weights.read(name), name)

    def _mlp(self, layer: str, normed: str) -> str:
        """[batch, n, hidden] -> down_proj(silu(gate_proj(x)) * up_proj(x)), [batch, n, hidden]"""
        graph = self._graph
        gate, up, down = (f"{layer}.mlp.{part}_proj.weight" for part in ("gate", "up", "down"))
        gated = self._linear(normed, self._weights.read(gate), gate)
        # x * sigmoid(x)
        gated = graph.op("QuickGelu", [gated], domain=MICROSOFT, alpha=1.0)
        product = graph.op("Mul", [gated, self._linear(normed, self._weights.read(up), up)])
        return self._linear(product, self._weights.read(down), down)

    def _add_and_norm(self, hidden: str, added: str, norm: str) -> tuple[str, str]:
        """Returns hidden + added, and its norm."""
        total, normed = norm.replace(".weight", ".input"), norm.replace(".weight", ".output")
        self._graph.node(
            "SkipSimplifiedLayerNormalization",
            [hidden, added, self._norm(norm)],
            [normed, "", "", total],
            domain=MICROSOFT,
            epsilon=self._config.rms_norm_eps,
        )
        return total, normed

    def _logits(self, normed: str, head: str) -> None:
        """logits = lm_head(hidden[:, -num_logits_to_keep:])"""
        graph = self._graph
        keep = graph.optional_input("num_logits_to_keep", np.array(0, np.int64))
        start = graph.op("Reshape", [graph.op("Neg", [keep]), graph.constant([1], np.int64)])
        end = graph.constant([np.iinfo(np.int64).max], np.int64)
        kept = graph.op("Slice", [normed, start, end, graph.constant([1], np.int64)])
        logits = linear(graph, kept, self._weights.read(head), self._type, LM_HEAD, self._type.head)
        graph.op("Cast", [logits], name="logits", to=FLOAT)

    def _linear(self, x: str, matrix: Floats, name: str) -> str:
        return linear(self._graph, x, matrix, self._type, name, self._type.matrices)

    def _norm(self, name: str) -> str:
        return self._graph.weight(name, self._weights.read_as(name, self._type))

    def _cast(self, x: str) -> str:
        """Casts to the dtype of activations."""
        return self._graph.op("Cast", [x], to=FLOAT if self._type.dtype is np.float32 else FLOAT16)


def rotary_tables(config: TextConfig) -> tuple[Floats, Floats]:
    """Returns cosines and sines of every position, each float32 [max_position_embeddings, head_dim / 2].

    In float32 as the reference computes them: inv_freq, its product with the position, then the functions.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    inv_freq = (1 / np.float32(config.rope_theta) ** exponents).astype(np.float32)
    angles = np.arange(config.max_position_embeddings, dtype=np.float32)[:, None] * inv_freq
    return np.cos(angles), np.sin(angles)
