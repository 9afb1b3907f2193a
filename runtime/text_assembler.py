"""Bytes of tokens, one token at a time -> text to show: whole characters, ended before a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence


class TextAssembler:
    """Joins token bytes into text, and holds back what may yet turn out to begin a stop string.

    However the bytes are split, the pieces join to the same text: that of all bytes decoded at once (U+FFFD
    for what is not UTF-8), up to the stop string that is complete first, or the longer of two that end there.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        """Starts an empty text.

        Args:
            stop: Strings to end before, none of them empty.
        """
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

    def push(self, token_bytes: bytes) -> str:
        """Takes the next bytes and returns the text they settle, maybe none."""
        return self._settle(self._decoder.decode(token_bytes))

    def finish(self) -> str:
        """Ends the text and returns what was held back. A character cut short becomes U+FFFD."""
        text = self._settle(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _settle(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        matches = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        if matches:
            self.stopped = True
            self._held = ""
            return text[: min(matches)[1]]
        held = self._length_to_hold(text)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def _length_to_hold(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[len(text) - length :]) for stop in self._stop):
                return length
        return 0


class AnswerText:
    """The text of an answer while it is made: token bytes in, pieces to `emit`, the whole at the end."""

    def __init__(self, stop: Sequence[str], emit: Callable[[str], None]) -> None:
        self._assembler = TextAssembler(stop)
        self._emit = emit
        self._pieces: list[str] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._assembler.stopped

    def push(self, token_bytes: bytes) -> bool:
        """Takes the bytes of the next token. Returns whether the answer ends with it."""
        self._put(self._assembler.push(token_bytes))
        return self.stopped

    def finish(self) -> str:
        """Emits what was held back, and returns the whole text."""
        self._put(self._assembler.finish())
        return "".join(self._pieces)

    def _put(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
            self._emit(piece)
