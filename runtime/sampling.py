"""How the next token is chosen: the options, checked. The choosing itself is done in the core."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

from . import _core
from .arguments import read_integer, read_number
from .errors import InputError


class SamplingKeywords(TypedDict, total=False):
    """What `generate` and `stream` take to choose tokens by: `SamplingOptions`; None is as not given."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None
    seed: int | None


@dataclass(frozen=True)
class SamplingOptions:
    """Greedy by default. The steps are applied in the order of `csrc/model/sampler.h`, which defines them.

    Raises:
        InputError: An option is of the wrong kind or out of its range.
    """

    temperature: float = 0.0  # 0: always the likeliest token; 1: as the model has it; above: more varied
    top_k: int = 0  # draw from the k likeliest; 0: from all
    top_p: float = 1.0  # draw from the likeliest that make up this part of the whole; above 0
    min_p: float = 0.0  # draw from tokens at least this part as likely as the likeliest
    repetition_penalty: float = 1.0  # above 1: against what is in prompt or answer, as transformers has it
    presence_penalty: float = 0.0  # above 0: against what is in the answer, as the OpenAI API has it
    frequency_penalty: float = 0.0  # the same for every time that it is there
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # by token id; -inf forbids a token
    seed: int = 0  # the same seed and options give the same tokens, on any number of threads

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name == "logit_bias":
                _require_bias(value)
            elif option.name in ("top_k", "seed"):
                read_integer(option.name, value, at_least=0, at_most=2**64 - 1)
            else:
                read_number(option.name, value)

    def for_core(self, vocab_size: int) -> _core.SamplingOptions:
        """Returns the options as the core takes them, for logits of `vocab_size` tokens."""
        options = _core.SamplingOptions(
            temperature=float(self.temperature),
            top_k=min(int(self.top_k), vocab_size),
            top_p=float(self.top_p),
            min_p=float(self.min_p),
            repetition_penalty=float(self.repetition_penalty),
            presence_penalty=float(self.presence_penalty),
            frequency_penalty=float(self.frequency_penalty),
            logit_bias={int(token): float(bias) for token, bias in self.logit_bias.items()},
            seed=int(self.seed),
        )
        options.check(vocab_size)
        return options


def read_sampling(keywords: Mapping[str, Any]) -> SamplingOptions:
    """Makes options of what a person gave; without a seed, of a random one.

    Raises:
        InputError: An option is not possible, or chooses among tokens where no temperature gives a choice.
        TypeError: There is no such option.
    """
    given = {name: value for name, value in keywords.items() if value is not None}
    options = SamplingOptions(**{"seed": secrets.randbits(64), **given})
    for name in ("top_k", "top_p", "min_p"):
        if name in given and "temperature" not in given:
            raise InputError(
                f"{name} is {given[name]!r}, but without a temperature the likeliest token is always taken; "
                "temperature=1.0 draws from those that are left"
            )
    return options


def _require_bias(bias: Mapping[int, float]) -> None:
    if not isinstance(bias, Mapping):
        raise InputError(f"logit_bias is {bias!r}, expected a dict from token ids to numbers")
    for token, value in bias.items():
        read_integer("a token of logit_bias", token, at_least=0, at_most=2**31 - 1)
        read_number(f"logit_bias of token {token}", value)
