"""What a machine at its measured roofs would take for each stage, and how near to that a subject is."""

from __future__ import annotations

from dataclasses import dataclass

from pocketvlm.config import ModelConfig
from pocketvlm.image_plan import gflop_per_tile

from .roofs import Roofs
from .subjects import Subject


@dataclass(frozen=True)
class Work:
    """What every subject has to do in one run.

    Attributes:
        image_bytes: Of the decoded images and the tiles that are cut from them, uint8.
    """

    config: ModelConfig
    images: int
    image_bytes: int
    tiles: int
    prompt_tokens: int
    new_tokens: int


def roof_fractions(subject: Subject, metrics: dict[str, float], work: Work, roofs: Roofs) -> dict[str, float]:
    """Returns metric -> how much of the roof a subject reaches, 1 at most but for noise.

    Products count a multiply-add as 2 and run at the roof of the subject's arithmetic; what is read, each
    weight once for a token, comes at the read bandwidth. Norms, softmax and activations are left out.
    """
    multiply = {"fp32": roofs.fp32_gflop_s, "bf16": roofs.bf16_gflop_s, "int8": roofs.int8_gop_s}
    gflop_s, read = multiply[subject.arithmetic], roofs.read_gb_s * 1e9
    weight_bytes = num_weights(work.config) * subject.bytes_per_weight
    preprocess_s = work.image_bytes / work.images / read
    vision_s = gflop_per_tile(work.config) / gflop_s * work.tiles / work.images
    prompt = work.prompt_tokens // work.images
    prefill_s = prefill_gflop(work.config, prompt) / gflop_s
    token_s = decode_bytes(work.config, prompt + work.new_tokens // 2, subject.bytes_per_weight) / read
    first_token_s = preprocess_s + vision_s + prefill_s
    fractions = {
        "load_s": weight_bytes / read / metrics["load_s"],
        "preprocess_s": preprocess_s / metrics["preprocess_s"],
        "vision_tile_s": gflop_per_tile(work.config) / gflop_s / metrics["vision_tile_s"],
        "prefill_tokens_per_s": metrics["prefill_tokens_per_s"] * prefill_s / prompt,
        "time_to_first_token_s": first_token_s / metrics["time_to_first_token_s"],
        "decode_tokens_per_s": metrics["decode_tokens_per_s"] * token_s,
        "end_to_end_s": (first_token_s + (work.new_tokens - 1) * token_s) / metrics["end_to_end_s"],
    }
    return fractions | {"peak_memory_bytes": weight_bytes / metrics["peak_memory_bytes"]}


def prefill_gflop(config: ModelConfig, tokens: int) -> float:
    """Returns 1e9 operations of a prompt: all products of the layers, causal attention, one row of logits."""
    text = config.text
    attention = 2 * tokens**2 * text.num_attention_heads * text.head_dim * text.num_hidden_layers
    head = 2 * text.vocab_size * text.hidden_size
    return (2 * tokens * _layer_weights(config) + attention + head) / 1e9


def decode_bytes(config: ModelConfig, context: int, bytes_per_weight: float) -> float:
    """Returns what one token reads: weights of layers and head, and the keys and values before it, in f16."""
    text = config.text
    cache = 2 * 2 * context * text.num_key_value_heads * text.head_dim * text.num_hidden_layers
    return (_layer_weights(config) + text.vocab_size * text.hidden_size) * bytes_per_weight + cache


def num_weights(config: ModelConfig) -> int:
    """Returns the weights of all matrices, embedding and head included."""
    text, vision = config.text, config.vision
    d = vision.hidden_size
    tower = vision.num_hidden_layers * (4 * d**2 + 2 * d * vision.intermediate_size)
    patches = vision.num_channels * vision.patch_size**2 * d + vision.num_patches_per_side**2 * d
    connector = d * config.scale_factor**2 * text.hidden_size
    return tower + patches + connector + _layer_weights(config) + 2 * text.vocab_size * text.hidden_size


def _layer_weights(config: ModelConfig) -> int:
    """The weights of the decoder's layers."""
    text = config.text
    heads = text.num_attention_heads + text.num_key_value_heads
    attention = 2 * text.hidden_size * heads * text.head_dim  # q and o, k and v
    return text.num_hidden_layers * (attention + 3 * text.hidden_size * text.intermediate_size)
