"""Makes OpenVINO's model of a checkpoint, with weights of int8, as `optimum-cli export openvino` does.

    python openvino_int8.py CHECKPOINT OUT

A script of its own that knows nothing of pocketvlm: optimum-intel lives in another virtual environment.
"""

from __future__ import annotations

import sys

from optimum.intel import OVModelForVisualCausalLM, OVWeightQuantizationConfig


def convert(checkpoint: str, out: str) -> None:
    """Exports the three graphs (vision with connector, embedding, decoder) and stores them in `out`."""
    model = OVModelForVisualCausalLM.from_pretrained(
        checkpoint, export=True, compile=False, quantization_config=OVWeightQuantizationConfig(bits=8)
    )
    model.save_pretrained(out)


if __name__ == "__main__":
    convert(*sys.argv[1:])
