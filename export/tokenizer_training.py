"""Trains small byte-level BPE tokenizers in the manner of SmolVLM's: its markers, its splitting of digits."""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

# The same markers in the same order as SmolVLM-256M-Instruct: three open the vocabulary, the rest close it.
FIRST_MARKERS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LAST_MARKERS = [
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
]


def train_tokenizer(paragraphs: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains a tokenizer; the result depends on nothing but the arguments.

    Args:
        paragraphs: Text, without the blank lines between the paragraphs.
        vocab_size: Tokens, markers included; fewer come out if the text has too few pairs to merge.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(LAST_MARKERS),
        min_frequency=1,
        special_tokens=[_marker(content) for content in FIRST_MARKERS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Each paragraph keeps its blank line, so that "\n\n" becomes one token: prompts of split images need it.
    tokenizer.train_from_iterator([paragraph + "\n\n" for paragraph in paragraphs], trainer)
    tokenizer.add_special_tokens([_marker(content) for content in LAST_MARKERS])
    return tokenizer


def _marker(content: str) -> AddedToken:
    return AddedToken(content, special=True, normalized=False)
