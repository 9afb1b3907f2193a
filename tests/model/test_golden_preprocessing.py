"""Preprocessing: the tiles are the reference's, bit for bit, in number, order and pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pocketvlm.config import ProcessorConfig
from pocketvlm.processor import ImageSize, plan_tiles

from ..golden.images import sha256_of_array
from .golden_files import draw_tiles, read_golden, sha256_of_tiles


def config_of(name: str) -> ProcessorConfig:
    facts = read_golden("preprocessing").facts["processors"][name]
    return ProcessorConfig(
        longest_edge=facts["longest_edge"],
        tile_size=facts["tile_size"],
        image_seq_len=64,
        do_image_splitting=True,
        resample=1,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        rescale_factor=1 / 255,
    )


def cases() -> list[Any]:
    return [
        pytest.param(
            name,
            case,
            id=f"{name}-{case['image']['width']}x{case['image']['height']}"
            + ("-split" if case["do_image_splitting"] else ""),
        )
        for name, processor in read_golden("preprocessing").facts["processors"].items()
        for case in processor["cases"]
    ]


@pytest.mark.parametrize(("name", "case"), cases())
def test_plan(name: str, case: dict[str, Any]) -> None:
    size = ImageSize(case["image"]["height"], case["image"]["width"])
    plan = plan_tiles(size, config_of(name), split=case["do_image_splitting"])
    assert plan.resized == tuple(case["resized"])
    assert plan.grid == (case["rows"], case["cols"])
    assert plan.num_tiles == case["tiles"]


@pytest.mark.parametrize(("name", "case"), cases())
def test_tiles(name: str, case: dict[str, Any]) -> None:
    tiles = draw_tiles([case["image"]], config_of(name), split=case["do_image_splitting"])
    assert sha256_of_tiles(tiles) == case["tiles_sha256"]


def test_pixel_values_are_the_tiles_normalised() -> None:
    """What the hash of the float32 pixel_values stands for, so that the kernels' tests can rely on the
    formula."""
    case = read_golden("preprocessing").facts["processors"]["256m"]["cases"][0]
    tiles = draw_tiles([case["image"]], config_of("256m"), split=case["do_image_splitting"])
    rescaled = (tiles.astype(np.float64) * 0.00392156862745098).astype(np.float32)
    pixel_values = (rescaled - np.float32(0.5)) / np.float32(0.5)
    assert sha256_of_array(pixel_values) == case["pixel_values_sha256"]
