"""The messages people write, in the forms of transformers and of the OpenAI API -> one checked form of ours.

Turning them into text is the business of `chat_template`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .errors import InputError
from .images import ImageSource

MessageDict: TypeAlias = Mapping[str, Any]

ROLES = ("system", "user", "assistant")
# Where an image part may carry its image; without any it takes the next of images=.
_IMAGE_KEYS = ("image", "url", "path", "base64", "image_url")


@dataclass(frozen=True)
class TextPart:
    """A piece of text, taken literally."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """An image, in the order of the conversation."""

    image: ImageSource


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `content` is not empty."""

    role: str
    content: tuple[TextPart | ImagePart, ...]


def parse_messages(prompt: str | Sequence[MessageDict], images: Sequence[ImageSource]) -> list[Message]:
    """Reads a conversation.

    A plain string is one user message with all images before the text. Otherwise each message is
    `{"role": ..., "content": ...}` with a string or a list of parts as its content. The parts are
    `{"type": "text", "text": ...}`, `{"type": "image"}` (which takes the next of `images`, or carries its own
    as "image", "url", "path" or "base64") and `{"type": "image_url", "image_url": {"url": ...}}`.

    Raises:
        InputError: An unknown role, type or key, something missing, or image parts that do not fit `images`.
    """
    if isinstance(prompt, str):
        return [Message("user", (*map(ImagePart, images), TextPart(prompt)))]
    if not isinstance(prompt, Sequence) or not prompt:
        raise InputError(f"found {prompt!r:.60}, expected a string or a list of at least one message")
    waiting = list(images)
    messages = [_parse_message(message, f"messages[{i}]", waiting) for i, message in enumerate(prompt)]
    if waiting:
        taken = len(images) - len(waiting)
        raise InputError(
            f"found {len(images)} images for {taken} image parts in the messages; "
            'mark the place of each with {"type": "image"}'
        )
    return messages


def _parse_message(message: Any, where: str, waiting: list[ImageSource]) -> Message:
    _check_keys(message, where, required={"role", "content"})
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise InputError(f"{where}: role is {role!r}, expected one of {', '.join(ROLES)}")
    if isinstance(content, str):
        return Message(role, (TextPart(content),))
    if not isinstance(content, Sequence) or not content:
        raise InputError(
            f"{where}: content is {content!r:.60}, expected a string or a list of at least one part"
        )
    parts = [_parse_part(part, f"{where}.content[{i}]", waiting) for i, part in enumerate(content)]
    return Message(role, tuple(parts))


def _parse_part(part: Any, where: str, waiting: list[ImageSource]) -> TextPart | ImagePart:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        _check_keys(part, where, required={"type", "text"})
        if not isinstance(part["text"], str):
            raise InputError(f"{where}: text is {part['text']!r:.60}, expected a string")
        return TextPart(part["text"])
    if kind == "image":
        _check_keys(part, where, required={"type"}, optional=_IMAGE_KEYS)
        return ImagePart(_find_image(part, where, waiting))
    if kind == "image_url":
        _check_keys(part, where, required={"type", "image_url"})
        url = part["image_url"]
        if isinstance(url, Mapping):
            # "detail" is OpenAI's hint on resolution; the checkpoint decides on that here.
            _check_keys(url, f"{where}.image_url", required={"url"}, optional=["detail"])
            url = url["url"]
        return ImagePart(_as_url(url, f"{where}.image_url"))
    raise InputError(f"{where}: found {part!r:.60}, expected a part of type text, image or image_url")


def _find_image(part: MessageDict, where: str, waiting: list[ImageSource]) -> ImageSource:
    given = [key for key in _IMAGE_KEYS if part.get(key) is not None]
    if len(given) > 1:
        raise InputError(f"{where}: the image is given twice, as {' and '.join(given)}")
    if not given:
        if not waiting:
            raise InputError(f"{where}: no image is left for this part; pass one more in images=")
        return waiting.pop(0)
    key = given[0]
    if key == "base64":
        return f"data:image/*;base64,{part[key]}"
    if key in ("url", "image_url"):
        return _as_url(part[key], f"{where}.{key}")
    image: ImageSource = part[key]
    return image


def _as_url(url: Any, where: str) -> str:
    if not isinstance(url, str):
        raise InputError(f"{where}: found {url!r:.60}, expected a URL")
    return url


def _check_keys(value: Any, where: str, *, required: set[str], optional: Collection[str] = ()) -> None:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: found {value!r:.60}, expected a dict with {', '.join(sorted(required))}")
    if missing := required - value.keys():
        raise InputError(f"{where}: {', '.join(sorted(missing))} is missing")
    if unknown := value.keys() - required - set(optional):
        raise InputError(f"{where}: unknown key {', '.join(sorted(map(str, unknown)))}")
