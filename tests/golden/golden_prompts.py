"""Goldens of prompt building: conversations and image sizes in, token ids out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

from . import cases, reference
from .store import Store


def make(store: Store, name: str, folder: Path) -> None:
    """Makes {name}.json with the tokenizer, template and processor configuration of `folder`."""
    processor = reference.load_processor(folder)
    made = []
    for case, (messages, images, split) in cases.PROMPTS.items():
        pictures = [reference.draw(image) for image in images]
        inputs = reference.processor_inputs(processor, messages, pictures, split)
        ids = inputs["input_ids"][0].tolist()
        if ids != ids_by_pieces(processor, messages, images, split):
            raise RuntimeError(
                f"{name}: {case}: the rule for typed markers does not give the processor's ids"
            )
        made.append(record(case, messages, images, split, ids))
    for case, (messages, images, split) in cases.TYPED_MARKERS.items():
        made.append(record(case, messages, images, split, ids_by_pieces(processor, messages, images, split)))
    files = ("tokenizer.json", "preprocessor_config.json", "processor_config.json")
    golden = {
        "reference": reference.versions(),
        "sha256": {file: reference.sha256_of_file(folder / file) for file in files},
        "cases": made,
    }
    store.put_json(name, golden)


def record(
    case: str, messages: list[cases.Message], images: list[dict[str, int]], split: bool, ids: list[int]
) -> dict[str, Any]:
    """One entry of the golden."""
    return {
        "name": case,
        "messages": messages,
        "images": images,
        "do_image_splitting": split,
        "expected_ids": ids,
    }


def ids_by_pieces(
    processor: Idefics3Processor, messages: list[cases.Message], images: list[dict[str, int]], split: bool
) -> list[int]:
    """Token ids when markers that a person typed are text.

    The conversation is rendered with stand-ins for the person's words, cut at the special tokens (which are
    then all the template's own), and only then do the words come back: each cut piece is tokenized with
    special tokens off.
    """
    tokenizer = processor.tokenizer
    words: list[str] = []

    def stand_in(item: dict[str, str]) -> dict[str, str]:
        if item["type"] == "image":
            return item
        words.append(item["text"])
        return {"type": "text", "text": f"\ue000{len(words) - 1}\ue001"}

    masked = [{**message, "content": [stand_in(item) for item in message["content"]]} for message in messages]
    text = processor.apply_chat_template(masked, add_generation_prompt=True, tokenize=False)
    for image in images:
        info = processor.image_processor(
            reference.draw(image), do_image_splitting=split, return_row_col_info=True, return_tensors="np"
        )
        expanded = processor.replace_image_token({"rows": info["rows"], "cols": info["cols"]}, 0)
        text = text.replace("<image>", expanded.replace("<image>", "\ue002"), 1)
    text = text.replace("\ue002", "<image>")

    special = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    pieces = re.split("(" + "|".join(map(re.escape, special)) + ")", text)
    ids: list[int] = []
    for i, piece in enumerate(pieces):
        if i % 2 == 1:
            ids.append(tokenizer.convert_tokens_to_ids(piece))
        else:
            said = re.sub("\ue000([0-9]+)\ue001", lambda match: words[int(match[1])], piece)
            ids.extend(tokenizer(said, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    return ids
