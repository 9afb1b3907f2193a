"""Every variant at its true size: made, exported at q8_0 and run once, within the promised memory.

That the arithmetic of their shapes is right is for their tiny twins to show; here it is that nothing in
these sizes overflows, overfills or is left out. Time and memory of each are printed. A 2.2B takes 7 GB of
disk for a while, and three minutes.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from pocketvlm import _core

from ..conftest import export
from ..golden.images import formula_image
from .golden_files import pair_of

NEW_TOKENS = 4


@dataclass(frozen=True)
class FullSize:
    """What a size must come to."""

    image_tokens: int  # of one tile
    num_parameters: int
    f16_tensors: int  # vision ffn_down of every layer, where its rows are no whole blocks
    peak_bytes: int


SIZES = {
    "256m": FullSize(64, 256_484_928, 0, 500_000_000),
    "500m": FullSize(64, 507_482_304, 0, 1_000_000_000),
    "2.2b": FullSize(81, 2_246_272_880, 27, 3_200_000_000),
    "smolvlm2-256m": FullSize(64, 256_484_928, 0, 500_000_000),
    "smolvlm2-500m": FullSize(64, 507_482_304, 0, 1_000_000_000),
    "smolvlm2-2.2b": FullSize(81, 2_246_784_880, 27, 3_200_000_000),
    "smoldocling": FullSize(64, 256_484_928, 0, 500_000_000),
    "granite-docling": FullSize(64, 257_517_120, 0, 500_000_000),
}


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    """Each size in turn."""
    return str(request.param)


@pytest.fixture
def exported(size: str, tmp_path: Path) -> Iterator[Path]:
    """The size at q8_0; the folders are large, so none is left."""
    try:
        export("synthetic", size, tmp_path / "checkpoint")
        export("gguf", tmp_path / "checkpoint", tmp_path / "q8_0", "--type", "q8_0")
        shutil.rmtree(tmp_path / "checkpoint")
        yield tmp_path / "q8_0"
    finally:
        shutil.rmtree(tmp_path)


@pytest.mark.full
def test_describe(size: str, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = SIZES[size]
    Image.fromarray(formula_image(96, 128, 0)).save(tmp_path / "image.png")
    command = [
        sys.executable,
        "-P",
        "-m",
        "pocketvlm",
        "describe",
        str(tmp_path / "image.png"),
        "-m",
        str(exported),
    ]
    options = ["--no-split", "--max-new-tokens", str(NEW_TOKENS), "--ignore-eos", "--json"]
    finished = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
    # Logits that are not finite end it with an error.
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert (result["tiles"], result["image_tokens"]) == (1, expected.image_tokens)
    assert len(result["token_ids"]) == NEW_TOKENS

    timings, peak_bytes = result["timings"], result["memory"]["peak_bytes"]
    with capsys.disabled():
        print(
            f"\n{size}: load {timings['load_s']:.2f} s, vision {timings['vision_s']:.2f} s a tile, "
            f"prefill {timings['prefill_s']:.2f} s, {timings['decode_tokens_per_s']:.1f} tokens/s, "
            f"peak {peak_bytes / 1e6:,.0f} MB"
        )

    text, projector = (_core.GgufFile(str(path)).tensors for path in pair_of(exported))
    tensors = [*text.values(), *projector.values()]  # (type, ne, nbytes)
    assert sum(math.prod(ne) for _, ne, _ in tensors) == expected.num_parameters
    assert [type for type, _, _ in tensors].count("f16") == expected.f16_tensors
    # All but the embedding, which stays in the file, is resident: less means a wrong figure.
    packed = sum(nbytes for _, _, nbytes in tensors) - text["token_embd.weight"][2]
    assert packed < peak_bytes < expected.peak_bytes
