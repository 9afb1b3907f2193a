"""Files of a model -> files of another type or format.

A checkpoint becomes GGUF or ONNX by the exports; a GGUF pair, of whatever types and whoever wrote it, becomes
one of another type here. ONNX graphs and pairs become nothing else: what they were made of is better.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import _core
from ..errors import InputError, UnsupportedError
from ..gguf_files import ModelFiles, find_model_files
from .gguf_export import (
    COPIED_FILES,
    ExportedPair,
    export_gguf,
    fitting_type,
    known_embedding_type,
    known_type,
    require_range,
)
from .gguf_file import GgufWriter, Metadata, TensorInfo, Value, ValueType, array, replace_metadata, uint32
from .onnx.types import TYPES as ONNX_TYPES
from .output_folder import output_folder
from .progress import OnProgress
from .quantize import TYPES, QuantType

_HASHES = "pocketvlm.tensor_hashes"
_EMBEDDINGS = ("token_embd.weight", "output.weight")
# Two dimensions, and yet no matrix that is multiplied.
_ALWAYS_F32 = ("v.position_embd.weight",)
_VALUES_AT_A_TIME = 1 << 22

# Of a text file's name: what says its type, as "-Q4_K_M" does.
_TYPE_IN_NAME = re.compile(r"[-.](?:I?Q\d\w*|B?F16|F32)$", re.IGNORECASE)


@dataclass(frozen=True)
class _Job:
    """One file on its way to another type."""

    stage: str
    source: _core.GgufFile
    file_name: str
    mostly: QuantType
    infos: list[TensorInfo]

    @property
    def num_parameters(self) -> int:
        return sum(int(np.prod(info.shape)) for info in self.infos)


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    type: str,
    mmproj: str | os.PathLike[str] | None = None,
    vision_type: str | None = None,
    embedding_type: str | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """Converts a model; the type says to which format.

    Args:
        source: The folder of a Hugging Face checkpoint; a folder with a GGUF pair, or the text file of one.
        out: The folder to write. It appears when it is complete.
        type: One of `quantize.TYPES` for GGUF, of `onnx.types.TYPES` for ONNX.
        mmproj: The projector file of a GGUF text file, where it is not the one beside it.
        vision_type: GGUF: the type of the projector file; `type` if not given.
        embedding_type: GGUF: the type of token embedding and head; as `type` if not given, "q8_0" for "q4_0".
        force: Replace an earlier run's files in `out`.
        on_progress: Called with (stage, elements done, elements in total).

    Returns:
        The model files that were written.

    Raises:
        InputError: There is no such source; the type is unknown, or an option is not for its format; `out` is
            there and `force` is not given.
        FormatError: Files are damaged, or do not belong together.
        UnsupportedError: From GGUF to ONNX; a value does not fit the type; packages for ONNX are missing.
        Error: The disk is full.
    """
    folder, out = Path(source).expanduser(), Path(out)
    if not folder.exists():
        raise InputError(f"{folder}: no such file or folder")
    is_gguf = folder.is_file() or any(folder.glob("*.gguf"))
    if type in ONNX_TYPES:
        if is_gguf:
            raise UnsupportedError(f"{folder}: ONNX graphs are made of checkpoints, not of GGUF files")
        for option, value in (
            ("mmproj", mmproj),
            ("vision_type", vision_type),
            ("embedding_type", embedding_type),
        ):
            if value is not None:
                raise InputError(f"{option} is for GGUF files; {type} is a type of ONNX files")
        from .onnx.export import export_onnx  # needs the packages
        from .onnx.requirements import require_packages

        require_packages()
        return export_onnx(folder, out, types=[type], force=force, on_progress=on_progress)
    if type not in TYPES:
        raise InputError(f"type is {type!r}, expected one of {', '.join((*TYPES, *ONNX_TYPES))}")
    if is_gguf:
        files = find_model_files(folder, None if mmproj is None else Path(mmproj).expanduser())
        pair = requantise(
            files,
            out,
            type=type,
            vision_type=vision_type,
            embedding_type=embedding_type,
            force=force,
            on_progress=on_progress,
        )
    else:
        if mmproj is not None:
            raise InputError(f"{folder}: is no GGUF file and no folder of one; mmproj is for those")
        pair = export_gguf(
            folder,
            out,
            type=type,
            vision_type=vision_type,
            embedding_type=embedding_type,
            force=force,
            on_progress=on_progress,
        )
    return [pair.text, pair.projector]


def requantise(
    files: ModelFiles,
    out: Path,
    *,
    type: str,
    vision_type: str | None = None,
    embedding_type: str | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> ExportedPair:
    """Writes a GGUF pair with its matrices in another type; all else stays, keys and order included.

    What a type of few bits has lost does not come back: start from the most exact files there are. Arguments
    and errors as `convert`.
    """
    text_type = known_type("type", type, tuple(TYPES))
    projector_type = known_type("vision_type", vision_type or type, tuple(TYPES))
    embeddings = known_embedding_type(type, embedding_type)
    name = _TYPE_IN_NAME.sub("", files.text.stem)
    jobs = [
        _plan("text", files.text, f"{name}-{text_type.name.upper()}.gguf", text_type, embeddings),
        _plan(
            "projector",
            files.projector,
            f"mmproj-{name}-{projector_type.name.upper()}.gguf",
            projector_type,
            projector_type,
        ),
    ]
    total, done = sum(job.num_parameters for job in jobs), 0

    def advance(stage: str, count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(stage, done, total)

    with output_folder(out, force=force, replaceable=(*COPIED_FILES, "*.gguf")) as folder:
        for copied in COPIED_FILES:
            if (files.folder / copied).exists():
                shutil.copyfile(files.folder / copied, folder / copied)
        for job in jobs:
            _write(job, folder / job.file_name, advance)
    return ExportedPair(out / jobs[0].file_name, out / jobs[1].file_name)


def _plan(stage: str, path: Path, file_name: str, mostly: QuantType, embeddings: QuantType) -> _Job:
    source = _core.GgufFile(path)
    infos = []
    for name, (_, ne, _) in source.tensors.items():
        shape = tuple(reversed(ne))
        type = TYPES["f32"]
        if len(shape) == 2 and name not in _ALWAYS_F32:
            type = fitting_type(shape[-1], embeddings if name in _EMBEDDINGS else mostly)
        infos.append(TensorInfo(name, shape, type, type.nbytes(int(np.prod(shape)))))
    return _Job(stage, source, file_name, mostly, infos)


def _metadata(job: _Job, hashes: Mapping[str, str] | None) -> Metadata:
    """The source's keys, with what says the type and the hashes of the data as they are now."""
    metadata = {}
    for key, data in job.source.metadata.items():
        type, _ = job.source.value_types[key]
        metadata[key] = Value(ValueType(type), data)
    metadata["general.file_type"] = uint32(job.mostly.file_type)
    if _HASHES in metadata:
        unknown = "0" * 64
        lines = [f"{info.name}={hashes[info.name] if hashes else unknown}" for info in job.infos]
        metadata[_HASHES] = array(ValueType.STRING, lines)
    return metadata


def _write(job: _Job, path: Path, advance: Callable[[str, int], None]) -> None:
    hashes = {}
    before = _metadata(job, None)
    with GgufWriter(path, before, job.infos) as writer:
        for info in job.infos:
            digest = hashlib.sha256()
            source_type, _, nbytes = job.source.tensors[info.name]
            data = job.source.tensor_data(info.name)
            row_elements = info.shape[-1]
            num_rows = int(np.prod(info.shape)) // row_elements
            row_nbytes = nbytes // num_rows
            step = max(1, _VALUES_AT_A_TIME // row_elements)
            for first in range(0, num_rows, step):
                stored = data[first * row_nbytes : (first + step) * row_nbytes]
                values = _core.dequantize(source_type, stored).reshape(-1, row_elements)
                require_range(values, info.type, f"{job.file_name}: tensor {info.name}")
                converted = info.type.quantize(values)
                digest.update(converted.data)
                writer.write(converted)
                advance(job.stage, values.size)
            hashes[info.name] = digest.hexdigest()
            job.source.give_back(info.name)
    replace_metadata(path, before, _metadata(job, hashes), job.infos)
