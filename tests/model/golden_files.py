"""Goldens as the tests use them: read, tied to their checkpoint, their images drawn and their prompts made
ready."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketvlm import _core
from pocketvlm import tiles as image_tiles
from pocketvlm.config import ProcessorConfig
from pocketvlm.processor import ImageSize, plan_tiles

from ..golden.images import formula_image, sha256_of_array
from ..patches import patches_bf16

GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True)
class Prompt:
    """The input of a generation."""

    token_ids: npt.NDArray[np.int32]  # [positions]
    tiles: npt.NDArray[np.uint8]  # [tiles, 3, S, S]
    image_token_id: int

    def patches(self, engine: _core.Model) -> npt.NDArray[np.uint16]:
        """The tiles as `engine` takes them."""
        return patches_bf16(self.tiles, engine.patch_size)

    def features(self, engine: _core.Model) -> npt.NDArray[np.float32]:
        """The engine's own features of the tiles: float32 [image tokens, hidden_size]."""
        return engine.encode_images(self.patches(engine)).reshape(-1, engine.hidden_size)


@dataclass(frozen=True)
class Golden:
    """A golden: its JSON, and its arrays if it has some."""

    facts: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]

    def check_source(self, checkpoint: Path) -> None:
        """Asserts that the checkpoint is the one that the golden was made from, to the byte."""
        for name, expected in self.facts["sha256"].items():
            found = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
            assert found == expected, (
                f"{name} is not what the golden was made from; see tests/golden/README.md"
            )

    def prompt(self, generation: str, checkpoint: Path) -> Prompt:
        """Makes the prompt of a generation. Asserts that checkpoint and tiles are the reference's."""
        self.check_source(checkpoint)
        facts = self.facts["generations"][generation]
        config = ProcessorConfig.from_folder(checkpoint)
        tiles = draw_tiles(facts["images"], config, split=facts["do_image_splitting"])
        assert len(tiles) == facts["tiles"]
        if len(tiles):
            assert sha256_of_tiles(tiles) == facts["tiles_sha256"]
        image_token_id = json.loads((checkpoint / "config.json").read_text())["image_token_id"]
        return Prompt(np.array(facts["prompt_ids"], np.int32), tiles, image_token_id)


@functools.cache
def read_golden(name: str) -> Golden:
    """Reads tests/golden/{name}.json, and {name}.npz if there is one."""
    arrays = {}
    if (GOLDEN / f"{name}.npz").exists():
        with np.load(GOLDEN / f"{name}.npz") as file:
            arrays = dict(file)
    return Golden(json.loads((GOLDEN / f"{name}.json").read_text()), arrays)


def draw_tiles(
    images: list[dict[str, int]], config: ProcessorConfig, *, split: bool
) -> npt.NDArray[np.uint8]:
    """Draws the formula images {height, width, seed} and preprocesses them: uint8 [tiles of all, 3, S, S]."""
    pictures = [formula_image(image["height"], image["width"], image["seed"]) for image in images]
    return cut_tiles(pictures, config, split=split)


def cut_tiles(
    pictures: Sequence[npt.NDArray[np.uint8]], config: ProcessorConfig, *, split: bool
) -> npt.NDArray[np.uint8]:
    """Preprocesses pictures, uint8 [H, W, 3] each: uint8 [tiles of all, 3, S, S]."""
    plans = [plan_tiles(ImageSize(*picture.shape[:2]), config, split=split) for picture in pictures]
    return image_tiles.cut_tiles(pictures, plans, config, pool=_core.ThreadPool(2))


def sha256_of_tiles(tiles: npt.NDArray[np.uint8]) -> str:
    """The hash of tiles [T, 3, S, S] as goldens have it: with channels last."""
    return sha256_of_array(np.ascontiguousarray(tiles.transpose(0, 2, 3, 1)))


def pair_of(folder: Path) -> tuple[Path, Path]:
    """The text file and the projector file of an export."""
    (projector,) = folder.glob("mmproj-*.gguf")
    (text,) = set(folder.glob("*.gguf")) - {projector}
    return text, projector


def load_engine(folder: Path, isa: str, threads: int = 2) -> _core.Model:
    """Loads an exported folder into the core."""
    text, projector = pair_of(folder)
    return _core.Model(str(text), str(projector), pool=_core.ThreadPool(threads), isa=isa)


@functools.cache
def open_engine(folder: Path, isa: str, threads: int = 2) -> _core.Model:
    """As load_engine, but once per session: for small models, which many tests share."""
    return load_engine(folder, isa, threads)
