"""Makes ONNX graphs of a checkpoint by torch.onnx.export, in float32 and, by quantize_dynamic, in int8.

    python plain_onnx.py CHECKPOINT OUT

A script of its own that knows nothing of pocketvlm: torch lives in another virtual environment. It does what
the documentation of PyTorch and of onnxruntime says, no more. OUT/fp32 and OUT/int8 get three graphs each,
whose inputs and outputs are called as in published exports of this model:

    vision_encoder.onnx        pixel_values [T, 3, S, S] -> image_features [T, image_seq_len, hidden]
    embed_tokens.onnx          input_ids [1, n] -> inputs_embeds [1, n, hidden]
    decoder_model_merged.onnx  inputs_embeds [1, n, hidden], position_ids [1, n],
                               past_key_values.{i}.{key,value} [1, num_key_value_heads, p, head_dim]
                               -> logits [1, 1, vocab] of the last token,
                               present.{i}.{key,value} [1, num_key_value_heads, p + n, head_dim]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch.export import Dim


class VisionEncoder(torch.nn.Module):
    """Vision tower and connector, for full tiles: every patch is there, so position ids are 0, 1, 2, ..."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower = model.vision_model
        self.connector = model.connector
        count = self.tower.embeddings.num_positions
        self.register_buffer("position_ids", torch.arange(count)[None], persistent=False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """[T, 3, S, S] -> [T, image_seq_len, hidden]"""
        embeddings = self.tower.embeddings
        patches = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        hidden = patches + embeddings.position_embedding(self.position_ids)
        hidden = self.tower.encoder(inputs_embeds=hidden, attention_mask=None).last_hidden_state
        features: torch.Tensor = self.connector(self.tower.post_layernorm(hidden))
        return features


class Decoder(torch.nn.Module):
    """The text model and the head, over new tokens after those whose keys and values are given."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text_model = model.model.text_model
        self.lm_head = model.lm_head

    def forward(
        self, inputs_embeds: torch.Tensor, position_ids: torch.Tensor, past: list[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """`past` and what follows the logits: key and value of layer 0, of layer 1, ..."""
        cache = transformers.DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        # What a token may see is what has no later position.
        seen = torch.arange(past[0].shape[2] + inputs_embeds.shape[1])[None, :] <= position_ids[0, :, None]
        mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
        hidden = self.text_model(
            inputs_embeds=inputs_embeds,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        logits = self.lm_head(hidden[:, -1:])
        present = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        return logits, *present


def convert(checkpoint: str, out: Path) -> None:
    """Writes OUT/fp32 and OUT/int8."""
    # transformers' attention by torch's scaled_dot_product_attention, which is its default.
    model = transformers.AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    (out / "fp32").mkdir(parents=True)
    (out / "int8").mkdir()
    with torch.inference_mode():
        _export_vision(model, out / "fp32/vision_encoder.onnx")
        _export_embedding(model, out / "fp32/embed_tokens.onnx")
        _export_decoder(model, out / "fp32/decoder_model_merged.onnx")
    del model
    for name in ("vision_encoder", "embed_tokens", "decoder_model_merged"):
        _quantize(out / "fp32" / f"{name}.onnx", out / "int8" / f"{name}.onnx")


def _export_vision(model: Any, path: Path) -> None:
    vision = model.config.vision_config
    pixels = torch.zeros(2, vision.num_channels, vision.image_size, vision.image_size)
    torch.onnx.export(
        VisionEncoder(model.model).eval(),
        (pixels,),
        path,
        input_names=["pixel_values"],
        output_names=["image_features"],
        dynamic_shapes={"pixel_values": {0: Dim("tiles")}},
    )


def _export_embedding(model: Any, path: Path) -> None:
    torch.onnx.export(
        model.get_input_embeddings(),
        (torch.zeros(1, 2, dtype=torch.int64),),
        path,
        input_names=["input_ids"],
        output_names=["inputs_embeds"],
        dynamic_shapes=({1: Dim("tokens")},),
    )


def _export_decoder(model: Any, path: Path) -> None:
    text = model.config.text_config
    tokens, past_tokens = 3, 5
    names = [f"{i}.{part}" for i in range(text.num_hidden_layers) for part in ("key", "value")]
    past = [torch.zeros(1, text.num_key_value_heads, past_tokens, text.head_dim) for _ in names]
    torch.onnx.export(
        Decoder(model).eval(),
        (
            torch.zeros(1, tokens, text.hidden_size),
            torch.arange(past_tokens, past_tokens + tokens)[None],
            past,
        ),
        path,
        input_names=["inputs_embeds", "position_ids", *(f"past_key_values.{name}" for name in names)],
        output_names=["logits", *(f"present.{name}" for name in names)],
        dynamic_shapes={
            "inputs_embeds": {1: Dim("tokens")},
            "position_ids": {1: Dim("tokens")},
            "past": [{2: Dim("past_tokens")} for _ in names],
        },
    )


def _quantize(source: Path, target: Path) -> None:
    """Weights become int8, activations are quantised when they come; convolutions stay as they are."""
    quantize_dynamic(
        source,
        target,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gather"],
        use_external_data_format=True,  # a file of protobuf holds 2 GB
    )


if __name__ == "__main__":
    convert(sys.argv[1], Path(sys.argv[2]))
