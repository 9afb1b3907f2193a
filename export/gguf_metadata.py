"""The metadata of the two GGUF files, in the order in which llama.cpp's converter writes it.

The tokenizer's part comes from `vocabulary`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config import ModelConfig, ProcessorConfig
from .gguf_file import Metadata, Value, ValueType, array, boolean, float32, string, uint32
from .quantize import QuantType


@dataclass(frozen=True)
class Provenance:
    """Where a pair of files comes from and what ties it together."""

    name: str
    revision: str  # the commit on the hub, "" if it is not known
    pair_id: str  # 64 hex digits, the same in both files


def text_metadata(
    config: ModelConfig,
    vocabulary: Metadata,
    *,
    type: QuantType,
    num_parameters: int,
    provenance: Provenance,
    tensor_hashes: list[str],
) -> dict[str, Value]:
    """Returns the metadata of the text file."""
    text = config.text
    return {
        "general.architecture": string("llama"),
        "general.type": string("model"),
        **_general(provenance, num_parameters),
        "llama.block_count": uint32(text.num_hidden_layers),
        "llama.context_length": uint32(text.max_position_embeddings),
        "llama.embedding_length": uint32(text.hidden_size),
        "llama.feed_forward_length": uint32(text.intermediate_size),
        "llama.attention.head_count": uint32(text.num_attention_heads),
        "llama.attention.head_count_kv": uint32(text.num_key_value_heads),
        "llama.rope.freq_base": float32(text.rope_theta),
        "llama.attention.layer_norm_rms_epsilon": float32(text.rms_norm_eps),
        "llama.attention.key_length": uint32(text.head_dim),
        "llama.attention.value_length": uint32(text.head_dim),
        "llama.vocab_size": uint32(text.vocab_size),
        "llama.rope.dimension_count": uint32(text.head_dim),
        **vocabulary,
        "general.quantization_version": uint32(2),
        "general.file_type": uint32(type.file_type),
        **_ours(provenance, tensor_hashes),
    }


def projector_metadata(
    config: ModelConfig,
    processor: ProcessorConfig,
    *,
    type: QuantType,
    num_parameters: int,
    provenance: Provenance,
    tensor_hashes: list[str],
) -> dict[str, Value]:
    """Returns the metadata of the projector file."""
    vision = config.vision
    return {
        "general.architecture": string("clip"),
        "general.type": string("mmproj"),
        **_general(provenance, num_parameters),
        "general.file_type": uint32(type.file_type),
        "clip.has_vision_encoder": boolean(True),
        "clip.vision.projection_dim": uint32(config.text.hidden_size),
        "clip.vision.image_size": uint32(vision.image_size),
        "clip.vision.patch_size": uint32(vision.patch_size),
        "clip.vision.embedding_length": uint32(vision.hidden_size),
        "clip.vision.feed_forward_length": uint32(vision.intermediate_size),
        "clip.vision.block_count": uint32(vision.num_hidden_layers),
        "clip.vision.attention.head_count": uint32(vision.num_attention_heads),
        "clip.vision.image_mean": array(ValueType.FLOAT32, processor.image_mean),
        "clip.vision.image_std": array(ValueType.FLOAT32, processor.image_std),
        "clip.projector_type": string("idefics3"),
        "clip.vision.attention.layer_norm_epsilon": float32(vision.layer_norm_eps),
        "clip.vision.projector.scale_factor": uint32(config.scale_factor),
        # llama.cpp's name for the tanh approximation.
        "clip.use_gelu": boolean(True),
        "clip.vision.preproc_image_size": uint32(processor.longest_edge),
        "general.quantization_version": uint32(2),
        **_ours(provenance, tensor_hashes),
    }


def size_label(num_parameters: int) -> str:
    """Returns the parameter count as llama.cpp labels it: "163M", "1.8B"."""
    if num_parameters > 1e9:
        scaled, suffix = num_parameters * 1e-9, "B"
    elif num_parameters > 1e6:
        scaled, suffix = num_parameters * 1e-6, "M"
    else:
        scaled, suffix = num_parameters * 1e-3, "K"
    # Two digits at least.
    decimals = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{decimals}f}{suffix}"


def _general(provenance: Provenance, num_parameters: int) -> dict[str, Value]:
    return {
        "general.name": string(provenance.name),
        "general.finetune": string(provenance.name),
        "general.size_label": string(size_label(num_parameters)),
    }


def _ours(provenance: Provenance, tensor_hashes: list[str]) -> dict[str, Value]:
    return {
        "pocketvlm.source.name": string(provenance.name),
        "pocketvlm.source.revision": string(provenance.revision),
        "pocketvlm.pair_id": string(provenance.pair_id),
        "pocketvlm.tensor_hashes": array(ValueType.STRING, tensor_hashes),
    }
