"""The folders of synthetic models that are no SmolVLM of the first version: SmolVLM2, models for documents.

Full sizes carry what is known of the real ones, and each has a small twin with the same quirks.
"""

from __future__ import annotations

import json
from typing import Any

from ..gguf_tokenizer import BYTE_LEVEL
from .granite_tokenizer import DATA as GRANITE
from .granite_tokenizer import granite_tokenizer
from .model_parts import (
    DATA,
    added_ids,
    added_token,
    as_json,
    complete_files,
    files_256m,
    num_tokens,
    real_json,
    tiny_tokenizer,
)

# The tags that the documents models answer with, special tokens all of them, as far as small twins need them.
_TAGS = ("<doctag>", "</doctag>", "<text>", "</text>", "<otsl>", "</otsl>")

_CLASSES = {
    "preprocessor_config.json": {
        "image_processor_type": "SmolVLMImageProcessor",
        "processor_class": "SmolVLMProcessor",
    },
    "processor_config.json": {"processor_class": "SmolVLMProcessor"},
    "tokenizer_config.json": {"processor_class": "SmolVLMProcessor"},
}

# The text models' and the towers' sizes of 2.2B.
_TEXT_2_2B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "rope_theta": 130000.0,
}
_VISION_2_2B = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}


def with_smolvlm2_classes(files: dict[str, bytes]) -> dict[str, bytes]:
    """Returns the files with SmolVLM2's classes in the processor's."""
    return files | {name: as_json(json.loads(files[name]) | classes) for name, classes in _CLASSES.items()}


def files_smolvlm2_256m() -> dict[str, bytes]:
    """SmolVLM2-256M-Video: the sizes of 256M in the configuration of SmolVLM2."""
    text = {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    }
    return with_smolvlm2_classes(files_256m() | {"config.json": as_json(_smolvlm2_config(text=text))})


def files_smolvlm2_500m() -> dict[str, bytes]:
    """SmolVLM2-500M-Video: the real config.json, without the tower's layers, ffn and epsilon."""
    return with_smolvlm2_classes(files_256m() | {"config.json": _real_smolvlm2()})


def files_smolvlm2_2_2b() -> dict[str, bytes]:
    """SmolVLM2-2.2B: sizes of 2.2B, and the tokenizer of the others, with markers for rows and columns."""
    config = _smolvlm2_config(scale_factor=3, text=_TEXT_2_2B, vision=_VISION_2_2B)
    return with_smolvlm2_classes(complete_files(config, real_json("tokenizer.json"), longest_edge=4 * 384))


def files_tiny_smolvlm2() -> dict[str, bytes]:
    """A small SmolVLM2-500M: a config.json with the keys of that one, so layers and ffn are the class's."""
    tokenizer = tiny_tokenizer()
    config = _smolvlm2_config(
        image_token_id=added_ids(tokenizer)["<image>"],
        text={
            "hidden_size": 192,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "vocab_size": num_tokens(tokenizer),
            "max_position_embeddings": 2048,
        },
        vision={"hidden_size": 64, "num_attention_heads": 2, "image_size": 64, "patch_size": 8},
    )
    return with_smolvlm2_classes(complete_files(config, tokenizer, longest_edge=4 * 64))


def files_tiny_smolvlm2_2_2b() -> dict[str, bytes]:
    """A small SmolVLM2-2.2B: the tower of tiny-2.2b, another rope_theta, markers for rows and columns."""
    tokenizer = tiny_tokenizer()
    config = _smolvlm2_config(
        image_token_id=added_ids(tokenizer)["<image>"],
        scale_factor=3,
        text={
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_theta": 130000.0,
            "vocab_size": num_tokens(tokenizer),
            "max_position_embeddings": 4096,
        },
        vision={
            "hidden_size": 288,
            "intermediate_size": 112,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "image_size": 90,
            "patch_size": 14,
        },
    )
    return with_smolvlm2_classes(complete_files(config, tokenizer, longest_edge=4 * 90))


def files_smoldocling() -> dict[str, bytes]:
    """SmolDocling-256M: 256M with tags in place of reserved tokens."""
    tokenizer = _renamed(real_json("tokenizer.json"), "<|reserved_special_token_")
    return complete_files(real_json("config.json"), tokenizer, longest_edge=2048)


def files_tiny_smoldocling() -> dict[str, bytes]:
    """A small SmolDocling: markers of rows that no image has give their ids to tags."""
    tokenizer = _renamed(tiny_tokenizer(), "<row_6_")
    config = real_json("config.json")
    config["image_token_id"] = added_ids(tokenizer)["<image>"]
    config["scale_factor"] = 2
    config["text_config"] |= {
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": num_tokens(tokenizer),
        "max_position_embeddings": 2048,
    }
    config["vision_config"] |= _VISION_TINY
    return complete_files(config, tokenizer, longest_edge=4 * 64)


_VISION_TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 8,
}


def files_granite_docling() -> dict[str, bytes]:
    """granite-docling-258M: the real files, and its tokenizer as one."""
    names = [path.name for path in sorted(GRANITE.iterdir()) if path.name != "merges.txt"]
    files = {name: (GRANITE / name).read_bytes() for name in names}
    return files | {"tokenizer.json": as_json(granite_tokenizer())}


def files_tiny_granite_docling() -> dict[str, bytes]:
    """A small granite-docling: its format, its markers, its tied head, one marker more than rows."""
    tokenizer = _tiny_granite_tokenizer()
    extra = max(added_ids(tokenizer).values())
    config = json.loads((GRANITE / "config.json").read_bytes())
    special = {name: added_ids(tokenizer)[token] for name, token in _GRANITE_IDS.items()}
    config |= special | {
        "image_token_id": added_ids(tokenizer)["<image>"],
        "scale_factor": 2,
        "vocab_size": extra,
    }
    config["text_config"] |= special | {
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": extra,
        "max_position_embeddings": 2048,
    }
    config["vision_config"] |= _VISION_TINY | {
        "max_image_size": {"longest_edge": 64},
        "size": {"longest_edge": 64},
    }
    preprocessor = {"max_image_size": {"longest_edge": 64}, "size": {"longest_edge": 256}}
    tokenizer_config = json.loads((GRANITE / "tokenizer_config.json").read_bytes())
    tokenizer_config["added_tokens_decoder"] = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in tokenizer["added_tokens"][:-1]
    }
    changed = {
        "config.json": config,
        "generation_config.json": json.loads((GRANITE / "generation_config.json").read_bytes()) | special,
        "preprocessor_config.json": json.loads((GRANITE / "preprocessor_config.json").read_bytes())
        | preprocessor,
        "processor_config.json": json.loads((GRANITE / "processor_config.json").read_bytes())
        | {"image_seq_len": 16},
        "tokenizer_config.json": tokenizer_config,
        "tokenizer.json": tokenizer,
        "added_tokens.json": {"<end_of_utterance>": extra},
    }
    names = ("NOTICE", "chat_template.jinja", "special_tokens_map.json")
    unchanged = {name: (GRANITE / name).read_bytes() for name in names}
    return unchanged | {name: as_json(content) for name, content in changed.items()}


_GRANITE_IDS = {
    "bos_token_id": "<|start_of_role|>",
    "eos_token_id": "<|end_of_text|>",
    "pad_token_id": "<|end_of_text|>",
}


def _tiny_granite_tokenizer() -> dict[str, Any]:
    """The small tokenizer's vocabulary with the special tokens of granite-docling behind it."""
    tokenizer: dict[str, Any] = tiny_tokenizer()
    special = {token["content"] for token in tokenizer["added_tokens"]}
    tokens = [token for token in tokenizer["model"]["vocab"] if token not in special]
    contents = list(
        json.loads((GRANITE / "tokenizer_config.json").read_bytes())["added_tokens_decoder"].values()
    )
    names = [*(token["content"] for token in contents), "<end_of_utterance>"]
    added = [added_token(len(tokens) + i, name) for i, name in enumerate(names)]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    vocabulary |= {token["content"]: token["id"] for token in added[:-1]}
    model = tokenizer["model"] | {"vocab": vocabulary}
    return tokenizer | {"added_tokens": added, "pre_tokenizer": BYTE_LEVEL, "model": model}


def _renamed(tokenizer: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The tokenizer with tags for names of its first added tokens that begin so."""
    tags = iter(_TAGS)
    added = [
        token | {"content": next(tags, token["content"])} if token["content"].startswith(prefix) else token
        for token in tokenizer["added_tokens"]
    ]
    return tokenizer | {"added_tokens": added}


def _smolvlm2_config(
    *, text: dict[str, Any], vision: dict[str, Any] | None = None, **top: int
) -> dict[str, Any]:
    """The config.json of SmolVLM2-500M with other values."""
    config: dict[str, Any] = json.loads(_real_smolvlm2())
    config |= {**top, "vocab_size": text.get("vocab_size", config["vocab_size"])}
    config["text_config"] |= text | {"pixel_shuffle_factor": config["scale_factor"]}
    config["vision_config"] |= vision or {}
    image_size = config["vision_config"]["image_size"]
    config["vision_config"] |= {
        "max_image_size": {"longest_edge": image_size},
        "size": {"longest_edge": 4 * image_size},
    }
    return config


def _real_smolvlm2() -> bytes:
    return (DATA / "smolvlm2-500m-video-instruct" / "config.json").read_bytes()
