"""Runs llama.cpp's converter on a checkpoint of a tokenizer that it does not know.

    python run_converter.py LLAMA_CPP convert_hf_to_gguf.py's ARGUMENTS

A script of its own, because the converter needs torch and transformers. It tells pre-tokenizers by what a
tokenizer makes of a text, so that one with other words is new to it, though it splits as SmolLM's does: that
is then what it is said to be. A tokenizer that it knows keeps the name that it has for it.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any


def main(arguments: list[str]) -> None:
    """Runs the converter in this process; it ends the process where it fails."""
    folder = Path(arguments[0])
    sys.path[:0] = [str(folder), str(folder / "gguf-py")]
    from conversion.base import TextModel  # type: ignore[import-not-found]

    known = TextModel.get_vocab_base_pre

    def get_vocab_base_pre(self: Any, tokenizer: Any) -> str:
        try:
            return str(known(self, tokenizer))
        except NotImplementedError:
            return "smollm"

    TextModel.get_vocab_base_pre = get_vocab_base_pre
    script = folder / "convert_hf_to_gguf.py"
    sys.argv = [str(script), *arguments[1:]]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
