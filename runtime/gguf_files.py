"""GGUF files -> the pair that makes a model: which holds the text model, which the projector.

Files are told apart by their metadata, whatever their names. What the metadata says of the model is read by
`gguf_description`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import _core
from .config import ModelConfig
from .errors import Error, FormatError, InputError, UnsupportedError
from .gguf_description import describe_pair
from .processor import Processor

# general.architecture -> what the file is.
_ROLES: dict[str, Literal["text", "projector"]] = {"llama": "text", "clip": "projector"}

# A folder that has all of these says itself what its model is.
_DESCRIBING_FILES = ("config.json", "tokenizer.json", "processor_config.json")

_EXPECTED = {
    "text": "a text file (llama); its projector (clip) is named beside it: mmproj=FILE, --mmproj FILE",
    "projector": "a projector (clip)",
}
_NAME_IT = {"text": "name the text file itself", "projector": "name it: mmproj=FILE, --mmproj FILE"}

# What a person may have set in config.json, and both are right.
_MAY_DIFFER = ("max_position_embeddings",)

# The parts of a split file, as llama.cpp's tools name them.
_PART_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class ModelFiles:
    """The GGUF pair of a model, and the folder it is in, with tokenizer.json and the configs or without."""

    folder: Path
    text: Path
    projector: Path

    def describe(self) -> tuple[ModelConfig, Processor]:
        """Reads configurations and tokenizer: from the files beside the pair, else from its metadata.

        Raises:
            FormatError: Something is missing or damaged, or the files do not belong together.
            UnsupportedError: The model is of another architecture, its tokenizer or prompt format is unknown.
        """
        if not all((self.folder / name).is_file() for name in _DESCRIBING_FILES):
            return describe_pair(self.text, self.projector)
        config = ModelConfig.from_folder(self.folder)
        self._require_same_sizes(config)
        return config, Processor(self.folder)

    def _require_same_sizes(self, config: ModelConfig) -> None:
        """Raises FormatError if config.json, lying beside the pair, is that of another model."""
        found = _core.read_config(_core.GgufFile(self.text), _core.GgufFile(self.projector))
        for section, path in (("text", self.text), ("vision", self.projector)):
            for key, value in found[section].items():
                said = getattr(getattr(config, section), key)
                if isinstance(value, int) and key not in _MAY_DIFFER and said != value:
                    raise FormatError(
                        f"{self.folder / 'config.json'}: {section}_config: {key} is {said}, "
                        f"{path.name} has {value}: they are of different models"
                    )

    def info(self) -> dict[str, Any]:
        """Returns names and sizes, as `Model.info` has them."""
        return {
            "text_file": self.text.name,
            "text_file_bytes": self.text.stat().st_size,
            "projector_file": self.projector.name,
            "projector_file_bytes": self.projector.stat().st_size,
        }


@dataclass(frozen=True)
class _Candidate:
    """A GGUF file, as far as it was looked at."""

    path: Path
    role: Literal["text", "projector", "part", "other"]
    label: str  # for messages: name and what it is
    error: Error | None = None  # why it cannot be read


def find_model_files(source: Path, mmproj: Path | None = None) -> ModelFiles:
    """Finds the GGUF pair of a model.

    Args:
        source: The text file; or a folder that holds it, and no other one.
        mmproj: The projector file. If not given, the one in the text file's folder.

    Raises:
        InputError: There is no such file.
        FormatError: A file is damaged or is not what it is taken for; there is no text or projector file, or
            more than one; parts of a split file are missing.
        UnsupportedError: A file is split into parts.
    """
    is_folder = source.is_dir()
    folder = source if is_folder else source.parent
    listed = [_inspect(path) for path in sorted(folder.glob("*.gguf"))] if is_folder or mmproj is None else []
    text = _only(folder, "text", listed) if is_folder else _named(source, "text")
    if mmproj is not None:
        return ModelFiles(folder, text, _named(mmproj, "projector"))
    projectors = [candidate for candidate in listed if candidate.role == "projector"]
    fitting = [candidate for candidate in projectors if _fits(text, candidate.path)]
    # Where none fits, the one there is opened all the same: the error then says which numbers differ.
    if len(projectors) > 1 and fitting:
        listed = fitting
    return ModelFiles(folder, text, _only(folder, "projector", listed))


def _inspect(path: Path) -> _Candidate:
    try:
        file = _core.GgufFile(path)
        if (file.find("split.count") or 1) > 1:
            return _Candidate(path, "part", f"{path.name} (a part of a split file)")
        architecture = file.require_string("general.architecture")
    except Error as error:
        return _Candidate(path, "other", f"{path.name} (unreadable)", error)
    return _Candidate(path, _ROLES.get(architecture, "other"), f"{path.name} ({architecture})")


def _named(path: Path, role: Literal["text", "projector"]) -> Path:
    """Returns the path of a file that a person named, if it is what it was named as."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    candidate = _inspect(path)
    if candidate.error is not None:
        raise candidate.error
    if candidate.role == "part":
        raise _split_error(path)
    if candidate.role != role:
        raise FormatError(f"{path.parent}: found {candidate.label}, expected {_EXPECTED[role]}")
    return path


def _only(folder: Path, role: Literal["text", "projector"], listed: Sequence[_Candidate]) -> Path:
    """Returns the one file of a role among those of a folder."""
    found = [candidate for candidate in listed if candidate.role == role]
    if len(found) == 1:
        return found[0].path
    if not found:
        for candidate in listed:
            if candidate.role == "part":
                raise _split_error(candidate.path)
            if candidate.error is not None:
                raise candidate.error
    listing = ", ".join(candidate.label for candidate in found or listed) or "no .gguf file"
    hint = f"; {_NAME_IT[role]}" if found else ""
    raise FormatError(
        f"{folder}: found {listing}; "
        f"expected one text file (architecture llama) and one projector (clip){hint}"
    )


def _fits(text: Path, projector: Path) -> bool:
    """Whether a projector can be of the same model."""
    text_file, projector_file = _core.GgufFile(text), _core.GgufFile(projector)
    return bool(text_file.find("llama.embedding_length") == projector_file.find("clip.vision.projection_dim"))


def _split_error(path: Path) -> Error:
    """What to say of a part of a split file: which parts are missing, or how to join them."""
    match = _PART_NAME.fullmatch(path.name)
    count = _core.GgufFile(path).find("split.count")
    if match is None:
        return UnsupportedError(f"{path}: is one of {count} parts of a file that was split; join them first")
    parts = [path.with_name(f"{match[1]}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    if missing := [part.name for part in parts if not part.is_file()]:
        return FormatError(f"{path}: is one of {count} parts; missing: {', '.join(missing)}")
    command = f"llama-gguf-split --merge {parts[0].name} {match[1]}.gguf"
    return UnsupportedError(f"{path}: is one of {count} parts, which llama.cpp joins: {command}")
