"""The recipe of `data/tiny/tokenizer.json`: byte-level BPE, 1,000 tokens, all markers of the real one.

Run `python -m pocketvlm.export.tiny_tokenizer OUT.json` to train it again from `data/tiny/corpus.txt`; a test
proves that this gives the stored file.
"""

import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

DATA = Path(__file__).parent / "data" / "tiny"
VOCAB_SIZE = 1000

# The same markers in the same order as SmolVLM-256M-Instruct: three open the vocabulary, the rest close it.
FIRST_MARKERS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LAST_MARKERS = [
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
]


def train() -> Tokenizer:
    """Trains the tokenizer on the corpus. The result depends on nothing else."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(LAST_MARKERS),
        min_frequency=1,
        special_tokens=[_marker(content) for content in FIRST_MARKERS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    corpus = (DATA / "corpus.txt").read_text(encoding="utf-8")
    # Each paragraph keeps its blank line, so that "\n\n" becomes one token: prompts of split images need it.
    paragraphs = [paragraph + "\n\n" for paragraph in corpus.strip().split("\n\n")]
    tokenizer.train_from_iterator(paragraphs, trainer)
    tokenizer.add_special_tokens([_marker(content) for content in LAST_MARKERS])
    return tokenizer


def _marker(content: str) -> AddedToken:
    return AddedToken(content, special=True, normalized=False)


if __name__ == "__main__":
    train().save(sys.argv[1])
