"""The demo model as it is shipped: made from the checkpoint beside it, small, and of the architecture whose
kernels the real models use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketvlm import _core
from pocketvlm.chat_template import END_OF_UTTERANCE, SMOLVLM
from pocketvlm.config import ModelConfig, ProcessorConfig
from pocketvlm.demo_model import MODEL_FOLDER
from pocketvlm.gguf_files import find_model_files
from pocketvlm.tokenizer import Tokenizer

from ..conftest import DEMO_CHECKPOINT, export

MOST_BYTES = 9_000_000  # of the two GGUF files
MOST_PARAMETERS = 8_000_000


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return ModelConfig.from_folder(DEMO_CHECKPOINT)


def test_it_is_what_export_makes_of_the_checkpoint(tmp_path: Path) -> None:
    export("gguf", DEMO_CHECKPOINT, tmp_path / "model", "--type", "q8_0", "--name", "pocketvlm-demo")
    made, shipped = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (tmp_path / "model", MODEL_FOLDER)
    )
    assert sorted(made) == sorted(shipped)
    differing = [name for name in made if made[name] != shipped[name]]
    assert differing == [], "pocketvlm export gguf checkpoint model --type q8_0 --name pocketvlm-demo --force"


def test_it_is_small() -> None:
    files = find_model_files(MODEL_FOLDER)
    assert files.text.stat().st_size + files.projector.stat().st_size <= MOST_BYTES
    model = _core.Model(str(files.text), str(files.projector), pool=_core.ThreadPool(1))
    assert model.num_parameters <= MOST_PARAMETERS


def test_it_takes_the_kernels_that_the_real_models_take(config: ModelConfig) -> None:
    assert config.model_type == "idefics3"
    text, vision = config.text, config.vision
    assert text.head_dim == vision.hidden_size // vision.num_attention_heads == 64
    assert text.num_key_value_heads < text.num_attention_heads
    rows = (text.hidden_size, text.intermediate_size, vision.hidden_size, vision.intermediate_size)
    assert [size % 32 for size in rows] == [0, 0, 0, 0], "blocks of q8_0, no rows of f16"


def test_pictures_are_split(config: ModelConfig) -> None:
    processor = ProcessorConfig.from_folder(MODEL_FOLDER)
    assert processor.do_image_splitting
    assert processor.longest_edge > processor.tile_size == config.vision.image_size


def test_all_special_tokens_are_there(config: ModelConfig) -> None:
    """Those of SmolVLM, each of them one token."""
    tokenizer = Tokenizer(MODEL_FOLDER / "tokenizer.json")
    for marker in SMOLVLM.all_markers():
        token_id = tokenizer.token_to_id(marker)
        assert token_id is not None, marker
        assert tokenizer.encode(marker, parse_special=True) == [token_id]
    assert tokenizer.token_to_id("<image>") == config.image_token_id
    stops = json.loads((MODEL_FOLDER / "generation_config.json").read_text())["eos_token_id"]
    assert stops == tokenizer.token_to_id(END_OF_UTTERANCE)
