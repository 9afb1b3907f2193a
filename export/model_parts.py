"""The pieces that folders of synthetic models are put together from: the real files and their adaptation.

Which models there are is listed in `model_files`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
_REAL = DATA / "smolvlm-256m-instruct"


def files_256m() -> dict[str, bytes]:
    """The real SmolVLM-256M-Instruct, byte for byte: file name -> content."""
    return {path.name: path.read_bytes() for path in sorted(_REAL.iterdir())}


def model_config(*, text: dict[str, Any], vision: dict[str, Any] | None = None, **top: int) -> dict[str, Any]:
    """The config.json of 256M with other values; only keys that are there already can change."""
    config: dict[str, Any] = real_json("config.json")
    top_values: dict[str, Any] = dict(top) | {"vocab_size": text.get("vocab_size", config["vocab_size"])}
    for section, values in (
        (config, top_values),
        (config["text_config"], text),
        (config["vision_config"], vision or {}),
    ):
        assert not values.keys() - section.keys()
        section.update(values)
    config["text_config"]["pixel_shuffle_factor"] = config["scale_factor"]
    tile_edge = {"longest_edge": config["vision_config"]["image_size"]}
    config["vision_config"] |= {
        "max_image_size": tile_edge,
        "size": {"longest_edge": 4 * tile_edge["longest_edge"]},
    }
    return config


def complete_files(
    config: dict[str, Any], tokenizer: dict[str, Any], *, longest_edge: int
) -> dict[str, bytes]:
    """Returns all files of a model with a tokenizer of its own: file name -> content."""
    vision = config["vision_config"]
    grid = vision["image_size"] // vision["patch_size"] // config["scale_factor"]
    added = added_ids(tokenizer)
    preprocessor = real_json("preprocessor_config.json") | {
        "max_image_size": {"longest_edge": vision["image_size"]},
        "size": {"longest_edge": longest_edge},
    }
    tokenizer_config = real_json("tokenizer_config.json") | {
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in tokenizer["added_tokens"]
        },
        "model_max_length": config["text_config"]["max_position_embeddings"],
        "vocab_size": config["text_config"]["vocab_size"],
    }
    generation = real_json("generation_config.json") | {"eos_token_id": added["<end_of_utterance>"]}
    first_added = len(tokenizer["model"]["vocab"])
    changed = {
        "config.json": config,
        "preprocessor_config.json": preprocessor,
        "processor_config.json": real_json("processor_config.json") | {"image_seq_len": grid**2},
        "generation_config.json": generation,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": tokenizer_config,
        "added_tokens.json": {content: id for content, id in added.items() if id >= first_added},
    }
    return files_256m() | {name: as_json(content) for name, content in changed.items()}


def tiny_tokenizer() -> Any:
    """The content of the small tokenizer.json."""
    return json.loads((DATA / "tiny" / "tokenizer.json").read_bytes())


def without_tile_markers(tokenizer: Any) -> Any:
    """The tokenizer with only the markers of SmolVLM-Instruct after its vocabulary."""
    first = len(tokenizer["model"]["vocab"])
    markers = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    added = [token for token in tokenizer["added_tokens"] if token["id"] < first]
    added += [added_token(first + i, content) for i, content in enumerate(markers)]
    return tokenizer | {"added_tokens": added}


def added_ids(tokenizer: Any) -> dict[str, int]:
    """Content -> id of the added tokens of a tokenizer.json."""
    return {token["content"]: token["id"] for token in tokenizer["added_tokens"]}


def num_tokens(tokenizer: Any) -> int:
    """How many ids a tokenizer.json has."""
    return len(set(tokenizer["model"]["vocab"].values()) | set(added_ids(tokenizer).values()))


def added_token(id: int, content: str) -> dict[str, Any]:
    """A special token as tokenizer.json lists it."""
    return {
        "id": id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def real_json(name: str) -> Any:
    """A parsed file of the real SmolVLM-256M-Instruct."""
    return json.loads((_REAL / name).read_bytes())


def as_json(content: Any) -> bytes:
    """A JSON file."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
