"""What an answer is, with its costs: the fields that `describe --json` prints."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Timings:
    """Seconds, and one rate."""

    load_s: float  # of the model, once: opening and packing, without download or conversion
    preprocess_s: float  # reading the request and the images, cutting these into tiles
    vision_s: float
    prefill_s: float  # up to the first token
    decode_s: float  # all further tokens
    time_to_first_token_s: float  # from the call to the first token, waiting included
    decode_tokens_per_s: float  # of the further tokens; 0 if there was none


@dataclass(frozen=True)
class Memory:
    """Bytes of memory."""

    peak_bytes: int  # resident, of the whole process since its start


@dataclass(frozen=True)
class TokenLogprob:
    """How likely a token was: the natural logarithm of its probability."""

    token_id: int
    logprob: float


@dataclass(frozen=True)
class TokenLogprobs(TokenLogprob):
    """How likely a token of an answer was, by the model's own logits: before temperature, filter, penalty."""

    top: list[TokenLogprob]  # the likeliest in its place, from the top down


@dataclass(frozen=True)
class GenerationResult:
    """A finished answer, and those beside it if several were asked for."""

    text: str  # as decoded, often with a space first; without special tokens and without the stop string
    token_ids: list[int]  # a stop token that ended it included
    finish_reason: str  # "stop": a stop token or string; "length": max_new_tokens, or the context is full
    prompt_tokens: int  # image tokens included
    image_tokens: int
    tiles: int
    tiles_saved: int  # of `tiles`: not encoded, being equal to others now or lately; the answer is the same
    timings: Timings
    memory: Memory
    logprobs: list[TokenLogprobs] | None = None  # one for each of token_ids, if asked for
    alternatives: list[GenerationResult] = field(default_factory=list)  # the n - 1 answers after this one

    def to_dict(self) -> dict[str, Any]:
        """Returns plain dicts and lists, for JSON; `logprobs` and `alternatives` only if there are some."""
        values = dataclasses.asdict(self)
        del values["logprobs"], values["alternatives"]
        if self.logprobs is not None:
            values["logprobs"] = [dataclasses.asdict(entry) for entry in self.logprobs]
        if self.alternatives:
            values["alternatives"] = [answer.to_dict() for answer in self.alternatives]
        return values
