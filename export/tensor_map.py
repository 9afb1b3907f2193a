"""Every tensor of a model: its Hugging Face name and shape, its GGUF name, and what export does to it.

The order is the one in which llama.cpp's converter writes them. Reading and converting are done elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config import ModelConfig

LM_HEAD = "lm_head.weight"
EMBED_TOKENS = "model.text_model.embed_tokens.weight"


@dataclass(frozen=True)
class TensorSpec:
    """One tensor.

    Attributes:
        hf_name: Name in the checkpoint, as transformers 5.23.0 saves it.
        gguf_name: Name in the GGUF file.
        shape: Outermost dimension first; GGUF lists the same dimensions innermost first.
        always_f32: A norm, a bias, or an embedding of patches or positions: never quantised.
        rotary_head_dim: For q_proj and k_proj of the text model, whose rows GGUF keeps in the order of
            interleaved rotary embeddings: the rows per head. Otherwise None.
    """

    hf_name: str
    gguf_name: str
    shape: tuple[int, ...]
    always_f32: bool = False
    rotary_head_dim: int | None = None

    @property
    def num_elements(self) -> int:
        """Product of the shape."""
        return math.prod(self.shape)


def text_tensors(config: ModelConfig) -> list[TensorSpec]:
    """Lists the tensors of the text file, `output.weight` included also where it is shared."""
    text = config.text
    hidden, ffn = text.hidden_size, text.intermediate_size
    query = text.num_attention_heads * text.head_dim
    key_value = text.num_key_value_heads * text.head_dim
    specs = [
        TensorSpec(LM_HEAD, "output.weight", (text.vocab_size, hidden)),
        TensorSpec("model.text_model.norm.weight", "output_norm.weight", (hidden,), always_f32=True),
        TensorSpec(EMBED_TOKENS, "token_embd.weight", (text.vocab_size, hidden)),
    ]
    for i in range(text.num_hidden_layers):
        hf, gguf = f"model.text_model.layers.{i}", f"blk.{i}"
        specs += [
            TensorSpec(
                f"{hf}.self_attn.k_proj.weight",
                f"{gguf}.attn_k.weight",
                (key_value, hidden),
                rotary_head_dim=text.head_dim,
            ),
            TensorSpec(
                f"{hf}.input_layernorm.weight", f"{gguf}.attn_norm.weight", (hidden,), always_f32=True
            ),
            TensorSpec(f"{hf}.self_attn.o_proj.weight", f"{gguf}.attn_output.weight", (hidden, query)),
            TensorSpec(
                f"{hf}.self_attn.q_proj.weight",
                f"{gguf}.attn_q.weight",
                (query, hidden),
                rotary_head_dim=text.head_dim,
            ),
            TensorSpec(f"{hf}.self_attn.v_proj.weight", f"{gguf}.attn_v.weight", (key_value, hidden)),
            TensorSpec(f"{hf}.mlp.down_proj.weight", f"{gguf}.ffn_down.weight", (hidden, ffn)),
            TensorSpec(f"{hf}.mlp.gate_proj.weight", f"{gguf}.ffn_gate.weight", (ffn, hidden)),
            TensorSpec(
                f"{hf}.post_attention_layernorm.weight", f"{gguf}.ffn_norm.weight", (hidden,), always_f32=True
            ),
            TensorSpec(f"{hf}.mlp.up_proj.weight", f"{gguf}.ffn_up.weight", (ffn, hidden)),
        ]
    return specs


def vision_tensors(config: ModelConfig) -> list[TensorSpec]:
    """Lists the tensors of the projector file: vision tower and connector."""
    vision = config.vision
    hidden, ffn, patch = vision.hidden_size, vision.intermediate_size, vision.patch_size
    embeddings = "model.vision_model.embeddings"
    specs = [
        TensorSpec(
            "model.connector.modality_projection.proj.weight",
            "mm.model.fc.weight",
            (config.text.hidden_size, hidden * config.scale_factor**2),
        ),
        TensorSpec(f"{embeddings}.patch_embedding.bias", "v.patch_embd.bias", (hidden,), always_f32=True),
        TensorSpec(
            f"{embeddings}.patch_embedding.weight",
            "v.patch_embd.weight",
            (hidden, vision.num_channels, patch, patch),
            always_f32=True,
        ),
        TensorSpec(
            f"{embeddings}.position_embedding.weight",
            "v.position_embd.weight",
            (vision.num_patches_per_side**2, hidden),
            always_f32=True,
        ),
    ]
    # The converter goes through the names as text, so block 10 comes before block 2.
    for i in sorted(range(vision.num_hidden_layers), key=str):
        hf, gguf = f"model.vision_model.encoder.layers.{i}", f"v.blk.{i}"
        specs += _weight_and_bias(f"{hf}.layer_norm1", f"{gguf}.ln1", (hidden,))
        specs += _weight_and_bias(f"{hf}.layer_norm2", f"{gguf}.ln2", (hidden,))
        specs += _weight_and_bias(f"{hf}.mlp.fc1", f"{gguf}.ffn_up", (ffn, hidden))
        specs += _weight_and_bias(f"{hf}.mlp.fc2", f"{gguf}.ffn_down", (hidden, ffn))
        specs += _weight_and_bias(f"{hf}.self_attn.k_proj", f"{gguf}.attn_k", (hidden, hidden))
        specs += _weight_and_bias(f"{hf}.self_attn.out_proj", f"{gguf}.attn_out", (hidden, hidden))
        specs += _weight_and_bias(f"{hf}.self_attn.q_proj", f"{gguf}.attn_q", (hidden, hidden))
        specs += _weight_and_bias(f"{hf}.self_attn.v_proj", f"{gguf}.attn_v", (hidden, hidden))
    specs += _weight_and_bias("model.vision_model.post_layernorm", "v.post_ln", (hidden,))
    return specs


def all_tensors(config: ModelConfig) -> list[TensorSpec]:
    """Lists the tensors of the whole checkpoint."""
    return text_tensors(config) + vision_tensors(config)


def _weight_and_bias(hf: str, gguf: str, shape: tuple[int, ...]) -> list[TensorSpec]:
    """Returns the bias, then the weight, of a linear layer or (one dimension) of a layer norm."""
    return [
        TensorSpec(f"{hf}.bias", f"{gguf}.bias", shape[:1], always_f32=True),
        TensorSpec(f"{hf}.weight", f"{gguf}.weight", shape, always_f32=len(shape) == 1),
    ]
