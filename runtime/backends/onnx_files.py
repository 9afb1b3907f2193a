"""A folder of ONNX graphs as Hugging Face's clients load them: which files to open, whether they are sound.

The graphs lie in the subfolder `onnx`, each for itself in one or several types, that suffixes of their names
tell. Nothing here reads weights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from ..config import ModelConfig
from ..errors import FormatError, InputError, UnsupportedError
from ..onnx_names import DECODER, EMBED_TOKENS, GRAPHS, SUFFIXES, VISION_ENCODER, graph_file

# What is taken first where nobody chose, and where a graph is not there in the type that was chosen: small
# and accurate, and no float16, which processors compute slowly in.
_BY_DEFAULT = ("int8", "q8", "uint8", "q4", "fp32", "bnb4", "fp16", "q4f16")

_INPUTS = {
    VISION_ENCODER: ("pixel_values",),
    EMBED_TOKENS: ("input_ids",),
    DECODER: ("inputs_embeds", "attention_mask"),
}
_OUTPUTS = {VISION_ENCODER: ("image_features",), EMBED_TOKENS: ("inputs_embeds",), DECODER: ("logits",)}


@dataclass(frozen=True)
class OnnxGraph:
    """A graph's file, read without its weights."""

    path: Path
    type: str  # a key of SUFFIXES
    model: Any  # onnx.ModelProto

    @property
    def inputs(self) -> list[str]:
        """Names of what it may be fed, defaults included."""
        return [value.name for value in self.model.graph.input]

    @property
    def nbytes(self) -> int:
        """Of the file and of those beside it that hold its weights."""
        names = {place["location"] for _, place in _places(self.model.graph)}
        return sum(path.stat().st_size for path in [self.path, *(self.path.parent / name for name in names)])

    def uses(self, operator: str) -> bool:
        """Whether a node of the graph is of this operator."""
        return any(node.op_type == operator for node in self.model.graph.node)


def find_graphs(folder: Path, type: str | None) -> dict[str, OnnxGraph]:
    """Finds the three graphs of a model, and reads them without their weights.

    Args:
        folder: That of the model, with config.json and the subfolder `onnx`.
        type: That of the decoder, a key of `SUFFIXES`; None: the first there of what runs well. The other
            graphs are of it too, or, where they are not there, of another type.

    Returns:
        graph -> its file.

    Raises:
        InputError: There is no such type, in general or here.
        FormatError: A graph is missing or damaged, or its weights are not whole, plain files beside it.
    """
    require_type(type)
    graphs = {graph: _choose(folder / "onnx", graph, type) for graph in GRAPHS}
    for found in graphs.values():
        _check_weights(found)
    return graphs


def check_graphs(graphs: dict[str, OnnxGraph], config: ModelConfig) -> None:
    """Checks that graphs are what their names say, and of this model.

    Raises:
        FormatError: One is another, or of another model.
        UnsupportedError: The decoder's cache is of a type that is not there.
    """
    for graph, found in graphs.items():
        _check_interface(graph, found, config)
    _check_cache_type(graphs[DECODER])


def choose_type(graph: str, names: Collection[str], type: str | None, where: object) -> str:
    """Chooses the type of a graph to take.

    Args:
        graph: One of `GRAPHS`.
        names: Of the files that there are.
        type: What was asked for, as for `find_graphs`.
        where: They are, for messages.

    Raises:
        InputError: The decoder is not there in this type.
        FormatError: The graph is not there at all.
    """
    there = [name for name in _BY_DEFAULT if graph_file(graph, name) in names]
    if not there:
        listed = ", ".join(sorted(name for name in names if name.endswith(".onnx"))) or "no graph"
        raise FormatError(
            f"{where}: found {listed}; expected {graph_file(graph, 'fp32')} or one of its types"
        )
    if type is not None and type not in there and graph == DECODER:
        raise InputError(f"type {type!r}: {where} has {', '.join(there)} of {DECODER}")
    return type if type in there else there[0]


def require_type(type: str | None) -> None:
    """Raises InputError for what is no type of graphs."""
    if type is not None and type not in SUFFIXES:
        raise InputError(f"type {type!r}: expected one of {', '.join(SUFFIXES)}")


def data_names(path: Path) -> set[str]:
    """Returns the names that a graph has for files of its weights, whatever they are. Raises FormatError."""
    return {place.get("location", "") for _, place in _places(_read(path).graph)}


def _choose(folder: Path, graph: str, type: str | None) -> OnnxGraph:
    names = {path.name for path in folder.glob("*.onnx") if path.is_file()}
    chosen = choose_type(graph, names, type, folder)
    path = folder / graph_file(graph, chosen)
    return OnnxGraph(path, chosen, _read(path))


def _read(path: Path) -> Any:
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises types of its own, which differ between its versions
        raise FormatError(f"{path}: is no ONNX graph: {error}") from error


def _check_interface(graph: str, found: OnnxGraph, config: ModelConfig) -> None:
    inputs = set(found.inputs)
    outputs = {value.name for value in found.model.graph.output}
    expected_inputs, expected_outputs = set(_INPUTS[graph]), set(_OUTPUTS[graph])
    if graph == DECODER:
        parts = [f"{i}.{part}" for i in range(config.text.num_hidden_layers) for part in ("key", "value")]
        expected_inputs |= {f"past_key_values.{part}" for part in parts}
        expected_outputs |= {f"present.{part}" for part in parts}
        beyond = f"past_key_values.{config.text.num_hidden_layers}.key"
        if beyond in inputs:
            raise FormatError(f"{found.path}: has {beyond}, config.json has fewer layers")
    missing = sorted(expected_inputs - inputs) or sorted(expected_outputs - outputs)
    if missing:
        raise FormatError(
            f"{found.path}: has no {missing[0]}, expected the graph {graph}; it takes "
            f"{', '.join(sorted(inputs)[:4])} and gives {', '.join(sorted(outputs)[:4])}"
        )


def _check_weights(found: OnnxGraph) -> None:
    """Raises FormatError unless all weights beside the graph lie in whole, plain files of its folder."""
    folders = {found.path.parent.resolve(), found.path.resolve().parent}
    for tensor, place in _places(found.model.graph):
        name = place.get("location", "")
        path = found.path.parent / name
        if not name or Path(name).name != name or name in (".", "..") or "\\" in name:
            raise FormatError(f"{found.path}: weights of {tensor.name} are in {name!r}, outside its folder")
        if not path.is_file():
            raise FormatError(f"{found.path}: its weights are missing: {path.name}")
        # The hub's cache links graph and weights to one folder of its own.
        if path.resolve().parent not in folders:
            raise FormatError(f"{found.path}: its weights, {path.name}, are a link out of its folder")
        end = int(place.get("offset", 0)) + int(place.get("length", 0))
        if (size := path.stat().st_size) < end:
            raise FormatError(f"{path}: has {size:,} bytes, {found.path.name} expects {end:,}")


def _places(graph: Any) -> Iterator[tuple[Any, dict[str, str]]]:
    """The tensors of a graph whose values lie in other files, and where: location, offset, length."""
    for tensor in _tensors(graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor, {entry.key: entry.value for entry in tensor.external_data}


def _tensors(graph: Any) -> Iterator[Any]:
    """All constant tensors of a graph, those of its branches included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for branch in (attribute.g, *attribute.graphs):
                yield from _tensors(branch)


def _check_cache_type(decoder: OnnxGraph) -> None:
    allowed = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    for value in decoder.model.graph.input:
        if value.name.startswith("past_key_values.") and value.type.tensor_type.elem_type not in allowed:
            name = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            raise UnsupportedError(f"{decoder.path}: its cache is {name}, expected FLOAT or FLOAT16")
