"""A foreign client, transformers.js, makes of our graphs what we make of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import pocketvlm
from pocketvlm import pixel_values
from pocketvlm.export.onnx.export import export_onnx
from pocketvlm.image_modes import read_image_modes
from pocketvlm.messages import parse_messages
from pocketvlm.processor import ImageSize, Processor

from ..conftest import DEMO_CHECKPOINT

HERE = Path(__file__).parent / "transformers_js"
TOKENS = 12
PICTURE = np.random.default_rng(2).integers(0, 256, (60, 100, 3), np.uint8)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with generate.js and the package that it needs."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("missing: Node")
    folder = Path(shutil.copytree(HERE, tmp_path_factory.mktemp("client") / "transformers_js"))
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
    subprocess.run(["npm", "install", *options], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model as ONNX graphs."""
    folder = tmp_path_factory.mktemp("onnx") / "demo"
    export_onnx(DEMO_CHECKPOINT, folder, types=["fp32", "q4"], threads=2)
    return folder


@pytest.mark.parametrize("type", ["fp32", "q4"])
def test_transformers_js_makes_the_same_greedy_tokens(
    client: Path, exported: Path, tmp_path: Path, type: str
) -> None:
    prompt = "Which shapes are there?"
    processor = Processor(exported)
    plan = read_image_modes().plan(ImageSize(*PICTURE.shape[:2]), processor.config)
    pixels = pixel_values.preprocess(PICTURE, processor.config)
    pixels.tofile(tmp_path / "pixels")
    inputs = {
        "input_ids": processor.encode(parse_messages(prompt, [PICTURE]), [plan]),
        "tokens": TOKENS,
        "tiles": len(pixels),
        "size": pixels.shape[-1],
        "pixel_values": str(tmp_path / "pixels"),
    }
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    command = ["node", str(client / "generate.js"), str(exported), type, str(tmp_path / "inputs.json")]
    result = subprocess.run(command, cwd=client, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    ours = pocketvlm.load(exported, backend="onnx", type=type, threads=2).generate(
        prompt, images=[PICTURE], max_new_tokens=TOKENS, ignore_eos=True
    )
    assert json.loads(result.stdout.splitlines()[-1]) == ours.token_ids
