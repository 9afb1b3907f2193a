"""Text from bytes in any pieces: the same as from the whole, and never half of anything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pocketvlm.text_assembler import TextAssembler

# Few letters, so that stop strings occur; some of two, three and four bytes.
TEXT = st.text("ab\né€🐈", max_size=12)
STOPS = st.lists(st.text("ab\né€🐈", min_size=1, max_size=4), max_size=3)


def assemble(pieces: list[bytes], stop: list[str]) -> list[str]:
    """What is shown after each piece; ends, as a generation does, when a stop string was found."""
    assembler = TextAssembler(stop)
    shown = []
    for piece in pieces:
        shown.append(assembler.push(piece))
        if assembler.stopped:
            break
    return [*shown, assembler.finish()]


def whole(text: str, stop: list[str]) -> str:
    """The definition, a character at a time: cut before the stop string that is complete first."""
    for end in range(1, len(text) + 1):
        starts = [end - len(s) for s in stop if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)]
    return text


@st.composite
def split_bytes(draw: st.DrawFn, content: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=12)))
    return [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]


@given(st.data(), TEXT, STOPS)
def test_any_split_of_a_text_gives_the_whole_text(data: st.DataObject, text: str, stop: list[str]) -> None:
    pieces = data.draw(split_bytes(text.encode()))
    shown = assemble(pieces, stop)
    assert "".join(shown) == whole(text, stop)
    assert all("\ufffd" not in piece for piece in shown)


@given(st.data(), st.binary(max_size=16), STOPS)
def test_any_split_of_any_bytes_gives_their_lossy_decoding(
    data: st.DataObject, content: bytes, stop: list[str]
) -> None:
    pieces = data.draw(split_bytes(content))
    assert "".join(assemble(pieces, stop)) == whole(content.decode("utf-8", "replace"), stop)


@given(TEXT, STOPS)
def test_only_a_possible_stop_string_is_held_back(text: str, stop: list[str]) -> None:
    assembler = TextAssembler(stop)
    shown = ""
    for i, character in enumerate(text):
        shown += assembler.push(character.encode())
        if assembler.stopped:
            break
        held = text[len(shown) : i + 1]
        assert not held or any(s.startswith(held) for s in stop)


def test_a_character_in_two_tokens_appears_whole() -> None:
    cat = "🐈".encode()
    assert assemble([cat[:1], cat[1:3], cat[3:], b"!"], []) == ["", "", "🐈", "!", ""]


def test_a_stop_string_across_tokens_ends_the_text() -> None:
    assembler = TextAssembler(["STOP"])
    assert [assembler.push(piece) for piece in (b"go S", b"TO", b"P now")] == ["go ", "", ""]
    assert assembler.stopped
    assert assembler.finish() == ""


def test_what_only_looked_like_a_stop_string_appears_later() -> None:
    assert assemble([b"S", b"TO", b"NE", b" ST"], ["STOP"]) == ["", "", "STONE", " ", "ST"]


def test_a_character_cut_short_at_the_end_is_marked() -> None:
    assert "".join(assemble(["né".encode()[:2]], [])) == "n\ufffd"
