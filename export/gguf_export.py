"""The pipeline of `pocketvlm export gguf`: a checkpoint in, a folder with a text and a projector GGUF out.

Tensors are read, converted and written a few rows at a time, so memory stays near one piece of one tensor.
FORMAT.md states what comes out.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..config import ProcessorConfig
from ..errors import InputError, UnsupportedError
from .checkpoint import Checkpoint, row_ranges
from .equalization import Equalization
from .gguf_file import GgufWriter, Metadata, TensorInfo, replace_metadata
from .gguf_metadata import Provenance, projector_metadata, text_metadata
from .output_folder import output_folder
from .progress import OnProgress
from .quantize import TYPES, ByteRows, FloatRows, QuantType
from .tensor_map import EMBED_TOKENS, LM_HEAD, TensorSpec, text_tensors, vision_tensors
from .vocabulary import vocabulary_metadata

# Token embedding and head have 8 bits or more: their rounding goes straight into every token and logit.
EMBEDDING_TYPES = tuple(name for name in TYPES if name != "q4_0")

# Copied beside the model files where the source has them.
COPIED_FILES = (
    "config.json",
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

_UNKNOWN_HASH = "0" * 64


@dataclass(frozen=True)
class ExportedPair:
    """The two files of an export."""

    text: Path
    projector: Path


@dataclass(frozen=True)
class _Job:
    """One file on its way out."""

    stage: str
    file_name: str
    specs: list[TensorSpec]
    infos: list[TensorInfo]  # one for each of specs
    make_metadata: Callable[[Provenance, list[str]], Metadata]
    equalization: Equalization | None

    @property
    def num_parameters(self) -> int:
        return sum(spec.num_elements for spec in self.specs)


def export_gguf(
    checkpoint: str | Path,
    out: str | Path,
    *,
    type: str,
    name: str | None = None,
    vision_type: str | None = None,
    embedding_type: str | None = None,
    equalize: bool = True,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> ExportedPair:
    """Exports a Hugging Face folder to the pair of GGUF files that llama.cpp and pocketvlm load.

    Args:
        checkpoint: A folder with config.json, safetensors, tokenizer and processor files.
        out: The folder to write. It appears when it is complete.
        type: Type of the text file's matrices: "f32", "f16", "bf16", "q8_0" or "q4_0".
        name: What to call the model, in the names of the files and in their metadata; if not given, what it
            is called on the hub, else as its folder.
        vision_type: The same for the projector file; `type` if not given.
        embedding_type: Type of token embedding and head, one of `EMBEDDING_TYPES`; if not given, `type`, and
            "q8_0" where that is "q4_0".
        equalize: Even out huge channels in files of type "q8_0" and "q4_0"; see `equalization`. The model
            computes the same function and loses less to rounding. Without it, the blocks are those of
            llama.cpp's converter whatever the channels are.
        force: Replace an earlier export in `out`.
        on_progress: Called with ("text" or "projector", elements done, elements in total).

    Returns:
        The paths of the two files.

    Raises:
        FormatError: The checkpoint is incomplete or damaged.
        UnsupportedError: It is of another architecture, or a value does not fit the type.
        InputError: A type that is unknown or not for the embedding; a name that no file can have; `out` is
            there and `force` is not given.
        Error: The disk is full.
    """
    text_type = known_type("type", type, tuple(TYPES))
    projector_type = known_type("vision_type", vision_type or type, tuple(TYPES))
    embeddings = known_embedding_type(type, embedding_type)
    if name is not None and (not name.strip() or name.startswith(".") or re.search(r"[/\\\0]", name)):
        raise InputError(f"name is {name!r}, expected one that a file can have")
    with Checkpoint(checkpoint, name=name) as source:
        jobs = _plan(source, text_type, projector_type, embeddings, equalize)
        replaceable = (*COPIED_FILES, "*.gguf")
        with output_folder(Path(out), force=force, replaceable=replaceable) as folder:
            for name in COPIED_FILES:
                if (source.folder / name).exists():
                    shutil.copyfile(source.folder / name, folder / name)
            _write_pair(source, jobs, folder, on_progress)
    text_job, projector_job = jobs
    return ExportedPair(Path(out) / text_job.file_name, Path(out) / projector_job.file_name)


def known_embedding_type(type: str, embedding_type: str | None) -> QuantType:
    """Returns the type of embedding and head: `embedding_type`, else `type` if it has 8 bits, else "q8_0".

    Raises:
        InputError: It is none of `EMBEDDING_TYPES`.
    """
    default = type if type in EMBEDDING_TYPES else "q8_0"
    return known_type("embedding_type", embedding_type or default, EMBEDDING_TYPES)


def known_type(option: str, name: str, expected: tuple[str, ...]) -> QuantType:
    """Returns the type of that name. Raises InputError for one that is not `expected`."""
    if name not in expected:
        raise InputError(f"{option} is {name!r}, expected one of {', '.join(expected)}")
    return TYPES[name]


def _plan(
    source: Checkpoint,
    text_type: QuantType,
    projector_type: QuantType,
    embedding_type: QuantType,
    equalize: bool,
) -> tuple[_Job, _Job]:
    """Reads everything but the weights themselves and says what goes into the two files."""
    processor = ProcessorConfig.from_folder(source.folder)
    processor.require_match(source.config, str(source.folder))
    vocabulary = vocabulary_metadata(source.folder, source.config)
    text_specs = [
        spec
        for spec in text_tensors(source.config)
        if not (spec.hf_name == LM_HEAD and source.has_shared_head)
    ]
    vision_specs = vision_tensors(source.config)
    text = _Job(
        "text",
        f"{source.name}-{text_type.name.upper()}.gguf",
        text_specs,
        [
            tensor_info(spec, embedding_type if spec.hf_name in (EMBED_TOKENS, LM_HEAD) else text_type)
            for spec in text_specs
        ],
        lambda provenance, hashes: text_metadata(
            source.config,
            vocabulary,
            type=text_type,
            num_parameters=text.num_parameters,
            provenance=provenance,
            tensor_hashes=hashes,
        ),
        Equalization(source, text_specs) if equalize and text_type.has_blocks else None,
    )
    projector = _Job(
        "projector",
        f"mmproj-{source.name}-{projector_type.name.upper()}.gguf",
        vision_specs,
        [tensor_info(spec, projector_type) for spec in vision_specs],
        lambda provenance, hashes: projector_metadata(
            source.config,
            processor,
            type=projector_type,
            num_parameters=projector.num_parameters,
            provenance=provenance,
            tensor_hashes=hashes,
        ),
        Equalization(source, vision_specs) if equalize and projector_type.has_blocks else None,
    )
    return text, projector


def _write_pair(
    source: Checkpoint, jobs: Sequence[_Job], folder: Path, on_progress: OnProgress | None
) -> None:
    """Writes both files, then puts the hashes, known only now, into their metadata."""
    total = sum(job.num_parameters for job in jobs)
    done = 0

    def advance(stage: str, count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(stage, done, total)

    source_hashes: dict[str, str] = {}
    tensor_hashes: dict[str, str] = {}
    unknown = Provenance(source.name, source.revision, pair_id=_UNKNOWN_HASH)
    for job in jobs:
        metadata = job.make_metadata(unknown, [f"{info.name}={_UNKNOWN_HASH}" for info in job.infos])
        with GgufWriter(folder / job.file_name, metadata, job.infos) as writer:
            for spec, info in zip(job.specs, job.infos, strict=True):
                source_hash, tensor_hash = hashlib.sha256(), hashlib.sha256()
                for start, stop in row_ranges(spec):
                    rows = source.read_rows(spec, start, stop)
                    values = rows.values
                    if job.equalization is not None:
                        values = job.equalization.apply(values, spec.hf_name, start)
                    data = _convert(values, spec, info.type, source.where(spec))
                    source_hash.update(rows.raw)
                    tensor_hash.update(data.data)
                    writer.write(data)
                    advance(job.stage, rows.values.size)
                source_hashes[f"{spec.hf_name} {source.describe(spec)}"] = source_hash.hexdigest()
                tensor_hashes[info.name] = tensor_hash.hexdigest()

    known = replace(unknown, pair_id=_pair_id(source_hashes))
    for job in jobs:
        old = job.make_metadata(unknown, [f"{info.name}={_UNKNOWN_HASH}" for info in job.infos])
        new = job.make_metadata(known, [f"{info.name}={tensor_hashes[info.name]}" for info in job.infos])
        replace_metadata(folder / job.file_name, old, new, job.infos)


def tensor_info(spec: TensorSpec, mostly: QuantType) -> TensorInfo:
    """Chooses the type of a tensor in a file that is mostly `mostly`, as llama.cpp's converter does."""
    type = TYPES["f32"] if spec.always_f32 else fitting_type(spec.shape[-1], mostly)
    return TensorInfo(spec.gguf_name, spec.shape, type, type.nbytes(spec.num_elements))


def fitting_type(row_elements: int, mostly: QuantType) -> QuantType:
    """Returns `mostly`, or "f16" where rows are no whole number of its blocks."""
    return TYPES["f16"] if row_elements % mostly.block_size else mostly


def _convert(values: FloatRows, spec: TensorSpec, type: QuantType, where: str) -> ByteRows:
    """Turns rows [rows, row_elements] into the bytes of the file; `where` is for errors."""
    require_range(values, type, where)
    if spec.rotary_head_dim is not None:
        values = interleave_rotary_rows(values, spec.rotary_head_dim)
    return type.quantize(values)


def require_range(values: FloatRows, type: QuantType, where: str) -> None:
    """Raises UnsupportedError, naming `where`, for a value that the type cannot hold."""
    largest = float(np.abs(values).max())
    if largest > type.max_abs:
        raise UnsupportedError(
            f"{where}: holds {largest:g}, {type.name} reaches {type.max_abs:g}; export as f32"
        )


def interleave_rotary_rows(rows: FloatRows, head_dim: int) -> FloatRows:
    """Reorders the rows of q_proj or k_proj for interleaved rotary embeddings.

    Hugging Face rotates element i of a head together with i + head_dim / 2, GGUF's llama 2i with 2i + 1.

    Args:
        rows: float32 [heads * head_dim, hidden_size], whole heads.
        head_dim: Rows per head.

    Returns:
        float32 of the same shape.
    """
    heads = rows.reshape(-1, 2, head_dim // 2, rows.shape[1])
    return heads.swapaxes(1, 2).reshape(rows.shape)


def _pair_id(source_hashes: Mapping[str, str]) -> str:
    """Returns the sha256 over sorted lines "name dtype [shape] sha256", one per source tensor."""
    lines = sorted(f"{tensor} {digest}\n" for tensor, digest in source_hashes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
