"""Messages as transformers and the OpenAI API write them, and what is wrong with others."""

from __future__ import annotations

from typing import Any

import pytest

from pocketvlm.errors import InputError
from pocketvlm.messages import ImagePart, Message, TextPart, parse_messages


def user(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


TEXT = {"type": "text", "text": "What?"}


def test_a_plain_string_is_one_user_message_with_the_images_first() -> None:
    assert parse_messages("What?", ["a.png", "b.png"]) == [
        Message("user", (ImagePart("a.png"), ImagePart("b.png"), TextPart("What?")))
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "a.png"},
        {"type": "image", "path": "a.png"},
        {"type": "image", "url": "a.png"},
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "image_url", "image_url": {"url": "a.png", "detail": "high"}},
        {"type": "image_url", "image_url": "a.png"},
    ],
)
def test_an_image_part_may_carry_its_image(part: dict[str, Any]) -> None:
    assert parse_messages(user(part, TEXT), []) == [Message("user", (ImagePart("a.png"), TextPart("What?")))]


def test_a_base64_image_becomes_a_data_url() -> None:
    (message,) = parse_messages(user({"type": "image", "base64": "QUJD"}), [])
    assert message.content == (ImagePart("data:image/*;base64,QUJD"),)


def test_bare_image_parts_take_the_images_in_order() -> None:
    messages = user({"type": "image"}, {"type": "image", "path": "own.png"}, TEXT, {"type": "image"})
    (message,) = parse_messages(messages, ["first.png", "second.png"])
    images = [part.image for part in message.content if isinstance(part, ImagePart)]
    assert images == ["first.png", "own.png", "second.png"]


def test_a_plain_string_as_content_is_its_text() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "assistant", "content": ""}]
    assert parse_messages(messages, []) == [
        Message("system", (TextPart("Be brief."),)),
        Message("assistant", (TextPart(""),)),
    ]


@pytest.mark.parametrize(
    ("prompt", "images", "message"),
    [
        ([], [], "expected a string or a list"),
        (None, [], "found None"),
        ({"role": "user", "content": "x"}, [], "expected a string or a list"),
        (["x"], [], r"messages\[0\]: found 'x', expected a dict"),
        ([{"role": "user"}], [], r"messages\[0\]: content is missing"),
        ([{"content": "x"}], [], r"messages\[0\]: role is missing"),
        ([{"role": "tool", "content": "x"}], [], r"messages\[0\]: role is 'tool', expected one of system"),
        ([{"role": ["user"], "content": "x"}], [], "role is"),
        ([{"role": "user", "content": "x", "name": "y"}], [], "unknown key name"),
        ([{"role": "user", "content": []}], [], "at least one part"),
        ([{"role": "user", "content": 7}], [], "content is 7"),
        (user("x"), [], r"messages\[0\].content\[0\]: found 'x', expected a part"),
        (user({"type": "video", "path": "a.mp4"}), [], "expected a part of type text, image or image_url"),
        (user({"type": "text"}), [], "text is missing"),
        (user({"type": "text", "text": None}), [], "text is None"),
        (user({"type": "text", "text": "x", "image": "a.png"}), [], "unknown key image"),
        (user({"type": "image"}), [], "no image is left"),
        (user({"type": "image", "path": "a", "url": "b"}), [], "given twice, as url and path"),
        (user({"type": "image_url", "image_url": {"href": "a"}}), [], "url is missing"),
        (user({"type": "image_url", "image_url": 7}), [], "expected a URL"),
        (user({"type": "image", "url": 7}), [], "expected a URL"),
        (user(TEXT), ["a.png"], "found 1 images for 0 image parts"),
        (user({"type": "image"}), ["a.png", "b.png"], "found 2 images for 1 image parts"),
    ],
)
def test_a_bad_message_is_named(prompt: Any, images: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_messages(prompt, images)
