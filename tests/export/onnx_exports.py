"""Exported tiny models as the tests of ONNX graphs go through them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from pocketvlm.config import ModelConfig
from pocketvlm.export.onnx_model import OnnxModel, graph_file
from pocketvlm.export.onnx_types import TYPES

from ..model.golden_files import Golden


@dataclass(frozen=True)
class Exported:
    """A tiny model, its graphs of every type, and what the reference makes of it."""

    checkpoint: Path
    folder: Path
    golden: Golden

    @property
    def config(self) -> ModelConfig:
        return ModelConfig.from_folder(self.checkpoint)

    def model(self, type: str = "fp32") -> OnnxModel:
        return OnnxModel(self.folder / "onnx", TYPES[type], self.config, threads=2)

    def session(self, graph: str, type: str = "fp32") -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        return onnxruntime.InferenceSession(
            self.folder / "onnx" / graph_file(graph, TYPES[type]), options, ["CPUExecutionProvider"]
        )
