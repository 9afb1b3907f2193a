"""The onnx backend: exported tiny models answer as the reference does, and unsound folders are named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import pocketvlm
from pocketvlm import _core
from pocketvlm.errors import Cancelled, Error, FormatError, InputError, UnsupportedError
from pocketvlm.export.onnx.export import export_onnx
from pocketvlm.onnx_names import DECODER, EMBED_TOKENS, VISION_ENCODER, graph_file

from ..conftest import DEMO_CHECKPOINT

TYPES = ["fp32", "int8", "q4", "fp16", "q4f16", "q8"]
PICTURE = np.random.default_rng(4).integers(0, 256, (90, 130, 3), np.uint8)


@pytest.fixture(scope="module")
def exported(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as graphs of every type. Read only."""
    folder = tmp_path_factory.mktemp("onnx") / "tiny"
    export_onnx(tiny_checkpoint, folder, types=TYPES, threads=2)
    return folder


@pytest.fixture
def own(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "own"))


def load(folder: Path, **options: Any) -> pocketvlm.Model:
    return pocketvlm.load(folder, backend="onnx", threads=2, **options)


REQUESTS: list[dict[str, Any]] = [
    {"prompt": "What is this?"},
    {"prompt": "What is this?", "images": [PICTURE]},
    {"prompt": "What is this?", "images": [PICTURE], "tiles": "single"},
    {"prompt": "Compare.", "images": [PICTURE, PICTURE[:50]]},
]


@pytest.fixture(scope="module", params=["tiny", "demo"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pocketvlm.Model, pocketvlm.Model]:
    """A model on the native engine at f32, and on its graphs at fp32."""
    native = request.getfixturevalue(f"{request.param}_f32")
    if request.param == "tiny":
        graphs = request.getfixturevalue("exported")
    else:
        graphs = tmp_path_factory.mktemp("onnx-demo") / "demo"
        export_onnx(DEMO_CHECKPOINT, graphs, threads=2)
    return pocketvlm.load(native, threads=2), load(graphs, type="fp32")


@pytest.mark.parametrize("request_", REQUESTS, ids=["text", "split", "unsplit", "two images"])
def test_64_greedy_tokens_are_those_of_the_native_engine(
    pair: tuple[pocketvlm.Model, pocketvlm.Model], request_: dict[str, Any]
) -> None:
    native, graphs = pair
    expected = native.generate(**request_, max_new_tokens=64, ignore_eos=True)
    result = graphs.generate(**request_, max_new_tokens=64, ignore_eos=True)
    assert result.token_ids == expected.token_ids
    assert (result.prompt_tokens, result.tiles) == (expected.prompt_tokens, expected.tiles)


def test_a_folder_of_graphs_alone_needs_no_backend_named(own: Path, tiny_checkpoint: Path) -> None:
    """One that has other weights too, as on the hub, runs on those."""
    named = load(own, type="fp32").generate("What?", max_new_tokens=4, ignore_eos=True)
    model = pocketvlm.load(own, type="fp32", threads=2)
    assert model.info()["backend"] == "onnx"
    assert model.generate("What?", max_new_tokens=4, ignore_eos=True).token_ids == named.token_ids
    shutil.copy(tiny_checkpoint / "model.safetensors", own)
    assert pocketvlm.load(own, type="f32", threads=2).info()["backend"] == "native"


@pytest.mark.parametrize("type", TYPES)
def test_every_type_answers(exported: Path, type: str) -> None:
    model = load(exported, type=type)
    assert len(model.generate("What?", images=[PICTURE], max_new_tokens=5, ignore_eos=True).token_ids) == 5
    info = model.info()
    assert [info[f"{graph}_type"] for graph in (VISION_ENCODER, EMBED_TOKENS, DECODER)] == [type] * 3
    data = exported / "onnx" / f"{graph_file(DECODER, type)}_data"
    assert info[f"{DECODER}_file_bytes"] > data.stat().st_size


def test_the_last_tile_gives_memory_back(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    make_options = onnxruntime.RunOptions

    class RunOptions(make_options):  # type: ignore[misc, valid-type]
        def add_run_config_entry(self, name: str, value: str) -> None:
            asked.append((encoded, name, value))
            super().add_run_config_entry(name, value)

    def on_progress(stage: str, done: int, total: int) -> None:
        nonlocal encoded
        encoded += stage == "vision"

    monkeypatch.setattr(onnxruntime, "RunOptions", RunOptions)
    model, encoded = load(exported, type="int8"), 0
    result = model.generate("What?", images=[PICTURE], max_new_tokens=1, on_progress=on_progress)
    assert encoded == result.tiles - result.tiles_saved > 1
    assert asked == [(encoded - 1, "memory.enable_memory_arena_shrinkage", "cpu:0")]


def test_several_answers_start_where_the_prompt_ends(exported: Path) -> None:
    """Sampled answers are those that each seed gives alone, with a cache shared in place or joined anew."""
    model = load(exported, type="fp32")
    options: dict[str, Any] = {"max_new_tokens": 12, "ignore_eos": True, "temperature": 1.0, "seed": 5}
    both = model.generate("Say.", n=2, **options)
    assert both.token_ids == model.generate("Say.", **options).token_ids
    assert both.alternatives[0].token_ids != both.token_ids
    native_like = model.generate("Say.", n=2, logprobs=3, **options)
    assert native_like.alternatives[0].token_ids == both.alternatives[0].token_ids
    assert native_like.logprobs is not None and len(native_like.logprobs[0].top) == 3


def test_a_decoder_that_joins_its_cache_anew_answers_the_same(own: Path, exported: Path) -> None:
    """Published graphs may have no GroupQueryAttention: a graph that hides it is run the other way."""
    path = own / "onnx" / graph_file(DECODER, "fp32")
    decoder = onnx.load(path, load_external_data=False)
    for node in decoder.graph.node:
        if node.op_type == "GroupQueryAttention":
            node.domain, node.op_type = "test", "Attended"
    operator = onnx.helper.make_function(
        "test",
        "Attended",
        [f"i{i}" for i in range(11)],
        ["o0", "o1", "o2"],
        [
            onnx.helper.make_node(
                "GroupQueryAttention",
                [f"i{i}" for i in range(11)],
                ["o0", "o1", "o2"],
                domain="com.microsoft",
                do_rotary=1,
                rotary_interleaved=0,
            )
        ],
        list(decoder.opset_import),
        attributes=["num_heads", "kv_num_heads", "scale"],
    )
    for name in ("num_heads", "kv_num_heads", "scale"):
        reference = operator.node[0].attribute.add()
        reference.name = reference.ref_attr_name = name
        reference.type = onnx.AttributeProto.FLOAT if name == "scale" else onnx.AttributeProto.INT
    decoder.functions.append(operator)
    decoder.opset_import.append(onnx.helper.make_opsetid("test", 1))
    path.write_bytes(decoder.SerializeToString())
    options: dict[str, Any] = {"max_new_tokens": 20, "ignore_eos": True}
    joined, shared = load(own, type="fp32"), load(exported, type="fp32")
    assert (
        joined.generate("Go.", images=[PICTURE], **options).token_ids
        == shared.generate("Go.", images=[PICTURE], **options).token_ids
    )
    several: dict[str, Any] = {**options, "n": 2, "temperature": 1.0, "seed": 1}
    assert (
        joined.generate("Go.", **several).alternatives[0].token_ids
        == shared.generate("Go.", **several).alternatives[0].token_ids
    )


def test_any_subset_of_types_opens(own: Path) -> None:
    for path in (own / "onnx").glob(f"{EMBED_TOKENS}*"):
        if not path.name.startswith(f"{EMBED_TOKENS}.onnx"):
            path.unlink()
    info = load(own, type="q4").info()
    assert (info[f"{EMBED_TOKENS}_type"], info[f"{DECODER}_type"]) == ("fp32", "q4")
    with pytest.raises(InputError, match=r"type .uint8.: .* has int8, q8, q4, fp32, fp16, q4f16 of decoder"):
        load(own, type="uint8")
    with pytest.raises(InputError, match="type 'q5': expected one of fp32"):
        load(own, type="q5")


def test_the_default_is_the_small_accurate_one(exported: Path) -> None:
    assert load(exported).info()[f"{DECODER}_type"] == "int8"


def test_a_stopped_call_ends_between_tiles_and_the_model_answers_again(exported: Path) -> None:
    model = load(exported, type="fp32")
    whole = model.generate("What?", images=[PICTURE], max_new_tokens=4, ignore_eos=True)
    stop = _core.StopFlag()
    tiles = np.zeros((2, 3, model.info()["tile_size"], model.info()["tile_size"]), np.uint8)
    with pytest.raises(Cancelled):
        model._backend.encode_images(tiles, stop=stop, on_progress=lambda stage, done, total: stop.set())
    again = model.generate("What?", images=[PICTURE], max_new_tokens=4, ignore_eos=True)
    assert again.token_ids == whole.token_ids


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _point_to(path: Path, location: str) -> None:
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (lambda folder: _truncate(folder / "decoder_model_merged.onnx"), "no ONNX graph|has no"),
        (lambda folder: (folder / "decoder_model_merged.onnx").write_bytes(b"x" * 99), "is no ONNX graph"),
        (
            lambda folder: _truncate(folder / "vision_encoder.onnx_data"),
            r"bytes, vision_encoder.onnx expects",
        ),
        (lambda folder: (folder / "embed_tokens.onnx_data").unlink(), "weights are missing: embed_tokens"),
        (
            lambda folder: shutil.copy(folder / "embed_tokens.onnx", folder / "vision_encoder.onnx"),
            "vision_encoder.onnx: has no pixel_values, expected the graph vision_encoder; it takes input_ids",
        ),
        (lambda folder: _point_to(folder / "embed_tokens.onnx", "../config.json"), "outside its folder"),
        (lambda folder: _point_to(folder / "embed_tokens.onnx", "/etc/hostname"), "outside its folder"),
        (lambda folder: _point_to(folder / "embed_tokens.onnx", ".."), "outside its folder"),
    ],
    ids=[
        "half a graph",
        "no graph",
        "half of the weights",
        "no weights",
        "swapped",
        "above",
        "absolute",
        "dots",
    ],
)
def test_unsound_graphs_are_named(own: Path, break_: Any, message: str) -> None:
    break_(own / "onnx")
    with pytest.raises(FormatError, match=message):
        load(own, type="fp32")


def test_weights_that_are_a_link_out_of_the_folder_are_refused(own: Path, tmp_path: Path) -> None:
    data = own / "onnx" / "embed_tokens.onnx_data"
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="a link out of its folder"):
        load(own, type="fp32")


def test_the_hubs_cache_of_links_opens(own: Path, tmp_path: Path) -> None:
    """There every file of a snapshot is a link into one folder of blobs."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for i, path in enumerate(sorted((own / "onnx").iterdir())):
        path.rename(blobs / str(i))
        path.symlink_to(blobs / str(i))
    assert load(own, type="fp32").generate("Go.", max_new_tokens=2).token_ids


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"isa": "scalar"}, UnsupportedError, "isa 'scalar': the onnx backend chooses for itself"),
        ({"vision_compute": "bf16"}, UnsupportedError, "computes as its graphs say"),
    ],
)
def test_options_of_the_native_engine_are_refused(
    exported: Path, options: dict[str, Any], error: type[Error], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(exported, **options)


def test_a_folder_without_graphs_is_named(tiny_f32: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"found no graph; expected vision_encoder\.onnx"):
        load(tiny_f32)
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "nowhere")
