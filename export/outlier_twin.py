"""The outlier twin of a checkpoint: the same function in exact arithmetic, with a few huge activations.

Trained towers of real size have some channels far larger than all others, and what rounds activations must
bear them. A small model has none, so they are made: where a channel meets only sums and products on its way
from one tensor to the next, the first is multiplied by a factor and the second divided by it. The twin is
stored in float32: weights change by a rounding of float32, by nothing if the factor is a power of two.
"""

from __future__ import annotations

import math
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..config import ModelConfig
from ..errors import InputError
from .checkpoint import Checkpoint
from .output_folder import output_folder
from .quantize import FloatRows
from .safetensors_file import encode_header
from .tensor_map import LM_HEAD, TensorSpec, all_tensors

CHANNELS = 4  # that become outliers, in each place

_COPIED = ("*.json", "*.jinja", "NOTICE")
_INDEX = "*.safetensors.index.json"  # what it lists is one file now
_WEIGHTS = "model.safetensors"


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

    def outliers(self, seed: int) -> list[int]:
        """Chooses the channels that become outliers; each place has its own."""
        channels = len(self.columns)
        rng = random.Random(f"{seed} {self.producers[0]}")
        return sorted(rng.sample(range(channels), min(CHANNELS, channels)))


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


def write_outlier_twin(
    checkpoint: str | Path, out: str | Path, *, factor: float, seed: int = 0, force: bool = False
) -> Path:
    """Writes the twin of a checkpoint in which `CHANNELS` channels in every place are `factor` times larger.

    Args:
        checkpoint: A folder with config.json, safetensors, tokenizer and processor files.
        out: The folder to write. It appears when it is complete.
        factor: How much larger.
        seed: Other seeds choose other channels.
        force: Replace an earlier twin in `out`.

    Returns:
        The path of the folder.

    Raises:
        InputError: `factor` is not a positive number; `out` is there and `force` is not given.
        FormatError: The checkpoint is incomplete or damaged.
        UnsupportedError: It is of another architecture.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise InputError(f"the factor of outliers is {factor}, expected a positive number")
    with Checkpoint(checkpoint) as source:
        config = source.config
        all_places = places(config)
        # A tied head may be left out; one that equals the embedding but is not tied has to stay.
        without_head = source.has_shared_head and config.tie_word_embeddings
        specs = [spec for spec in all_tensors(config) if not (spec.hf_name == LM_HEAD and without_head)]
        replaceable = (*_COPIED, _WEIGHTS)
        with output_folder(Path(out), force=force, replaceable=replaceable) as folder:
            for pattern in _COPIED:
                for path in sorted(source.folder.glob(pattern)):
                    if not path.match(_INDEX):
                        shutil.copyfile(path, folder / path.name)
            with (folder / _WEIGHTS).open("wb") as file:
                file.write(encode_header((spec.hf_name, "F32", spec.shape) for spec in specs))
                for spec in specs:
                    values = source.read_rows(spec, 0, spec.shape[0]).values.copy()
                    _scale(values, spec, all_places, np.float32(factor), seed)
                    file.write(values.astype("<f4", copy=False).tobytes())
    return Path(out)


def _scale(
    values: FloatRows, spec: TensorSpec, all_places: list[Place], factor: np.float32, seed: int
) -> None:
    """Scales what belongs to outliers in the tensor `values`, [rows, row_elements], in place."""
    for place in all_places:
        if spec.hf_name in place.producers:
            values[place.outliers(seed)] *= factor
        if spec.hf_name in place.consumers:
            values[:, place.columns[place.outliers(seed)].ravel()] /= factor
