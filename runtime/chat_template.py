"""The prompt formats: a conversation -> the text that the model was trained on, as segments.

Formats are written out here: the templates that come with models are programs from strangers, never run.
Which one a model has is seen from the markers that its tokenizer knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from .messages import ImagePart, Message
from .tokenizer import Segment

IMAGE_TOKEN = "<image>"
FAKE_TOKEN_AROUND_IMAGE = "<fake_token_around_image>"
GLOBAL_IMAGE = "<global-img>"

START = "<|im_start|>"
END_OF_UTTERANCE = "<end_of_utterance>"

START_OF_ROLE = "<|start_of_role|>"
END_OF_ROLE = "<|end_of_role|>"
END_OF_TEXT = "<|end_of_text|>"


class TileGrid(NamedTuple):
    """How an image was cut: rows and columns of tiles, both 0 if it was not."""

    rows: int
    cols: int


# (messages, how each image was cut, image tokens per tile) -> the prompt
Render: TypeAlias = Callable[[Sequence[Message], Sequence[TileGrid], int], list[Segment]]


@dataclass(frozen=True)
class ChatFormat:
    """How a family of models writes a conversation.

    Attributes:
        name: What to call it.
        markers: What tells it: the tokens that a prompt is built with.
        stop_markers: Any of them ends an answer; a tokenizer need not have all.
        render: Writes a conversation out, up to the point where the assistant is to answer, given how each
            image was cut and the image tokens per tile. What a user typed is never markup in its segments.
    """

    name: str
    markers: tuple[str, ...]
    stop_markers: tuple[str, ...]
    render: Render

    def all_markers(self) -> list[str]:
        """Every marker of the format, to be kept out of what users type. Rows and columns go from 1 to 6."""
        tiles = [tile_marker(row, col) for row in range(1, 7) for col in range(1, 7)]
        return [*self.markers, *self.stop_markers, GLOBAL_IMAGE, END_OF_UTTERANCE, *tiles]


def render_smolvlm(
    messages: Sequence[Message], grids: Sequence[TileGrid], image_seq_len: int
) -> list[Segment]:
    """The format of SmolVLM, SmolVLM2 and SmolDocling, as `ChatFormat.render`."""
    remaining = iter(grids)
    segments = [Segment(START, is_markup=True)]
    for message in messages:
        colon = ":" if isinstance(message.content[0], ImagePart) else ": "
        segments.append(Segment(message.role.capitalize() + colon, is_markup=True))
        segments += _render_parts(message, remaining, image_seq_len)
        segments.append(Segment(f"{END_OF_UTTERANCE}\n", is_markup=True))
    segments.append(Segment("Assistant:", is_markup=True))
    return segments


def render_granite_docling(
    messages: Sequence[Message], grids: Sequence[TileGrid], image_seq_len: int
) -> list[Segment]:
    """The format of granite-docling, as `ChatFormat.render`."""
    remaining = iter(grids)
    segments = []
    for message in messages:
        segments.append(Segment(f"{START_OF_ROLE}{message.role}{END_OF_ROLE}", is_markup=True))
        segments += _render_parts(message, remaining, image_seq_len)
        segments.append(Segment(f"{END_OF_TEXT}\n", is_markup=True))
    segments.append(Segment(f"{START_OF_ROLE}assistant{END_OF_ROLE}", is_markup=True))
    return segments


SMOLVLM = ChatFormat(
    "SmolVLM",
    (START, IMAGE_TOKEN, FAKE_TOKEN_AROUND_IMAGE, END_OF_UTTERANCE),
    (END_OF_UTTERANCE, "<|im_end|>"),
    render_smolvlm,
)
GRANITE_DOCLING = ChatFormat(
    "granite-docling",
    (START_OF_ROLE, END_OF_ROLE, IMAGE_TOKEN, FAKE_TOKEN_AROUND_IMAGE, END_OF_TEXT),
    (END_OF_TEXT,),
    render_granite_docling,
)
FORMATS = (SMOLVLM, GRANITE_DOCLING)


def _render_parts(message: Message, grids: Iterator[TileGrid], image_seq_len: int) -> Iterator[Segment]:
    for part in message.content:
        if isinstance(part, ImagePart):
            yield Segment(image_markup(next(grids), image_seq_len), is_markup=True)
        else:
            yield Segment(part.text)


def tile_marker(row: int, col: int) -> str:
    """Returns what stands before a tile that is not the global one; rows and columns count from 1."""
    return f"<row_{row}_col_{col}>"


def image_markup(grid: TileGrid, image_seq_len: int) -> str:
    """Returns the stretch of prompt that one image takes: its tiles row by row, the global tile last."""
    image_tokens = IMAGE_TOKEN * image_seq_len
    global_tile = f"{FAKE_TOKEN_AROUND_IMAGE}{GLOBAL_IMAGE}{image_tokens}{FAKE_TOKEN_AROUND_IMAGE}"
    if grid == TileGrid(0, 0):
        return global_tile
    rows = [
        "".join(
            f"{FAKE_TOKEN_AROUND_IMAGE}{tile_marker(row, col)}{image_tokens}"
            for col in range(1, grid.cols + 1)
        )
        for row in range(1, grid.rows + 1)
    ]
    return "\n".join(rows) + f"\n\n{global_tile}"
