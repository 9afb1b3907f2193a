"""Values of config.json reach the arithmetic: a tiny model with loud epsilons, exported and compared like the
plain one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pocketvlm.export.gguf_export import export_gguf

from . import tolerance
from .golden_files import open_engine, read_golden

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
    positions = len(prompt.token_ids) + 1
    relative = tolerance.relative_tolerances(golden.facts["sizes"], positions)
    engine = open_engine(edited_f32, isa)

    features = prompt.features(engine)
    kept = golden.arrays[f"{GENERATION}/vision.connector/rows"]
    expected = golden.arrays[f"{GENERATION}/vision.connector"]
    assert tolerance.excess(features[kept], expected, relative["vision.connector"]) <= 1

    logits = engine.prefill(engine.new_cache(), prompt.token_ids, features, prompt.image_token_id)
    assert tolerance.excess(logits[None], golden.arrays[f"{GENERATION}/logits"], relative["logits"]) <= 1
