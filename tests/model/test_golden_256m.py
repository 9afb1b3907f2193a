"""The 256M shape at f32, one tile and a short question: stages and logits within tolerance of transformers.

The checkpoint (0.5 GB) and its export (1 GB) are made for this module and removed after it, or kept in the
folder that POCKETVLM_TEST_CACHE names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pocketvlm import _core
from pocketvlm.export.gguf_export import export_gguf
from pocketvlm.export.synthetic import write_synthetic

from .golden_files import load_engine, read_golden
from .stages import check_stages, excess_of

GENERATION = "unsplit"

# The scalar row takes over a minute for the tile.
ISAS = [pytest.param(isa, marks=[pytest.mark.full] if isa == "scalar" else []) for isa in _core.isas()]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The synthetic 256M checkpoint of the default seed."""
    cache = os.environ.get("POCKETVLM_TEST_CACHE")
    sha256 = read_golden("256m-f32").facts["sha256"]["model.safetensors"]
    root = (Path(cache) if cache else tmp_path_factory.mktemp("256m")) / f"256m-{sha256[:12]}"
    folder = root / "checkpoint"
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        write_synthetic("256m", folder)
    yield folder
    if not cache:
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    """Its export at f32."""
    folder = checkpoint.parent / "f32"
    if not folder.exists():
        export_gguf(checkpoint, folder, type="f32")
    return folder


def test_stages(checkpoint: Path, exported: Path) -> None:
    """On the best ISA row; the others are held to the logits."""
    golden = read_golden("256m-f32")
    prompt = golden.prompt(GENERATION, checkpoint)
    engine = load_engine(exported, _core.isas()[0])
    traced = engine.trace_vision(prompt.patches(engine)[:1])
    check_stages(golden, GENERATION, {f"vision.{stage}": rows for stage, rows in traced.items()})
    traced = engine.trace_text(prompt.token_ids, prompt.features(engine), prompt.image_token_id)
    logits = {"logits": traced.pop("logits")}
    check_stages(golden, GENERATION, {f"text.{stage}": rows for stage, rows in traced.items()} | logits)


@pytest.mark.parametrize("isa", ISAS)
def test_logits(isa: str, checkpoint: Path, exported: Path) -> None:
    golden = read_golden("256m-f32")
    prompt = golden.prompt(GENERATION, checkpoint)
    engine = load_engine(exported, isa)
    logits = engine.prefill(
        engine.new_cache(), prompt.token_ids, prompt.features(engine), prompt.image_token_id
    )
    assert excess_of(golden, GENERATION, "logits", logits[None]) <= 1
    assert int(logits.argmax()) == golden.facts["generations"][GENERATION]["token_ids"][0]
