"""What looking at an image costs, told before any work: tiles, tokens, bytes and arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from .chat_template import TileGrid
from .config import ModelConfig, ProcessorConfig
from .processor import ImageSize, TilePlan


@dataclass(frozen=True)
class ImagePlan:
    """One image on its way to the language model. Bytes beyond the model and the decoded image."""

    image: ImageSize  # as loaded
    resized: ImageSize  # after the first resize
    split: ImageSize | None  # after the second, from which tiles are cut; None: squashed into one tile
    grid: TileGrid  # rows and columns of tiles beside the global one; 0 and 0 if there is one tile alone
    tiles: int  # the global one included
    image_tokens: int  # of the prompt, without the markers around tiles
    resize_bytes: int  # at most, while tiles are made: pixels of resized images, uint8 RGB
    tile_bytes: int  # until they are encoded: pixels of tiles, uint8 [tiles, tile_size, tile_size, 3]
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
    image: ImageSize, plan: TilePlan, processor_config: ProcessorConfig, model_config: ModelConfig
) -> ImagePlan:
    """Returns what `plan` for an image of size `image` costs with a model."""
    tile = ImageSize(processor_config.tile_size, processor_config.tile_size)
    image_tokens = plan.num_tiles * processor_config.image_seq_len
    return ImagePlan(
        image=image,
        resized=plan.resized,
        split=plan.split,
        grid=plan.grid,
        tiles=plan.num_tiles,
        image_tokens=image_tokens,
        resize_bytes=_resize_bytes(image, plan, tile),
        tile_bytes=plan.num_tiles * _rgb_bytes(tile),
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


def _resize_bytes(image: ImageSize, plan: TilePlan, tile: ImageSize) -> int:
    """The most that resized images take at a time. Each resize goes one side at a time: by way of an image
    that is no larger than the larger of the two."""
    steps = [image, plan.resized, *([plan.split] if plan.split else []), tile]
    most = 0
    for i, (source, target) in enumerate(pairwise(steps)):
        both_sides = source.height != target.height and source.width != target.width
        held = _rgb_bytes(source) if i > 0 else 0  # the image is there anyway
        between = max(_rgb_bytes(source), _rgb_bytes(target)) if both_sides else 0
        made = _rgb_bytes(target) if i < len(steps) - 2 else 0  # tiles are counted as such
        most = max(most, held + between + made)
    return most


def _rgb_bytes(size: ImageSize) -> int:
    return size.height * size.width * 3
