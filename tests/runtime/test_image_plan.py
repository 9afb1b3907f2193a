"""What an image is said to cost: the arithmetic by the book, and the rest as it then happens."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pocketvlm
from pocketvlm import _core
from pocketvlm.chat_template import TileGrid
from pocketvlm.config import ModelConfig, ProcessorConfig
from pocketvlm.engine import Model
from pocketvlm.errors import InputError
from pocketvlm.image_modes import read_image_modes
from pocketvlm.image_plan import cost_of, gflop_per_tile
from pocketvlm.processor import ImageSize
from pocketvlm.tiles import PIXELS, TileLayout, cut_tiles

LARGE = {
    "model_type": "idefics3",
    "scale_factor": 3,
    "image_token_id": 49153,
    "text_config": {"hidden_size": 2048, "vocab_size": 49155},
    "vision_config": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
}


def test_gflop_of_a_tile(smolvlm_256m: Path) -> None:
    # The layers alone, as published for these towers, then all: written out with the sizes of the models.
    small = ModelConfig.from_folder(smolvlm_256m)
    layers = 12 * (8 * 1024 * 768**2 + 4 * 1024**2 * 768 + 4 * 1024 * 768 * 3072) / 1e9
    around = 2 * (1024 * 768 * 768 + 64 * 12288 * 576) / 1e9
    assert round(layers) == 213
    assert gflop_per_tile(small) == pytest.approx(layers + around, rel=1e-12)
    large = ModelConfig.from_dict(LARGE)
    layers = 27 * (8 * 729 * 1152**2 + 4 * 729**2 * 1152 + 4 * 729 * 1152 * 4304) / 1e9
    around = 2 * (729 * 588 * 1152 + 81 * 10368 * 2048) / 1e9
    assert 665 <= layers < 666
    assert gflop_per_tile(large) == pytest.approx(layers + around, rel=1e-12)


def test_a_plan_in_numbers(scripted: Callable[[str], tuple[Model, Any]]) -> None:
    model, _ = scripted("")
    plan = model.plan(20, 40)
    assert (plan.image, plan.resized, plan.split) == ((20, 40), (1024, 2048), (1024, 2048))
    assert (plan.grid, plan.tiles, plan.image_tokens) == (TileGrid(2, 4), 9, 9 * 64)
    assert plan.tile_bytes == 9 * 512 * 512 * 3
    assert plan.feature_bytes == 9 * 64 * 576 * 4
    # The second resize changes nothing. A few rows of the image, of the first resize along rows and across
    # them, and of the two that make the global tile, for each thread. A row of three planes takes whole
    # kilobytes and seven cache lines.
    kilobytes = 5 * 1 + 12 * 6 + 8 * 6 + 16 * 2 + 2 * 2
    rows = 1024 * kilobytes + 7 * 64 * (5 + 12 + 8 + 16 + 2)
    assert 0.8 * rows < plan.resize_bytes / model.info()["threads"] < 1.2 * rows
    assert plan.gflop == pytest.approx(9 * 214.7, rel=1e-3)
    values = json.loads(json.dumps(plan.to_dict()))
    assert list(values) == [
        *("image", "resized", "split", "grid", "tiles", "image_tokens"),
        *("resize_bytes", "tile_bytes", "feature_bytes", "gflop"),
    ]
    assert values["image"] == {"height": 20, "width": 40}
    assert values["grid"] == {"rows": 2, "cols": 4}
    single = model.plan(20, 40, tiles="single")
    assert (single.tiles, single.split, single.to_dict()["split"]) == (1, None, None)
    assert single == model.plan(20, 40, split_images=False)
    assert model.plan(20, 40, upscale=False).tiles == 1


@pytest.mark.parametrize(
    ("arguments", "modes", "message"),
    [
        ((0, 5), {}, "height is 0"),
        ((5, 2.5), {}, r"width is 2\.5"),
        ((40, 40), {}, "40x40 is 1,600 pixels, pixel_limit is 1,000"),
        ((4, 4), {"tiles": "all"}, "tiles is 'all'"),
    ],
)
def test_what_would_be_refused_is_refused(
    scripted: Callable[[str], tuple[Model, Any]], arguments: Any, modes: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        scripted("")[0].plan(*arguments, **modes)


def random_case(rng: random.Random) -> tuple[ImageSize, dict[str, Any]]:
    """An image size, small and large and lean ones alike, and modes."""
    size = ImageSize(*(int(2 ** rng.uniform(0, 11)) for _ in range(2)))
    modes = {
        "tiles": rng.choice(["auto", "auto", "single", rng.randint(1, 18)]),
        "upscale": rng.random() < 0.5,
    }
    return size, modes


@pytest.mark.parametrize("seed", range(4))
def test_the_plan_is_what_happens(smolvlm_256m: Path, seed: int) -> None:
    """250 sizes a seed, with the proportions of the 256M at an eighth of its pixels."""
    processor_config = ProcessorConfig(256, 64, 64, True, 1, (0.5,) * 3, (0.5,) * 3, 1 / 255)
    model_config = ModelConfig.from_folder(smolvlm_256m)
    pool = _core.ThreadPool(1)
    rng = random.Random(seed)
    for _ in range(250):
        size, modes = random_case(rng)
        plan = read_image_modes(**modes).plan(size, processor_config)
        layout = rng.choice([PIXELS, TileLayout("patches_bf16", 16), TileLayout("patches_f32", 14)])
        said = cost_of(size, plan, processor_config, model_config, layout=layout, threads=1)
        image = np.zeros((*size, 3), np.uint8)
        tiles = cut_tiles([image], [plan], processor_config, layout=layout, pool=pool)
        assert (said.tiles, said.tile_bytes) == (len(tiles), tiles.nbytes), (size, modes)
        assert said.tiles == said.grid.rows * said.grid.cols + 1, (size, modes)


def test_the_plan_is_what_a_model_does(tiny_f32: Path) -> None:
    model = pocketvlm.load(tiny_f32, threads=1)
    rng = random.Random(5)
    for _ in range(10):
        size, modes = random_case(rng)
        said = model.plan(*size, **modes)
        result = model.generate("", images=np.zeros((*size, 3), np.uint8), max_new_tokens=1, **modes)
        assert (said.tiles, said.image_tokens) == (result.tiles, result.image_tokens), (size, modes)
        assert said.feature_bytes == result.image_tokens * model.config.text.hidden_size * 4
