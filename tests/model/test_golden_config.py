"""Values of config.json reach the arithmetic: a tiny model with loud epsilons, exported and compared like the
plain one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pocketvlm.export.gguf_export import export_gguf

from .golden_files import open_engine, read_golden
from .stages import excess_of

GENERATION = "loud eps"


@pytest.fixture(scope="module")
def edited_f32(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with the golden's edits of config.json, exported at f32."""
    folder = tmp_path_factory.mktemp("edited")
    shutil.copytree(tiny_checkpoint, folder / "checkpoint")
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    for section, values in read_golden("tiny-f32").facts["generations"][GENERATION]["config_edit"].items():
        config[section] |= values
    (folder / "checkpoint" / "config.json").write_text(json.dumps(config))
    export_gguf(folder / "checkpoint", folder / "model", type="f32")
    return folder / "model"


def test_epsilons(isa: str, tiny_checkpoint: Path, edited_f32: Path) -> None:
    golden = read_golden("tiny-f32")
    prompt = golden.prompt(GENERATION, tiny_checkpoint)
    engine = open_engine(edited_f32, isa)
    features = prompt.features(engine)
    assert excess_of(golden, GENERATION, "vision.connector", features) <= 1
    logits = engine.prefill(engine.new_cache(), prompt.token_ids, features, prompt.image_token_id)
    assert excess_of(golden, GENERATION, "logits", logits[None]) <= 1
