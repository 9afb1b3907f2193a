"""What Optimum needs to export the family: the three graphs as modules, and an export config for each.

    onnx_export_from_model(
        model, out, task="image-text-to-text",
        custom_onnx_configs=onnx_configs(model), fn_get_submodels=submodels,
    )

The graphs have the inputs and outputs of the published exports, on plain operators as torch traces them.
Position ids of transformers 4.55 to 4.57 are wrong, and what it does with the mask depends on the mask:
neither is traced. Every tile gets the positions of a full one, which is what the processors make.
"""

from __future__ import annotations

from typing import Any

import torch
from optimum.exporters.onnx.base import OnnxConfig
from optimum.exporters.onnx.config import TextDecoderOnnxConfig
from optimum.utils import NormalizedConfig, NormalizedTextConfig

# Sizes that tracing sees, none of them 1 or like another: what is 1 is traced as if it always were.
_BATCH, _IMAGES, _TOKENS, _PAST = 2, 3, 5, 7


class VisionEncoder(torch.nn.Module):
    """pixel_values [batch, num_images, 3, tile, tile], pixel_attention_mask [batch, num_images, tile, tile]
    -> image_features [tiles, image_seq_len, hidden]
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config
        self.tower = model.model.vision_model
        self.connector = model.model.connector

    def forward(
        self, pixel_values: torch.Tensor, pixel_attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """As get_image_features of transformers 5.23.0."""
        pixels, mask = pixel_values.flatten(0, 1), pixel_attention_mask.flatten(0, 1)
        is_real = (pixels != 0).flatten(1).any(dim=1)
        pixels, mask = pixels[is_real], mask[is_real]
        patch = self.config.vision_config.patch_size
        patches = torch.nn.functional.max_pool2d(mask[:, None].float(), patch).flatten(1) > 0
        # [tiles, 1, 1, patches]: what is added to scores
        hidden_patches = torch.where(patches, 0.0, torch.finfo(pixels.dtype).min)[:, None, None]
        embeddings = self.tower.embeddings
        hidden = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        # Positions 0, 1, 2, ... are the rows of the embedding as they lie.
        hidden = hidden + embeddings.position_embedding.weight
        hidden_patches = hidden_patches.expand(-1, 1, hidden.shape[1], -1)
        hidden = self.tower.encoder(inputs_embeds=hidden, attention_mask=hidden_patches).last_hidden_state
        return {"image_features": self.connector(self.tower.post_layernorm(hidden))}


class EmbedTokens(torch.nn.Module):
    """input_ids [batch, n] -> inputs_embeds [batch, n, hidden]"""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config
        self.embed_tokens = model.get_input_embeddings()

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Looks tokens up."""
        return {"inputs_embeds": self.embed_tokens(input_ids)}


class Decoder(torch.nn.Module):
    """inputs_embeds [batch, n, hidden], attention_mask [batch, past + n], position_ids [batch, n] and past
    keys and values -> logits [batch, n, vocab] and all keys and values
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config.text_config
        self.text_model = model.model.text_model
        self.lm_head = model.lm_head

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        past_key_values: Any,
    ) -> dict[str, Any]:
        """Text model and head."""
        outputs = self.text_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=True,
        )
        return {
            "logits": self.lm_head(outputs.last_hidden_state),
            "past_key_values": outputs.past_key_values,
        }


class VisionEncoderConfig(OnnxConfig):
    """How `VisionEncoder` is exported."""

    NORMALIZED_CONFIG_CLASS = NormalizedConfig

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Names and axes that vary."""
        return {
            "pixel_values": {0: "batch_size", 1: "num_images"},
            "pixel_attention_mask": {0: "batch_size", 1: "num_images"},
        }

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Names and axes that vary."""
        return {"image_features": {0: "tiles"}}

    def generate_dummy_inputs(self, framework: str = "pt", **_: Any) -> dict[str, Any]:
        """Full tiles."""
        side = self._config.vision_config.image_size
        pixels = torch.rand(_BATCH, _IMAGES, 3, side, side) * 2 - 1
        mask = torch.ones(_BATCH, _IMAGES, side, side, dtype=torch.bool)
        return _as(framework, {"pixel_values": pixels, "pixel_attention_mask": mask})


class EmbedTokensConfig(OnnxConfig):
    """How `EmbedTokens` is exported."""

    NORMALIZED_CONFIG_CLASS = NormalizedConfig

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Names and axes that vary."""
        return {"input_ids": {0: "batch_size", 1: "sequence_length"}}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Names and axes that vary."""
        return {"inputs_embeds": {0: "batch_size", 1: "sequence_length"}}

    def generate_dummy_inputs(self, framework: str = "pt", **_: Any) -> dict[str, Any]:
        """Any tokens."""
        vocab_size = self._config.text_config.vocab_size
        return _as(framework, {"input_ids": torch.randint(0, vocab_size, (_BATCH, _TOKENS))})


class DecoderConfig(TextDecoderOnnxConfig):
    """How `Decoder` is exported; takes the configuration of the text model."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Names and axes that vary."""
        axes = {
            "inputs_embeds": {0: "batch_size", 1: "sequence_length"},
            "attention_mask": {0: "batch_size", 1: "past_sequence_length + sequence_length"},
            "position_ids": {0: "batch_size", 1: "sequence_length"},
        }
        self.add_past_key_values(axes, direction="inputs")
        return axes

    def generate_dummy_inputs(self, framework: str = "pt", **_: Any) -> dict[str, Any]:
        """A few tokens after a few others."""
        config = self._config
        cache = (_BATCH, config.num_key_value_heads, _PAST, config.head_dim)
        inputs = {
            "inputs_embeds": torch.randn(_BATCH, _TOKENS, config.hidden_size),
            "attention_mask": torch.ones(_BATCH, _PAST + _TOKENS, dtype=torch.int64),
            "position_ids": torch.arange(_PAST, _PAST + _TOKENS).expand(_BATCH, -1),
            "past_key_values": [
                (torch.randn(cache), torch.randn(cache)) for _ in range(config.num_hidden_layers)
            ],
        }
        return _as(framework, inputs)


def submodels(model: Any) -> dict[str, torch.nn.Module]:
    """Returns the modules of a model by the name of their file: for `fn_get_submodels`."""
    return {
        "vision_encoder": VisionEncoder(model),
        "embed_tokens": EmbedTokens(model),
        "decoder_model_merged": Decoder(model),
    }


def onnx_configs(model: Any) -> dict[str, OnnxConfig]:
    """Returns the export configs of `submodels`: for `custom_onnx_configs`."""
    return {
        "vision_encoder": VisionEncoderConfig(model.config),
        "embed_tokens": EmbedTokensConfig(model.config),
        "decoder_model_merged": DecoderConfig(
            model.config.text_config, task="text-generation", use_past=True, use_past_in_inputs=True
        ),
    }


def _as(framework: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Turns tensors into NumPy arrays where Optimum asks for these."""
    if framework == "pt":
        return inputs
    return {
        name: [tuple(part.numpy() for part in layer) for layer in value]
        if isinstance(value, list)
        else value.numpy()
        for name, value in inputs.items()
    }
