"""What subjects share that prepare requests with transformers: the processor, and a clock for tokens."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from PIL import Image
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

# By their modules: the automatic choice is the torchvision image processor, which resamples differently.
if transformers.__version__.startswith("4."):
    from transformers.models.idefics3.image_processing_idefics3 import Idefics3ImageProcessor
else:
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil as Idefics3ImageProcessor,
    )


def load_processor(checkpoint: str) -> Idefics3Processor:
    """Loads a checkpoint's processor, with PIL images and the tokens of tokenizer.json."""
    folder = Path(checkpoint)
    config = json.loads((folder / "processor_config.json").read_text())
    template_file = folder / "chat_template.json"
    return Idefics3Processor(
        image_processor=Idefics3ImageProcessor.from_pretrained(folder),
        tokenizer=transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")),
        image_seq_len=config["image_seq_len"],
        chat_template=json.loads(template_file.read_text())["chat_template"]
        if template_file.exists()
        else (folder / "chat_template.jinja").read_text(),
    )


def read_image_request(
    processor: Idefics3Processor, image: str, question: str, *, tensors: Literal["pt", "np"]
) -> Any:
    """Returns the inputs of the model for a question about an image file: input_ids, pixel_values, masks."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    with Image.open(image) as opened:
        return processor(
            text=text, images=[opened.convert("RGB")], add_special_tokens=False, return_tensors=tensors
        )


def read_text_request(processor: Idefics3Processor, text: str, *, tensors: Literal["pt", "np"]) -> Any:
    """Returns the inputs of the model for a text alone, without a template: input_ids and mask."""
    inputs = processor.tokenizer(text, add_special_tokens=False, return_tensors=tensors)
    inputs.pop("token_type_ids", None)
    return inputs


class TokenClock(transformers.generation.BaseStreamer):
    """A streamer for `generate` that notes when tokens come."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Takes the prompt at first, then each token."""
        if self._prompt_seen:
            self.times.append(time.perf_counter())
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing is left to be done."""
