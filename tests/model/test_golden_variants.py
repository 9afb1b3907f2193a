"""Every variant's small twin, as a GGUF pair that stands alone: transformers' greedy tokens at f32.

Stages are compared for the twins of the first SmolVLM, in test_golden_stages.py.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pocketvlm
from pocketvlm.config import ModelConfig
from pocketvlm.processor import Processor

from ..golden.cases import TINY_MODELS, VARIANTS
from ..golden.images import formula_image
from .golden_files import pair_of
from .tiny_models import TinyModel

GENERATIONS = [
    *((name, generation) for name, cases in VARIANTS.items() for generation in cases),
    *((name, "split") for name in TINY_MODELS),
]


@pytest.fixture(scope="module")
def load_bare(
    make_tiny_model: Callable[[str], TinyModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], pocketvlm.Model]:
    """Loads the f32 pair of a twin from a folder that holds nothing else."""

    @functools.cache
    def pair(name: str) -> Path:
        folder: Path = tmp_path_factory.mktemp(name)
        for path in pair_of(make_tiny_model(name).f32):
            shutil.copy(path, folder)
        return folder

    @functools.cache
    def load(name: str, isa: str) -> pocketvlm.Model:
        return pocketvlm.load(pair(name), isa=isa, threads=2)

    return load


@pytest.mark.parametrize(("name", "generation"), GENERATIONS)
def test_greedy_tokens(
    make_tiny_model: Callable[[str], TinyModel],
    load_bare: Callable[[str, str], pocketvlm.Model],
    isa: str,
    name: str,
    generation: str,
) -> None:
    tiny = make_tiny_model(name)
    tiny.golden.check_source(tiny.checkpoint)
    facts = tiny.golden.facts["generations"][generation]
    pictures = [formula_image(image["height"], image["width"], image["seed"]) for image in facts["images"]]
    result = load_bare(name, isa).generate(
        facts["messages"],
        images=pictures,
        split_images=facts["do_image_splitting"],
        max_new_tokens=len(facts["token_ids"]),
        ignore_eos=True,
    )
    assert (result.prompt_tokens, result.tiles) == (len(facts["prompt_ids"]), facts["tiles"])
    assert result.token_ids == facts["token_ids"]


QUIRKS: dict[str, dict[str, Any]] = {
    "tiny-smolvlm2": {"num_hidden_layers": 12, "intermediate_size": 3072, "layer_norm_eps": 1e-6},
    "tiny-smolvlm2-2.2b": {"patch_size": 14, "num_patches_per_side": 6},
}


@pytest.mark.parametrize("name", QUIRKS)
def test_quirks_of_the_towers(make_tiny_model: Callable[[str], TinyModel], name: str) -> None:
    vision = ModelConfig.from_folder(make_tiny_model(name).checkpoint).vision
    assert {key: getattr(vision, key) for key in QUIRKS[name]} == QUIRKS[name]


def test_a_tied_head_is_not_in_the_file(load_bare: Callable[[str, str], pocketvlm.Model]) -> None:
    assert load_bare("tiny-granite-docling", "scalar").config.tie_word_embeddings
    assert not load_bare("tiny-smolvlm2", "scalar").config.tie_word_embeddings


def test_tags_are_text_of_an_answer(make_tiny_model: Callable[[str], TinyModel]) -> None:
    for name in ("tiny-smoldocling", "tiny-granite-docling"):
        processor = Processor(make_tiny_model(name).f32)
        tokenizer = processor.tokenizer
        ids = tokenizer.encode("<doctag><text>cat</text></doctag><image><row_1_col_1>", parse_special=True)
        text = b"".join(map(tokenizer.decode_bytes, ids))
        assert text == b"<doctag><text>cat</text></doctag>"
        assert b"".join(tokenizer.decode_bytes(id) for id in processor.stop_token_ids) == b""


def test_stop_tokens_of_granite_docling(make_tiny_model: Callable[[str], TinyModel]) -> None:
    folder = make_tiny_model("tiny-granite-docling").f32
    config, processor = ModelConfig.from_folder(folder), Processor(folder)
    assert processor.stop_token_ids == [processor.tokenizer.token_to_id("<|end_of_text|>")]
    # It stays out of prompts: the embedding has no row for it.
    extra = processor.tokenizer.token_to_id("<end_of_utterance>")
    assert extra == config.text.vocab_size
    assert extra not in processor.tokenizer.encode("<end_of_utterance>")
