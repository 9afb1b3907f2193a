"""What `pocketvlm bench` measures: the table of subjects. The modules beside it run in their environments.

A subject's module is started by subject_child.py, under the interpreter of its environment, and imports
nothing of ours: those of peers find no pocketvlm there.
"""

if __name__ != "pocketvlm.benchmarks.subjects":
    raise ImportError(
        f"this folder is the package pocketvlm.benchmarks.subjects, not {__name__!r}: "
        "install the project (pip install .) and import that"
    )

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from pocketvlm import _core, hub
from pocketvlm.export.onnx.types import TYPES as ONNX_TYPES
from pocketvlm.gguf_files import ModelFiles

# What multiplies: the compute roof that bounds a subject.
Arithmetic: TypeAlias = Literal["fp32", "bf16", "int8"]


@dataclass(frozen=True)
class Sources:
    """The model to measure, in the forms that subjects load.

    Attributes:
        exported: type -> GGUF pair.
        checkpoint: The folder that peers load or convert; None when only an exported model is given.
        graphs: type -> folder of ONNX graphs.
    """

    exported: Mapping[str, ModelFiles]
    checkpoint: Path | None
    graphs: Mapping[str, Path]

    @property
    def folder(self) -> Path:
        """One that has the model's configurations."""
        return next(iter([*(pair.folder for pair in self.exported.values()), *self.graphs.values()]))

    def types(self, subject: str) -> list[str]:
        """Those that are there of the files that a backend, or "llama.cpp", loads."""
        return list(self.graphs if subject == "onnx" else self.exported)


def types_of(subject: str) -> Sequence[str]:
    """Returns the types that there are of the files that a backend, or "llama.cpp", loads."""
    return tuple(ONNX_TYPES) if subject == "onnx" else hub.TYPES


@dataclass(frozen=True)
class Subject:
    """One thing that is measured.

    Attributes:
        name: Its key in JSON.
        title: Its name in tables and pictures.
        module: The file in this folder that runs it.
        environment: The name of its environment; None for the one that pocketvlm itself runs in.
        arithmetic: What its matrix products multiply.
        bytes_per_weight: Of the weights that it reads for every token.
        model: What its module's `load` gets, beside what a conversion made.
        conversion: What has to be made of the checkpoint first: a name in conversions.CONVERSIONS.
        backend: That of ours which it is; None for a peer.
    """

    name: str
    title: str
    module: str
    environment: str | None
    arithmetic: Arithmetic
    bytes_per_weight: float
    model: Callable[[Sources], dict[str, str]]
    conversion: str | None = None
    backend: str | None = None


# type of our weights -> (bytes per weight with its scales, what multiplies them)
_TYPES: Mapping[str, tuple[float, Arithmetic]] = {
    "f32": (4.0, "fp32"),
    "f16": (2.0, "fp32"),
    "bf16": (2.0, "bf16"),
    "q8_0": (34 / 32, "int8"),
    "q4_0": (18 / 32, "int8"),
}
# what `_core.vision_compute` says -> what multiplies
_ARITHMETIC: Mapping[str, Arithmetic] = {"f32": "fp32", "bf16": "bf16", "int8": "int8"}


def onnx_bytes_per_weight(type: str) -> float:
    """Returns what a weight takes in ONNX graphs of a type, with its share of a scale."""
    dtype_bytes = np.dtype(ONNX_TYPES[type].dtype).itemsize
    rule = ONNX_TYPES[type].matrices
    if rule is None:
        return dtype_bytes
    return rule.bits / 8 + (dtype_bytes / rule.block_size if rule.block_size else 0)


def own_subject(backend: str, type: str, *, name: str, vision_compute: str = "auto") -> Subject:
    """Returns pocketvlm with a backend, a type of weights and what the vision tower multiplies in."""
    if backend == "onnx":
        rule = ONNX_TYPES[type].matrices
        bytes_per_weight = onnx_bytes_per_weight(type)
        arithmetic: Arithmetic = "fp32" if rule is None or rule.is_normal_float else "int8"
    else:
        bytes_per_weight, _ = _TYPES[type]
        isa = os.environ.get("POCKETVLM_ISA") or _core.isas()[0]
        arithmetic = _ARITHMETIC[_core.vision_compute(isa, type, vision_compute)]
    asked = "" if vision_compute == "auto" else f", vision in {vision_compute}"

    def model(sources: Sources) -> dict[str, str]:
        folder = sources.graphs[type] if backend == "onnx" else sources.exported[type].folder
        return {"folder": str(folder), "type": type, "backend": backend, "vision_compute": vision_compute}

    return Subject(
        name,
        f"pocketvlm {backend}, {type}{asked}",
        "own.py",
        None,
        arithmetic,
        bytes_per_weight,
        model,
        backend=backend,
    )


def llama_cpp_subject(type: str, *, name: str) -> Subject:
    """Returns llama.cpp on the GGUF pair that we exported at a type."""
    bytes_per_weight, arithmetic = _TYPES[type]
    return Subject(
        name,
        f"llama.cpp, {type}",
        "llama_cpp.py",
        "llama.cpp",
        arithmetic,
        bytes_per_weight,
        lambda sources: {
            "text": str(sources.exported[type].text),
            "projector": str(sources.exported[type].projector),
        },
    )


def _from_checkpoint(**more: str) -> Callable[[Sources], dict[str, str]]:
    return lambda sources: {"checkpoint": str(sources.checkpoint), **more}


# Peers that take the checkpoint, as it is or converted; those that take the GGUF pair come for each type.
CHECKPOINT_SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject(
            "transformers-bf16",
            "transformers, bf16",
            "transformers.py",
            "transformers",
            "bf16",
            2.0,
            _from_checkpoint(dtype="bfloat16"),
        ),
        Subject(
            "transformers-fp32",
            "transformers, fp32",
            "transformers.py",
            "transformers",
            "fp32",
            4.0,
            _from_checkpoint(dtype="float32"),
        ),
        Subject(
            "openvino",
            "OpenVINO, int8 weights, bf16",
            "openvino.py",
            "openvino",
            "bf16",
            1.0,
            _from_checkpoint(),
            "openvino-int8",
        ),
        Subject(
            "onnxruntime-fp32",
            "onnxruntime, plain export, fp32",
            "onnxruntime.py",
            "onnxruntime",
            "fp32",
            4.0,
            _from_checkpoint(type="fp32"),
            "plain-onnx",
        ),
        Subject(
            "onnxruntime-int8",
            "onnxruntime, quantize_dynamic int8",
            "onnxruntime.py",
            "onnxruntime",
            "int8",
            1.0,
            _from_checkpoint(type="int8"),
            "plain-onnx",
        ),
    )
}

# What --compare takes -> names of subjects
PEERS = {name: (name,) for name in ("llama.cpp", *CHECKPOINT_SUBJECTS)} | {
    "onnxruntime": ("onnxruntime-fp32", "onnxruntime-int8")
}
