"""The folder of each synthetic model without its weights: configurations and tokenizer files.

256m is the real SmolVLM-256M-Instruct, byte for byte. 500m and 2.2b change what differs in the models of
those sizes; tiny, tiny-500m and tiny-2.2b have sizes of our own and, each, the quirks of their larger twin.
SmolVLM2 and the models for documents come from `variant_files`.
"""

from __future__ import annotations

from collections.abc import Callable

from . import variant_files
from .model_parts import (
    added_ids,
    as_json,
    complete_files,
    files_256m,
    model_config,
    num_tokens,
    real_json,
    tiny_tokenizer,
    without_tile_markers,
)


def model_files(size: str) -> dict[str, bytes]:
    """Returns file name -> content for `size`, one of `SIZES`."""
    return SIZES[size]()


def _files_500m() -> dict[str, bytes]:
    """The 256M files with the text model of SmolVLM-500M-Instruct: same tower, same tokenizer."""
    text = {
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
    }
    return files_256m() | {"config.json": as_json(model_config(text=text))}


def _files_2_2b() -> dict[str, bytes]:
    """The files of SmolVLM-Instruct: other sizes, and no tokens for the rows and the global tile."""
    tokenizer = without_tile_markers(real_json("tokenizer.json"))
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
    tokenizer = tiny_tokenizer()
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
    tokenizer = tiny_tokenizer()
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
    return variant_files.with_smolvlm2_classes(complete_files(config, tokenizer, longest_edge=4 * 64))


def _files_tiny_2_2b() -> dict[str, bytes]:
    """A small SmolVLM-Instruct.

    What it shares with that one: as many KV heads as heads; tiles of which patches leave 6 pixels over (90 =
    6 * 14 + 6); patches of 588 numbers; vision heads of 72; a vision ffn that is no multiple of 32, alone
    among the sizes of rows, so that ffn_down stays f16 in a quantised file; a vocabulary of odd size, with no
    tokens for the rows and the global tile.
    """
    tokenizer = without_tile_markers(tiny_tokenizer())
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
    "256m": files_256m,
    "500m": _files_500m,
    "2.2b": _files_2_2b,
    "tiny": _files_tiny,
    "tiny-500m": _files_tiny_500m,
    "tiny-2.2b": _files_tiny_2_2b,
    "smolvlm2-256m": variant_files.files_smolvlm2_256m,
    "smolvlm2-500m": variant_files.files_smolvlm2_500m,
    "smolvlm2-2.2b": variant_files.files_smolvlm2_2_2b,
    "smoldocling": variant_files.files_smoldocling,
    "granite-docling": variant_files.files_granite_docling,
    "tiny-smolvlm2": variant_files.files_tiny_smolvlm2,
    "tiny-smolvlm2-2.2b": variant_files.files_tiny_smolvlm2_2_2b,
    "tiny-smoldocling": variant_files.files_tiny_smoldocling,
    "tiny-granite-docling": variant_files.files_tiny_granite_docling,
}
