"""The tokenizer that a GGUF file carries, as the content of a tokenizer.json.

llama.cpp's converter names the pre-tokenizer instead of describing it, so only those named here can be had.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import tokenizers

from . import _core
from .errors import FormatError, UnsupportedError
from .tokenizer import BYTE_OF_CHARACTER, Tokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

# tokenizer.ggml.pre -> the steps of the pre-tokenizer. SmolVLM, SmolVLM2 and SmolDocling split digits first;
# granite-docling has GPT-2's alone, which llama.cpp also knows by that name.
PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "smollm": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
    "granite-docling": [BYTE_LEVEL],
    "gpt-2": [BYTE_LEVEL],
}

# llama.cpp's kinds of tokens.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

# Where a file says which tokens end an answer.
_STOP_KEYS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")


def read_tokenizer(file: _core.GgufFile, where: str) -> Tokenizer:
    """Builds the tokenizer of a text file.

    Raises:
        FormatError: A key is missing or of another type, or tokens and merges contradict each other.
        UnsupportedError: It is no byte-level BPE, or its pre-tokenizer is none of `PRE_TOKENIZERS`.
    """
    content = json.dumps(tokenizer_json(file, where))
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # tokenizers raises plain Exception
        raise FormatError(f"{where}: keys tokenizer.ggml: make no tokenizer: {error}") from error
    return Tokenizer(tokenizer)


def read_stop_token_ids(file: _core.GgufFile, where: str) -> list[int]:
    """Returns the tokens that the file says end an answer.

    Raises:
        FormatError: One is no token.
    """
    num_tokens = len(file.require_strings("tokenizer.ggml.tokens"))
    ids = []
    for key in _STOP_KEYS:
        id = file.find_u32(key)
        if id is not None and id >= num_tokens:
            raise FormatError(f"{where}: key {key}: {id}, expected one of {num_tokens} tokens")
        if id is not None:
            ids.append(id)
    return ids


def tokenizer_json(file: _core.GgufFile, where: str) -> dict[str, Any]:
    """Returns what a tokenizer.json of the tokenizer would hold. Errors as `read_tokenizer`."""
    model = file.require_string("tokenizer.ggml.model")
    if model != "gpt2":
        raise UnsupportedError(
            f"{where}: key tokenizer.ggml.model: {model}, expected gpt2, which is byte-level BPE"
        )
    tokens = file.require_strings("tokenizer.ggml.tokens")
    types = _token_types(file, len(tokens), where)
    typed = [(id, token, type) for id, (token, type) in enumerate(zip(tokens, types, strict=True))]
    for id, token, type in typed:
        if type == NORMAL and not BYTE_OF_CHARACTER.keys() >= set(token):
            raise FormatError(f"{where}: key tokenizer.ggml.tokens: {token!r} ({id}) is no byte-level token")
    return {
        "version": "1.0",
        "added_tokens": [
            _added_token(id, token, special=type == CONTROL)
            for id, token, type in typed
            if type in (CONTROL, USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _pre_tokenizer(file, where)},
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "vocab": {token: id for id, token, type in typed if type != UNUSED},
            "merges": _merges(file.require_strings("tokenizer.ggml.merges"), where),
        },
    }


def _token_types(file: _core.GgufFile, num_tokens: int, where: str) -> list[int]:
    key = "tokenizer.ggml.token_type"
    types = file.find(key)
    if types is None:
        raise FormatError(f"{where}: key {key}: missing")
    if not isinstance(types, list) or len(types) != num_tokens:
        found = f"{len(types)} values" if isinstance(types, list) else "a single value"
        raise FormatError(f"{where}: key {key}: {found}, expected {num_tokens}, one for each token")
    if unknown := set(types) - {NORMAL, CONTROL, USER_DEFINED, UNUSED}:
        raise UnsupportedError(f"{where}: key {key}: type {min(unknown)}, expected 1, 3, 4 or 5")
    return types


def _pre_tokenizer(file: _core.GgufFile, where: str) -> list[dict[str, Any]]:
    key = "tokenizer.ggml.pre"
    name = "missing" if file.find(key) is None else file.require_string(key)
    if name not in PRE_TOKENIZERS:
        raise UnsupportedError(f"{where}: key {key}: {name}, expected one of {', '.join(PRE_TOKENIZERS)}")
    return PRE_TOKENIZERS[name]


def _merges(merges: Sequence[str], where: str) -> list[list[str]]:
    pairs = [merge.split(" ") for merge in merges]
    for merge, pair in zip(merges, pairs, strict=True):
        if len(pair) != 2:
            raise FormatError(f"{where}: key tokenizer.ggml.merges: {merge!r}, expected two tokens")
    return pairs


def _added_token(id: int, content: str, *, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": content, **flags, "special": special}
