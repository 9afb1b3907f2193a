"""The tiny tokenizer: its recipe gives the stored file, and it behaves as the real one where that matters."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer

from pocketvlm.export import tiny_tokenizer

DATA = tiny_tokenizer.DATA


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DATA / "tokenizer.json"))


def test_the_recipe_gives_the_stored_file() -> None:
    assert json.loads(tiny_tokenizer.train().to_str()) == json.loads((DATA / "tokenizer.json").read_text())


def test_steps_are_those_of_the_real_one() -> None:
    real = json.loads((DATA.parent / "smolvlm-256m-instruct" / "tokenizer.json").read_text())
    tiny = json.loads((DATA / "tokenizer.json").read_text())
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        assert tiny[part] == real[part], part
    assert {k: v for k, v in tiny["model"].items() if k not in ("vocab", "merges")} == {
        k: v for k, v in real["model"].items() if k not in ("vocab", "merges")
    }
    names = {token["content"] for token in tiny["added_tokens"]}
    assert names <= {token["content"] for token in real["added_tokens"]}
    assert len(names) == 43


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("\n\n<fake_token_around_image><global-img>", ["ĊĊ", "<fake_token_around_image>", "<global-img>"]),
        ("2024", ["2", "0", "2", "4"]),
        ("<row_6_col_6><image>", ["<row_6_col_6>", "<image>"]),
        ("<|im_start|>", ["<|im_start|>"]),
    ],
)
def test_what_prompts_rely_on(tokenizer: Tokenizer, text: str, tokens: list[str]) -> None:
    assert tokenizer.encode(text).tokens == tokens


@pytest.mark.parametrize(
    "text", ["What is in the picture?", "caf\u00e9 \u732b \U0001f408", "\x00\x7f  \r\n\t"]
)
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
