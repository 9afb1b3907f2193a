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
from pathlib import Path

import numpy as np

from ..errors import InputError
from .channel_places import Place, places
from .checkpoint import Checkpoint
from .output_folder import output_folder
from .quantize import FloatRows
from .safetensors_file import encode_header
from .tensor_map import LM_HEAD, TensorSpec, all_tensors

CHANNELS = 4  # that become outliers, in each place

_COPIED = ("*.json", "*.jinja", "NOTICE")
_INDEX = "*.safetensors.index.json"  # what it lists is one file now
_WEIGHTS = "model.safetensors"


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
            values[outlier_channels(place, seed)] *= factor
        if spec.hf_name in place.consumers:
            values[:, place.columns[outlier_channels(place, seed)].ravel()] /= factor


def outlier_channels(place: Place, seed: int) -> list[int]:
    """Chooses the channels that become outliers; each place has its own."""
    channels = len(place.columns)
    rng = random.Random(f"{seed} {place.producers[0]}")
    return sorted(rng.sample(range(channels), min(CHANNELS, channels)))
