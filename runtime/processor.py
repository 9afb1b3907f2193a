"""Image sizes -> tile plans, and conversations -> token ids with the image tokens placed.

No pixel is touched here: `_core.preprocess` carries a plan out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from . import chat_template
from .chat_template import ChatFormat, TileGrid
from .config import ProcessorConfig
from .errors import FormatError, InputError, UnsupportedError
from .messages import Message
from .tokenizer import Tokenizer

# Idefics3's absolute maximum for a side after the first resize.
_MAX_IMAGE_SIZE = 4096

# What a model for documents answers with. Its tags are special tokens, and most of the answer.
_DOCLING_TAG = "<doctag>"


class ImageSize(NamedTuple):
    """Pixels, in the order of array shapes."""

    height: int
    width: int


@dataclass(frozen=True)
class TilePlan:
    """How one image becomes tiles: resize to `resized`, then to `split`, cut, add the whole as last tile."""

    resized: ImageSize
    split: ImageSize | None  # None: one tile, squashed from `resized`
    grid: TileGrid

    @property
    def num_tiles(self) -> int:
        """Tiles, the global one included."""
        return self.grid.rows * self.grid.cols + 1


def plan_tiles(
    size: ImageSize,
    config: ProcessorConfig,
    *,
    split: bool,
    max_tiles: int | None = None,
    upscale: bool = True,
) -> TilePlan:
    """Plans the tiles of an image, in the arithmetic of Idefics3ImageProcessor: proportions in float64.

    Args:
        size: The image as loaded, at least 1x1.
        config: The processor of the checkpoint.
        split: Whether to cut the image into tiles.
        max_tiles: The most tiles, the global one included; the reference has no such limit. Where it makes
            more, the plan is what it would be with a longest edge of fewer tiles; where even a longest edge
            of two tiles makes too many, the image is not split.
        upscale: Whether an image is first enlarged to the longest edge, as the reference does. Without,
            a smaller image keeps its size there, and is enlarged to whole tiles alone.
    """
    if split:
        tile = config.tile_size
        fewer = range((config.longest_edge - 1) // tile * tile, tile, -tile) if max_tiles is not None else ()
        for longest_edge in (config.longest_edge, *fewer):
            plan = _plan_split(_resize(size, longest_edge, upscale), tile)
            if max_tiles is None or plan.num_tiles <= max_tiles:
                return plan
    return TilePlan(_resize(size, config.longest_edge, upscale), None, TileGrid(0, 0))


def _resize(size: ImageSize, longest_edge: int, upscale: bool) -> ImageSize:
    if not upscale and max(size) <= longest_edge:
        return _cap(size)
    return _cap(_scale_longest_edge(size, longest_edge))


def _plan_split(resized: ImageSize, tile: int) -> TilePlan:
    enlarged = _round_up_to_tiles(resized, tile)
    if enlarged == ImageSize(tile, tile):
        return TilePlan(resized, enlarged, TileGrid(0, 0))
    return TilePlan(resized, enlarged, TileGrid(enlarged.height // tile, enlarged.width // tile))


def _scale_longest_edge(size: ImageSize, longest_edge: int) -> ImageSize:
    """The longest edge becomes `longest_edge`, also upwards; the other keeps proportion and is made even."""
    aspect_ratio = size.width / size.height
    if size.width >= size.height:
        height = int(longest_edge / aspect_ratio)
        return ImageSize(max(height + height % 2, 1), longest_edge)
    width = int(longest_edge * aspect_ratio)
    return ImageSize(longest_edge, max(width + width % 2, 1))


def _cap(size: ImageSize) -> ImageSize:
    aspect_ratio = size.width / size.height
    if size.width >= size.height and size.width > _MAX_IMAGE_SIZE:
        return ImageSize(max(int(_MAX_IMAGE_SIZE / aspect_ratio), 1), _MAX_IMAGE_SIZE)
    if size.height > size.width and size.height > _MAX_IMAGE_SIZE:
        return ImageSize(_MAX_IMAGE_SIZE, max(int(_MAX_IMAGE_SIZE * aspect_ratio), 1))
    return size


def _round_up_to_tiles(size: ImageSize, tile: int) -> ImageSize:
    """Both sides become multiples of `tile`; the proportions are only nearly kept."""
    aspect_ratio = size.width / size.height
    if size.width >= size.height:
        width = math.ceil(size.width / tile) * tile
        return ImageSize(math.ceil(int(width / aspect_ratio) / tile) * tile, width)
    height = math.ceil(size.height / tile) * tile
    return ImageSize(height, math.ceil(int(height * aspect_ratio) / tile) * tile)


class ProcessorParts(NamedTuple):
    """What a `Processor` is made of."""

    where: str  # the folder or file it was read from
    config: ProcessorConfig
    tokenizer: Tokenizer
    eos_token_ids: Sequence[int]  # stop tokens besides those of the prompt format


class Processor:
    """Tokenizer, prompt format and processor configuration of one model."""

    def __init__(self, source: str | Path | ProcessorParts) -> None:
        """Reads tokenizer.json and the processor files of a folder, or takes parts read from elsewhere.

        Raises:
            FormatError: A file or a value is missing or damaged.
            UnsupportedError: The tokenizer belongs to another prompt format.
        """
        parts = source if isinstance(source, ProcessorParts) else _read_folder(Path(source))
        self.config = parts.config
        self.tokenizer = parts.tokenizer
        self.chat_format = _find_chat_format(self.tokenizer, parts.where)
        self.tokenizer.reserve(self.chat_format.all_markers())
        if self.tokenizer.token_to_id(_DOCLING_TAG) is not None:
            self.tokenizer.show(but_not=self.chat_format.all_markers())
        self.image_token_id = self.tokenizer.encode(chat_template.IMAGE_TOKEN, parse_special=True)[0]
        markers = [self.tokenizer.token_to_id(marker) for marker in self.chat_format.stop_markers]
        self.stop_token_ids = sorted({id for id in (*markers, *parts.eos_token_ids) if id is not None})

    def encode(self, messages: Sequence[Message], plans: Sequence[TilePlan]) -> list[int]:
        """Returns the token ids of the prompt: `image_seq_len` image tokens for every tile of every plan.

        Raises:
            InputError: A text is not valid Unicode, or image tokens came out otherwise than planned.
        """
        image_seq_len = self.config.image_seq_len
        grids = [plan.grid for plan in plans]
        token_ids = self.tokenizer.encode_segments(self.chat_format.render(messages, grids, image_seq_len))
        expected = sum(plan.num_tiles for plan in plans) * image_seq_len
        found = token_ids.count(self.image_token_id)
        if found != expected:
            raise InputError(f"the prompt has {found} image tokens, the images need {expected}")
        return token_ids

    def with_picture_tokens(
        self, token_ids: Sequence[int], plan: TilePlan, other: Sequence[int]
    ) -> list[int]:
        """Returns a prompt in which another's tokens, -1 for image tokens, are in the place of those that
        `encode` made of the first picture of this plan; as it was where it has none."""
        markup = chat_template.image_markup(plan.grid, self.config.image_seq_len)
        own = self.tokenizer.encode(markup, parse_special=True)
        prompt = list(token_ids)
        put = [self.image_token_id if id == -1 else id for id in other]
        for start in range(len(prompt) - len(own) + 1):
            if prompt[start : start + len(own)] == own:
                return prompt[:start] + put + prompt[start + len(own) :]
        return prompt


def _read_folder(folder: Path) -> ProcessorParts:
    config = ProcessorConfig.from_folder(folder)
    tokenizer = Tokenizer(folder / "tokenizer.json")
    eos_token_ids = _read_eos_token_ids(folder / "generation_config.json")
    return ProcessorParts(str(folder), config, tokenizer, eos_token_ids)


def _find_chat_format(tokenizer: Tokenizer, where: str) -> ChatFormat:
    """Returns the format whose markers the tokenizer has."""
    missing = []
    for chat_format in chat_template.FORMATS:
        absent = [marker for marker in chat_format.markers if tokenizer.token_to_id(marker) is None]
        if not absent:
            return chat_format
        missing.append(f"{', '.join(absent)} of {chat_format.name}")
    raise UnsupportedError(
        f"{where}: the tokenizer is for another prompt format: it has no {'; no '.join(missing)}"
    )


def _read_eos_token_ids(path: Path) -> list[int]:
    """Returns the stop tokens of a generation_config.json; a checkpoint may have none."""
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: cannot be read as a JSON object: {error}") from error
    ids = found if isinstance(found, list) else [] if found is None else [found]
    if not all(type(id) is int for id in ids):
        raise FormatError(f"{path}: eos_token_id is {found!r}, expected an integer or a list of them")
    return ids
