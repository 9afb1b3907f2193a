"""Text <-> token ids: a thin wrapper over `tokenizers`, the seam that a tokenizer in the core may replace.

Knows nothing of prompts. Tells markup (ours) from text (the user's): only markup may become special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import tokenizers
from tokenizers.decoders import ByteLevel

from .errors import FormatError, InputError, UnsupportedError


class Segment(NamedTuple):
    """A stretch of a prompt. Special tokens are recognised in markup alone."""

    text: str
    is_markup: bool = False


class Tokenizer:
    """A byte-level tokenizer. Safe to use from several threads."""

    def __init__(self, source: str | Path | tokenizers.Tokenizer) -> None:
        """Reads a tokenizer.json, or takes a tokenizer that was made from elsewhere, and for this alone.

        Raises:
            FormatError: The file is missing or damaged.
            UnsupportedError: The tokenizer is not a byte-level one.
        """
        if isinstance(source, tokenizers.Tokenizer):
            self._tokenizer = source
        else:
            self._tokenizer = _read_file(source)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # What is left to `tokenizers` is text; markers are split off before, by _marker_pattern.
        self._tokenizer.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder()
        self._markers = {token.content: id for id, token in added.items() if token.special}
        self._hidden_ids = frozenset(self._markers.values())
        self._added = {id: token.content for id, token in added.items()}
        self._compile_markers()

    def reserve(self, markers: Iterable[str]) -> None:
        """Makes those of `markers` special that the vocabulary has as added tokens."""
        plain = {content: id for id, content in self._added.items() if content not in self._markers}
        found = [marker for marker in markers if marker in plain]
        self._tokenizer.add_special_tokens(found)
        self._markers |= {marker: plain[marker] for marker in found}
        self._hidden_ids = frozenset(self._markers.values())
        self._compile_markers()

    def show(self, *, but_not: Collection[str]) -> None:
        """Makes special tokens part of answers: all but some, and those written <|...|>, which steer."""
        self._hidden_ids = frozenset(
            id for content, id in self._markers.items() if content in but_not or content.startswith("<|")
        )

    def _compile_markers(self) -> None:
        # Longest first: of two markers that start at one place `tokenizers` takes the longer.
        longest_first = sorted(self._markers, key=len, reverse=True)
        self._marker_pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def token_to_id(self, token: str) -> int | None:
        """Returns the id of a token of the vocabulary, None if there is no such token."""
        token_id: int | None = self._tokenizer.token_to_id(token)
        return token_id

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Returns the token ids of `text`, adding none.

        Args:
            text: Any string.
            parse_special: Whether markers such as `<image>` become their special token, or stay plain text.

        Raises:
            InputError: The text holds half a surrogate pair.
        """
        return self.encode_segments([Segment(text, parse_special)])

    def encode_segments(self, segments: Iterable[Segment]) -> list[int]:
        """Returns the token ids of the segments joined together.

        Tokens form across segment borders as they would in the joined text: only special tokens part text.

        Raises:
            InputError: The text holds half a surrogate pair.
        """
        token_ids: list[int] = []
        pending: list[str] = []  # text since the last special token
        for segment in segments:
            if not segment.is_markup or not self._markers:
                pending.append(segment.text)
                continue
            for piece in self._marker_pattern.split(segment.text):
                if piece in self._markers:
                    token_ids += self._encode_text("".join(pending))
                    pending.clear()
                    token_ids.append(self._markers[piece])
                else:
                    pending.append(piece)
        return token_ids + self._encode_text("".join(pending))

    def _encode_text(self, text: str) -> list[int]:
        if not text:
            return []
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"the prompt is not valid Unicode text: {error}") from None
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode_bytes(self, token_id: int) -> bytes:
        """Returns the bytes a token stands for: maybe a part of a character, nothing for a special token.

        Ids beyond the vocabulary (a model may have padding rows) give nothing too.
        """
        if token_id in self._hidden_ids:
            return b""
        if token_id in self._added:
            return self._added[token_id].encode("utf-8")
        token = self._tokenizer.id_to_token(token_id)
        return b"" if token is None else bytes(BYTE_OF_CHARACTER[character] for character in token)


def _read_file(path: str | Path) -> tokenizers.Tokenizer:
    if not Path(path).is_file():
        raise FormatError(f"{path}: the file is missing")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise FormatError(f"{path}: cannot be read as a tokenizer: {error}") from error
    if not isinstance(tokenizer.decoder, ByteLevel):
        kind = type(tokenizer.decoder).__name__
        raise UnsupportedError(f"{path}: the decoder is {kind}; supported: ByteLevel")
    return tokenizer


def _byte_of_character() -> dict[str, int]:
    """Returns the byte behind each of the 256 characters in which byte-level vocabularies are written.

    Printable Latin-1 characters stand for themselves, the other bytes for the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTE_OF_CHARACTER = _byte_of_character()
