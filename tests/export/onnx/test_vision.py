"""The vision encoder's graph with images and pixels that are not there, which no processor makes alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pocketvlm.export.onnx.vision import position_buckets

from .exports import Exported

Floats = npt.NDArray[np.float32]


@pytest.mark.parametrize("type", ["fp32", "int8"])
def test_padding_images_are_dropped(exported: Exported, type: str) -> None:
    side = exported.config.vision.image_size
    pixels = np.random.default_rng(1).uniform(-1, 1, (2, 2, 3, side, side)).astype(np.float32)
    mask = np.ones((2, 2, side, side), np.bool_)
    pixels[0, 1], mask[0, 1] = 0, False
    session = exported.session("vision_encoder", type)

    def encode(pixels: Floats, mask: npt.NDArray[np.bool_]) -> Floats:
        (features,) = session.run(None, {"pixel_values": pixels, "pixel_attention_mask": mask})
        return np.asarray(features)

    found = encode(pixels, mask)
    assert len(found) == 3
    # A mask that is not full takes another kernel, and at int8 images of one run share their scales.
    tolerance = 1e-4 if type == "fp32" else 0.3
    for i, place in enumerate([(0, 0), (1, 0), (1, 1)]):
        alone = encode(pixels[place][None, None], mask[place][None, None])
        np.testing.assert_allclose(found[i], alone[0], atol=tolerance)
    # SmolVLM keeps one image where all are padding.
    assert len(encode(pixels[:1, 1:], mask[:1, 1:])) == 1


def test_masked_pixels_have_no_part(exported: Exported) -> None:
    """What lies under the mask reaches no feature of what does not."""
    config = exported.config
    side = config.vision.image_size
    block = config.vision.patch_size * config.scale_factor
    columns = config.vision.num_patches_per_side // config.scale_factor
    kept = max(1, columns // 2)
    random = np.random.default_rng(2)
    pixels = random.uniform(-1, 1, (1, 1, 3, side, side)).astype(np.float32)
    mask = np.zeros((1, 1, side, side), np.bool_)
    mask[..., : kept * block] = True
    other = pixels.copy()
    other[..., kept * block :] = random.uniform(-1, 1, other[..., kept * block :].shape)
    session = exported.session("vision_encoder")

    def encode(pixels: Floats, mask: npt.NDArray[np.bool_]) -> Floats:
        (features,) = session.run(None, {"pixel_values": pixels, "pixel_attention_mask": mask})
        return np.asarray(features).reshape(-1, columns, config.text.hidden_size)[:, :kept]

    np.testing.assert_allclose(encode(pixels, mask), encode(other, mask), atol=1e-5)
    full = np.ones_like(mask)
    assert np.abs(encode(pixels, full) - encode(other, full)).max() > 0.01
    # Positions of a masked image are stretched over the whole grid.
    assert np.abs(encode(pixels, mask) - encode(pixels, full)).max() > 0.01


@pytest.mark.parametrize(
    ("side", "count", "expected"),
    [
        (8, 3, [0, 2, 5]),
        (27, 13, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24]),
        (27, 20, [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18, 20, 21, 22, 24, 25]),
        (32, 32, list(range(32))),
    ],
)
def test_position_buckets_are_the_reference(side: int, count: int, expected: list[int]) -> None:
    """What torch.bucketize gives in Idefics3VisionEmbeddings.forward of transformers 5.23.0."""
    assert position_buckets(side)[count, :count].tolist() == expected
