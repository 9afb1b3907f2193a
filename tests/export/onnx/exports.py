"""Exported tiny models as the tests of ONNX graphs go through them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from pocketvlm.backends.onnx_graphs import OnnxGraphs
from pocketvlm.config import ModelConfig
from pocketvlm.export.onnx.check import open_graphs
from pocketvlm.export.onnx.types import TYPES
from pocketvlm.onnx_names import graph_file

from ...model.golden_files import Golden


@dataclass(frozen=True)
class Exported:
    """A tiny model, its graphs of every type, and what the reference makes of it."""

    checkpoint: Path
    folder: Path
    golden: Golden

    @property
    def config(self) -> ModelConfig:
        return ModelConfig.from_folder(self.checkpoint)

    def graphs(self, type: str = "fp32") -> OnnxGraphs:
        return open_graphs(self.folder, TYPES[type], self.config, threads=2)

    def session(self, graph: str, type: str = "fp32") -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        return onnxruntime.InferenceSession(
            self.folder / "onnx" / graph_file(graph, type), options, ["CPUExecutionProvider"]
        )
