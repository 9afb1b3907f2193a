"""Exports the three graphs through Optimum: what torch traces, on plain operators, at float32.

They are slower than our own graphs, and for runtimes that lack the operators of those. `optimum_configs` has
what Optimum needs.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
import transformers
from optimum.exporters.onnx import onnx_export_from_model

from ...onnx_names import GRAPHS, graph_file
from ..checkpoint import Checkpoint
from .optimum_configs import onnx_configs, submodels

# Smaller tensors stay in the graph.
_DATA_THRESHOLD = 1024


def write_graphs_by_optimum(source: Checkpoint, graphs: Path) -> None:
    """Writes the graphs of `source` at float32 into the folder `graphs`, each with its data file.

    Raises:
        OSError: The disk is full.
    """
    traced = graphs / "traced"
    with warnings.catch_warnings():
        # The tracer warns of every branch in transformers' code; what came of them is checked afterwards.
        warnings.simplefilter("ignore")
        model = _load(source)
        onnx_export_from_model(
            model,
            traced,
            task="image-text-to-text",
            custom_onnx_configs=onnx_configs(model),
            fn_get_submodels=submodels,
            do_validation=False,
        )
    del model
    for graph in GRAPHS:
        name = graph_file(graph, "fp32")
        onnx.save(
            onnx.load(traced / name),
            graphs / name,
            save_as_external_data=True,
            location=f"{name}_data",
            size_threshold=_DATA_THRESHOLD,
            convert_attribute=True,
        )
    shutil.rmtree(traced)


def _load(source: Checkpoint) -> Any:
    transformers.logging.set_verbosity_error()
    config = transformers.AutoConfig.from_pretrained(source.folder, local_files_only=True)
    # transformers 5 saves it as part of rope_parameters, which 4 does not read.
    config.text_config.rope_theta = source.config.text.rope_theta
    return transformers.AutoModelForImageTextToText.from_pretrained(
        source.folder, config=config, dtype=torch.float32, local_files_only=True
    ).eval()
