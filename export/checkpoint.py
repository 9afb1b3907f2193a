"""A Hugging Face checkpoint folder: its configuration and its tensors, proved to be the ones it needs.

Both model classes, one safetensors file or several, bf16, f16 and f32. Nothing is loaded here: rows are read
when asked for.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ..config import ModelConfig
from ..errors import FormatError, UnsupportedError
from .safetensors_file import DTYPE_SIZES, SafetensorsFile, TensorEntry
from .tensor_map import EMBED_TOKENS, LM_HEAD, TensorSpec, all_tensors

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_READABLE_DTYPES = ("BF16", "F16", "F32")

# Derived values that older versions of transformers saved along.
_IGNORED = re.compile(r"\.(rotary_emb\.inv_freq|position_ids)$")

_COMPARE_BYTES = 1 << 22

# 1 MB of float32 at a time.
_CHUNK_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a tensor, a row being everything under one index of the outermost dimension."""

    raw: bytearray  # as stored
    values: npt.NDArray[np.float32]  # [rows, row_elements]


def row_ranges(spec: TensorSpec) -> Iterator[tuple[int, int]]:
    """Cuts a tensor into pieces of whole rows, and of whole heads where rows move within their head."""
    unit = spec.rotary_head_dim or 1
    row_elements = spec.num_elements // spec.shape[0]
    step = max(1, _CHUNK_ELEMENTS // (row_elements * unit)) * unit
    for start in range(0, spec.shape[0], step):
        yield start, min(start + step, spec.shape[0])


class Checkpoint:
    """An open checkpoint in which every tensor of the model is present with its shape, and no other.

    Attributes:
        folder: Where it is.
        config: Its config.json.
        has_shared_head: Whether the language model head is the token embedding: it is absent and the config
            ties the two, or it is there with the same bytes. transformers decides in the same way.
        name: What to call the model.
        revision: The commit on the hub, "" if it is not known.
    """

    def __init__(self, folder: str | Path, *, name: str | None = None) -> None:
        """Opens and proves the checkpoint.

        Args:
            folder: Where it is.
            name: What to call the model; if not given, what it is called on the hub, else as its folder.

        Raises:
            FormatError: A file or tensor is missing, damaged, unexpected or of the wrong shape.
            UnsupportedError: Another architecture, other arithmetic or another dtype.
        """
        self.folder = Path(folder).resolve()
        if not self.folder.is_dir():
            raise FormatError(f"{folder}: there is no such folder")
        self.config = ModelConfig.from_folder(self.folder)
        found_name, self.revision = _name_and_revision(self.folder)
        self.name = name or found_name
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(SafetensorsFile(path)) for path in self._weight_files()]
            self._tensors = self._collect(files)
            self._prove_index()
            self.has_shared_head = LM_HEAD not in self._tensors and self.config.tie_word_embeddings
            self._prove_tensors()
            self.has_shared_head = self.has_shared_head or self._head_equals_embedding()
            self._open_files = stack.pop_all()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open_files.close()

    def read_rows(self, spec: TensorSpec, start: int, stop: int) -> Rows:
        """Reads rows `start` to `stop` of a tensor.

        Raises:
            FormatError: The file has become shorter, or a value is not finite.
        """
        file, entry = self._tensors[spec.hf_name]
        row_elements = spec.num_elements // spec.shape[0]
        row_nbytes = row_elements * DTYPE_SIZES[entry.dtype]
        raw = file.read(entry.offset + start * row_nbytes, (stop - start) * row_nbytes)
        values = _to_float32(raw, entry.dtype).reshape(stop - start, row_elements)
        if not np.isfinite(values).all():
            raise FormatError(f"{self.where(spec)}: holds NaN or infinity, expected numbers")
        return Rows(raw, values)

    def describe(self, spec: TensorSpec) -> str:
        """Returns dtype and shape of a tensor as stored, the part of its identity that is not bytes."""
        entry = self._tensors[spec.hf_name][1]
        return f"{entry.dtype} {list(entry.shape)}"

    def where(self, spec: TensorSpec) -> str:
        """Returns file and name of a tensor, for errors."""
        return f"{self._tensors[spec.hf_name][0].path}: tensor {spec.hf_name}"

    def _weight_files(self) -> list[Path]:
        """Lists the safetensors files, the single one first as transformers does."""
        if (self.folder / _WEIGHTS).exists():
            return [self.folder / _WEIGHTS]
        if (self.folder / _INDEX).exists():
            return [self.folder / name for name in sorted(set(self._index().values()))]
        if sorted(self.folder.glob("pytorch_model*.bin")):
            raise UnsupportedError(
                f"{self.folder}: holds pytorch_model.bin; only safetensors are read: save it again with "
                "save_pretrained(..., safe_serialization=True)"
            )
        raise FormatError(f"{self.folder}: there is no {_WEIGHTS} and no {_INDEX}")

    def _index(self) -> dict[str, str]:
        """Reads the weight map, tensor name -> file name."""
        path = self.folder / _INDEX
        try:
            weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(f"{path}: cannot be read as an index: {error!r}") from error
        if not isinstance(weight_map, dict) or not weight_map:
            raise FormatError(f"{path}: weight_map is {weight_map!r}, expected tensor names and files")
        for name, file in weight_map.items():
            if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
                raise FormatError(
                    f"{path}: tensor {name}: its file is {file!r}, expected a safetensors file in this folder"
                )
        return weight_map

    def _prove_index(self) -> None:
        """Raises FormatError if the index puts a tensor into a file that does not hold it."""
        if (self.folder / _WEIGHTS).exists():
            return
        for name, file in self._index().items():
            found = self._tensors.get(_canonical(name))
            if not _IGNORED.search(name) and (found is None or found[0].path.name != file):
                raise FormatError(f"{self.folder / file}: tensor {name} is missing, {_INDEX} puts it here")

    def _collect(self, files: Iterable[SafetensorsFile]) -> dict[str, tuple[SafetensorsFile, TensorEntry]]:
        tensors: dict[str, tuple[SafetensorsFile, TensorEntry]] = {}
        for file in files:
            for stored_name, entry in file.tensors.items():
                name = _canonical(stored_name)
                if _IGNORED.search(name):
                    continue
                if name in tensors:
                    raise FormatError(f"{file.path}: tensor {name} is also in {tensors[name][0].path.name}")
                tensors[name] = (file, entry)
        return tensors

    def _prove_tensors(self) -> None:
        """Raises unless exactly the tensors of the model are there, in shapes and dtypes that can be read."""
        specs = {spec.hf_name: spec for spec in all_tensors(self.config)}
        if self.has_shared_head:
            del specs[LM_HEAD]
        missing = sorted(specs.keys() - self._tensors.keys())
        if missing:
            raise FormatError(f"{self.folder}: {_some(missing)} missing from the weights")
        unexpected = sorted(self._tensors.keys() - specs.keys())
        if unexpected:
            raise FormatError(
                f"{self.folder}: {_some(unexpected)} not part of the model that config.json describes"
            )
        for name, spec in specs.items():
            file, entry = self._tensors[name]
            if entry.shape != spec.shape:
                raise FormatError(
                    f"{file.path}: tensor {name}: shape {list(entry.shape)}, "
                    f"config.json needs {list(spec.shape)}"
                )
            if entry.dtype not in _READABLE_DTYPES:
                raise UnsupportedError(
                    f"{file.path}: tensor {name}: dtype {entry.dtype}; "
                    f"supported: {', '.join(_READABLE_DTYPES)}"
                )

    def _head_equals_embedding(self) -> bool:
        head_file, head = self._tensors[LM_HEAD]
        embedding_file, embedding = self._tensors[EMBED_TOKENS]
        if (head.dtype, head.nbytes) != (embedding.dtype, embedding.nbytes):
            return False
        for start in range(0, head.nbytes, _COMPARE_BYTES):
            count = min(_COMPARE_BYTES, head.nbytes - start)
            if head_file.read(head.offset + start, count) != embedding_file.read(
                embedding.offset + start, count
            ):
                return False
        return True


def _canonical(name: str) -> str:
    """Returns the name as transformers 5.23.0 saves it; saved from the bare model it lacks `model.`."""
    return f"model.{name}" if name.startswith(("text_model.", "vision_model.", "connector.")) else name


def _some(names: list[str]) -> str:
    """Names the first few of many tensors."""
    shown = ", ".join(names[:3])
    if len(names) > 3:
        return f"tensors {shown} and {len(names) - 3} more are"
    return f"tensor {shown} is" if len(names) == 1 else f"tensors {shown} are"


def _to_float32(raw: bytearray, dtype: str) -> npt.NDArray[np.float32]:
    """Widens stored little-endian values; exact for all three dtypes."""
    if dtype == "F32":
        return np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)
    if dtype == "F16":
        return np.frombuffer(raw, dtype="<f2").astype(np.float32)
    return (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16).view(np.float32)


def _name_and_revision(folder: Path) -> tuple[str, str]:
    """Returns what to call the model, and its commit on the hub or "".

    Both are read from the hub's cache layout, or from what `hf download` leaves behind:
    models--{owner}--{name}/snapshots/{commit} in the cache; in a folder of one's own,
    .cache/huggingface/download/config.json.metadata with the commit in its first line.
    """
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.split("--")[-1], folder.name
    metadata = folder / ".cache" / "huggingface" / "download" / "config.json.metadata"
    try:
        revision = metadata.read_text(encoding="utf-8").split("\n")[0].strip()
    except (OSError, ValueError):
        revision = ""
    return folder.name or "model", revision if re.fullmatch(r"[0-9a-f]{40}", revision) else ""
