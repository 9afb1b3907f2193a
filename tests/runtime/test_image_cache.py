"""Images that come again are not encoded again, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pocketvlm
from pocketvlm import CameraFrame
from pocketvlm.errors import InputError
from pocketvlm.image_cache import ImageCache, digest_image
from pocketvlm.images import load_image
from pocketvlm.processor import ImageSize, TileGrid, TilePlan

ONE_TILE = TilePlan(ImageSize(64, 64), None, TileGrid(0, 0))
OTHER_PLAN = TilePlan(ImageSize(64, 128), None, TileGrid(0, 0))


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def digest(source: Any) -> bytes:
    return digest_image(source, load_image(source))


def test_a_digest_is_of_pixels_and_nothing_else() -> None:
    image = noise(20, 30, 3)
    padded = np.zeros((20, 40, 3), np.uint8)
    padded[:, 5:35] = image
    assert digest(image) == digest(image.copy()) == digest(padded[:, 5:35])
    other = image.copy()
    other[19, 29, 2] ^= 1
    y, uv = noise(20, 30), noise(10, 30, seed=1)
    found = [
        image,
        other,
        image.reshape(30, 20, 3),
        noise(20, 30, 4),
        y,
        CameraFrame.nv12(y, uv),
        CameraFrame.nv12(y, uv[::-1].copy()),
        CameraFrame.nv12(y, uv, matrix="bt709"),
        CameraFrame.nv12(y, uv, full_range=True),
    ]
    assert len({digest(source) for source in found}) == len(found)


def test_what_was_used_least_lately_goes_first() -> None:
    cache = ImageCache(3 * 4 * 8)
    parts = [np.full((4, 2), i, np.float32) for i in range(5)]
    for i in range(3):
        cache.add(bytes([i]), ONE_TILE, parts[i])
    assert cache.nbytes == cache.max_bytes == 96
    assert cache.find(bytes([0]), ONE_TILE) is not None
    cache.add(bytes([3]), ONE_TILE, parts[3])
    held = [cache.find(bytes([i]), ONE_TILE) for i in range(4)]
    assert [part is not None for part in held] == [True, False, True, True]
    assert cache.find(bytes([3]), OTHER_PLAN) is None
    parts[3][:] = 9
    assert held[3] is not None
    np.testing.assert_array_equal(held[3], np.full((4, 2), 3))  # a copy
    cache.add(bytes([4]), ONE_TILE, np.zeros((13, 2), np.float32))  # more than all of it
    assert cache.nbytes == 96
    cache.clear()
    assert (cache.nbytes, cache.find(bytes([3]), ONE_TILE)) == (0, None)


BACKENDS = [
    {"backend": "native"},
    {"backend": "llama_cpp"},
    {"backend": "llama_cpp", "vision_engine": "mtmd"},
]


@pytest.mark.parametrize("options", BACKENDS, ids=["native", "llama_cpp", "mtmd"])
def test_an_image_that_comes_again_is_not_encoded_again(
    tiny_f32: Path, request: pytest.FixtureRequest, options: dict[str, str]
) -> None:
    if options["backend"] == "llama_cpp":
        request.getfixturevalue("llama_packages")
    model = pocketvlm.load(tiny_f32, threads=2, **options)
    first, second = noise(60, 80, 3), noise(90, 30, 3, seed=1)
    stages: list[str] = []

    def ask(*images: NDArray[np.uint8], **more: Any) -> pocketvlm.GenerationResult:
        stages.clear()
        return model.generate(
            "What?",
            images=images,
            max_new_tokens=12,
            ignore_eos=True,
            on_progress=lambda stage, *_: stages.append(stage),
            **more,
        )

    new = ask(first)
    assert (new.tiles_saved, "vision" in stages) == (0, True)
    again = ask(first)
    assert (again.tiles_saved, "vision" in stages) == (new.tiles, False)
    assert again.token_ids == new.token_ids
    assert model.info()["image_cache_bytes"] == new.image_tokens * model.config.text.hidden_size * 4

    both = ask(second, first, second)
    assert "vision" in stages
    only_second = ask(second)
    assert only_second.tiles_saved == only_second.tiles
    assert both.tiles_saved >= new.tiles
    model.clear_image_cache()
    assert model.info()["image_cache_bytes"] == 0
    fresh = ask(second, first, second)
    assert fresh.tiles_saved < both.tiles_saved
    assert fresh.token_ids == both.token_ids


def test_another_plan_is_another_image(tiny_f32: Path) -> None:
    model = pocketvlm.load(tiny_f32, threads=2)
    image = noise(60, 80, 3)
    model.generate("What?", images=image, max_new_tokens=1)
    single = model.generate("What?", images=image, tiles="single", max_new_tokens=1)
    assert (single.tiles, single.tiles_saved) == (1, 0)


def test_without_a_cache_every_image_is_new(tiny_f32: Path) -> None:
    model = pocketvlm.load(tiny_f32, threads=2, image_cache_bytes=0)
    for _ in range(2):
        assert model.generate("What?", images=noise(60, 80, 3), max_new_tokens=1).tiles_saved == 0
    assert model.info()["image_cache_bytes"] == 0
    with pytest.raises(InputError, match="image_cache_bytes is -1"):
        pocketvlm.load(tiny_f32, image_cache_bytes=-1)
