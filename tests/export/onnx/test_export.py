"""Exported ONNX graphs compute what the reference does, in the files that clients look for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from pocketvlm.backends.onnx_graphs import OnnxGraphs
from pocketvlm.config import ModelConfig
from pocketvlm.export.onnx.export import export_onnx
from pocketvlm.export.onnx.types import TYPES
from pocketvlm.onnx_names import GRAPHS, graph_file

from ...model.tiny_models import generations
from ...model.tolerance import excess, relative_tolerances
from ..tensor_files import read_tensors, write_tensors
from .exports import Exported

Floats = npt.NDArray[np.float32]


def normalise(tiles: npt.NDArray[np.uint8]) -> Floats:
    """uint8 [T, 3, S, S] -> pixel values, float32 of the same shape."""
    return (tiles.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)


def prompt_embeds(exported: Exported, generation: str, graphs: OnnxGraphs) -> tuple[Floats, Floats]:
    """Returns the features of a prompt's tiles, [image tokens, hidden], and its embeddings, [n, hidden]."""
    prompt = exported.golden.prompt(generation, exported.checkpoint)
    tiles = [graphs.encode(tile) for tile in normalise(prompt.tiles)]
    features = np.concatenate([np.empty((0, exported.config.text.hidden_size), np.float32), *tiles])
    return features, graphs.embed_prompt(prompt.token_ids.tolist(), features)


def greedy(graphs: OnnxGraphs, embeds: Floats, steps: int) -> tuple[list[int], Floats]:
    """Returns the greedy tokens after a prompt [n, hidden], and the logits of the first, [vocab]."""
    cache = graphs.new_cache(len(embeds) + steps)
    first = graphs.decode(embeds, cache)
    token_ids = [int(first.argmax())]
    while len(token_ids) < steps:
        logits = graphs.decode(graphs.embed(token_ids[-1:]), cache)
        token_ids.append(int(logits.argmax()))
    return token_ids, first


@pytest.mark.parametrize(("exported", "generation"), generations(), indirect=["exported"])
def test_float32_is_the_reference(exported: Exported, generation: str) -> None:
    """Features and logits within the derived tolerance, and the same 64 greedy tokens."""
    graphs = exported.graphs()
    features, embeds = prompt_embeds(exported, generation, graphs)
    tolerances = relative_tolerances(exported.golden.facts["sizes"], len(embeds))
    stage = f"{generation}/vision.connector"
    if stage in exported.golden.arrays:
        rows = features[exported.golden.arrays[f"{stage}/rows"]]
        assert excess(rows, exported.golden.arrays[stage], tolerances["vision.connector"]) <= 1
    token_ids, logits = greedy(graphs, embeds, 64)
    expected = exported.golden.arrays[f"{generation}/logits"]
    assert excess(logits[None], expected, tolerances["logits"]) <= 1
    assert np.abs(logits - expected[0]).max() < 1e-4
    assert token_ids == exported.golden.facts["generations"][generation]["token_ids"]


@pytest.mark.parametrize("type", [name for name in TYPES if name != "fp32"])
def test_other_types_stay_near(exported: Exported, type: str) -> None:
    """The report says how near; here the first logits of a whole answer are still those of this model."""
    graphs = exported.graphs(type)
    _, embeds = prompt_embeds(exported, "split", graphs)
    _, logits = greedy(graphs, embeds, 1)
    expected = exported.golden.arrays["split/logits"][0]
    correlation = np.corrcoef(logits, expected)[0, 1]
    bits = TYPES[type].bits
    assert correlation > {None: 0.99999, 8: 0.99, 4: 0.85}[bits]


def test_the_files_of_published_exports(exported: Exported) -> None:
    """Names of files, inputs and outputs, and dtypes: what clients of published exports feed and read."""
    layers = range(exported.config.text.num_hidden_layers)
    parts = [f"{i}.{part}" for i in layers for part in ("key", "value")]
    cache = {f"past_key_values.{part}" for part in parts}
    signatures = {
        "vision_encoder": ({"pixel_values", "pixel_attention_mask"}, {"image_features"}),
        "embed_tokens": ({"input_ids"}, {"inputs_embeds"}),
        "decoder_model_merged": (
            {"inputs_embeds", "attention_mask", "position_ids", *cache},
            {"logits", *(f"present.{part}" for part in parts)},
        ),
    }
    for type in TYPES.values():
        for graph, (inputs, outputs) in signatures.items():
            session = exported.session(graph, type.name)
            assert {spec.name for spec in session.get_inputs()} == inputs
            assert {spec.name for spec in session.get_outputs()} == outputs
            for spec in (*session.get_inputs(), *session.get_outputs()):
                is_cache = spec.name.startswith(("past", "present"))
                if is_cache or spec.name in ("pixel_values", "inputs_embeds", "logits", "image_features"):
                    half = is_cache and type.dtype is np.float16
                    assert spec.type == ("tensor(float16)" if half else "tensor(float)")
    names = {path.name for path in (exported.folder / "onnx").iterdir()}
    suffixes = ["", "_fp16", "_int8", "_uint8", "_quantized", "_q4", "_q4f16", "_bnb4"]
    graphs = {f"{graph}{suffix}.onnx" for graph in GRAPHS for suffix in suffixes}
    assert names == graphs | {f"{name}_data" for name in graphs}
    for name in ("tokenizer.json", "generation_config.json", "preprocessor_config.json"):
        assert (exported.folder / name).read_bytes() == (exported.checkpoint / name).read_bytes()


def test_config_tells_transformers_js(exported: Exported) -> None:
    config = json.loads((exported.folder / "config.json").read_text())
    before = json.loads((exported.checkpoint / "config.json").read_text())
    assert config["transformers.js_config"] == {
        "use_external_data_format": True,
        "kv_cache_dtype": {"fp16": "float16", "q4f16": "float16"},
    }
    text = exported.config.text
    assert config["text_config"]["num_key_value_heads"] == text.num_key_value_heads
    assert config["text_config"]["head_dim"] == text.head_dim
    changed = {"text_config", "transformers.js_config"}
    assert {key: value for key, value in config.items() if key not in changed} == {
        key: value for key, value in before.items() if key not in changed
    }
    assert ModelConfig.from_folder(exported.folder) == exported.config


def test_processor_files_of_transformers_5(own_checkpoint: Path, tmp_path: Path) -> None:
    """Clients look for preprocessor_config.json, which transformers 5 saves inside processor_config.json."""
    inside = json.loads((own_checkpoint / "preprocessor_config.json").read_text())
    (own_checkpoint / "preprocessor_config.json").unlink()
    processor = json.loads((own_checkpoint / "processor_config.json").read_text())
    (own_checkpoint / "processor_config.json").write_text(json.dumps(processor | {"image_processor": inside}))
    export_onnx(own_checkpoint, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "preprocessor_config.json").read_text()) == inside


def test_weights_lie_beside_the_graph(exported: Exported) -> None:
    """Every weight once, in a plain file of the same folder; nothing large in the graph itself."""
    for type in TYPES:
        for graph in GRAPHS:
            path = exported.folder / "onnx" / graph_file(graph, type)
            model = onnx.load(path, load_external_data=False)
            assert path.stat().st_size < 100_000
            places = set()
            for tensor in model.graph.initializer:
                if tensor.data_location == onnx.TensorProto.EXTERNAL:
                    place = {entry.key: entry.value for entry in tensor.external_data}
                    assert place["location"] == f"{path.name}_data"
                    assert int(place["offset"]) % 64 == 0
                    places.add(place["offset"])
                else:
                    assert len(tensor.raw_data) < 256
            assert len(places) > 1 or graph == "embed_tokens"


def test_report(exported: Exported) -> None:
    report = json.loads((exported.folder / "export_report.json").read_text())
    assert report["checkpoint"]["name"] == "checkpoint"
    assert set(report["versions"]) == {"onnx", "onnxruntime"}
    assert list(report["types"]) == list(TYPES)
    for found in report["types"].values():
        for graph, facts in found["files"].items():
            path = exported.folder / "onnx" / facts["name"]
            assert facts["nbytes"] == path.stat().st_size
            assert facts["data_nbytes"] == path.with_name(f"{path.name}_data").stat().st_size
            assert 0 <= facts["relative_error"] < 0.5, graph
    errors = {name: found["files"]["decoder_model_merged"] for name, found in report["types"].items()}
    assert errors["fp32"]["relative_error"] < errors["fp16"]["relative_error"]
    assert errors["fp16"]["relative_error"] < errors["int8"]["relative_error"]
    assert errors["int8"]["relative_error"] < errors["q4"]["relative_error"]
    assert report["types"]["fp32"]["decoder_agreement"]["top1"] == 1


def test_a_shared_head(own_checkpoint: Path, tmp_path: Path) -> None:
    """Where the head is the embedding, the decoder's head is made of the embedding's rows."""
    config = json.loads((own_checkpoint / "config.json").read_text())
    config["tie_word_embeddings"] = True
    (own_checkpoint / "config.json").write_text(json.dumps(config))
    tensors = read_tensors(own_checkpoint / "model.safetensors")
    del tensors["lm_head.weight"]
    write_tensors(own_checkpoint / "model.safetensors", tensors)
    # The check compares with the engine, which reads the head from the embedding too.
    export_onnx(own_checkpoint, tmp_path / "out", types=["fp32", "q4"])
