"""The prompt formats: a conversation -> the text that the model was trained on, as segments.

Formats are written out here: the templates that come with models are programs from strangers, never run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .messages import ImagePart, Message
from .tokenizer import Segment

IMAGE_TOKEN = "<image>"
END_OF_UTTERANCE = "<end_of_utterance>"
START = "<|im_start|>"
FAKE_TOKEN_AROUND_IMAGE = "<fake_token_around_image>"
GLOBAL_IMAGE = "<global-img>"

# Without these a tokenizer belongs to another prompt format.
REQUIRED_MARKERS = (START, IMAGE_TOKEN, FAKE_TOKEN_AROUND_IMAGE, END_OF_UTTERANCE)

# Either ends an answer; both are to be stopped on.
STOP_MARKERS = (END_OF_UTTERANCE, "<|im_end|>")


class TileGrid(NamedTuple):
    """How an image was cut: rows and columns of tiles, both 0 if it was not."""

    rows: int
    cols: int


def all_markers() -> list[str]:
    """Every marker of the format, to be kept out of what users type. SmolVLM knows row and column 1 to 6."""
    tiles = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
    return [*REQUIRED_MARKERS, *STOP_MARKERS, GLOBAL_IMAGE, *tiles]


def render(messages: Sequence[Message], grids: Sequence[TileGrid], image_seq_len: int) -> list[Segment]:
    """Writes a conversation out, up to the point where the assistant is to answer.

    Args:
        messages: The conversation.
        grids: How each image was cut, in the order of the image parts.
        image_seq_len: Image tokens per tile.

    Returns:
        Segments whose joined text is the prompt; what a user typed is never markup.
    """
    remaining = iter(grids)
    segments = [Segment(START, is_markup=True)]
    for message in messages:
        colon = ":" if isinstance(message.content[0], ImagePart) else ": "
        segments.append(Segment(message.role.capitalize() + colon, is_markup=True))
        for part in message.content:
            if isinstance(part, ImagePart):
                segments.append(Segment(image_markup(next(remaining), image_seq_len), is_markup=True))
            else:
                segments.append(Segment(part.text))
        segments.append(Segment(f"{END_OF_UTTERANCE}\n", is_markup=True))
    segments.append(Segment("Assistant:", is_markup=True))
    return segments


def image_markup(grid: TileGrid, image_seq_len: int) -> str:
    """Returns the stretch of prompt that one image takes: its tiles row by row, the global tile last."""
    image_tokens = IMAGE_TOKEN * image_seq_len
    global_tile = f"{FAKE_TOKEN_AROUND_IMAGE}{GLOBAL_IMAGE}{image_tokens}{FAKE_TOKEN_AROUND_IMAGE}"
    if grid == TileGrid(0, 0):
        return global_tile
    rows = [
        "".join(
            f"{FAKE_TOKEN_AROUND_IMAGE}<row_{row}_col_{col}>{image_tokens}" for col in range(1, grid.cols + 1)
        )
        for row in range(1, grid.rows + 1)
    ]
    return "\n".join(rows) + f"\n\n{global_tile}"
