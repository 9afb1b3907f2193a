"""Reads the vocabulary of a text GGUF with llama.cpp, without its weights, and tokenizes.

    python llama_vocabulary.py TEXT.gguf TEXTS.json ANSWER.json

A script of its own, because llama-cpp-python lives in another virtual environment than the tests. TEXTS.json
is a list of strings; ANSWER.json gets their token ids and what kinds of tokens llama.cpp sees.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp


def main(arguments: list[str]) -> int:
    """Answers one request. Returns 1 if llama.cpp refuses the file (it says why on stderr)."""
    model_path, texts_path, answer_path = map(Path, arguments)
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(bytes(model_path), parameters)
    if not model:
        print(f"{model_path.name}: llama.cpp cannot load it", file=sys.stderr)
        return 1
    vocab = llama_cpp.llama_model_get_vocab(model)
    size = llama_cpp.llama_vocab_n_tokens(vocab)
    answer = {
        "vocab_size": size,
        "control": [i for i in range(size) if llama_cpp.llama_vocab_is_control(vocab, i)],
        "end_of_generation": [i for i in range(size) if llama_cpp.llama_vocab_is_eog(vocab, i)],
        "token_ids": [tokenize(vocab, text) for text in json.loads(texts_path.read_text())],
    }
    llama_cpp.llama_model_free(model)
    answer_path.write_text(json.dumps(answer))
    return 0


def tokenize(vocab: Any, text: str) -> list[int]:
    """Token ids of plain text: markers in it stay text, nothing is put before it."""
    data = text.encode()
    room = (llama_cpp.llama_token * (len(data) + 8))()
    count = llama_cpp.llama_tokenize(vocab, data, len(data), room, len(room), False, False)
    if count < 0:
        raise RuntimeError(f"llama_tokenize: {count} for {text!r}")
    return list(room[:count])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
