"""The modes of images as a person passes them: what each means, and what contradicts itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pocketvlm.config import ProcessorConfig
from pocketvlm.errors import InputError
from pocketvlm.image_modes import ImageModes, read_image_modes
from pocketvlm.processor import ImageSize, plan_tiles

SPLITS = ProcessorConfig(2048, 512, 64, True, 1, (0.5,) * 3, (0.5,) * 3, 1 / 255)
DOES_NOT = dataclasses.replace(SPLITS, do_image_splitting=False)


def test_by_default_it_is_the_reference() -> None:
    assert read_image_modes() == ImageModes()
    photo = ImageSize(480, 640)
    for config in (SPLITS, DOES_NOT):
        assert ImageModes().plan(photo, config) == plan_tiles(photo, config, split=config.do_image_splitting)


@pytest.mark.parametrize(
    ("options", "tiles", "tiles_where_not_split"),
    [
        ({"tiles": "auto"}, 13, 1),
        ({"tiles": "single"}, 1, 1),
        ({"split_images": True}, 13, 13),
        ({"split_images": False}, 1, 1),
        ({"tiles": "single", "split_images": False}, 1, 1),
        ({"tiles": 17}, 13, 13),
        ({"tiles": 12}, 10, 10),
        ({"tiles": 5, "split_images": True}, 5, 5),
        ({"tiles": 1}, 1, 1),
        ({"upscale": False}, 5, 1),
        ({"upscale": False, "tiles": 17}, 5, 5),
    ],
)
def test_each_mode(options: dict[str, Any], tiles: int, tiles_where_not_split: int) -> None:
    modes = read_image_modes(**options)
    assert modes.plan(ImageSize(480, 640), SPLITS).num_tiles == tiles
    assert modes.plan(ImageSize(480, 640), DOES_NOT).num_tiles == tiles_where_not_split


def test_a_single_tile_is_what_the_reference_makes_without_splitting() -> None:
    unsplit = plan_tiles(ImageSize(480, 640), SPLITS, split=False)
    for options in ({"tiles": "single"}, {"tiles": 1}, {"tiles": 2}, {"split_images": False}):
        assert read_image_modes(**options).plan(ImageSize(480, 640), SPLITS) == unsplit  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiles": "all"}, "tiles is 'all', expected 'auto', 'single' or a number"),
        ({"tiles": True}, "tiles is True, expected 'auto', 'single' or a number"),
        ({"tiles": 0}, "tiles is 0, expected an integer of at least 1"),
        ({"tiles": 2.5}, r"tiles is 2\.5, expected an integer"),
        ({"tiles": None}, "tiles is None, expected an integer"),
        ({"upscale": None}, "upscale is None, expected True or False"),
        ({"upscale": "no"}, "upscale is 'no', expected True or False"),
        ({"split_images": "yes"}, "split_images is 'yes', expected True or False"),
        ({"tiles": "single", "split_images": True}, "tiles is 'single' and split_images is True: give one"),
        ({"tiles": 5, "split_images": False}, "tiles is 5 and split_images is False: give one"),
    ],
)
def test_what_makes_no_sense_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_image_modes(**options)
