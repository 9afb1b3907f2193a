"""How images become tiles where a person wants it otherwise than the reference: the modes, checked.

The tiles themselves are planned in `processor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from .arguments import read_integer
from .config import ProcessorConfig
from .errors import InputError
from .processor import ImageSize, TilePlan, plan_tiles

Tiles: TypeAlias = Literal["auto", "single"] | int


@dataclass(frozen=True)
class ImageModes:
    """What `read_image_modes` made of a person's choice; by default the reference, to the bit."""

    split: bool | None = None  # None: as the checkpoint says
    max_tiles: int | None = None  # of one image, the global tile included
    upscale: bool = True

    def plan(self, size: ImageSize, config: ProcessorConfig) -> TilePlan:
        """Returns how an image of `size` becomes tiles."""
        split = config.do_image_splitting if self.split is None else self.split
        return plan_tiles(size, config, split=split, max_tiles=self.max_tiles, upscale=self.upscale)


def read_image_modes(
    *, tiles: Tiles = "auto", upscale: bool = True, split_images: bool | None = None
) -> ImageModes:
    """Checks the modes. Left as they are, they are the reference: its tiles, to the bit.

    Args:
        tiles: "auto": as the reference does, up to 17 tiles an image (4x4 and the global one). "single": the
            image as a whole, squashed into one tile, as the reference does where `do_image_splitting` is
            false. A number: at most so many tiles for each image, the global one included, since each costs
            the same. Where the reference makes no more, nothing changes; else the image is cut as if the
            reference's longest edge were fewer tiles long, into a grid of its proportions: less detail. Where
            two tiles along the longest edge are too many already, it is as "single"; so are 1 and 2.
        upscale: True: the longest edge of an image becomes that of the checkpoint, also upwards, as the
            reference does. False: a smaller image is only enlarged to whole tiles. It loses nothing that it
            had, but the model sees it in fewer tiles than it was trained on.
        split_images: The name that users of transformers know. False is tiles="single"; True splits even
            where the checkpoint says not to; None leaves it to `tiles`.

    Raises:
        InputError: One of them is of another kind, or they contradict each other.
    """
    for name, value in (("upscale", upscale), ("split_images", split_images)):
        if not isinstance(value, bool) and (name == "upscale" or value is not None):
            raise InputError(f"{name} is {value!r}, expected True or False")
    if isinstance(tiles, str | bool):  # True would else be the number 1, and mean "single"
        if tiles not in ("auto", "single"):
            raise InputError(f"tiles is {tiles!r}, expected 'auto', 'single' or a number")
        max_tiles = None
    else:
        max_tiles = read_integer("tiles", tiles, at_least=1)
    if (split_images is True and tiles == "single") or (split_images is False and max_tiles is not None):
        raise InputError(f"tiles is {tiles!r} and split_images is {split_images}: give one of them")
    if tiles == "auto":
        return ImageModes(split_images, None, upscale)
    return ImageModes(tiles != "single", max_tiles, upscale)
