"""The folder of each synthetic model without its weights: configurations and tokenizer files.

256m is the real SmolVLM-256M-Instruct, byte for byte. 500m and 2.2b change what differs in the models of
those sizes; tiny, tiny-500m and tiny-2.2b have sizes of our own and, each, the quirks of their larger twin.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parent / "data"
_REAL = _DATA / "smolvlm-256m-instruct"


def model_files(size: str) -> dict[str, bytes]:
    """Returns file name -> content for `size`, one of `SIZES`."""
    return SIZES[size]()


def _files_256m() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(_REAL.iterdir())}


def _files_500m() -> dict[str, bytes]:
    """The 256M files with the text model of SmolVLM-500M-Instruct: same tower, same tokenizer."""
    text = {
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
    }
    return _files_256m() | {"config.json": _json(model_config(text=text))}


def _files_2_2b() -> dict[str, bytes]:
    """The files of SmolVLM-Instruct: other sizes, and no tokens for the rows and the global tile."""
    tokenizer = _without_tile_markers(json.loads((_REAL / "tokenizer.json").read_bytes()))
    ids = added_ids(tokenizer)
    config = model_config(
        image_token_id=ids["<image>"],
        scale_factor=3,
        text={
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "rope_theta": 273768.0,
            "vocab_size": num_tokens(tokenizer),
            "max_position_embeddings": 16384,
        },
        vision={
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
        },
    )
    return complete_files(config, tokenizer, longest_edge=4 * 384)


def _files_tiny() -> dict[str, bytes]:
    tokenizer = _tiny_tokenizer()
    ids = added_ids(tokenizer)
    config = model_config(
        image_token_id=ids["<image>"],
        scale_factor=2,
        text={
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": num_tokens(tokenizer),
            "max_position_embeddings": 2048,
        },
        vision={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
        },
    )
    return complete_files(config, tokenizer, longest_edge=4 * 64)


def _files_tiny_500m() -> dict[str, bytes]:
    """A small SmolVLM2-500M: its class, an odd number of heads, three of them on one KV head.

    config.json has the keys of SmolVLM2-500M's as transformers 5 saves them, and with it a pad_token_id far
    outside the vocabulary. It cannot leave out the tower's layers and ffn as that one does: class defaults
    are of the true size.
    """
    tokenizer = _tiny_tokenizer()
    vocab_size = num_tokens(tokenizer)
    config = {
        "architectures": ["SmolVLMForConditionalGeneration"],
        "dtype": "bfloat16",
        "image_token_id": added_ids(tokenizer)["<image>"],
        "model_type": "smolvlm",
        "pad_token_id": 128002,
        "scale_factor": 4,
        "text_config": {
            "architectures": ["VLlama3ForCausalLM"],
            "dtype": "bfloat16",
            "head_dim": 64,
            "hidden_size": 192,
            "intermediate_size": 256,
            "is_llama_config": True,
            "max_position_embeddings": 2048,
            "model_type": "llama",
            "num_attention_heads": 3,
            "num_hidden_layers": 2,
            "num_key_value_heads": 1,
            "pad_token_id": 2,
            "pixel_shuffle_factor": 4,
            "qk_layer_norms": False,
            "rms_norm_eps": 1e-5,
            "rope_interleaved": False,
            "rope_parameters": {"rope_theta": 100000, "rope_type": "default"},
            "use_resampler": False,
            "vocab_size": vocab_size,
        },
        "tie_word_embeddings": False,
        "use_cache": False,
        "vision_config": {
            "hidden_size": 64,
            "image_size": 64,
            "intermediate_size": 128,
            "max_image_size": {"longest_edge": 64},
            "model_type": "smolvlm_vision",
            "num_attention_heads": 1,
            "num_hidden_layers": 2,
            "patch_size": 8,
            "size": {"longest_edge": 256},
        },
        "vocab_size": vocab_size,
    }
    files = complete_files(config, tokenizer, longest_edge=4 * 64)
    for name, classes in {
        "preprocessor_config.json": {
            "image_processor_type": "SmolVLMImageProcessor",
            "processor_class": "SmolVLMProcessor",
        },
        "processor_config.json": {"processor_class": "SmolVLMProcessor"},
        "tokenizer_config.json": {"processor_class": "SmolVLMProcessor"},
    }.items():
        files[name] = _json(json.loads(files[name]) | classes)
    return files


def _files_tiny_2_2b() -> dict[str, bytes]:
    """A small SmolVLM-Instruct.

    What it shares with that one: as many KV heads as heads; tiles of which patches leave 6 pixels over (90 =
    6 * 14 + 6); patches of 588 numbers; vision heads of 72; a vision ffn that is no multiple of 32, alone
    among the sizes of rows, so that ffn_down stays f16 in a quantised file; a vocabulary of odd size, with no
    tokens for the rows and the global tile.
    """
    tokenizer = _without_tile_markers(_tiny_tokenizer())
    config = model_config(
        image_token_id=added_ids(tokenizer)["<image>"],
        scale_factor=3,
        text={
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_theta": 273768.0,
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
    return complete_files(config, tokenizer, longest_edge=4 * 90)


SIZES: dict[str, Callable[[], dict[str, bytes]]] = {
    "256m": _files_256m,
    "500m": _files_500m,
    "2.2b": _files_2_2b,
    "tiny": _files_tiny,
    "tiny-500m": _files_tiny_500m,
    "tiny-2.2b": _files_tiny_2_2b,
}


def model_config(*, text: dict[str, Any], vision: dict[str, Any] | None = None, **top: int) -> dict[str, Any]:
    """The config.json of 256M with other values; only keys that are there already can change."""
    config: dict[str, Any] = _real("config.json")
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
    preprocessor = _real("preprocessor_config.json") | {
        "max_image_size": {"longest_edge": vision["image_size"]},
        "size": {"longest_edge": longest_edge},
    }
    tokenizer_config = _real("tokenizer_config.json") | {
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in tokenizer["added_tokens"]
        },
        "model_max_length": config["text_config"]["max_position_embeddings"],
        "vocab_size": config["text_config"]["vocab_size"],
    }
    generation = _real("generation_config.json") | {"eos_token_id": added["<end_of_utterance>"]}
    first_added = len(tokenizer["model"]["vocab"])
    changed = {
        "config.json": config,
        "preprocessor_config.json": preprocessor,
        "processor_config.json": _real("processor_config.json") | {"image_seq_len": grid**2},
        "generation_config.json": generation,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": tokenizer_config,
        "added_tokens.json": {content: id for content, id in added.items() if id >= first_added},
    }
    return _files_256m() | {name: _json(content) for name, content in changed.items()}


def _tiny_tokenizer() -> Any:
    return json.loads((_DATA / "tiny" / "tokenizer.json").read_bytes())


def _without_tile_markers(tokenizer: Any) -> Any:
    """The tokenizer with only the markers of SmolVLM-Instruct after its vocabulary."""
    first = len(tokenizer["model"]["vocab"])
    markers = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    added = [token for token in tokenizer["added_tokens"] if token["id"] < first]
    added += [_added_token(first + i, content) for i, content in enumerate(markers)]
    return tokenizer | {"added_tokens": added}


def added_ids(tokenizer: Any) -> dict[str, int]:
    return {token["content"]: token["id"] for token in tokenizer["added_tokens"]}


def num_tokens(tokenizer: Any) -> int:
    return len(set(tokenizer["model"]["vocab"].values()) | set(added_ids(tokenizer).values()))


def _added_token(id: int, content: str) -> dict[str, Any]:
    return {
        "id": id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _real(name: str) -> Any:
    return json.loads((_REAL / name).read_bytes())


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
