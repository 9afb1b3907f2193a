"""The demo model: a small SmolVLM that was trained on drawn pictures and comes with the package."""

if __name__ != "pocketvlm.demo_model":
    raise ImportError(
        f"this folder is the package pocketvlm.demo_model, imported as {__name__!r}: "
        "install pocketvlm (pip install .) and import pocketvlm.demo_model"
    )

from pathlib import Path

# What `pocketvlm export gguf checkpoint model --type q8_0 --name pocketvlm-demo` made of the checkpoint.
MODEL_FOLDER = Path(__file__).parent / "model"

# The kinds of question, of `scenes.KINDS`, that it answers right in 85 of 100 cases at least.
FEATURES = ("describe", "sign", "count", "colour", "where", "change")
