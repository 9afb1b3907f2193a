"""Runs the PIL image processor of transformers, one call a request: the other end of transformers_process.py.

    python transformers_child.py FOLDER

A script of its own that knows nothing of pocketvlm: transformers lives in another virtual environment. FOLDER
holds preprocessor_config.json. The first line that it prints tells versions; then it answers each line of
JSON on stdin with one on stdout:

    {"picture": "a.npy"}   takes uint8 [H, W, 3] as the picture of the calls that follow   {}
    {"run": true}          calls the processor once                                        {"seconds": s}
    {"save": "b.npy"}      stores pixel_values of the last call, float32 [T, 3, S, S]      {}
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import IO, Any

import numpy as np
import PIL.Image
import transformers

# By its module: AutoImageProcessor may give the torchvision processor, which resamples differently.
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil


def main(folder: str, answers: IO[str]) -> None:
    """Answers requests until stdin ends."""

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    processor = Idefics3ImageProcessorPil.from_pretrained(folder)
    answer(
        {
            "transformers": transformers.__version__,
            "its Pillow": PIL.__version__,
            "its NumPy": np.__version__,
        }
    )
    picture: Any = None
    output: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        if "picture" in request:
            picture, output = PIL.Image.fromarray(np.load(request["picture"])), None
            answer({})
        elif "run" in request:
            output = None  # memory of the last call goes back before the clock starts
            started = time.perf_counter()
            output = processor(picture, return_tensors="np")
            answer({"seconds": time.perf_counter() - started})
        else:
            np.save(request["save"], output["pixel_values"][0])
            answer({})


if __name__ == "__main__":
    # Whatever a library prints goes to stderr: our end of the pipe carries answers alone.
    own_stdout = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    main(sys.argv[1], own_stdout)
