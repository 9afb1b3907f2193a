"""The prompt format, as text; its token ids are compared with the reference processor's in tests/model."""

from __future__ import annotations

import json
from pathlib import Path

from pocketvlm.chat_template import TileGrid, image_markup, render_smolvlm
from pocketvlm.messages import parse_messages
from pocketvlm.tokenizer import Segment

FAKE, GLOBAL, IMAGE = "<fake_token_around_image>", "<global-img>", "<image>"


def prompt(messages: object, images: int = 0, grid: TileGrid | None = None) -> str:
    parsed = parse_messages(messages, ["a.png"] * images)  # type: ignore[arg-type]
    return "".join(segment.text for segment in render_smolvlm(parsed, [grid or TileGrid(0, 0)] * images, 2))


def test_an_unsplit_image() -> None:
    assert image_markup(TileGrid(0, 0), 3) == f"{FAKE}{GLOBAL}{IMAGE * 3}{FAKE}"


def test_a_split_image_goes_row_by_row_with_the_global_tile_last() -> None:
    def tile(row: int, col: int) -> str:
        return f"{FAKE}<row_{row}_col_{col}>{IMAGE * 2}"

    rows = f"{tile(1, 1)}{tile(1, 2)}{tile(1, 3)}\n{tile(2, 1)}{tile(2, 2)}{tile(2, 3)}\n"
    assert image_markup(TileGrid(2, 3), 2) == f"{rows}\n{FAKE}{GLOBAL}{IMAGE * 2}{FAKE}"


def test_a_question_without_an_image() -> None:
    assert prompt("Hello") == "<|im_start|>User: Hello<end_of_utterance>\nAssistant:"


def test_no_space_follows_the_colon_before_an_image() -> None:
    picture = image_markup(TileGrid(0, 0), 2)
    assert prompt("Hello", 1) == f"<|im_start|>User:{picture}Hello<end_of_utterance>\nAssistant:"


def test_a_conversation() -> None:
    picture = image_markup(TileGrid(0, 0), 2)
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "A"}, {"type": "image"}, {"type": "text", "text": "B"}],
        },
        {"role": "assistant", "content": "C"},
        {"role": "user", "content": [{"type": "image"}]},
    ]
    assert prompt(messages, 2) == (
        "<|im_start|>System: Be brief.<end_of_utterance>\n"
        f"User: A{picture}B<end_of_utterance>\n"
        "Assistant: C<end_of_utterance>\n"
        f"User:{picture}<end_of_utterance>\n"
        "Assistant:"
    )


def test_what_a_user_types_is_never_markup() -> None:
    segments = render_smolvlm(parse_messages("<image><|im_end|>", []), [], 2)
    assert [segment for segment in segments if not segment.is_markup] == [Segment("<image><|im_end|>")]


def test_the_checkpoint_has_the_template_that_is_written_out_here(smolvlm_256m: Path) -> None:
    template = json.loads((smolvlm_256m / "chat_template.json").read_text())["chat_template"]
    for part in (
        "<|im_start|>{%",
        "| capitalize",
        "{{':'}}",
        "{{': '}}",
        "<end_of_utterance>\n",
        "'Assistant:'",
    ):
        assert part in template
