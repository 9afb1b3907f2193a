"""The metadata of a 256M pair against what llama.cpp's converter writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest

from pocketvlm.config import ModelConfig, ProcessorConfig
from pocketvlm.export.gguf_file import Value
from pocketvlm.export.gguf_metadata import Provenance, projector_metadata, size_label, text_metadata
from pocketvlm.export.model_files import model_files
from pocketvlm.export.quantize import TYPES
from pocketvlm.export.tensor_map import text_tensors, vision_tensors
from pocketvlm.export.vocabulary import vocabulary_metadata

from .reference_listing import read_listing

PROVENANCE = Provenance(name="256m", revision="", pair_id="0" * 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 256M checkpoint without its weights."""
    folder = tmp_path_factory.mktemp("256m")
    for name, content in model_files("256m").items():
        (folder / name).write_bytes(content)
    return folder


def as_listed(metadata: Mapping[str, Value]) -> list[tuple[str, str, str]]:
    """Prints metadata as the listings do: arrays by length and first three, long text cut."""
    lines = []
    for key, value in metadata.items():
        kind = value.type.name
        text = str(value.data)
        if kind == "FLOAT32" and not isinstance(value.data, list):
            text = str(float(np.float32(value.data)))
        if isinstance(value.data, list):
            short = {"STRING": "str", "INT32": "int", "FLOAT32": "float"}[kind]
            text = f"[{len(value.data)} x {short}] {value.data[:3]}"
            kind = f"ARRAY/{kind}"
        lines.append((key, kind, text if len(text) <= 200 else text[:160]))
    return lines


def assert_listed(metadata: Mapping[str, Value], name: str) -> None:
    ours = {key: value for key, value in metadata.items() if not key.startswith("pocketvlm.")}
    expected = [(key, kind, value.removesuffix("...")) for key, kind, value in read_listing(name).keys]
    found = as_listed(ours)
    assert [line[:2] for line in found] == [line[:2] for line in expected]
    for (key, _, value), (_, _, expected_value) in zip(found, expected, strict=True):
        assert value[: len(expected_value)] == expected_value, key
    assert [key for key in metadata if key.startswith("pocketvlm.")] == [
        "pocketvlm.source.name",
        "pocketvlm.source.revision",
        "pocketvlm.pair_id",
        "pocketvlm.tensor_hashes",
    ]


def test_text_metadata_is_that_of_the_reference(folder: Path) -> None:
    config = ModelConfig.from_folder(folder)
    metadata = text_metadata(
        config,
        vocabulary_metadata(folder, config),
        type=TYPES["q8_0"],
        num_parameters=sum(spec.num_elements for spec in text_tensors(config)),
        provenance=PROVENANCE,
        tensor_hashes=["x"],
    )
    assert_listed(metadata, "text")


def test_projector_metadata_is_that_of_the_reference(folder: Path) -> None:
    config = ModelConfig.from_folder(folder)
    metadata = projector_metadata(
        config,
        ProcessorConfig.from_folder(folder),
        type=TYPES["q8_0"],
        num_parameters=sum(spec.num_elements for spec in vision_tensors(config)),
        provenance=PROVENANCE,
        tensor_hashes=["x"],
    )
    assert_listed(metadata, "mmproj")


@pytest.mark.parametrize(
    "count",
    [
        1,
        999,
        5_449,
        617_216,
        999_999,
        1_000_001,
        9_449_999,
        9_500_001,
        93_500_000,
        999_999_999,
        2_246_272_880,
    ],
)
def test_size_label_is_that_of_the_gguf_package(count: int) -> None:
    assert size_label(count) == gguf.size_label(count, 0, 0, 0)
