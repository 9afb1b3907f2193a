"""The engine: what it decides around a backend, with answers laid down by the test; and the tiny model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import pocketvlm
from pocketvlm import CameraFrame, _core, image_encoder
from pocketvlm.engine import Model
from pocketvlm.errors import ContextLengthError, FormatError, InputError, UnsupportedError

Scripted: TypeAlias = Callable[[str], tuple[Model, Any]]

GREY = np.full((5, 8, 3), 128, np.uint8)
END = "<end_of_utterance>"


def test_an_answer_with_its_costs(scripted: Scripted) -> None:
    model, backend = scripted(f" A cat 🐈.{END}")
    result = model.generate("What?", images=[GREY])
    assert result.text == " A cat 🐈."
    assert result.token_ids == backend.answer
    assert result.finish_reason == "stop"
    assert (result.tiles, result.image_tokens) == (13, 13 * 64)
    assert result.prompt_tokens > result.image_tokens
    timings = result.timings
    assert (timings.load_s, timings.prefill_s, timings.decode_s) == (1.5, 0.5, 0.25)
    assert timings.decode_tokens_per_s == (len(backend.answer) - 1) / 0.25
    assert timings.time_to_first_token_s >= timings.preprocess_s + timings.vision_s > 0
    assert result.memory.peak_bytes > 10_000_000


def test_the_dict_of_a_result_has_the_documented_keys(scripted: Scripted) -> None:
    values = scripted(f"x{END}")[0].generate("What?").to_dict()
    assert list(values) == [
        "text",
        "token_ids",
        "finish_reason",
        "prompt_tokens",
        "image_tokens",
        "tiles",
        "tiles_saved",
        "timings",
        "memory",
    ]
    assert list(values["timings"]) == [
        "load_s",
        "preprocess_s",
        "vision_s",
        "prefill_s",
        "decode_s",
        "time_to_first_token_s",
        "decode_tokens_per_s",
    ]
    assert list(values["memory"]) == ["peak_bytes"]


@pytest.mark.parametrize("marker", [END, "<|im_end|>"])
def test_both_markers_end_an_answer_unless_ignored(scripted: Scripted, marker: str) -> None:
    model, backend = scripted(f"one{marker} two")
    stopped = model.generate("What?")
    assert (stopped.text, stopped.finish_reason) == ("one", "stop")
    ignored = model.generate("What?", ignore_eos=True)
    assert (ignored.text, ignored.finish_reason) == ("one two", "length")
    assert ignored.token_ids == backend.answer


def test_a_stop_string_across_tokens_ends_an_answer(scripted: Scripted) -> None:
    model, backend = scripted(f"The answer is 42.\n\nUser: and{END}")
    result = model.generate("What?", stop=["\nUser:", "never"])
    assert result.text == "The answer is 42.\n"
    assert result.finish_reason == "stop"
    assert len(result.token_ids) < len(backend.answer)
    assert model.generate("What?", stop=" is").text == "The answer"


def test_what_began_like_a_stop_string_is_in_the_text_at_the_end(scripted: Scripted) -> None:
    model, _ = scripted(f"to be{END}")
    assert model.generate("What?", stop="be or").text == "to be"


def test_max_new_tokens(scripted: Scripted) -> None:
    model, backend = scripted(f" a b c d{END}")
    result = model.generate("What?", max_new_tokens=2)
    assert (result.text, result.finish_reason, result.token_ids) == (" a b", "length", backend.answer[:2])
    assert model.generate("What?", max_new_tokens=1).timings.decode_tokens_per_s == 0


def test_images_are_split_only_if_wanted(scripted: Scripted) -> None:
    model, backend = scripted(f"x{END}")
    for split, tiles in ((None, 13), (True, 13), (False, 1)):
        assert model.generate("What?", images=[GREY], split_images=split).tiles == tiles
    assert model.generate("What?", images=[GREY, GREY], split_images=False).tiles == 2
    assert model.generate("What?").tiles == 0
    assert backend.tiles == [1, 1, 1, 1]  # all grey is one tile; nothing is encoded where there is no image


def test_modes_reach_the_plan(scripted: Scripted) -> None:
    model, _ = scripted(f"x{END}")
    modes: list[dict[str, Any]] = [{"tiles": "single"}, {"tiles": 5}, {"upscale": False}, {}]
    for mode, tiles in zip(modes, (1, 5, 1, 13), strict=True):
        assert model.generate("What?", images=[GREY], **mode).tiles == tiles
        stream = model.stream("What?", images=[GREY], **mode)
        assert "".join(stream) == "x"
        assert stream.result.tiles == tiles


def test_one_image_needs_no_list(scripted: Scripted, tmp_path: Path) -> None:
    model, _ = scripted(f"x{END}")
    path = tmp_path / "grey.png"
    Image.fromarray(GREY).save(path)
    frame = CameraFrame.nv12(np.zeros((20, 30), np.uint8), np.zeros((10, 30), np.uint8))
    for image in (GREY, path, str(path), path.read_bytes(), Image.open(path), frame):
        assert model.generate("What?", images=image, split_images=False).tiles == 1


def test_messages_carry_images(scripted: Scripted) -> None:
    model, _ = scripted(f"x{END}")
    messages = [{"role": "user", "content": [{"type": "image", "image": GREY}, {"type": "image"}]}]
    assert model.generate(messages, images=[GREY], split_images=False).tiles == 2


def test_a_prompt_beyond_the_context_is_refused_before_anything_is_encoded(scripted: Scripted) -> None:
    model, backend = scripted(f"x{END}")
    with pytest.raises(ContextLengthError, match="10 images in 130 tiles of 64; the context holds 8192"):
        model.generate("What?", images=[GREY] * 10)
    with pytest.raises(ContextLengthError, match="0 images"):
        model.stream("word " * 9000)
    assert backend.tiles == []


def test_a_prompt_that_fills_the_context_gets_one_token(tiny_f32: Path) -> None:
    model = pocketvlm.load(tiny_f32)
    context_length = model.config.text.max_position_embeddings
    fixed = model.generate("", max_new_tokens=1).prompt_tokens
    result = model.generate("7" * (context_length - fixed), ignore_eos=True)
    assert result.prompt_tokens == context_length
    assert (len(result.token_ids), result.finish_reason) == (1, "length")
    with pytest.raises(ContextLengthError):
        model.generate("7" * (context_length - fixed + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 1.5}, r"max_new_tokens is 1\.5"),
        ({"max_new_tokens": None}, "max_new_tokens is None"),
        ({"stop": [""]}, "stop: found ''"),
        ({"stop": [7]}, "stop: found 7"),
        ({"tiles": 0}, "tiles is 0"),
        ({"upscale": 1}, "upscale is 1, expected True or False"),
        ({"tiles": "single", "split_images": True}, "give one of them"),
        ({"images": ["missing.jpg"]}, r"missing\.jpg: no such file"),
        ({"images": [GREY, GREY.astype(np.float64)]}, "image 2: found an array float64"),
        ({"images": [np.zeros((40, 40, 3), np.uint8)]}, "40x40 is 1,600 pixels, pixel_limit is 1,000"),
    ],
)
def test_a_bad_argument_is_named_at_the_call(
    scripted: Scripted, options: dict[str, Any], message: str
) -> None:
    model, backend = scripted(f"x{END}")
    for call in (model.generate, model.stream):
        with pytest.raises(InputError, match=message):
            call("What?", **options)  # type: ignore[operator]
    assert backend.tiles == []


def test_an_unknown_option_is_a_type_error(scripted: Scripted, tmp_path: Path) -> None:
    model, _ = scripted(f"x{END}")
    for call in (model.generate, model.stream):
        with pytest.raises(TypeError, match="do_sample"):
            call("What?", do_sample=True)  # type: ignore[operator]
    with pytest.raises(TypeError, match="device"):
        pocketvlm.load(tmp_path, device="cuda")  # type: ignore[call-arg]


def test_generations_of_several_threads_run_one_at_a_time(scripted: Scripted) -> None:
    model, backend = scripted(f" a b c{END}")
    backend.seconds_per_token = 0.005
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(model.generate("What?").text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [" a b c"] * 4
    assert backend.most_running == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "mlx"}, UnsupportedError, "'mlx' is not there; available: native, onnx, llama_cpp"),
        ({"threads": 0}, InputError, "threads is 0"),
        ({"pixel_limit": -1}, InputError, "pixel_limit is -1"),
        ({"type": "q2_k"}, InputError, "type 'q2_k': expected one of f32, f16, bf16, q8_0, q4_0"),
        ({"isa": "sse9"}, UnsupportedError, "(?s)sse9.*scalar"),
        ({"vision_compute": "int3"}, InputError, "vision_compute: int3, expected auto, int8 or bf16"),
    ],
)
def test_a_bad_argument_of_load_is_named(
    tiny_f32: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pocketvlm.load(tiny_f32, **options)


def test_the_isa_may_come_from_the_environment(tiny_f32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETVLM_ISA", "scalar")
    assert pocketvlm.load(tiny_f32).info()["isa"] == "scalar"
    best = _core.isas()[0]
    assert pocketvlm.load(tiny_f32, isa=best).info()["isa"] == best
    monkeypatch.setenv("POCKETVLM_ISA", "sse9")
    with pytest.raises(UnsupportedError, match="sse9"):
        pocketvlm.load(tiny_f32)


@pytest.mark.parametrize("isa", _core.isas())
def test_what_the_vision_tower_multiplies_in(tiny_f32: Path, tiny_q8_0: Path, isa: str) -> None:
    """In bfloat16 where a row has it, and else a named error."""
    assert pocketvlm.load(tiny_q8_0, isa=isa, vision_compute="int8").info()["vision_compute"] == "int8"
    assert pocketvlm.load(tiny_f32, isa=isa).info()["vision_compute"] == "f32"
    if not any(kernel == "gemm_bf16_bf16" for _, kernel, *_ in _core.kernel_cases(isa)):
        with pytest.raises(UnsupportedError, match=f"vision_compute: bf16: the kernels {isa} have no"):
            pocketvlm.load(tiny_f32, isa=isa, vision_compute="bf16")
        return
    assert pocketvlm.load(tiny_f32, isa=isa, vision_compute="bf16").info()["vision_compute"] == "bf16"


def test_files_that_disagree_are_named(tiny_f32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_f32.iterdir():
        (folder / path.name).symlink_to(path)
    config = (folder / "config.json").read_text()
    image_token_id = pocketvlm.load(tiny_f32).config.image_token_id
    (folder / "config.json").unlink()
    changed = config.replace(f'"image_token_id": {image_token_id}', f'"image_token_id": {image_token_id - 1}')
    (folder / "config.json").write_text(changed)
    with pytest.raises(FormatError, match=f"<image> is token {image_token_id} in tokenizer.json"):
        pocketvlm.load(folder)


@pytest.mark.parametrize("model_folder", ["tiny_f32", "tiny_q8_0"])
def test_the_tiny_model_answers_the_same_streamed_and_whole(
    request: pytest.FixtureRequest, photo: Path, model_folder: str
) -> None:
    progress: list[tuple[str, int, int]] = []
    model = pocketvlm.load(request.getfixturevalue(model_folder), threads=2, image_cache_bytes=0)
    whole = model.generate("Describe this.", images=[photo], max_new_tokens=24, ignore_eos=True)
    stream = model.stream(
        "Describe this.",
        images=photo,
        max_new_tokens=24,
        ignore_eos=True,
        on_progress=lambda stage, done, total: progress.append((stage, done, total)),
    )
    assert "".join(stream) == whole.text == stream.result.text
    assert stream.result.token_ids == whole.token_ids
    assert len(whole.token_ids) == 24
    assert whole.tiles == 13
    assert {stage for stage, _, _ in progress} == {"vision", "prefill", "decode"}
    assert all(0 <= done <= total for _, done, total in progress)


def noise(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def page(seed: int) -> NDArray[np.uint8]:
    """A picture with a wide white margin on all sides."""
    picture = np.full((600, 800, 3), 255, np.uint8)
    picture[260:340, 330:470] = noise(80, 140, seed)
    return picture


@pytest.mark.parametrize(
    ("images", "saved"),
    [
        ([page(1)], 9),  # of 13 tiles ten are white; grid 3x4, the picture's middle lies in two of them
        ([noise(100, 140, 1), noise(100, 140, 1)], 13),
        ([noise(100, 140, 1), page(1), noise(100, 140, 1)], 9 + 13),
        ([noise(100, 140, 1), noise(100, 140, 2)], 0),
    ],
)
def test_equal_tiles_are_encoded_once_and_the_tokens_are_the_same(
    tiny_f32: Path, monkeypatch: pytest.MonkeyPatch, images: list[NDArray[np.uint8]], saved: int
) -> None:
    seen: list[tuple[str, int, int]] = []
    options: dict[str, Any] = {"images": images, "max_new_tokens": 16, "ignore_eos": True, "logprobs": 1}
    model = pocketvlm.load(tiny_f32, threads=2, image_cache_bytes=0)
    once = model.generate("What?", on_progress=lambda *progress: seen.append(progress), **options)
    assert (once.tiles, once.tiles_saved) == (13 * len(images), saved)
    assert max(total for stage, _, total in seen if stage == "vision") == once.tiles - saved

    def all_distinct(tiles: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        return np.arange(len(tiles)), np.arange(len(tiles))

    monkeypatch.setattr(image_encoder, "find_distinct_tiles", all_distinct)
    every = model.generate("What?", **options)
    assert every.tiles_saved == 0
    assert (every.token_ids, every.logprobs) == (once.token_ids, once.logprobs)


def test_info_tells_what_a_model_is(tiny_q8_0: Path) -> None:
    info = pocketvlm.load(tiny_q8_0, threads=1).info()
    assert info["backend"] == "native"
    assert info["threads"] == 1
    assert (info["text_type"], info["vision_type"]) == ("q8_0", "q8_0")
    assert info["text_file_bytes"] == (tiny_q8_0 / info["text_file"]).stat().st_size
    assert info["num_parameters"] > 100_000
    assert info["weight_bytes"] > 100_000
