"""The pipeline of `pocketvlm export onnx`: a checkpoint in, the ONNX file set of Hugging Face's clients out.

The graphs are written by `writer`, or traced by `optimum_export`, and checked by `check`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ... import _core
from ...config import ModelConfig, ProcessorConfig
from ...errors import InputError
from ...onnx_names import GRAPHS, graph_file
from ..checkpoint import Checkpoint
from ..output_folder import output_folder
from ..progress import OnProgress
from .check import Checked, check_type, compute_expected
from .quality import measure_quality
from .requirements import INSTALL_OPTIMUM, NEEDED_BY_OPTIMUM, require_packages
from .types import TYPES, OnnxType
from .writer import write_graphs

REPORT = "export_report.json"
VIAS = ("direct", "optimum")

_TRACING_STAGE = "tracing"
_QUESTIONS_STAGE = "asking"
_CHECKPOINT_STAGE = "running the checkpoint"

# Copied beside the folder of graphs where the checkpoint has them; config.json is written anew.
_COPIED = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
)
_REPLACEABLE = ("config.json", REPORT, *_COPIED, "onnx/*.onnx", "onnx/*.onnx_data")


def export_onnx(
    checkpoint: str | Path,
    out: str | Path,
    *,
    types: Sequence[str] = ("fp32",),
    via: str = "direct",
    threads: int | None = None,
    questions: int = 0,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """Exports a Hugging Face folder to ONNX graphs with their weights, configurations and tokenizer.

    Args:
        checkpoint: A folder with config.json, safetensors, tokenizer and processor files.
        out: The folder to write. It appears when it is complete.
        types: Names of `types.TYPES`; each gives three graphs.
        via: "direct": our own graphs, on onnxruntime's operators. "optimum": what torch traces, fp32 alone.
        threads: To check the files with; as many as this process may use if not given.
        questions: How many questions about drawn pictures to ask checkpoint and graphs, for the report.
        force: Replace an earlier export in `out`.
        on_progress: Called with (file name or step, steps done, steps in total).

    Returns:
        The paths of the graphs.

    Raises:
        FormatError: The checkpoint is incomplete or damaged.
        UnsupportedError: It is of another architecture, a value does not fit a type, or a package is missing
            or of another version.
        InputError: A type is unknown, or not for `via`; `out` is there and `force` is not given.
        BackendError: onnxruntime does not run a graph that it opens.
        Error: The disk is full, or a graph does not compute what the checkpoint does.
    """
    if not types:
        raise InputError("types is empty, expected some of " + ", ".join(TYPES))
    for name in types:
        if name not in TYPES:
            raise InputError(f"type is {name!r}, expected one of {', '.join(TYPES)}")
    if via not in VIAS:
        raise InputError(f"via is {via!r}, expected one of {', '.join(VIAS)}")
    if via == "optimum" and set(types) != {"fp32"}:
        raise InputError(f"types is {', '.join(types)}; by optimum there is fp32 alone")
    chosen = [TYPES[name] for name in dict.fromkeys(types)]
    threads = threads or _core.default_threads()
    versions = require_packages()
    if via == "optimum":
        versions = require_packages(NEEDED_BY_OPTIMUM, install=INSTALL_OPTIMUM)
    with Checkpoint(checkpoint) as source:
        processor = ProcessorConfig.from_folder(source.folder)
        processor.require_match(source.config, str(source.folder))
        with output_folder(Path(out), force=force, replaceable=_REPLACEABLE) as folder:
            for name in _COPIED:
                if (source.folder / name).exists():
                    shutil.copyfile(source.folder / name, folder / name)
            _write_preprocessor_config(folder)
            _write_config(source.folder / "config.json", source.config, chosen, folder / "config.json")
            graphs = folder / "onnx"
            graphs.mkdir()
            stages = [graph_file(graph, type.name) for type in chosen for graph in GRAPHS]
            if via == "optimum":
                stages = [_TRACING_STAGE]
            stages += [_CHECKPOINT_STAGE, *(f"checking {type.name}" for type in chosen)]
            if questions:
                stages.append(_QUESTIONS_STAGE)

            def advance(stage: str) -> None:
                if on_progress is not None:
                    on_progress(stage, stages.index(stage), len(stages))

            if via == "optimum":
                # Brings torch along.
                from .optimum_export import write_graphs_by_optimum

                advance(_TRACING_STAGE)
                write_graphs_by_optimum(source, graphs)
            else:
                write_graphs(source, chosen, graphs, advance)
            advance(_CHECKPOINT_STAGE)
            expected = compute_expected(source, folder, threads)
            found: dict[str, Checked] = {}
            for type in chosen:
                advance(f"checking {type.name}")
                found[type.name] = check_type(folder, type, source.config, expected, threads)
            quality: Mapping[str, dict[str, Any]] = {}
            if questions:
                advance(_QUESTIONS_STAGE)
                quality = measure_quality(
                    source.folder, folder, chosen, count=questions, threads=threads, work=folder
                )
            _write_report(source, versions, found, quality, folder)
    return [Path(out) / "onnx" / graph_file(graph, type.name) for type in chosen for graph in GRAPHS]


def _write_report(
    source: Checkpoint,
    versions: dict[str, str],
    found: dict[str, Checked],
    quality: Mapping[str, dict[str, Any]],
    folder: Path,
) -> None:
    """Writes what was exported and how far it is from the checkpoint."""
    report = {
        "checkpoint": {"name": source.name, "revision": source.revision},
        "versions": versions,
        "types": {
            name: {
                "files": {
                    graph: {
                        "name": graph_file(graph, name),
                        "nbytes": (path := folder / "onnx" / graph_file(graph, name)).stat().st_size,
                        "data_nbytes": path.with_name(f"{path.name}_data").stat().st_size,
                        "relative_error": checked.relative_errors[graph],
                    }
                    for graph in GRAPHS
                },
                "decoder_agreement": asdict(checked.agreement),
            }
            | ({"quality": quality[name]} if name in quality else {})
            for name, checked in found.items()
        },
    }
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _write_preprocessor_config(folder: Path) -> None:
    """Writes preprocessor_config.json where transformers 5 has put it into processor_config.json."""
    target = folder / "preprocessor_config.json"
    if not target.exists():
        processor = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
        target.write_text(json.dumps(processor["image_processor"], indent=2) + "\n", encoding="utf-8")


def _write_config(source: Path, config: ModelConfig, types: Sequence[OnnxType], target: Path) -> None:
    """Writes config.json with what transformers.js needs to know: which files there are, and their cache."""
    values: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    # Sizes that a config may leave to class defaults, which transformers.js does not know.
    text = values.setdefault("text_config", {})
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"):
        if text.get(key) is None:
            text[key] = getattr(config.text, key)
    values["transformers.js_config"] = (values.get("transformers.js_config") or {}) | {
        "use_external_data_format": True,
        "kv_cache_dtype": {type.name: type.cache_dtype for type in types if type.cache_dtype != "float32"},
    }
    target.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
