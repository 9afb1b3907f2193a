"""tokenizer.json as GGUF metadata: kinds of tokens, holes, tokens without an embedding, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from pocketvlm.config import ModelConfig
from pocketvlm.errors import FormatError, UnsupportedError
from pocketvlm.export.vocabulary import vocabulary_metadata

Change = Callable[[dict[str, Any]], object]


def metadata_of(folder: Path) -> dict[str, Any]:
    metadata = vocabulary_metadata(folder, ModelConfig.from_folder(folder))
    return {key: value.data for key, value in metadata.items()}


def edit(path: Path, change: Change) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def test_tokens_are_those_of_tokenizer_json(checkpoint: Path) -> None:
    metadata = metadata_of(checkpoint)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    assert metadata["tokenizer.ggml.tokens"] == [tokenizer.id_to_token(i) for i in range(1000)]
    assert metadata["tokenizer.ggml.token_type"] == [3] * 3 + [1] * 957 + [3] * 40
    assert metadata["tokenizer.ggml.merges"][0] == "Ġ t"
    assert metadata["tokenizer.ggml.pre"] == "smollm"
    assert metadata["tokenizer.chat_template"].startswith("<|im_start|>{% for message in messages %}")
    assert [metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "unknown", "padding")] == [
        1,
        999,
        0,
        2,
    ]


def test_user_defined_missing_and_superfluous_tokens(own_checkpoint: Path) -> None:
    def change(tokenizer: dict[str, Any]) -> None:
        added = tokenizer["added_tokens"]
        added[:] = [token for token in added if token["content"] != "<row_6_col_6>"]
        next(token for token in added if token["content"] == "<global-img>")["special"] = False
        added.append({**added[0], "id": 1000, "content": "<no-embedding>"})

    edit(own_checkpoint / "tokenizer.json", change)
    metadata = metadata_of(own_checkpoint)
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == 1000
    assert (tokens[960], types[960]) == ("<global-img>", 4)
    assert (tokens[996], types[996]) == ("[PAD996]", 5)


def test_merges_as_strings(own_checkpoint: Path) -> None:
    expected = metadata_of(own_checkpoint)["tokenizer.ggml.merges"]

    def change(tokenizer: dict[str, Any]) -> None:
        tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]

    edit(own_checkpoint / "tokenizer.json", change)
    assert metadata_of(own_checkpoint)["tokenizer.ggml.merges"] == expected


def test_pre_tokenizers_have_the_names_of_what_they_do(own_checkpoint: Path) -> None:
    path = own_checkpoint / "tokenizer.json"
    edit(path, lambda t: t["pre_tokenizer"]["pretokenizers"][0].update(individual_digits=False))
    assert "tokenizer.ggml.pre" not in metadata_of(own_checkpoint)
    edit(path, lambda t: t["pre_tokenizer"]["pretokenizers"].pop(0))
    assert metadata_of(own_checkpoint)["tokenizer.ggml.pre"] == "granite-docling"
    edit(path, lambda t: t["pre_tokenizer"]["pretokenizers"][0].update(use_regex=False))
    assert "tokenizer.ggml.pre" not in metadata_of(own_checkpoint)


def test_a_jinja_template_comes_first(own_checkpoint: Path) -> None:
    (own_checkpoint / "chat_template.jinja").write_text("{{ x }}")
    assert metadata_of(own_checkpoint)["tokenizer.chat_template"] == "{{ x }}"


def test_special_tokens_may_be_objects(own_checkpoint: Path) -> None:
    (own_checkpoint / "tokenizer_config.json").unlink()
    metadata = metadata_of(own_checkpoint)
    assert metadata["tokenizer.ggml.eos_token_id"] == 2
    assert metadata["tokenizer.ggml.bos_token_id"] == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t["model"].update(type="Unigram"), UnsupportedError, "Unigram after ByteLevel, Digits"),
        (lambda t: t.update(pre_tokenizer={"type": "Metaspace"}), UnsupportedError, "BPE after Metaspace"),
        (lambda t: t.update(pre_tokenizer=None), UnsupportedError, "BPE after nothing"),
        (lambda t: t["added_tokens"].pop(-2), FormatError, r"<image> has ids \[\], config.json says 998"),
        (lambda t: t["added_tokens"][-2].update(id=997), FormatError, r"<image> has ids \[997\]"),
        (lambda t: t["model"]["vocab"].update(x=1000), FormatError, "token 'x' has id 1000"),
        (lambda t: t["added_tokens"][0].update(id=-1), FormatError, r"'<\|endoftext\|>' has id -1"),
        (lambda t: t["added_tokens"][0].update(content=3), FormatError, "added token 3 has id 0"),
        (lambda t: t.pop("model"), FormatError, "KeyError"),
        (lambda t: t.update(added_tokens=3), FormatError, "TypeError"),
    ],
)
def test_refusals(own_checkpoint: Path, change: Change, error: type[Exception], message: str) -> None:
    edit(own_checkpoint / "tokenizer.json", change)
    with pytest.raises(error, match=message) as caught:
        metadata_of(own_checkpoint)
    assert str(own_checkpoint / "tokenizer.json") in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "[]", "{"])
def test_missing_and_damaged_file(own_checkpoint: Path, content: str | None) -> None:
    path = own_checkpoint / "tokenizer.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(FormatError, match=r"tokenizer\.json"):
        metadata_of(own_checkpoint)
