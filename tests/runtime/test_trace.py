"""`Model.trace`: the stages are those that the answer came from, in every backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pocketvlm
from pocketvlm.errors import ContextLengthError
from pocketvlm.export.onnx.export import export_onnx
from pocketvlm.processor import ImageSize, plan_tiles

PICTURE = np.random.default_rng(4).integers(0, 256, (90, 130, 3), np.uint8)
REQUEST: dict[str, Any] = {"prompt": "Compare.", "images": [PICTURE, PICTURE[:50]]}


@pytest.fixture(scope="module", params=["native", "onnx", "llama_cpp", "mtmd"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pocketvlm.Model:
    """The tiny model at float32 in every backend."""
    if request.param == "onnx":
        folder = tmp_path_factory.mktemp("onnx") / "tiny"
        export_onnx(request.getfixturevalue("tiny_checkpoint"), folder, threads=2)
        return pocketvlm.load(folder, backend="onnx", threads=2)
    folder = request.getfixturevalue("tiny_f32")
    if request.param == "native":
        return pocketvlm.load(folder, threads=2)
    request.getfixturevalue("llama_packages")
    vision_engine = "mtmd" if request.param == "mtmd" else "native"
    return pocketvlm.load(folder, backend="llama_cpp", vision_engine=vision_engine, threads=1)


def test_forced_along_its_own_answer_a_model_would_go_on_as_it_did(model: pocketvlm.Model) -> None:
    result = model.generate(**REQUEST, max_new_tokens=24, ignore_eos=True)
    trace = model.trace(**REQUEST, continuation=result.token_ids[:-1])
    assert trace.logits.argmax(axis=1).tolist() == result.token_ids
    assert (len(trace.token_ids), len(trace.image_features)) == (result.prompt_tokens, result.image_tokens)


def test_every_backend_traces_the_same_stages(model: pocketvlm.Model, tiny_f32: Path) -> None:
    continuation = list(range(300, 320))
    expected = pocketvlm.load(tiny_f32, threads=2).trace(**REQUEST, continuation=continuation)
    trace = model.trace(**REQUEST, continuation=continuation)
    assert trace.token_ids == expected.token_ids
    for name in ("patches", "image_features", "logits"):
        ours, theirs = getattr(expected, name), getattr(trace, name)
        assert (theirs.shape, theirs.dtype) == (ours.shape, np.float32)
        assert np.sqrt(np.mean((theirs - ours) ** 2) / np.mean(ours**2)) < 2**-10


def test_patches_are_the_pixel_values_of_preprocessing(model: pocketvlm.Model, tiny_f32: Path) -> None:
    """But for mtmd, which reads them in float16."""
    tiles = pocketvlm.preprocess(PICTURE, tiny_f32)
    patches = model.trace("What?", images=[PICTURE]).patches
    size = model.config.vision.patch_size
    rows = tiles.shape[2] // size
    used = tiles[:, :, : rows * size, : rows * size].reshape(len(tiles), 3, rows, size, rows, size)
    expected = used.transpose(0, 2, 4, 1, 3, 5).reshape(patches.shape)
    if model.info().get("vision_engine") == "mtmd":
        np.testing.assert_allclose(patches, expected, atol=2**-11)
    else:
        np.testing.assert_allclose(patches, expected, atol=2**-23)


def test_a_prompt_alone(model: pocketvlm.Model) -> None:
    trace = model.trace("What is this?")
    assert (len(trace.patches), len(trace.image_features), len(trace.logits)) == (0, 0, 1)


def test_a_continuation_beyond_the_context_is_refused(model: pocketvlm.Model) -> None:
    with pytest.raises(ContextLengthError, match="prompt and continuation take"):
        model.trace("What?", continuation=[5] * model.info()["context_length"])


def test_the_tokens_of_a_picture_are_replaced_in_place(tiny_f32: Path) -> None:
    from pocketvlm.messages import parse_messages
    from pocketvlm.processor import Processor

    processor = Processor(tiny_f32)
    plans = [
        plan_tiles(ImageSize(*size), processor.config, split=split)
        for size, split in (((90, 130), True), ((50, 50), False))
    ]
    prompt = processor.encode(parse_messages("Compare.", [b"", b""]), plans)
    start = prompt.index(processor.tokenizer.encode("<fake_token_around_image>", parse_special=True)[0])
    image = processor.image_token_id
    first = processor.with_picture_tokens(prompt, plans[0], [7, -1, 8])
    assert first[: start + 3] == [*prompt[:start], 7, image, 8]
    both = processor.with_picture_tokens(first, plans[1], [9])
    assert both[: start + 4] == [*prompt[:start], 7, image, 8, 9]
    assert prompt[-len(both[start + 4 :]) :] == both[start + 4 :]
    assert processor.with_picture_tokens(both, plans[0], [1]) == both
