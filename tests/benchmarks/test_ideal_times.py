"""Fractions of the roofs, by hand for a machine of round numbers."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from pocketvlm.benchmarks.ideal_times import Work, decode_bytes, num_weights, prefill_gflop, roof_fractions
from pocketvlm.benchmarks.roofs import Roofs
from pocketvlm.benchmarks.subjects import CHECKPOINT_SUBJECTS, own_subject
from pocketvlm.config import ModelConfig
from pocketvlm.image_plan import gflop_per_tile

ROOFS = Roofs(threads=2, read_gb_s=10.0, fp32_gflop_s=100.0, bf16_gflop_s=200.0, int8_gop_s=400.0)


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return ModelConfig.from_folder(Path(str(files("pocketvlm.export"))) / "data" / "smolvlm-256m-instruct")


def test_the_256m_has_the_work_of_the_256m(config: ModelConfig) -> None:
    # 256.48 M parameters; norms and biases, of which there are 0.13 M, are not counted.
    assert num_weights(config) == pytest.approx(256.48e6 - 0.13e6, rel=1e-3)
    # Layers 106.2 M and head 28.4 M at 34/32 bytes, and 23,040 bytes of cache for each token.
    assert decode_bytes(config, 900, 34 / 32) == pytest.approx(134.6e6 * 34 / 32 + 900 * 23_040, rel=1e-3)
    # 30 layers of 106.2 M in all, half of 874 x 874 scores in 9 heads of 64, twice; one row of logits.
    assert prefill_gflop(config, 874) == pytest.approx(
        2 * 874 * 0.1062 + 30 * 2 * 874**2 * 576 / 1e9 + 2 * 0.0284, rel=1e-3
    )


def test_a_subject_at_the_roof_reaches_1(config: ModelConfig) -> None:
    subject = own_subject("native", "q8_0", name="native", vision_compute="int8")
    work = Work(config, images=2, image_bytes=20_000_000, tiles=26, prompt_tokens=1748, new_tokens=65)
    token_s = decode_bytes(config, 874 + 32, 34 / 32) / 10e9
    prefill_s = prefill_gflop(config, 874) / 400
    first_token_s = 0.001 + 13 * gflop_per_tile(config) / 400 + prefill_s
    weight_bytes = num_weights(config) * 34 / 32
    metrics = {
        "load_s": weight_bytes / 10e9,
        "preprocess_s": 0.001,
        "vision_tile_s": gflop_per_tile(config) / 400,
        "prefill_tokens_per_s": 874 / prefill_s,
        "time_to_first_token_s": first_token_s,
        "decode_tokens_per_s": 1 / token_s,
        "end_to_end_s": first_token_s + 64 * token_s,
        "peak_memory_bytes": weight_bytes,
    }
    fractions = roof_fractions(subject, metrics, work, ROOFS)
    assert fractions == {name: pytest.approx(1.0) for name in metrics}

    slow = {name: value / 2 if "per_s" in name else value * 2 for name, value in metrics.items()}
    assert roof_fractions(subject, slow, work, ROOFS) == {name: pytest.approx(0.5) for name in metrics}
    # What multiplies fp32 is measured by another roof, and reads four bytes for a weight.
    fp32 = roof_fractions(CHECKPOINT_SUBJECTS["transformers-fp32"], metrics, work, ROOFS)
    assert fp32["vision_tile_s"] == pytest.approx(4.0)
    assert fp32["load_s"] == pytest.approx(4 / (34 / 32))
