"""The tokenizer of granite-docling-258M: its merges and special tokens as a tokenizer.json.

The vocabulary follows from the merges: the 256 bytes in the order of GPT-2, what each merge makes, then the
special tokens. Nothing comes before the byte-level step, unlike in SmolVLM, which splits digits first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..gguf_tokenizer import BYTE_LEVEL
from ..tokenizer import BYTE_OF_CHARACTER

DATA = Path(__file__).parent / "data" / "granite-docling-258m"


def granite_tokenizer() -> dict[str, Any]:
    """Returns the content of tokenizer.json, with 100,352 tokens and one more that no embedding has."""
    lines = (DATA / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [line.split(" ") for line in lines[1:]]  # the first line is a version
    tokens = [*BYTE_OF_CHARACTER, *("".join(pair) for pair in merges)]
    config = json.loads((DATA / "tokenizer_config.json").read_bytes())
    special = {int(id): token for id, token in config["added_tokens_decoder"].items()}
    extra = json.loads((DATA / "added_tokens.json").read_bytes())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": id, **token} for id, token in sorted(special.items())]
    added += [{"id": id, "content": content, **flags} for content, id in extra.items()]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    vocabulary |= {token["content"]: id for id, token in special.items()}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])),
            "merges": merges,
        },
    }
