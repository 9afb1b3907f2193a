"""The recipe of `data/tiny/tokenizer.json`: byte-level BPE, 1,000 tokens, all markers of the real one.

Run `python -m pocketvlm.export.tiny_tokenizer OUT.json` to train it again from `data/tiny/corpus.txt`; a test
proves that this gives the stored file.
"""

import sys
from pathlib import Path

from tokenizers import Tokenizer

from .tokenizer_training import train_tokenizer

DATA = Path(__file__).parent / "data" / "tiny"
VOCAB_SIZE = 1000


def train() -> Tokenizer:
    """Trains the tokenizer on the corpus. The result depends on nothing else."""
    corpus = (DATA / "corpus.txt").read_text(encoding="utf-8")
    return train_tokenizer(corpus.strip().split("\n\n"), VOCAB_SIZE)


if __name__ == "__main__":
    train().save(sys.argv[1])
