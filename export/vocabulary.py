"""tokenizer.json as GGUF metadata, the keys `tokenizer.*`, for readers that have the GGUF files alone.

pocketvlm itself reads the copy of tokenizer.json beside the model files, where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import ModelConfig, read_json_object
from ..errors import FormatError, UnsupportedError
from ..gguf_tokenizer import CONTROL, NORMAL, PRE_TOKENIZERS, UNUSED, USER_DEFINED
from .gguf_file import Value, ValueType, array, boolean, string, uint32

_SPECIAL_IDS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}


def vocabulary_metadata(folder: Path, config: ModelConfig) -> dict[str, Value]:
    """Reads the tokenizer files of a checkpoint.

    Raises:
        FormatError: A file is missing or damaged, or `<image>` is not the image token of config.json.
        UnsupportedError: The tokenizer is not a byte-level BPE.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        raise FormatError(
            f"{path}: the file is missing; "
            f'transformers.AutoTokenizer.from_pretrained("{folder}").save_pretrained("{folder}") makes it'
        )
    tokenizer = read_json_object(path)
    try:
        return _vocabulary(tokenizer, path, config) | _special_ids(tokenizer, folder) | _chat_template(folder)
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: is not as the tokenizers library saves it: {error!r}") from error


def _vocabulary(tokenizer: Any, path: Path, config: ModelConfig) -> dict[str, Value]:
    model, added = tokenizer["model"], tokenizer["added_tokens"]
    kinds = {str(step["type"]) for step in _steps(tokenizer["pre_tokenizer"])}
    if model["type"] != "BPE" or "ByteLevel" not in kinds:
        raise UnsupportedError(
            f"{path}: {model['type']} after {', '.join(sorted(kinds)) or 'nothing'}; "
            "supported: BPE after ByteLevel"
        )
    image_ids = [token["id"] for token in added if token["content"] == "<image>"]
    if image_ids != [config.image_token_id]:
        raise FormatError(f"{path}: <image> has ids {image_ids}, config.json says {config.image_token_id}")

    vocab_size = config.text.vocab_size
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    token_types = [UNUSED] * vocab_size
    for token, id in model["vocab"].items():
        if not 0 <= id < vocab_size:
            raise FormatError(f"{path}: token {token!r} has id {id}, config.json has {vocab_size} tokens")
        tokens[id], token_types[id] = token, NORMAL
    for token in added:
        id, content = token["id"], token["content"]
        if not isinstance(content, str) or id < 0:
            raise FormatError(f"{path}: added token {content!r} has id {id!r}, expected a text and an id")
        # granite-docling adds a token that its embedding has no row for; it can never be used.
        if id < vocab_size:
            tokens[id], token_types[id] = content, CONTROL if token["special"] else USER_DEFINED

    metadata = {
        "tokenizer.ggml.add_space_prefix": boolean(False),
        "tokenizer.ggml.model": string("gpt2"),
    }
    # Without this key llama.cpp warns and falls back; a wrong one would be believed.
    steps = [_arithmetic(step) for step in _steps(tokenizer["pre_tokenizer"])]
    for name, expected in PRE_TOKENIZERS.items():
        if steps == [_arithmetic(step) for step in expected] and tokenizer["normalizer"] is None:
            metadata["tokenizer.ggml.pre"] = string(name)
            break
    return metadata | {
        "tokenizer.ggml.tokens": array(ValueType.STRING, tokens),
        "tokenizer.ggml.token_type": array(ValueType.INT32, token_types),
        "tokenizer.ggml.merges": array(ValueType.STRING, [_merge(merge) for merge in model["merges"]]),
    }


def _special_ids(tokenizer: Any, folder: Path) -> dict[str, Value]:
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    ids = tokenizer["model"]["vocab"] | added
    names = {
        **_optional_json(folder / "special_tokens_map.json"),
        **_optional_json(folder / "tokenizer_config.json"),
    }
    metadata = {}
    for name, key in _SPECIAL_IDS.items():
        token = names.get(name)
        content = token["content"] if isinstance(token, dict) else token
        if content in ids:
            metadata[key] = uint32(ids[content])
    return metadata


def _chat_template(folder: Path) -> dict[str, Value]:
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        return {"tokenizer.chat_template": string(jinja.read_text(encoding="utf-8"))}
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = _optional_json(folder / name).get("chat_template")
        if isinstance(template, str):
            return {"tokenizer.chat_template": string(template)}
    return {}


def _steps(pre_tokenizer: Any) -> list[Any]:
    if pre_tokenizer is None:
        return []
    return list(pre_tokenizer["pretokenizers"]) if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def _arithmetic(step: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a step without what only changes the offsets of tokens."""
    return {key: value for key, value in step.items() if key != "trim_offsets"}


def _merge(merge: Any) -> str:
    """Returns "left right"; newer files hold pairs, older ones this string."""
    return merge if isinstance(merge, str) else " ".join(merge)


def _optional_json(path: Path) -> Mapping[str, Any]:
    return read_json_object(path) if path.exists() else {}
