"""What the files of an ONNX model are called, as transformers.js and others look for them."""

from __future__ import annotations

VISION_ENCODER = "vision_encoder"
EMBED_TOKENS = "embed_tokens"
DECODER = "decoder_model_merged"
GRAPHS = (VISION_ENCODER, EMBED_TOKENS, DECODER)

# type -> suffix of the files' names, as transformers.js has them
SUFFIXES = {
    "fp32": "",
    "fp16": "_fp16",
    "int8": "_int8",
    "q8": "_quantized",
    "uint8": "_uint8",
    "q4": "_q4",
    "q4f16": "_q4f16",
    "bnb4": "_bnb4",
}


def graph_file(graph: str, type: str) -> str:
    """Returns the name of a graph's file in the folder `onnx`."""
    return f"{graph}{SUFFIXES[type]}.onnx"
