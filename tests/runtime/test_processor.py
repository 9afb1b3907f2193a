"""Tile plans in the arithmetic of the reference, and prompts that count their image tokens."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm.chat_template import TileGrid
from pocketvlm.config import ProcessorConfig
from pocketvlm.errors import FormatError, InputError, UnsupportedError
from pocketvlm.messages import parse_messages
from pocketvlm.processor import ImageSize, Processor, TilePlan, plan_tiles
from pocketvlm.tokenizer import Tokenizer

SMALL = ProcessorConfig(2048, 512, 64, True, 1, (0.5,) * 3, (0.5,) * 3, 1 / 255)  # 256M and 500M
LARGE = dataclasses.replace(SMALL, longest_edge=1536, tile_size=384, image_seq_len=81)  # 2.2B


def size(width: int, height: int) -> ImageSize:
    return ImageSize(height, width)


@pytest.mark.parametrize(
    ("image", "resized", "split", "grid", "tiles", "image_tokens"),
    [
        (size(640, 480), size(2048, 1536), size(2048, 1536), TileGrid(3, 4), 13, 832),
        (size(1920, 1080), size(2048, 1152), size(2048, 1536), TileGrid(3, 4), 13, 832),
        (size(512, 512), size(2048, 2048), size(2048, 2048), TileGrid(4, 4), 17, 1088),
        (size(1024, 1024), size(2048, 2048), size(2048, 2048), TileGrid(4, 4), 17, 1088),
        (size(1, 1), size(2048, 2048), size(2048, 2048), TileGrid(4, 4), 17, 1088),
        (size(333, 777), size(878, 2048), size(1024, 2048), TileGrid(4, 2), 9, 576),
        (size(100, 2000), size(102, 2048), size(512, 2048), TileGrid(4, 1), 5, 320),
        (size(3000, 500), size(2048, 342), size(2048, 512), TileGrid(1, 4), 5, 320),
        (size(8000, 1), size(2048, 1), size(2048, 512), TileGrid(1, 4), 5, 320),
    ],
)
def test_golden_plans_of_the_small_models(
    image: ImageSize, resized: ImageSize, split: ImageSize, grid: TileGrid, tiles: int, image_tokens: int
) -> None:
    plan = plan_tiles(image, SMALL, split=True)
    assert plan == TilePlan(resized, split, grid)
    assert plan.num_tiles == tiles
    assert plan.num_tiles * SMALL.image_seq_len == image_tokens


@pytest.mark.parametrize(
    ("image", "tiles", "image_tokens"),
    [
        (size(640, 480), 13, 1053),
        (size(1920, 1080), 13, 1053),
        (size(512, 512), 17, 1377),
        (size(333, 777), 9, 729),
        (size(100, 2000), 5, 405),
        (size(3000, 500), 5, 405),
    ],
)
def test_golden_plans_of_the_large_model(image: ImageSize, tiles: int, image_tokens: int) -> None:
    plan = plan_tiles(image, LARGE, split=True)
    assert plan.num_tiles == tiles
    assert plan.num_tiles * LARGE.image_seq_len == image_tokens


def test_without_splitting_there_is_one_tile() -> None:
    assert plan_tiles(size(640, 480), SMALL, split=False) == TilePlan(size(2048, 1536), None, TileGrid(0, 0))


def test_an_image_within_one_tile_is_not_split() -> None:
    config = dataclasses.replace(SMALL, longest_edge=512)
    plan = plan_tiles(size(640, 480), config, split=True)
    assert plan == TilePlan(size(512, 384), size(512, 512), TileGrid(0, 0))
    assert plan.num_tiles == 1


def test_no_side_exceeds_4096() -> None:
    config = dataclasses.replace(SMALL, longest_edge=5000)
    assert plan_tiles(size(100, 60), config, split=True).resized == size(4096, 2457)
    assert plan_tiles(size(60, 100), config, split=True).resized == size(2457, 4096)
    assert plan_tiles(size(9000, 1), config, split=True).resized == size(4096, 1)


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([SMALL, LARGE]))
def test_every_plan_can_be_carried_out(width: int, height: int, config: ProcessorConfig) -> None:
    plan = plan_tiles(size(width, height), config, split=True)
    assert max(plan.resized) == config.longest_edge
    assert min(plan.resized) >= 1
    assert plan.split is not None
    assert plan.split == ImageSize(plan.grid.rows * config.tile_size, plan.grid.cols * config.tile_size)


@pytest.mark.parametrize(
    ("image", "max_tiles", "resized", "grid"),
    [
        (size(640, 480), 13, size(2048, 1536), TileGrid(3, 4)),  # no more than the reference makes
        (size(640, 480), 12, size(1536, 1152), TileGrid(3, 3)),
        (size(640, 480), 9, size(1024, 768), TileGrid(2, 2)),
        (size(640, 480), 5, size(1024, 768), TileGrid(2, 2)),
        (size(640, 480), 4, size(2048, 1536), TileGrid(0, 0)),  # as unsplit
        (size(500, 3000), 5, size(342, 2048), TileGrid(4, 1)),
        (size(500, 3000), 4, size(256, 1536), TileGrid(3, 1)),
        (size(500, 3000), 3, size(170, 1024), TileGrid(2, 1)),
        (size(500, 3000), 2, size(342, 2048), TileGrid(0, 0)),
    ],
)
def test_a_limit_of_tiles_makes_a_coarser_grid_of_the_same_proportions(
    image: ImageSize, max_tiles: int, resized: ImageSize, grid: TileGrid
) -> None:
    plan = plan_tiles(image, SMALL, split=True, max_tiles=max_tiles)
    assert (plan.resized, plan.grid) == (resized, grid)
    assert (plan.split is None) == (grid == TileGrid(0, 0))


@pytest.mark.parametrize(
    ("image", "resized", "split", "tiles"),
    [
        (size(300, 201), size(300, 201), size(512, 512), 1),
        (size(640, 480), size(640, 480), size(1024, 1024), 5),
        (size(1, 1), size(1, 1), size(512, 512), 1),
        (size(2048, 1), size(2048, 1), size(2048, 512), 5),
        (size(2049, 1000), size(2048, 1000), size(2048, 1024), 9),  # larger ones are resized as ever
    ],
)
def test_without_upscaling_a_small_image_takes_few_tiles(
    image: ImageSize, resized: ImageSize, split: ImageSize, tiles: int
) -> None:
    plan = plan_tiles(image, SMALL, split=True, upscale=False)
    assert (plan.resized, plan.split, plan.num_tiles) == (resized, split, tiles)
    unsplit = plan_tiles(image, SMALL, split=False, upscale=False)
    assert unsplit == TilePlan(resized, None, TileGrid(0, 0))


@given(
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.sampled_from([SMALL, LARGE]),
    st.none() | st.integers(1, 20),
    st.booleans(),
)
def test_modes_never_take_more_tiles_than_allowed_or_than_the_reference(
    width: int, height: int, config: ProcessorConfig, max_tiles: int | None, upscale: bool
) -> None:
    reference = plan_tiles(size(width, height), config, split=True)
    plan = plan_tiles(size(width, height), config, split=True, max_tiles=max_tiles, upscale=upscale)
    assert plan.num_tiles <= reference.num_tiles
    assert max_tiles is None or plan.num_tiles <= max_tiles
    assert min(plan.resized) >= 1
    if plan.split is not None:
        rows, cols = plan.split.height // config.tile_size, plan.split.width // config.tile_size
        assert plan.split == ImageSize(rows * config.tile_size, cols * config.tile_size)
        assert plan.grid == ((0, 0) if rows * cols == 1 else (rows, cols))
    if upscale and max_tiles is not None and max_tiles >= reference.num_tiles:
        assert plan == reference


def test_the_prompt_has_every_planned_image_token(smolvlm_processor: Processor) -> None:
    plans = [plan_tiles(size(640, 480), SMALL, split=split) for split in (True, False)]
    messages = parse_messages("Which of the two <image>s is <|im_end|> larger?", ["a.png", "b.png"])
    ids = smolvlm_processor.encode(messages, plans)
    assert ids.count(49190) == (13 + 1) * 64
    assert ids.count(2) == 0


def test_an_answer_ends_at_both_markers_and_at_the_configured_tokens(
    smolvlm_256m: Path, tmp_path: Path
) -> None:
    assert Processor(smolvlm_256m).stop_token_ids == [2, 49279]
    folder = shutil.copytree(smolvlm_256m, tmp_path / "other")
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 49279]}')
    assert Processor(folder).stop_token_ids == [2, 5, 49279]
    (folder / "generation_config.json").unlink()
    assert Processor(folder).stop_token_ids == [2, 49279]
    for bad in ('{"eos_token_id": "five"}', "[]", "{"):
        (folder / "generation_config.json").write_text(bad)
        with pytest.raises(FormatError, match=r"generation_config\.json"):
            Processor(folder)


def drop_added_tokens(path: Path, prefix: str) -> None:
    """Takes the markers that begin with `prefix` out of a tokenizer.json."""
    content = json.loads(path.read_text())
    content["added_tokens"] = [t for t in content["added_tokens"] if not t["content"].startswith(prefix)]
    path.write_text(json.dumps(content))


def test_tile_markers_without_tokens_are_plain_text_as_in_the_large_model(
    smolvlm_256m: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(smolvlm_256m, tmp_path / "other")
    drop_added_tokens(folder / "tokenizer.json", "<row_")
    processor = Processor(folder)
    assert processor.tokenizer.token_to_id("<row_1_col_1>") is None
    plan = plan_tiles(size(333, 777), SMALL, split=True)
    ids = processor.encode(parse_messages("What?", ["a.png"]), [plan])
    assert ids.count(processor.image_token_id) == 9 * 64
    row = Tokenizer(folder / "tokenizer.json").encode("<row_1_col_1>")
    assert len(row) > 5
    assert ids[3 + 1 : 3 + 1 + len(row)] == row  # after <|im_start|>, User, :, and the token around images


def test_another_prompt_format_is_refused(smolvlm_256m: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(smolvlm_256m, tmp_path / "other")
    drop_added_tokens(folder / "tokenizer.json", "<end_of_utterance>")
    with pytest.raises(UnsupportedError, match=r"no <end_of_utterance> of SmolVLM; no <\|start_of_role"):
        Processor(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "preprocessor_config.json", "processor_config.json"])
def test_a_missing_file_is_named(smolvlm_256m: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(smolvlm_256m, tmp_path / "other")
    (folder / name).unlink()
    with pytest.raises(FormatError, match=name):
        Processor(folder)


def test_a_prompt_that_does_not_fit_its_plans_is_an_error(smolvlm_processor: Processor) -> None:
    plan = plan_tiles(size(640, 480), SMALL, split=True)
    with pytest.raises(InputError, match="0 image tokens, the images need 832"):
        smolvlm_processor.encode(parse_messages("What?", []), [plan])
