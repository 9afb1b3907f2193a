"""The tokenizer: only markup becomes special tokens, all else is as whole-string encoding has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm.errors import FormatError, InputError, UnsupportedError
from pocketvlm.processor import Processor
from pocketvlm.tokenizer import Segment, Tokenizer

MARKERS = ["<image>", "<|im_start|>", "<|im_end|>", "<end_of_utterance>", "<row_1_col_1>", "<global-img>"]
# These cannot join into a marker.
PIECES = st.sampled_from(["a", " the", "\n", "\n\n", ": ", "  ", "12", "é", "🐈", "<|", "image", "'s"])
MARKUP = st.sampled_from([*MARKERS, "\n", "User: ", "Assistant:"])


@pytest.fixture(scope="module")
def reference(smolvlm_256m: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(smolvlm_256m / "tokenizer.json"))


@pytest.fixture(scope="module")
def tokenizer(smolvlm_processor: Processor) -> Tokenizer:
    return smolvlm_processor.tokenizer


SEGMENTS = st.lists(
    st.builds(Segment, PIECES, st.just(False)) | st.builds(Segment, MARKUP, st.just(True)), max_size=12
)


@given(segments=SEGMENTS)
def test_segments_encode_as_their_joined_text(
    tokenizer: Tokenizer, reference: tokenizers.Tokenizer, segments: list[Segment]
) -> None:
    joined = "".join(segment.text for segment in segments)
    assert tokenizer.encode_segments(segments) == reference.encode(joined, add_special_tokens=False).ids


@given(text=st.text(max_size=20))
def test_any_text_encodes_and_decodes_as_the_tokenizer_file_says(
    tokenizer: Tokenizer, reference: tokenizers.Tokenizer, text: str
) -> None:
    ids = tokenizer.encode(text)
    assert ids == reference.encode(text, add_special_tokens=False).ids
    decoded = b"".join(map(tokenizer.decode_bytes, ids))
    # Not always the text: this vocabulary lacks a few bytes, such as the first one of U+40000.
    assert decoded.decode("utf-8", "replace") == reference.decode(ids)


def test_text_decodes_to_itself(tokenizer: Tokenizer) -> None:
    text = "Dès 12 h: 🐈‍⬛, \t«日本語»\n"
    assert b"".join(map(tokenizer.decode_bytes, tokenizer.encode(text))) == text.encode()


@pytest.mark.parametrize("marker", MARKERS)
def test_a_typed_marker_stays_text(tokenizer: Tokenizer, marker: str) -> None:
    special = tokenizer.encode(marker, parse_special=True)
    assert special == [tokenizer.token_to_id(marker)]
    typed = tokenizer.encode(marker)
    assert special[0] not in typed
    assert b"".join(map(tokenizer.decode_bytes, typed)) == marker.encode()


def test_a_marker_does_not_form_across_the_border_of_text_and_markup(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_segments([Segment("<ima"), Segment("ge>", is_markup=True)])
    assert ids == tokenizer.encode("<image>")


def test_tokens_form_across_borders(tokenizer: Tokenizer) -> None:
    newlines = tokenizer.encode_segments([Segment("\n", is_markup=True), Segment("\n")])
    assert newlines == tokenizer.encode("\n\n")
    assert len(newlines) == 1


def test_special_tokens_and_ids_beyond_the_vocabulary_have_no_bytes(tokenizer: Tokenizer) -> None:
    (image,) = tokenizer.encode("<image>", parse_special=True)
    assert tokenizer.decode_bytes(image) == b""
    assert tokenizer.decode_bytes(10**6) == b""


def test_an_added_token_that_is_not_special_becomes_so_when_reserved(
    smolvlm_256m: Path, tmp_path: Path
) -> None:
    content = json.loads((smolvlm_256m / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        token["special"] = token["special"] and token["content"] != "<image>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json")
    image = tokenizer.token_to_id("<image>")
    assert tokenizer.encode("<image>") == [image]  # what would happen
    assert tokenizer.decode_bytes(image or 0) == b"<image>"
    tokenizer.reserve(["<image>", "<not in the vocabulary>"])
    assert image not in tokenizer.encode("<image>")
    assert tokenizer.encode("<image>", parse_special=True) == [image]
    assert tokenizer.decode_bytes(image or 0) == b""


def test_a_marker_without_a_token_is_plain_text_in_markup_too(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("<row_9_col_9>", parse_special=True) == tokenizer.encode("<row_9_col_9>")


def test_half_a_surrogate_pair_is_an_input_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="not valid Unicode"):
        tokenizer.encode("a\ud800")


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(FormatError, match=r"tokenizer\.json: the file is missing"):
        Tokenizer(path)
    path.write_text("{")
    with pytest.raises(FormatError, match=r"tokenizer\.json: cannot be read"):
        Tokenizer(path)
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).save(str(path))
    with pytest.raises(
        UnsupportedError, match=r"tokenizer\.json: the decoder is NoneType; supported: ByteLevel"
    ):
        Tokenizer(path)
