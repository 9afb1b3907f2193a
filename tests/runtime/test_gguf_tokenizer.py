"""The tokenizer from GGUF metadata: the tokens of tokenizer.json, for every tokenizer we have; refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers

from pocketvlm import _core
from pocketvlm.config import ModelConfig
from pocketvlm.errors import FormatError, UnsupportedError
from pocketvlm.export.gguf_file import Value, ValueType, array, encode_header, string, uint32
from pocketvlm.export.model_files import model_files
from pocketvlm.export.vocabulary import vocabulary_metadata
from pocketvlm.gguf_tokenizer import read_stop_token_ids, read_tokenizer
from pocketvlm.tokenizer import Tokenizer

from .tokenizer_corpus import LINES, corpus

SEED = 1  # of the corpus

# The real ones with tile markers, without, and of granite-docling; and the small one.
MODELS = ("256m", "2.2b", "granite-docling", "tiny")

Metadata = dict[str, Value]


def write_metadata(path: Path, metadata: Metadata) -> _core.GgufFile:
    """Writes a GGUF file without tensors."""
    path.write_bytes(encode_header(metadata, []))
    return _core.GgufFile(path)


@pytest.fixture(params=MODELS)
def model_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The files of each model in turn, without weights."""
    for name, content in model_files(request.param).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_tokens_are_those_of_tokenizer_json(model_folder: Path) -> None:
    config = ModelConfig.from_folder(model_folder)
    path = model_folder / "tokenizer.json"
    file = write_metadata(model_folder / "vocabulary.gguf", vocabulary_metadata(model_folder, config))
    expected, found = Tokenizer(path), read_tokenizer(file, "vocabulary.gguf")
    added = tokenizers.Tokenizer.from_file(str(path)).get_added_tokens_decoder()
    # granite-docling has one more, without a row in the embedding.
    markers = [token.content for id, token in sorted(added.items()) if id < config.text.vocab_size]
    lines = corpus(markers, seed=SEED)
    assert len(lines) == LINES
    for parse_special in (False, True):
        different = [
            line
            for line in lines
            if expected.encode(line, parse_special=parse_special)
            != found.encode(line, parse_special=parse_special)
        ]
        assert different[:3] == []
    ids = range(config.text.vocab_size)
    assert [id for id in ids if expected.decode_bytes(id) != found.decode_bytes(id)] == []


@pytest.fixture
def metadata() -> Metadata:
    """The vocabulary of the smallest file: four bytes, a merge, a marker, a hole."""
    tokens = ["a", "b", "c", "ab", "<image>", "[PAD5]"]
    return {
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.pre": string("smollm"),
        "tokenizer.ggml.tokens": array(ValueType.STRING, tokens),
        "tokenizer.ggml.token_type": array(ValueType.INT32, [1, 1, 1, 1, 3, 5]),
        "tokenizer.ggml.merges": array(ValueType.STRING, ["a b"]),
        "tokenizer.ggml.eos_token_id": uint32(4),
    }


def test_holes_markers_and_stop_tokens(tmp_path: Path, metadata: Metadata) -> None:
    metadata["tokenizer.ggml.eot_token_id"] = uint32(2)
    file = write_metadata(tmp_path / "file.gguf", metadata)
    tokenizer = read_tokenizer(file, "file.gguf")
    assert tokenizer.encode("cab<image>", parse_special=True) == [2, 3, 4]
    assert tokenizer.token_to_id("[PAD5]") is None
    assert tokenizer.decode_bytes(5) == b""
    assert read_stop_token_ids(file, "file.gguf") == [4, 2]


def test_an_added_token_that_is_not_special_is_found_in_text(tmp_path: Path, metadata: Metadata) -> None:
    metadata["tokenizer.ggml.token_type"] = array(ValueType.INT32, [1, 1, 1, 1, 4, 5])
    tokenizer = read_tokenizer(write_metadata(tmp_path / "file.gguf", metadata), "file.gguf")
    assert tokenizer.encode("a<image>") == [0, 4]
    assert tokenizer.decode_bytes(4) == b"<image>"


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        ("model", string("llama"), UnsupportedError, "model: llama, expected gpt2"),
        ("pre", string("qwen2"), UnsupportedError, "pre: qwen2, expected one of smollm, granite-docling"),
        ("pre", None, UnsupportedError, "pre: missing, expected one of smollm"),
        ("tokens", None, FormatError, "key tokenizer.ggml.tokens: missing"),
        ("tokens", array(ValueType.STRING, ["a"] * 7), FormatError, "6 values, expected 7, one for each"),
        (
            "tokens",
            array(ValueType.STRING, [*"abc d", "e"]),
            FormatError,
            r"' ' \(3\) is no byte-level token",
        ),
        ("token_type", None, FormatError, "token_type: missing"),
        ("token_type", uint32(1), FormatError, "token_type: a single value, expected 6"),
        (
            "token_type",
            array(ValueType.INT32, [1, 1, 1, 1, 2, 5]),
            UnsupportedError,
            "type 2, expected 1, 3,",
        ),
        ("merges", None, FormatError, "key tokenizer.ggml.merges: missing"),
        ("merges", array(ValueType.STRING, ["a b c"]), FormatError, "'a b c', expected two tokens"),
        ("merges", array(ValueType.STRING, ["a z"]), FormatError, "make no tokenizer: .*out of vocabulary"),
        ("eos_token_id", uint32(6), FormatError, "eos_token_id: 6, expected one of 6 tokens"),
    ],
)
def test_refusals(
    tmp_path: Path,
    metadata: Metadata,
    key: str,
    value: Value | None,
    error: type[Exception],
    message: str,
) -> None:
    del metadata[f"tokenizer.ggml.{key}"]
    if value is not None:
        metadata[f"tokenizer.ggml.{key}"] = value
    file = write_metadata(tmp_path / "file.gguf", metadata)
    with pytest.raises(error, match=message) as caught:
        read_tokenizer(file, "file.gguf")
        read_stop_token_ids(file, "file.gguf")
    assert "file.gguf" in str(caught.value)
