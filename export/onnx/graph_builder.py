"""Builds one ONNX graph: nodes in memory, weights written to its external-data file as they come.

What the nodes compute is decided by `decoder`, `embedding` and `vision`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

# The oldest versions that hold what the graphs need: the most runtimes read them.
OPSET = 18
IR_VERSION = 8

MICROSOFT = "com.microsoft"

FLOAT, FLOAT16 = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)

# Vector loads of mapped weights are aligned; a page per tensor would be a page per norm.
_ALIGNMENT = 64

# An input or output dimension: a size, or the name of one that varies.
Dim = int | str


class GraphBuilder:
    """A graph on its way to `path` and `path`_data.

    Names of values are the Hugging Face names of what they come from where there is one.
    """

    def __init__(self, path: Path) -> None:
        """Opens the data file. Raises OSError."""
        self._path = path
        self._data_path = path.with_name(f"{path.name}_data")
        self._data: BinaryIO = self._data_path.open("wb")
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._counts: dict[str, int] = {}

    def __enter__(self) -> GraphBuilder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._data.close()

    def input(self, name: str, dtype: npt.DTypeLike, shape: Sequence[Dim]) -> str:
        """Declares an input of the graph and returns its name."""
        self._inputs.append(helper.make_tensor_value_info(name, element_type(dtype), shape))
        return name

    def output(self, name: str, dtype: npt.DTypeLike, shape: Sequence[Dim]) -> str:
        """Declares an output of the graph and returns its name, which some node must give its result."""
        self._outputs.append(helper.make_tensor_value_info(name, element_type(dtype), shape))
        return name

    def optional_input(self, name: str, default: npt.NDArray[Any]) -> str:
        """Declares an input that a caller may leave out, and returns its name."""
        self.input(name, default.dtype, default.shape)
        self._initializers.append(onnx.numpy_helper.from_array(default, name))
        return name

    def op(
        self,
        op_type: str,
        inputs: Sequence[str],
        *,
        domain: str = "",
        name: str | None = None,
        **attributes: Any,
    ) -> str:
        """Adds a node with one output.

        Args:
            op_type: The operator.
            inputs: Names; "" stands for an optional input left out.
            domain: Of the operator, "" for ONNX itself.
            name: Of the output; made up if not given.
            attributes: Of the operator.

        Returns:
            The name of the output.
        """
        output = name or self._new_name(op_type)
        self.node(op_type, inputs, [output], domain=domain, **attributes)
        return output

    def node(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> None:
        """Adds a node whose outputs are named; "" stands for an optional output left out."""
        node_name = f"{op_type}:{next(output for output in outputs if output)}"
        self._nodes.append(
            helper.make_node(op_type, inputs, outputs, name=node_name, domain=domain, **attributes)
        )

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Returns the name of a small constant that lies in the graph itself; equal ones are one."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._new_name("constant")
            self._initializers.append(onnx.numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def weight(self, name: str, array: npt.NDArray[Any]) -> str:
        """Writes a tensor to the data file and returns its name. Raises OSError."""
        position = self._data.tell()
        offset = -(-position // _ALIGNMENT) * _ALIGNMENT
        self._data.write(bytes(offset - position))
        self._data.write(np.ascontiguousarray(array).data)
        tensor = TensorProto(
            name=name,
            data_type=element_type(array.dtype),
            dims=array.shape,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", self._data_path.name), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self._initializers.append(tensor)
        return name

    def save(self, *, metadata: Mapping[str, str]) -> None:
        """Closes the data file and writes the graph.

        Args:
            metadata: What the file is to say about itself.

        Raises:
            OSError: The disk is full.
        """
        self._data.close()
        graph = helper.make_graph(
            self._nodes, self._path.stem, self._inputs, self._outputs, self._initializers
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="pocketvlm"
        )
        helper.set_model_props(model, dict(metadata))
        self._path.write_bytes(model.SerializeToString())

    def _new_name(self, stem: str) -> str:
        count = self._counts[stem] = self._counts.get(stem, -1) + 1
        return f"{stem}_{count}"


def element_type(dtype: npt.DTypeLike) -> int:
    """Returns the number that ONNX has for a dtype."""
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
