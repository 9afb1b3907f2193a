"""Files of a model -> files of another type or format.

A checkpoint becomes GGUF or ONNX by the exports; a GGUF pair, of whatever types and whoever wrote it, becomes
one of another type here, its text file by llama.cpp where the type is one of its mixtures. ONNX graphs become
nothing else, and pairs no graphs: what they were made of is better.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from .. import _core
from ..errors import InputError, UnsupportedError
from ..gguf_files import ModelFiles, find_model_files
from .gguf_export import (
    COPIED_FILES,
    EMBEDDING_TYPES,
    ExportedPair,
    export_gguf,
    fitting_type,
    known_embedding_type,
    known_type,
    require_range,
)
from .gguf_file import GgufWriter, Metadata, TensorInfo, Value, ValueType, array, replace_metadata, uint32
from .llama_mixtures import MIXTURES, quantize_text_file, require_quantizer
from .onnx.types import TYPES as ONNX_TYPES
from .output_folder import output_folder, require_replaceable
from .progress import OnProgress
from .quantize import TYPES, QuantType

_WRITTEN = (*COPIED_FILES, "*.gguf")
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
        type: One of `quantize.TYPES` or, written by llama.cpp, `llama_mixtures.MIXTURES` for GGUF; one of
            `onnx.types.TYPES` for ONNX.
        mmproj: The projector file of a GGUF text file, where it is not the one beside it.
        vision_type: GGUF: the type of the projector file, one of `quantize.TYPES`; if not given, `type`, or
            "q8_0" where that is a mixture.
        embedding_type: GGUF: the type of token embedding and head, one of `gguf_export.EMBEDDING_TYPES`; if
            not given, what the mixture has, or `type`, or "q8_0" for "q4_0".
        force: Replace an earlier run's files in `out`.
        on_progress: Called with (stage, elements done, elements in total).

    Returns:
        The model files that were written.

    Raises:
        InputError: There is no such source; the type is unknown, or an option is not for its format; `out` is
            there and `force` is not given.
        FormatError: Files are damaged, or do not belong together.
        UnsupportedError: From GGUF to ONNX; a value does not fit the type; packages that the type needs are
            missing.
        Error: The disk is full.
    """
    folder, out = Path(source).expanduser(), Path(out)
    if not folder.exists():
        raise InputError(f"{folder}: no such file or folder")
    is_gguf = folder.is_file() or any(folder.glob("*.gguf"))
    if type in ONNX_TYPES:
        if is_gguf:
            raise UnsupportedError(f"{folder}: ONNX graphs are made of checkpoints, not of GGUF files")
        of_gguf = {"mmproj": mmproj, "vision_type": vision_type, "embedding_type": embedding_type}
        for option, value in of_gguf.items():
            if value is not None:
                raise InputError(f"{option} is for GGUF files; {type} is a type of ONNX files")
        from .onnx.export import export_onnx  # needs the packages
        from .onnx.requirements import require_packages

        require_packages()
        return export_onnx(folder, out, types=[type], force=force, on_progress=on_progress)
    if type not in (*TYPES, *MIXTURES):
        raise InputError(f"type is {type!r}, expected one of {', '.join((*TYPES, *MIXTURES, *ONNX_TYPES))}")
    options: _Options = {
        "type": type,
        "vision_type": vision_type,
        "embedding_type": embedding_type,
        "force": force,
        "on_progress": on_progress,
    }
    if is_gguf:
        files = find_model_files(folder, None if mmproj is None else Path(mmproj).expanduser())
        pair = requantize(files, out, **options)
    elif mmproj is not None:
        raise InputError(f"{folder}: is no GGUF file and no folder of one; mmproj is for those")
    elif type in MIXTURES:
        require_quantizer(type)
        require_replaceable(out, force=force, replaceable=_WRITTEN)
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        # Beside `out`, where there is room for what is written.
        with tempfile.TemporaryDirectory(dir=out.absolute().parent) as work:
            exported = Path(work) / "f32"
            export_gguf(folder, exported, type="f32", on_progress=on_progress)
            pair = requantize(find_model_files(exported), out, **options)
    else:
        pair = export_gguf(folder, out, **options)
    return [pair.text, pair.projector]


class _Options(TypedDict):
    type: str
    vision_type: str | None
    embedding_type: str | None
    force: bool
    on_progress: OnProgress | None


def requantize(
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
    by_llama_cpp = type in MIXTURES
    projector_type = known_type(
        "vision_type", vision_type or ("q8_0" if by_llama_cpp else type), tuple(TYPES)
    )
    name = _TYPE_IN_NAME.sub("", files.text.stem)
    text_name = f"{name}-{type.upper()}.gguf"
    projector_name = f"mmproj-{name}-{projector_type.name.upper()}.gguf"
    jobs = [_plan("projector", files.projector, projector_name, projector_type, projector_type)]
    if by_llama_cpp:
        embedding = None
        if embedding_type is not None:
            embedding = known_type("embedding_type", embedding_type, EMBEDDING_TYPES)
        require_quantizer(type)
    else:
        text_type = known_type("type", type, tuple(TYPES))
        embeddings = known_embedding_type(type, embedding_type)
        jobs.insert(0, _plan("text", files.text, text_name, text_type, embeddings))
    total, done = sum(job.num_parameters for job in jobs), 0

    def advance(stage: str, count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(stage, done, total)

    with output_folder(out, force=force, replaceable=_WRITTEN) as folder:
        for copied in COPIED_FILES:
            if (files.folder / copied).exists():
                shutil.copyfile(files.folder / copied, folder / copied)
        for job in jobs:
            _write(job, folder / job.file_name, advance)
        if by_llama_cpp:
            quantize_text_file(files.text, folder / text_name, type, embedding)
            _restate_hashes(folder / text_name)
    return ExportedPair(out / text_name, out / projector_name)


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


def _restate_hashes(path: Path) -> None:
    """Puts the hashes of the data as they are in the place of those that were copied with the other keys."""
    file = _core.GgufFile(path)
    stated = file.find(_HASHES) or []
    with path.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as data:
        for line in stated:
            name, _, before = line.rpartition("=")
            if name not in file.tensors or len(before) != 2 * hashlib.sha256().digest_size:
                continue  # not of our making
            now = f"{name}={hashlib.sha256(file.tensor_data(name).data).hexdigest()}".encode()
            at = data.find(line.encode())
            data[at : at + len(now)] = now
