"""What looking at an image costs, told before any work: tiles, tokens, bytes and arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from . import _core
from .chat_template import TileGrid
from .config import ModelConfig, ProcessorConfig
from .processor import ImageSize, TilePlan
from .tiles import TileLayout


@dataclass(frozen=True)
class ImagePlan:
    """One image on its way to the language model. Bytes beyond the model and the decoded image."""

    image: ImageSize  # as loaded
    resized: ImageSize  # after the first resize
    split: ImageSize | None  # after the second, from which tiles are cut; None: squashed into one tile
    grid: TileGrid  # rows and columns of tiles beside the global one; 0 and 0 if there is one tile alone
    tiles: int  # the global one included
    image_tokens: int  # of the prompt, without the markers around tiles
    resize_bytes: int  # while tiles are made: a few rows of every image on the way, for each thread
    tile_bytes: int  # until they are encoded: pixels of tiles, in the layout of the backend
    feature_bytes: int  # until the answer is there: float32 [image_tokens, hidden_size]
    gflop: float  # of vision tower and connector; tiles equal to others take none, see `gflop_per_tile`

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON: sizes as {"height", "width"}, the grid as {"rows", "cols"}."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value._asdict() if isinstance(value, ImageSize | TileGrid) else value
            for name, value in values.items()
        }


def cost_of(
    image: ImageSize,
    plan: TilePlan,
    processor_config: ProcessorConfig,
    model_config: ModelConfig,
    *,
    layout: TileLayout,
    threads: int,
) -> ImagePlan:
    """Returns what `plan` for an image of size `image` costs with a model.

    Args:
        image: The image as loaded.
        plan: The sizes it takes on the way.
        processor_config: The processor of the model.
        model_config: The sizes of the model.
        layout: Of its tiles.
        threads: That preprocess it.
    """
    image_tokens = plan.num_tiles * processor_config.image_seq_len
    return ImagePlan(
        image=image,
        resized=plan.resized,
        split=plan.split,
        grid=plan.grid,
        tiles=plan.num_tiles,
        image_tokens=image_tokens,
        resize_bytes=_core.preprocess_scratch_bytes(
            image,
            resized=plan.resized,
            split=plan.split,
            tile_size=processor_config.tile_size,
            resample=processor_config.resample,
            num_threads=threads,
            layout=layout.name,
            patch_size=layout.patch_size,
        ),
        tile_bytes=plan.num_tiles * layout.tile_bytes(processor_config.tile_size),
        feature_bytes=image_tokens * model_config.text.hidden_size * 4,
        gflop=plan.num_tiles * gflop_per_tile(model_config),
    )


def gflop_per_tile(config: ModelConfig) -> float:
    """Returns the 1e9 floating-point operations of the matrix products of one tile.

    With n patches, d hidden_size, f intermediate_size, p patch_size, D the text model's hidden_size, and a
    multiply-add counted as 2:

        patch embedding             2 n (3 p^2) d
        each layer: q, k, v, out    2 n (4 d^2)
                    scores, values  2 (2 n^2 d)
                    fc1, fc2        2 n (2 d f)
        connector                   2 n d D

    The layers make up 213 GFLOP for a tile of the 256M and 500M, 665 for one of the 2.2B. Norms, softmax and
    activations, about a hundredth of that, are left out.
    """
    vision = config.vision
    n, d, f = vision.num_patches_per_side**2, vision.hidden_size, vision.intermediate_size
    patch_embedding = 2 * n * vision.num_channels * vision.patch_size**2 * d
    layer = 2 * n * 4 * d**2 + 2 * 2 * n**2 * d + 2 * n * 2 * d * f
    connector = 2 * n * d * config.text.hidden_size
    return (patch_embedding + vision.num_hidden_layers * layer + connector) / 1e9
