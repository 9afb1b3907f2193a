"""Goldens of preprocessing: formula images in; tile grid, sizes and hashes of the reference's tiles out."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers.models.idefics3.image_processing_pil_idefics3 import (
    Idefics3ImageProcessorPil,
    get_resize_output_image_size,
)

from . import cases, reference
from .images import formula_image, sha256_of_array
from .store import Store

# name -> (longest_edge, tile size): the 256M and 500M, the 2.2B, and one whose images can stay below a tile.
PROCESSORS = {"256m": (2048, 512), "2.2b": (1536, 384), "small": (300, 384)}


def make(store: Store) -> None:
    """Makes preprocessing.json."""
    golden: dict[str, Any] = {"reference": reference.versions(), "processors": {}}
    for name, (longest_edge, tile_size) in PROCESSORS.items():
        processor = Idefics3ImageProcessorPil(
            size={"longest_edge": longest_edge},
            max_image_size={"longest_edge": tile_size},
            resample=1,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )
        sizes = cases.IMAGE_SIZES if name != "small" else [(200, 300), (300, 200), (1, 1), (40, 4000)]
        entries = [
            entry(processor, height, width, split) for height, width in sizes for split in (True, False)
        ]
        golden["processors"][name] = {"longest_edge": longest_edge, "tile_size": tile_size, "cases": entries}
    store.put_json("preprocessing", golden)


def entry(processor: Idefics3ImageProcessorPil, height: int, width: int, split: bool) -> dict[str, Any]:
    """Runs the processor on one image. Sizes are [height, width]."""
    seed = height * 31 + width
    image = formula_image(height, width, seed)
    output = processor(
        reference.Image.fromarray(image),
        do_image_splitting=split,
        return_row_col_info=True,
        return_tensors="np",
    )
    pixel_values = output["pixel_values"][0]  # [tiles, 3, S, S]
    resized = get_resize_output_image_size(np.moveaxis(image, -1, 0), processor.size["longest_edge"])
    tiles = reference.tiles_of(pixel_values)
    return {
        "image": {"height": height, "width": width, "seed": seed},
        "do_image_splitting": split,
        "resized": list(resized),
        "rows": output["rows"][0][0],
        "cols": output["cols"][0][0],
        "tiles": len(tiles),
        "tiles_sha256": sha256_of_array(tiles),
        "pixel_values_sha256": sha256_of_array(pixel_values),
    }
