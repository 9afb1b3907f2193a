"""Pixel values: the reference's to the bit, by default and without splitting; other modes, and refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pocketvlm
from pocketvlm.config import ProcessorConfig
from pocketvlm.errors import FormatError, InputError, UnsupportedError

from ..golden.images import formula_image, sha256_of_array
from ..model.golden_files import read_golden

GREY = np.full((5, 8, 3), 128, np.uint8)


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_golden("preprocessing").facts["processors"][name]["cases"]
    return found


# The small ones: a large image says nothing more about normalising.
@pytest.mark.parametrize("case", [case for case in cases("256m") if case["tiles"] <= 9] + cases("256m")[:1])
def test_pixel_values_are_the_references(case: dict[str, Any], smolvlm_256m: Path) -> None:
    image = case["image"]
    pixel_values = pocketvlm.preprocess(
        formula_image(image["height"], image["width"], image["seed"]),
        smolvlm_256m,
        split_images=case["do_image_splitting"],
    )
    assert (pixel_values.dtype, pixel_values.shape) == (np.float32, (case["tiles"], 3, 512, 512))
    assert pixel_values.flags.c_contiguous
    assert sha256_of_array(pixel_values) == case["pixel_values_sha256"]


def test_every_value_of_every_channel_is_rounded_as_the_reference_rounds() -> None:
    """The order of its operations, for a mean and a deviation that are not one half."""
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    config = ProcessorConfig(16, 16, 1, False, 1, mean, std, 1 / 255)
    tile = np.arange(16 * 16 * 3, dtype=np.uint32).reshape(16, 16, 3).astype(np.uint8)
    tile = np.ascontiguousarray(np.roll(tile, 1, axis=2))
    assert all(len(np.unique(tile[:, :, channel])) == 256 for channel in range(3))
    rescaled = (tile.astype(np.float64) * (1 / 255)).astype(np.float32)
    expected = (rescaled - np.array(mean, np.float32)) / np.array(std, np.float32)
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(pocketvlm.preprocess(tile, config)[0], expected.transpose(2, 0, 1))


def test_a_configuration_is_as_good_as_its_folder(smolvlm_256m: Path, tiny_f32: Path) -> None:
    config = ProcessorConfig.from_folder(smolvlm_256m)
    from_folder = pocketvlm.preprocess(GREY, str(smolvlm_256m), tiles="single")
    np.testing.assert_array_equal(pocketvlm.preprocess(GREY, config, tiles="single"), from_folder)
    np.testing.assert_array_equal(
        pocketvlm.preprocess(Image.fromarray(GREY), config, tiles="single", threads=1), from_folder
    )
    unsplit = dataclasses.replace(config, do_image_splitting=False)
    np.testing.assert_array_equal(pocketvlm.preprocess(GREY, unsplit), from_folder)
    size = pocketvlm.load(tiny_f32).info()["tile_size"]  # an exported model's folder
    assert pocketvlm.preprocess(GREY, tiny_f32, tiles=5).shape == (5, 3, size, size)


@pytest.mark.parametrize(
    ("options", "tiles"), [({}, 13), ({"tiles": 5}, 5), ({"tiles": "single"}, 1), ({"upscale": False}, 1)]
)
def test_modes(smolvlm_256m: Path, options: dict[str, Any], tiles: int) -> None:
    assert len(pocketvlm.preprocess(GREY, smolvlm_256m, **options)) == tiles


def test_refusals(smolvlm_256m: Path, tmp_path: Path) -> None:
    for options in ({"tiles": 0}, {"threads": 0}, {"pixel_limit": 39}, {"tiles": 5, "split_images": False}):
        with pytest.raises(InputError):
            pocketvlm.preprocess(GREY, smolvlm_256m, **options)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=r"processor_config\.json"):
        pocketvlm.preprocess(GREY, tmp_path)
    nearest = dataclasses.replace(ProcessorConfig.from_folder(smolvlm_256m), resample=0)
    with pytest.raises(UnsupportedError, match="resample: found 0"):
        pocketvlm.preprocess(GREY, nearest)
