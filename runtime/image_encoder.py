"""Images to features: what was encoded lately is looked up, the rest is cut into tiles and encoded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _core
from .backends import Backend, PictureEncoder, ProgressCallback
from .config import ModelConfig
from .image_cache import ImageCache, digest_image
from .images import ImageSource, LoadedImage
from .processor import Processor, TilePlan
from .tiles import TileLayout, cut_tiles, find_distinct_tiles


class EncodedImages(NamedTuple):
    """What images became."""

    features: NDArray[np.float32]  # of all, [image tokens, hidden_size]
    tiles_saved: int  # not encoded: equal to another, or of an image that was encoded lately
    cut_s: float = 0.0
    vision_s: float = 0.0


class ImageEncoder:
    """A backend's vision tower behind preprocessing. One call at a time.

    Attributes:
        cache: What was encoded lately.
    """

    def __init__(
        self,
        backend: Backend,
        config: ModelConfig,
        processor: Processor,
        pool: _core.ThreadPool,
        cache: ImageCache,
    ) -> None:
        """Takes the parts of a loaded model."""
        self.cache = cache
        self._backend = backend
        self._config = config
        self._processor = processor
        self._pool = pool

    def digest(self, source: ImageSource, pixels: LoadedImage) -> bytes:
        """Returns by what the cache knows an image; nothing where it holds none."""
        return digest_image(source, pixels) if self.cache.max_bytes else b""

    def encode(
        self,
        pixels: list[LoadedImage],
        digests: Sequence[bytes],
        plans: Sequence[TilePlan],
        *,
        stop: _core.StopFlag,
        on_progress: ProgressCallback | None = None,
    ) -> EncodedImages:
        """Encodes images, each by its plan; `digests` are theirs.

        Empties `pixels`, which may be most of the memory this takes, as soon as they are tiles.

        Raises:
            Cancelled: `stop` was set.
        """
        images = list(zip(digests, plans, strict=True))
        features = [self.cache.find(*image) for image in images]
        new = [i for i, held in enumerate(features) if held is None]
        tiles_saved = sum(plan.num_tiles for i, plan in enumerate(plans) if i not in new)
        new_pixels, new_plans = [pixels[i] for i in new], [plans[i] for i in new]
        pixels.clear()
        encoded = EncodedImages(np.empty((0, self._config.text.hidden_size), np.float32), 0)
        if new:
            encoded = self._encode_new(new_pixels, new_plans, stop, on_progress)
            rows = [plan.num_tiles * self._processor.config.image_seq_len for plan in new_plans]
            for i, part in zip(new, np.split(encoded.features, np.cumsum(rows)[:-1]), strict=True):
                features[i] = part
                self.cache.add(*images[i], part)
        if len(new) == len(images):
            return encoded
        whole = np.concatenate([part for part in features if part is not None])
        return encoded._replace(features=whole, tiles_saved=encoded.tiles_saved + tiles_saved)

    def trace(
        self, token_ids: list[int], pixels: Sequence[LoadedImage], plans: Sequence[TilePlan]
    ) -> tuple[list[int], NDArray[np.float32]]:
        """Returns `Trace.token_ids` and `Trace.patches` of images in a prompt."""
        config, patch_size = self._processor.config, self._config.vision.patch_size
        if not isinstance(self._backend, PictureEncoder):
            layout = TileLayout("patches_f32", patch_size)
            values = cut_tiles(pixels, plans, config, layout=layout, pool=self._pool)
            return token_ids, np.divide(values, 255, dtype=np.float32)
        shape, dtype = TileLayout("patches_f32", patch_size).array_type(config.tile_size)
        patches = [np.empty((0, *shape), dtype)]
        for picture, plan in zip(pixels, plans, strict=True):
            traced = self._backend.trace_picture(picture, plan)
            token_ids = self._processor.with_picture_tokens(token_ids, plan, traced.token_ids)
            patches.append(traced.patches)
        return token_ids, np.concatenate(patches)

    def _encode_new(
        self,
        pixels: list[LoadedImage],
        plans: Sequence[TilePlan],
        stop: _core.StopFlag,
        on_progress: ProgressCallback | None,
    ) -> EncodedImages:
        started = time.perf_counter()
        if isinstance(self._backend, PictureEncoder):
            features = self._backend.encode_pictures(pixels, plans, stop=stop, on_progress=on_progress)
            return EncodedImages(features, 0, vision_s=time.perf_counter() - started)
        layout = self._backend.tile_layout
        tiles = cut_tiles(pixels, plans, self._processor.config, layout=layout, pool=self._pool, stop=stop)
        pixels.clear()
        cut = time.perf_counter()
        features, tiles_saved = self._encode_tiles(tiles, stop, on_progress)
        return EncodedImages(features, tiles_saved, cut - started, time.perf_counter() - cut)

    def _encode_tiles(
        self, tiles: NDArray[Any], stop: _core.StopFlag, on_progress: ProgressCallback | None
    ) -> tuple[NDArray[np.float32], int]:
        """Returns the features of tiles, float32 [image tokens, hidden_size], and how many tiles took theirs
        from an equal one."""
        first, places = find_distinct_tiles(tiles)
        tiles_saved = len(tiles) - len(first)
        distinct = tiles[first] if tiles_saved else tiles
        features = self._backend.encode_images(distinct, stop=stop, on_progress=on_progress)
        if tiles_saved:
            features = features[places]
        return features.reshape(-1, self._config.text.hidden_size), tiles_saved
