"""Where a channel meets only sums and products on its way from one tensor to the next.

There the first tensor may be multiplied by a factor and the second divided by it, and the model computes the
same function: cross-layer equalization (Nagel et al., 2019), gamma migration (Wei et al., 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..config import ModelConfig


@dataclass(frozen=True)
class Place:
    """Channels on their way from the tensors that make them to the tensors that read them.

    Attributes:
        producers: Names of tensors whose row c, or element c, makes channel c.
        consumers: Names of tensors that read channel c with the columns `columns[c]`.
        columns: int64 [channels, columns for each].
    """

    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    columns: npt.NDArray[np.int64]


def places(config: ModelConfig) -> list[Place]:
    """Lists where channels can be scaled: before all linear layers but the head and the vision MLP's second.

    The input of that one has been through GELU, which no factor passes; the weights of the head are often the
    token embedding's too.
    """
    return _text_places(config) + _vision_places(config)


def _text_places(config: ModelConfig) -> list[Place]:
    text = config.text
    hidden, ffn = np.arange(text.hidden_size)[:, None], np.arange(text.intermediate_size)[:, None]
    # Channel d of a key-value head goes to channel d of every query head that shares it.
    sharing = text.num_attention_heads // text.num_key_value_heads
    query = np.arange(text.num_attention_heads * text.head_dim)
    shared = query.reshape(text.num_key_value_heads, sharing, text.head_dim).swapaxes(1, 2)
    found = []
    for i in range(text.num_hidden_layers):
        layer = f"model.text_model.layers.{i}"
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        projections = tuple(f"{attention}.{name}_proj.weight" for name in "qkv")
        found += [
            Place((f"{layer}.input_layernorm.weight",), projections, hidden),
            Place(
                (f"{attention}.v_proj.weight",), (f"{attention}.o_proj.weight",), shared.reshape(-1, sharing)
            ),
            Place(
                (f"{layer}.post_attention_layernorm.weight",),
                (f"{mlp}.gate_proj.weight", f"{mlp}.up_proj.weight"),
                hidden,
            ),
            Place((f"{mlp}.up_proj.weight",), (f"{mlp}.down_proj.weight",), ffn),
        ]
    return found


def _vision_places(config: ModelConfig) -> list[Place]:
    hidden = np.arange(config.vision.hidden_size)[:, None]
    found = []
    for i in range(config.vision.num_hidden_layers):
        layer = f"model.vision_model.encoder.layers.{i}"
        attention = f"{layer}.self_attn"
        projections = tuple(f"{attention}.{name}_proj.weight" for name in "qkv")
        found += [
            Place(_weight_and_bias(f"{layer}.layer_norm1"), projections, hidden),
            Place(_weight_and_bias(f"{attention}.v_proj"), (f"{attention}.out_proj.weight",), hidden),
            Place(_weight_and_bias(f"{layer}.layer_norm2"), (f"{layer}.mlp.fc1.weight",), hidden),
        ]
    # The pixel shuffle puts scale_factor**2 patches behind each other.
    patches = np.arange(config.scale_factor**2)[None, :]
    found.append(
        Place(
            _weight_and_bias("model.vision_model.post_layernorm"),
            ("model.connector.modality_projection.proj.weight",),
            hidden + config.vision.hidden_size * patches,
        )
    )
    return found


def _weight_and_bias(name: str) -> tuple[str, ...]:
    return f"{name}.weight", f"{name}.bias"
