"""The llama_cpp backend: models answer as on our own engine, with either tower; what cannot be is named."""

from __future__ import annotations

import gc
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pocketvlm
from pocketvlm import _core
from pocketvlm.backends import PictureEncoder
from pocketvlm.cli import main
from pocketvlm.errors import (
    BackendError,
    ContextLengthError,
    Error,
    FormatError,
    InputError,
    UnsupportedError,
)
from pocketvlm.processor import ImageSize, plan_tiles
from pocketvlm.tiles import cut_tiles

from ..conftest import export

pytestmark = pytest.mark.usefixtures("llama_packages")

PICTURE = np.random.default_rng(4).integers(0, 256, (90, 130, 3), np.uint8)
REQUESTS: list[dict[str, Any]] = [
    {"prompt": "What is this?"},
    {"prompt": "What is this?", "images": [PICTURE]},
    {"prompt": "What is this?", "images": [PICTURE], "tiles": "single"},
    {"prompt": "Compare.", "images": [PICTURE, PICTURE[:50]]},
]
NAMES = ["text", "split", "unsplit", "two images"]


def load(folder: Path, **options: Any) -> pocketvlm.Model:
    """With one thread: where cores are shared, those of llama.cpp wait for each other at length."""
    return pocketvlm.load(folder, **{"backend": "llama_cpp", "threads": 1, **options})


@pytest.fixture(scope="module", params=["tiny", "demo"])
def folder(request: pytest.FixtureRequest) -> Path:
    """A model exported at f32."""
    found: Path = request.getfixturevalue(f"{request.param}_f32")
    return found


@pytest.mark.parametrize("request_", REQUESTS, ids=NAMES)
def test_64_greedy_tokens_are_those_of_the_native_engine(folder: Path, request_: dict[str, Any]) -> None:
    expected = pocketvlm.load(folder, threads=2).generate(**request_, max_new_tokens=64, ignore_eos=True)
    result = load(folder).generate(**request_, max_new_tokens=64, ignore_eos=True)
    assert result.token_ids == expected.token_ids
    assert (result.prompt_tokens, result.tiles) == (expected.prompt_tokens, expected.tiles)


def test_a_prompt_longer_than_a_batch(tiny_f32: Path) -> None:
    """Of 300 tokens that differ: positions go on from batch to batch."""
    prompt = " ".join(map(str, range(150)))
    options: dict[str, Any] = {"max_new_tokens": 16, "ignore_eos": True}
    expected = pocketvlm.load(tiny_f32, threads=2).generate(prompt, **options)
    result = load(tiny_f32).generate(prompt, **options)
    assert result.prompt_tokens > 256
    assert result.token_ids == expected.token_ids


def test_sampled_answers_and_logprobs_are_those_of_the_native_engine(tiny_f32: Path) -> None:
    """Several answers start where the prompt ends; the same seeds draw the same tokens."""
    options: dict[str, Any] = {"max_new_tokens": 12, "ignore_eos": True, "temperature": 1.0, "seed": 5}
    native = pocketvlm.load(tiny_f32, threads=2).generate("Say.", n=2, logprobs=3, **options)
    result = load(tiny_f32).generate("Say.", n=2, logprobs=3, **options)
    assert result.token_ids == native.token_ids
    assert result.alternatives[0].token_ids == native.alternatives[0].token_ids != result.token_ids
    assert result.logprobs is not None and native.logprobs is not None
    assert [entry.logprob for entry in result.logprobs] == pytest.approx(
        [entry.logprob for entry in native.logprobs], abs=1e-3
    )


@pytest.mark.parametrize("type", ["f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("vision_engine", ["native", "mtmd"])
def test_every_type_answers(tiny_checkpoint: Path, tmp_path: Path, type: str, vision_engine: str) -> None:
    export("gguf", tiny_checkpoint, tmp_path / "model", "--type", type)
    model = load(tmp_path / "model", vision_engine=vision_engine)
    assert len(model.generate("What?", images=[PICTURE], max_new_tokens=5, ignore_eos=True).token_ids) == 5
    info = model.info()
    assert (info["text_type"], info["kv_cache_type"]) == (type, "f16")
    assert info["vision_engine"] == vision_engine


def test_threads_are_as_many_as_asked_for(tiny_f32: Path) -> None:
    from pocketvlm.backends import llama_library

    assert load(tiny_f32, threads=2).info()["threads"] == 2
    (text,) = (path for path in tiny_f32.glob("*.gguf") if not path.name.startswith("mmproj"))
    llama_library.start()
    context = llama_library.LlamaModel(text, threads=3, exact=True).new_context(64)
    count = (llama_library.llama_cpp.llama_n_threads, llama_library.llama_cpp.llama_n_threads_batch)
    assert [call(context._pointer) for call in count] == [3, 3]


class TestMtmd:
    def test_features_are_near_those_of_our_tower(self, demo_f32: Path) -> None:
        """But for what mtmd keeps in float16, the pixels, which are rounded by 2^-12 and the resizing."""
        theirs, ours = (load(demo_f32, vision_engine=engine) for engine in ("mtmd", "native"))
        config = ours._processor.config
        pixels = np.random.default_rng(1).integers(0, 256, (384, 512, 3), np.uint8)
        plan = plan_tiles(ImageSize(384, 512), config, split=True)
        backend, stop = theirs._backend, _core.StopFlag()
        assert isinstance(backend, PictureEncoder)
        found = backend.encode_pictures([pixels], [plan], stop=stop, on_progress=None)
        layout = ours._backend.tile_layout
        tiles = cut_tiles([pixels], [plan], config, layout=layout, pool=ours._pool)
        expected = ours._backend.encode_images(tiles, stop=stop, on_progress=None).reshape(found.shape)
        error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
        print(f"relative error {error:.2e}")
        assert error < 2**-10

    def test_text_alone(self, tiny_f32: Path) -> None:
        options: dict[str, Any] = {"max_new_tokens": 8, "ignore_eos": True}
        expected = load(tiny_f32).generate("What?", **options).token_ids
        assert load(tiny_f32, vision_engine="mtmd").generate("What?", **options).token_ids == expected

    def test_grey_and_transparent_pictures(self, tiny_f32: Path) -> None:
        model = load(tiny_f32, vision_engine="mtmd")
        options: dict[str, Any] = {"max_new_tokens": 8, "ignore_eos": True}
        grey = PICTURE[:, :, 0]
        same = [grey, np.dstack([grey] * 3), np.dstack([grey] * 3 + [np.full_like(grey, 255)])]
        answers = [model.generate("What?", images=[picture], **options).token_ids for picture in same]
        assert answers[0] == answers[1] == answers[2]

    def test_modes_that_mtmd_has_not_are_refused(self, tiny_f32: Path) -> None:
        model = load(tiny_f32, vision_engine="mtmd")
        with pytest.raises(UnsupportedError, match=r"llama\.cpp cuts this image into"):
            model.generate("What?", images=[PICTURE], tiles="single")

    def test_camera_frames_are_refused(self, tiny_f32: Path) -> None:
        frame = pocketvlm.CameraFrame.nv12(np.zeros((8, 8), np.uint8), np.zeros((4, 4, 2), np.uint8))
        with pytest.raises(UnsupportedError, match=r"no camera frames"):
            load(tiny_f32, vision_engine="mtmd").generate("What?", images=[frame])

    def test_a_vocabulary_without_the_global_marker_is_refused_first(self, tmp_path: Path) -> None:
        """That of SmolVLM 2.2B, the first version."""
        export("synthetic", "tiny-2.2b", tmp_path / "checkpoint")
        export("gguf", tmp_path / "checkpoint", tmp_path / "model", "--type", "f32")
        with pytest.raises(UnsupportedError, match=r"llama\.cpp needs the token <global-img>"):
            load(tmp_path / "model", vision_engine="mtmd")
        native = pocketvlm.load(tmp_path / "model", threads=2)
        options: dict[str, Any] = {"images": [PICTURE], "max_new_tokens": 16, "ignore_eos": True}
        expected = native.generate("What?", **options).token_ids
        assert load(tmp_path / "model").generate("What?", **options).token_ids == expected


@pytest.mark.parametrize("vision_engine", ["native", "mtmd"])
def test_a_stopped_call_ends_and_the_model_answers_again(tiny_f32: Path, vision_engine: str) -> None:
    model = load(tiny_f32, vision_engine=vision_engine, image_cache_bytes=0)
    options: dict[str, Any] = {"images": [PICTURE], "max_new_tokens": 4, "ignore_eos": True}
    whole = model.generate("What?", **options)

    seen: list[str] = []

    def interrupt_new_stage(stage: str, done: int, total: int) -> None:
        if stage not in seen:
            seen.append(stage)
            raise KeyboardInterrupt

    for at in ("vision", "prefill", "decode"):
        with pytest.raises(KeyboardInterrupt):
            model.generate("What?", **options, on_progress=interrupt_new_stage)
        assert seen[-1] == at
    with model.stream("What?", **{**options, "max_new_tokens": 1000}) as stream:
        next(iter(stream))
    assert model.generate("What?", **options).token_ids == whole.token_ids


def _noting(call: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        calls.append(1)
        return call(*arguments)

    return noted


def _interrupt(stage: str, done: int, total: int) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("vision_engine", ["native", "mtmd"])
def test_nothing_is_left_behind_and_nothing_printed(
    tiny_f32: Path, vision_engine: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from pocketvlm.backends import llama_library

    made: list[int] = []
    freed: list[int] = []
    for names, found in (
        (("llama_model_load_from_file", "llama_init_from_model", "mtmd_init_from_file"), made),
        (("llama_model_free", "llama_free", "mtmd_free"), freed),
    ):
        for name in names:
            library = llama_library.mtmd_cpp if name.startswith("mtmd") else llama_library.llama_cpp
            monkeypatch.setattr(library, name, _noting(getattr(library, name), found))
    model = load(tiny_f32, vision_engine=vision_engine)
    model.generate("What?", images=[PICTURE], max_new_tokens=2)
    with pytest.raises(KeyboardInterrupt):
        model.generate("What?", on_progress=_interrupt)
    models = 2 if vision_engine == "mtmd" else 1
    assert (len(made), len(freed)) == (models + 2, 2)  # a context of each generation
    del model
    gc.collect()
    assert (len(made), len(freed)) == (models + 2, models + 2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"vision_engine": "clip"}, InputError, "vision_engine is 'clip', expected native or mtmd"),
        ({"vision_engine": "mtmd", "isa": "scalar"}, UnsupportedError, "isa 'scalar': with vision_engine"),
        ({"vision_engine": "mtmd", "vision_compute": "bf16"}, UnsupportedError, "vision_compute 'bf16'"),
        ({"isa": "sse"}, UnsupportedError, "sse"),
        ({"vision_compute": "int4"}, InputError, "vision_compute"),
    ],
)
def test_options_that_make_no_sense_are_named(
    tiny_f32: Path, options: dict[str, Any], error: type[Error], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(tiny_f32, **options)


def test_a_vision_engine_on_another_backend_is_refused(tiny_f32: Path) -> None:
    with pytest.raises(UnsupportedError, match="the native backend makes image features itself"):
        pocketvlm.load(tiny_f32, vision_engine="mtmd")


def test_a_prompt_beyond_the_context_is_named(tiny_f32: Path) -> None:
    with pytest.raises(ContextLengthError, match="the context holds"):
        load(tiny_f32).generate("many words " * 3000)


def test_the_answer_ends_where_the_context_is_full(tiny_f32: Path) -> None:
    model = load(tiny_f32)
    room = model.info()["context_length"]
    options: dict[str, Any] = {"max_new_tokens": 100, "ignore_eos": True}
    prompt = "a " * (room - 60)
    expected = pocketvlm.load(tiny_f32, threads=2).generate(prompt, **options)
    result = model.generate(prompt, **options)
    assert (result.finish_reason, result.token_ids) == (expected.finish_reason, expected.token_ids)


def test_sizes_other_than_config_json_says_are_named(tiny_f32: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(tiny_f32, tmp_path / "own"))
    config = json.loads((own / "config.json").read_text())
    config["text_config"]["vocab_size"] += 8
    (own / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match=r"vocab_size|tokens, config\.json has"):
        load(own)


@pytest.mark.parametrize("vision_engine", ["native", "mtmd"])
def test_a_text_file_without_layers_is_named(tiny_f32: Path, tmp_path: Path, vision_engine: str) -> None:
    own = Path(shutil.copytree(tiny_f32, tmp_path / "own"))
    (text,) = (path for path in own.glob("*.gguf") if not path.name.startswith("mmproj"))
    text.write_bytes(text.read_bytes().replace(b"blk.0.attn_q.weight", b"blk.0.attn_x.weight"))
    with pytest.raises(FormatError, match=r"blk\.0\.attn_q\.weight"):
        load(own, vision_engine=vision_engine)


def test_a_file_that_llama_cpp_refuses_is_an_error_with_its_words(
    tiny_f32: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a tokenizer that it does not know, which is of no concern to us."""
    own = Path(shutil.copytree(tiny_f32, tmp_path / "own"))
    (text,) = (path for path in own.glob("*.gguf") if not path.name.startswith("mmproj"))
    content = text.read_bytes()
    assert content.count(b"\x04\0\0\0\0\0\0\0gpt2") == 1
    text.write_bytes(content.replace(b"\x04\0\0\0\0\0\0\0gpt2", b"\x04\0\0\0\0\0\0\0gptx"))
    with pytest.raises(BackendError, match=r"llama\.cpp failed: .*tokenizer"):
        load(own)
    assert capfd.readouterr() == ("", "")


def test_the_command_answers(demo_f32: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = []
    for options in ([], ["--backend", "llama_cpp"], ["--backend", "llama_cpp", "--vision-engine", "mtmd"]):
        arguments = ["describe", str(photo), "-m", str(demo_f32), "--max-new-tokens", "8"]
        arguments += ["--json", "--threads", "1"]
        assert main([*arguments, *options]) == 0
        answers.append(json.loads(capsys.readouterr().out)["token_ids"])
    assert answers[1] == answers[0]
    assert len(answers[2]) > 0


def test_without_the_package_it_says_what_to_install(tiny_f32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("llama_cpp", "llama_library", "llama_mtmd"):
        monkeypatch.delitem(sys.modules, f"pocketvlm.backends.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(
        UnsupportedError, match=r"needs the package llama_cpp: pip install 'pocketvlm\[llama\]'"
    ):
        load(tiny_f32)
