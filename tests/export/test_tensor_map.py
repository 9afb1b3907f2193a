"""Names, order, shapes and types of tensors against what llama.cpp's converter writes for the 256M model."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketvlm.config import ModelConfig
from pocketvlm.export.gguf_export import tensor_info
from pocketvlm.export.model_files import model_files
from pocketvlm.export.quantize import TYPES
from pocketvlm.export.tensor_map import TensorSpec, all_tensors, text_tensors, vision_tensors

from .reference_listing import read_listing


def config_of(size: str, folder: Path) -> ModelConfig:
    (folder / "config.json").write_bytes(model_files(size)["config.json"])
    return ModelConfig.from_folder(folder)


def listed(specs: list[TensorSpec]) -> list[tuple[str, str, list[int]]]:
    infos = [tensor_info(spec, TYPES["q8_0"]) for spec in specs]
    return [(info.name, info.type.name.upper(), list(reversed(info.shape))) for info in infos]


def test_text_tensors_of_256m_are_those_of_the_reference(tmp_path: Path) -> None:
    specs = text_tensors(config_of("256m", tmp_path))
    assert listed(specs) == read_listing("text").tensors
    assert len(specs) == 273


def test_vision_tensors_of_256m_are_those_of_the_reference(tmp_path: Path) -> None:
    specs = vision_tensors(config_of("256m", tmp_path))
    assert listed(specs) == read_listing("mmproj").tensors
    assert len(specs) == 198


@pytest.mark.parametrize(
    ("size", "parameters"), [("256m", 256_484_928), ("500m", 507_482_304), ("2.2b", 2_246_272_880)]
)
def test_parameter_counts_are_the_published_ones(size: str, parameters: int, tmp_path: Path) -> None:
    specs = all_tensors(config_of(size, tmp_path))
    assert sum(spec.num_elements for spec in specs) == parameters
    assert len({spec.hf_name for spec in specs}) == len({spec.gguf_name for spec in specs}) == len(specs)


@pytest.mark.parametrize("type", ["f32", "f16", "bf16"])
def test_types_without_blocks_fit_every_row(tmp_path: Path, type: str) -> None:
    specs = all_tensors(config_of("2.2b", tmp_path))
    found = {tensor_info(spec, TYPES[type]).type.name for spec in specs if not spec.always_f32}
    assert found == {type}


@pytest.mark.parametrize("type", ["q8_0", "q4_0"])
def test_rows_that_are_not_whole_blocks_fall_back_to_f16(tmp_path: Path, type: str) -> None:
    """K = 4304 in the 2.2B vision tower's ffn_down, and nothing else."""
    specs = all_tensors(config_of("2.2b", tmp_path))
    fallen_back = [spec for spec in specs if tensor_info(spec, TYPES[type]).type.name == "f16"]
    assert {spec.shape for spec in fallen_back} == {(1152, 4304)}
    assert len(fallen_back) == 27
    assert all(spec.gguf_name.endswith("ffn_down.weight") for spec in fallen_back)


def test_only_query_and_key_of_the_text_model_are_rotary(tmp_path: Path) -> None:
    rotary = {spec.gguf_name for spec in all_tensors(config_of("tiny", tmp_path)) if spec.rotary_head_dim}
    assert rotary == {f"blk.{i}.attn_{name}.weight" for i in range(2) for name in "qk"}
