"""The graph of vision tower and connector, on onnxruntime's fused operators.

pixel_values float32 [batch, num_images, 3, tile, tile],
pixel_attention_mask bool [batch, num_images, tile, tile]
-> image_features float32 [tiles, image_seq_len, hidden of the text model]

As in the reference, images that are all zero are padding of the batch and are dropped, and patches without a
single pixel in the mask take no part. Full tiles, the only ones that processors make, attend without a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

from ...config import ModelConfig
from .graph_builder import FLOAT, FLOAT16, MICROSOFT, Dim, GraphBuilder, element_type
from .types import OnnxType, Quantisation
from .weights import Weights, linear, linear_by_integers, quantise_activations

_PREFIX = "model.vision_model"
_CONNECTOR = "model.connector.modality_projection.proj.weight"


def build_vision(graph: GraphBuilder, config: ModelConfig, weights: Weights, type: OnnxType) -> None:
    """Adds the nodes and weights of the vision encoder. Raises FormatError, UnsupportedError, OSError."""
    _Vision(graph, config, weights, type).build()


class _Vision:
    def __init__(self, graph: GraphBuilder, config: ModelConfig, weights: Weights, type: OnnxType) -> None:
        self._graph = graph
        self._model = config
        self._config = config.vision
        self._weights = weights
        self._type = type
        self._side = config.vision.num_patches_per_side

    def build(self) -> None:
        graph, config = self._graph, self._config
        tile = config.image_size
        pixels = graph.input(
            "pixel_values", np.float32, ["batch_size", "num_images", config.num_channels, tile, tile]
        )
        mask = graph.input("pixel_attention_mask", np.bool_, ["batch_size", "num_images", tile, tile])
        features = graph.output(
            "image_features", np.float32, ["tiles", self._model.image_seq_len, self._model.text.hidden_size]
        )
        pixels, mask = self._drop_padding(pixels, mask)
        patch_mask = self._patch_mask(mask)
        self._prepare_attention(patch_mask)

        hidden = self._embeddings(self._cast(pixels), patch_mask)
        for i in range(config.num_hidden_layers):
            layer = f"{_PREFIX}.encoder.layers.{i}"
            # hidden = hidden + self_attn(layer_norm1(hidden))
            attended = self._attention(layer, self._layer_norm(hidden, f"{layer}.layer_norm1"))
            hidden = graph.op("Add", [hidden, attended])
            # hidden = hidden + mlp(layer_norm2(hidden))
            mixed = self._mlp(layer, self._layer_norm(hidden, f"{layer}.layer_norm2"))
            hidden = graph.op("Add", [hidden, mixed])
        self._connect(self._layer_norm(hidden, f"{_PREFIX}.post_layernorm"), features)

    def _drop_padding(self, pixels: str, mask: str) -> tuple[str, str]:
        """[batch, num_images, ...] each -> [tiles, 3, tile, tile] and [tiles, tile, tile] without padding.

        The first image stays where all are zero, as in SmolVLMModel.get_image_features.
        """
        graph, tile = self._graph, self._config.image_size
        flat_shape = graph.constant([-1, self._config.num_channels, tile, tile], np.int64)
        pixels = graph.op("Reshape", [pixels, flat_shape])
        mask = graph.op("Reshape", [mask, graph.constant([-1, tile, tile], np.int64)])
        # largest |pixel| of an image, [images]
        rows = graph.op("Reshape", [pixels, graph.constant([0, -1], np.int64)])
        pixel_axis = graph.constant([1], np.int64)
        largest = graph.op("ReduceMax", [graph.op("Abs", [rows]), pixel_axis], keepdims=0)
        is_real = graph.op("Greater", [largest, graph.constant(0, np.float32)])
        overall = graph.op("ReduceMax", [largest], keepdims=0)
        are_none = graph.op("Not", [graph.op("Greater", [overall, graph.constant(0, np.float32)])])
        zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
        numbers = graph.op("Range", [zero, graph.op("Size", [largest]), one])
        is_kept = graph.op("And", [are_none, graph.op("Equal", [numbers, zero])])
        is_real = graph.op("Or", [is_real, is_kept])
        kept = graph.op("Compress", [pixels, is_real], axis=0)
        return kept, graph.op("Compress", [mask, is_real], axis=0)

    def _patch_mask(self, mask: str) -> str:
        """bool [tiles, tile, tile] -> bool [tiles, side, side]: whether a patch has a pixel in the mask."""
        graph, side, patch = self._graph, self._side, self._config.patch_size
        numbers = graph.op("Cast", [mask], to=FLOAT)
        whole = graph.op("Unsqueeze", [numbers, graph.constant([1], np.int64)])
        # Windows that do not fit whole are left out, like the patches of the convolution.
        pooled = graph.op("MaxPool", [whole], kernel_shape=[patch, patch], strides=[patch, patch])
        pooled = graph.op("Reshape", [pooled, graph.constant([-1, side, side], np.int64)])
        return graph.op("Greater", [pooled, graph.constant(0, np.float32)])

    def _prepare_attention(self, patch_mask: str) -> None:
        """Adds whether all patches take part, and the mask for where they do not: int32 [tiles, patches]."""
        graph = self._graph
        keys = graph.op("Cast", [patch_mask], to=element_type(np.int32))
        self._key_mask = graph.op("Reshape", [keys, graph.constant([-1, self._side**2], np.int64)])
        smallest = graph.op("ReduceMin", [self._key_mask], keepdims=0)
        self._is_full = graph.op("Cast", [smallest], to=element_type(np.bool_))

    def _embeddings(self, pixels: str, patch_mask: str) -> str:
        """[tiles, 3, tile, tile] -> patch_embedding(pixels) + position_embedding(position_ids)"""
        graph, config = self._graph, self._config
        embeddings = f"{_PREFIX}.embeddings"
        patches = graph.op(
            "Conv",
            [
                pixels,
                self._weight(f"{embeddings}.patch_embedding.weight"),
                self._weight(f"{embeddings}.patch_embedding.bias"),
            ],
            kernel_shape=[config.patch_size] * 2,
            strides=[config.patch_size] * 2,
        )
        flat = graph.op("Reshape", [patches, graph.constant([0, 0, -1], np.int64)])
        patches = graph.op("Transpose", [flat], perm=[0, 2, 1])
        positions = graph.op(
            "Gather",
            [self._weight(f"{embeddings}.position_embedding.weight"), self._position_ids(patch_mask)],
        )
        return graph.op("Add", [patches, positions])

    def _position_ids(self, patch_mask: str) -> str:
        """bool [tiles, side, side] -> int64 [tiles, patches]: bucket_h * side + bucket_w, 0 where masked"""
        graph, side = self._graph, self._side
        numbers = graph.op("Cast", [patch_mask], to=element_type(np.int64))
        buckets = graph.weight("position_buckets", position_buckets(side))
        # How many patches the first column and the first row have choose the buckets: [tiles, side] each.
        by_axis = []
        for axis in (2, 1):
            first = graph.op("Gather", [numbers, graph.constant(0, np.int64)], axis=axis)
            count = graph.op("ReduceSum", [first, graph.constant([1], np.int64)], keepdims=0)
            by_axis.append(graph.op("Gather", [buckets, count]))
        rows = graph.op("Mul", [by_axis[0], graph.constant(side, np.int64)])
        rows = graph.op("Unsqueeze", [rows, graph.constant([2], np.int64)])
        columns = graph.op("Unsqueeze", [by_axis[1], graph.constant([1], np.int64)])
        ids = graph.op("Mul", [graph.op("Add", [rows, columns]), numbers])
        return graph.op("Reshape", [ids, graph.constant([-1, side * side], np.int64)])

    def _attention(self, layer: str, normed: str) -> str:
        """[tiles, patches, hidden] -> out_proj of the attention, [tiles, patches, hidden]"""
        graph = self._graph
        names = [f"{layer}.self_attn.{part}_proj" for part in "qkv"]
        projected = self._linears(normed, [f"{name}.weight" for name in names])
        biases = np.concatenate([self._weights.read(f"{name}.bias") for name in names])
        bias = graph.weight(f"{layer}.self_attn.qkv_proj.bias", biases.astype(self._type.dtype))
        # An attention kernel without a mask is the quicker one.
        branches = {
            branch: self._attention_branch(f"{layer}.self_attn.{branch}", [*projected, bias, *key_mask])
            for branch, key_mask in (("then_branch", []), ("else_branch", [self._key_mask]))
        }
        attended = graph.op("If", [self._is_full], **branches)
        return self._linear_and_bias(attended, f"{layer}.self_attn.out_proj")

    def _attention_branch(self, name: str, inputs: list[str]) -> Any:
        shape: list[Dim] = ["tiles", self._side**2, self._config.hidden_size]
        node = helper.make_node(
            "MultiHeadAttention",
            inputs,
            [name],
            name=name,
            domain=MICROSOFT,
            num_heads=self._config.num_attention_heads,
        )
        result = helper.make_tensor_value_info(name, element_type(self._type.dtype), shape)
        return helper.make_graph([node], name, [], [result])

    def _mlp(self, layer: str, normed: str) -> str:
        """[tiles, patches, hidden] -> fc2(gelu_tanh(fc1(x))), [tiles, patches, hidden]"""
        if (
            self._by_integers is not None
        ):  # the product adds a bias for nothing, FastGelu takes a third longer
            inputs = [self._linear_and_bias(normed, f"{layer}.mlp.fc1")]
        else:
            ffn = self._linear(normed, f"{layer}.mlp.fc1.weight")
            inputs = [ffn, self._weight(f"{layer}.mlp.fc1.bias")]
        active = self._graph.op("FastGelu", inputs, domain=MICROSOFT)
        return self._linear_and_bias(active, f"{layer}.mlp.fc2")

    def _layer_norm(self, hidden: str, name: str) -> str:
        """In a node of its own: SkipLayerNormalization, with the sum before it, takes five times as long."""
        return self._graph.op(
            "LayerNormalization",
            [hidden, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")],
            axis=-1,
            epsilon=self._config.layer_norm_eps,
        )

    def _connect(self, normed: str, features: str) -> None:
        """image_features = connector(post_layernorm(hidden)): pixel shuffle, then the projection"""
        graph, scale = self._graph, self._model.scale_factor
        blocks, hidden = self._side // scale, self._config.hidden_size
        # Channels of a token run (row in block, column in block, channel).
        split = graph.constant([-1, blocks, scale, blocks, scale, hidden], np.int64)
        shuffled = graph.op("Transpose", [graph.op("Reshape", [normed, split])], perm=[0, 1, 3, 2, 4, 5])
        joined = graph.constant([-1, blocks * blocks, scale * scale * hidden], np.int64)
        shuffled = graph.op("Reshape", [shuffled, joined])
        graph.op("Cast", [self._linear(shuffled, _CONNECTOR)], name=features, to=FLOAT)

    @property
    def _by_integers(self) -> Quantisation | None:
        """The rule of matrices that are multiplied with by integers alone; None: they are not."""
        rule = self._type.matrices
        return rule if rule is not None and rule.bits == 8 else None

    def _linear(self, x: str, name: str) -> str:
        return self._linears(x, [name])[0]

    def _linears(self, x: str, names: Sequence[str]) -> list[str]:
        """x @ weight.T for each of the weights."""
        graph, type, rule = self._graph, self._type, self._by_integers
        if rule is not None:
            rows = quantise_activations(graph, x)
            return [linear_by_integers(graph, rows, self._weights.read(name), name, rule) for name in names]
        return [linear(graph, x, self._weights.read(name), type, name, self._type.matrices) for name in names]

    def _linear_and_bias(self, x: str, name: str) -> str:
        bias = self._weight(f"{name}.bias")
        if (rule := self._by_integers) is not None:
            weight = f"{name}.weight"
            rows = quantise_activations(self._graph, x)
            return linear_by_integers(self._graph, rows, self._weights.read(weight), weight, rule, bias)
        return self._graph.op("Add", [self._linear(x, f"{name}.weight"), bias])

    def _weight(self, name: str) -> str:
        return self._graph.weight(name, self._weights.read_as(name, self._type))

    def _cast(self, x: str) -> str:
        """Casts to the dtype of activations."""
        if self._type.dtype is np.float32:
            return x
        return self._graph.op("Cast", [x], to=FLOAT16)


def position_buckets(side: int) -> npt.NDArray[np.int64]:
    """Returns the bucket of every patch along an axis by how many patches an image has there.

    What the reference computes (Idefics3VisionEmbeddings.forward of transformers 5.23.0), in its float32:
    patch i of n lies at i / n, in one of `side` buckets of equal width. A full axis is the identity.

    Returns:
        int64 [side + 1, side], the row n for n patches; row 0 is zero.
    """
    buckets = np.zeros((side + 1, side), np.int64)
    boundaries = np.arange(1 / side, 1, 1 / side).astype(np.float32)
    indices = np.arange(side, dtype=np.float32)
    for count in range(1, side + 1):
        coordinates = np.minimum(indices * (np.float32(1) / np.float32(count)), np.float32(1 - 1e-6))
        buckets[count] = np.searchsorted(boundaries, coordinates, side="right")
    if not np.array_equal(buckets[side], np.arange(side)):
        raise AssertionError(f"the buckets of {side} patches are {buckets[side]}, not the identity")
    return buckets
