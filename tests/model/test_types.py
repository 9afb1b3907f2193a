"""Every type of the text file with every type of the projector, on the tiny model, beside float32.

What the engine makes of rounded weights is tested against an f32 export of the very values that the type has
kept. Then nothing sets the two apart but activations and the cache:

- Beside Q8_0 and Q4_0 weights, activations are blocks of 32 numbers, rounded to multiples of a / 127, a being
  the largest magnitude: errors uniform within half a step, at most sqrt(32) / 127 / sqrt(12) = 1.3 % of the
  block's RMS (as in test_q8_0.py). Beside F16 and BF16 weights they are float32.
- Keys and values are float16 unless the embedding is F32: errors uniform within half a unit of the last
  place, which is at most 2^-11 of the number: 2^-11 / sqrt(3) in the RMS.

What the type costs is tested against the f32 export of the checkpoint: there the weights' own errors come on
top, whose RMS is counted from the weights.

A path from pixel to logit runs through N rounded products, whose errors add in quadrature with unit gain:
per layer values in, output, up, down, and queries and keys, which act through the scores; the connector; the
head; for weights also the embedding.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from pocketvlm import _core
from pocketvlm.config import ModelConfig
from pocketvlm.export.gguf_export import export_gguf
from pocketvlm.export.quantize import TYPES
from pocketvlm.export.tensor_map import EMBED_TOKENS, LM_HEAD, all_tensors

from ..export.tensor_files import Stored, read_tensors, write_tensors
from .golden_files import Golden, Prompt, open_engine, pair_of, read_golden
from .stages import excess_of
from .tolerance import relative_tolerances

GENERATIONS = ["text", "unsplit", "split", "two images"]
STEPS = 16  # decoded, of those that the golden has
BLOCK_TYPES = ("q8_0", "q4_0")

ACTIVATION_ERROR = math.sqrt(32) / 127 / math.sqrt(12)
CACHE_ERROR = 2**-11 / math.sqrt(3)

Logits = npt.NDArray[np.float64]  # [positions, vocab_size]


@dataclass(frozen=True)
class Export:
    """The tiny model at one type."""

    folder: Path
    same_values: Path  # an f32 export of the values that the type has kept
    weight_error: float  # RMS error of a matrix relative to its RMS, in the RMS over all matrices


@pytest.fixture(scope="module")
def exports(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Export]:
    folder = tmp_path_factory.mktemp("types")
    return {type: make_export(tiny_checkpoint, folder / type, type) for type in TYPES}


def make_export(checkpoint: Path, folder: Path, type: str) -> Export:
    """Exports the checkpoint, and, as f32, one that holds what `type` keeps of it."""
    export_gguf(checkpoint, folder / "model", type=type, equalize=False)
    rounded = Path(shutil.copytree(checkpoint, folder / "rounded"))
    tensors, errors = read_tensors(checkpoint / "model.safetensors"), []
    for spec in all_tensors(ModelConfig.from_folder(checkpoint)):
        if spec.always_f32:
            continue
        is_embedding = spec.hf_name in (EMBED_TOKENS, LM_HEAD)
        kept_type = TYPES["q8_0" if type == "q4_0" and is_embedding else type]
        values = tensors[spec.hf_name].as_float32().reshape(spec.shape)
        ggml_type = gguf.GGMLQuantizationType(kept_type.ggml_type)
        kept = gguf.quants.dequantize(kept_type.quantize(values), ggml_type)
        errors.append(float(np.mean((kept - values) ** 2) / np.mean(values**2)))
        tensors[spec.hf_name] = Stored("F32", spec.shape, kept.tobytes())
    write_tensors(rounded / "model.safetensors", tensors)
    export_gguf(rounded, folder / "same values", type="f32")
    return Export(folder / "model", folder / "same values", math.sqrt(np.mean(errors)))


@pytest.fixture(scope="module")
def with_f32_embedding(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("f32-embedding")
    for type in TYPES:
        export_gguf(tiny_checkpoint, folder / type, type=type, embedding_type="f32", equalize=False)
    return {type: folder / type for type in TYPES}


def forced(
    engine: _core.Model, prompt: Prompt, features: npt.NDArray[np.float32], tokens: list[int]
) -> Logits:
    """The logits behind the prompt and behind each of `tokens`, whatever the engine would have chosen."""
    cache = engine.new_cache()
    rows = [engine.prefill(cache, prompt.token_ids, features, prompt.image_token_id)]
    rows += [engine.decode(cache, token_id) for token_id in tokens]
    return np.stack(rows).astype(np.float64)


def greedy(engine: _core.Model, prompt: Prompt, count: int) -> list[int]:
    """The first tokens that the engine chooses."""
    result = engine.generate(
        engine.new_cache(),
        prompt.token_ids,
        prompt.features(engine),
        image_token_id=prompt.image_token_id,
        max_new_tokens=count,
        stop_token_ids=[],
        ignore_eos=True,
        on_token=None,
    )
    return result.token_ids


def relative_error(found: Logits, expected: Logits) -> float:
    """RMS error of the logits, each position relative to its RMS."""
    return float(np.sqrt(np.mean(np.mean((found - expected) ** 2, axis=1) / np.mean(expected**2, axis=1))))


def rounding_bound(golden: Golden, prompt: Prompt, type: str, vision_type: str) -> float:
    """How far activations and cache may move the logits, relative to their RMS."""
    sizes = golden.facts["sizes"]
    vision_layers, text_layers = layers(golden)
    square = relative_tolerances(sizes, len(prompt.token_ids) + STEPS)["logits"] ** 2
    if vision_type in BLOCK_TYPES:
        square += (6 * vision_layers + 1) * ACTIVATION_ERROR**2
    if type in BLOCK_TYPES:
        square += (6 * text_layers + 1) * ACTIVATION_ERROR**2
    if type != "f32":
        square += 2 * text_layers * CACHE_ERROR**2
    return math.sqrt(square)


def weight_bound(golden: Golden, text: Export, projector: Export) -> float:
    """How far the rounding of the weights may move the logits, relative to their RMS."""
    vision_layers, text_layers = layers(golden)
    return math.sqrt(
        (6 * vision_layers + 1) * projector.weight_error**2 + (6 * text_layers + 2) * text.weight_error**2
    )


def layers(golden: Golden) -> tuple[int, int]:
    """Number of layers of the vision tower and of the decoder."""
    sizes = golden.facts["sizes"]
    return sizes["vision_config"]["num_hidden_layers"], sizes["text_config"]["num_hidden_layers"]


@pytest.mark.parametrize("vision_type", TYPES)
@pytest.mark.parametrize("type", TYPES)
def test_every_pair_of_types(
    isa: str, tiny_checkpoint: Path, tiny_f32: Path, exports: dict[str, Export], type: str, vision_type: str
) -> None:
    golden = read_golden("tiny-f32")
    prompt = golden.prompt("unsplit", tiny_checkpoint)
    tokens = golden.facts["generations"]["unsplit"]["token_ids"][:STEPS]
    text, projector = exports[type], exports[vision_type]
    engine = _core.Model(
        str(pair_of(text.folder)[0]), str(pair_of(projector.folder)[1]), pool=_core.ThreadPool(2), isa=isa
    )
    found = forced(engine, prompt, prompt.features(engine), tokens)
    assert np.isfinite(found).all()

    rounding = rounding_bound(golden, prompt, type, vision_type)
    features = prompt.features(open_engine(projector.same_values, isa))
    same_values = forced(open_engine(text.same_values, isa), prompt, features, tokens)
    assert relative_error(found, same_values) <= rounding

    f32 = open_engine(tiny_f32, isa)
    exact = forced(f32, prompt, prompt.features(f32), tokens)
    assert relative_error(found, exact) <= math.hypot(rounding, weight_bound(golden, text, projector))


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("type", ["f16", "bf16"])
def test_greedy_tokens_of_float_types(
    isa: str, tiny_checkpoint: Path, tiny_f32: Path, exports: dict[str, Export], type: str, generation: str
) -> None:
    """The checkpoint is bf16: BF16 keeps it, F16 all of it from 2^-17 on. What is left is the float16 cache,
    and no choice of the 64 is so close (4 standard deviations of a difference) that it could be lost to
    that."""
    golden = read_golden("tiny-f32")
    prompt = golden.prompt(generation, tiny_checkpoint)
    expected = golden.facts["generations"][generation]["token_ids"]
    f32 = open_engine(tiny_f32, isa)
    exact = forced(f32, prompt, prompt.features(f32), expected[:-1])
    assert exact.argmax(axis=1).tolist() == expected
    top2 = np.partition(exact, -2, axis=1)[:, -2:]
    lead = (top2[:, 1] - top2[:, 0]) / np.sqrt(np.mean(exact**2, axis=1))
    assert lead.min() > 4 * math.sqrt(2) * rounding_bound(golden, prompt, type, type)
    assert greedy(open_engine(exports[type].folder, isa), prompt, len(expected)) == expected


@pytest.mark.parametrize("type", ["f16", "bf16"])
def test_with_an_f32_embedding_nothing_is_rounded(
    isa: str, tiny_checkpoint: Path, with_f32_embedding: dict[str, Path], type: str
) -> None:
    """The cache is float32 then: logits within the tolerance of float32, and the tokens, of transformers."""
    golden = read_golden("tiny-f32")
    engine = open_engine(with_f32_embedding[type], isa)
    for generation in GENERATIONS:
        prompt = golden.prompt(generation, tiny_checkpoint)
        expected = golden.facts["generations"][generation]["token_ids"]
        logits = forced(engine, prompt, prompt.features(engine), [])
        assert excess_of(golden, generation, "logits", logits) <= 1
        assert greedy(engine, prompt, len(expected)) == expected


@pytest.mark.parametrize("type", TYPES)
def test_the_embedding_decides_on_the_cache(
    exports: dict[str, Export], with_f32_embedding: dict[str, Path], type: str
) -> None:
    sizes = []
    for folder in (exports[type].folder, with_f32_embedding[type]):
        engine = open_engine(folder, _core.isas()[0])
        cache = engine.new_cache()
        engine.prefill(cache, np.ones(3, np.int32), np.zeros((0, engine.hidden_size), np.float32), -1)
        sizes.append(cache.nbytes)
    assert sizes[0] * (1 if type == "f32" else 2) == sizes[1]
