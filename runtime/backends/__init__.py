"""What runs a model: the protocol every backend keeps, and the table of those there are."""

if __name__ != "pocketvlm.backends":
    raise ImportError(
        f"this folder is the package pocketvlm.backends, imported as {__name__!r}: "
        "install pocketvlm (pip install .) and import pocketvlm.backends"
    )

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..config import ModelConfig
from ..errors import UnsupportedError
from ..hub import ModelFiles
from ..result import TokenLogprobs
from ..sampling import SamplingOptions
from ..tiles import TileLayout

# What a long call reports: (stage, done, total).
ProgressCallback: TypeAlias = Callable[[str, int, int], None]


class Generated(NamedTuple):
    """What `Backend.generate` produced; times in seconds."""

    token_ids: list[int]  # a stop token that ended it included
    finish_reason: str  # "stop": a stop token; "callback": on_token said so; "length"
    prefill_s: float  # shared by all answers
    decode_s: float
    logprobs: list[TokenLogprobs] | None = None  # of each token, if asked for
    alternatives: tuple["Generated", ...] = ()  # the answers after the first


class Backend(Protocol):
    """A loaded model: images to features, prompt and features to tokens. One call at a time."""

    @property
    def tile_layout(self) -> TileLayout:
        """How `encode_images` wants its tiles."""

    def encode_images(
        self, tiles: NDArray[Any], *, stop: _core.StopFlag, on_progress: ProgressCallback | None
    ) -> NDArray[np.float32]:
        """Encodes tiles in `tile_layout` to float32 [T, image_seq_len, hidden_size].

        Raises:
            Cancelled: `stop` was set.
        """

    def generate(
        self,
        token_ids: Sequence[int],
        image_features: NDArray[np.float32],
        *,
        max_new_tokens: int,
        stop_token_ids: Sequence[int],
        ignore_eos: bool,
        sampling: SamplingOptions,
        n: int,
        logprobs: int | None,
        on_token: Callable[[int, int], bool],
        stop: _core.StopFlag,
        on_progress: ProgressCallback | None,
    ) -> Generated:
        """Answers a prompt, `n` times, one after the other.

        Args:
            token_ids: The prompt, with an image token for every row of `image_features`.
            image_features: float32 [image tokens, hidden_size].
            max_new_tokens: The most tokens to produce; fewer if the context is full before.
            stop_token_ids: Tokens that end it.
            ignore_eos: Whether to go on after those.
            sampling: How tokens are chosen.
            n: How many answers.
            logprobs: With how many of the likeliest to tell how likely each token was; None: not at all.
            on_token: Called with every token and the number of its answer; returning True ends that answer.
            stop: Ends everything from any thread.
            on_progress: Called while the prompt is read and for every token.

        Raises:
            Cancelled: `stop` was set.
        """

    def info(self) -> dict[str, Any]:
        """Returns what there is to say of it: types, parameters, bytes of the weights, choices made."""


class _BackendModule(Protocol):
    def open_model(
        self,
        files: ModelFiles,
        config: ModelConfig,
        *,
        pool: _core.ThreadPool,
        isa: str | None,
        vision_compute: str,
        on_progress: ProgressCallback | None,
    ) -> Backend: ...


# name -> module; imported when asked for, because some bring a foreign runtime along.
BACKENDS = {"native": ".native"}


def open_backend(
    name: str,
    files: ModelFiles,
    config: ModelConfig,
    *,
    pool: _core.ThreadPool,
    isa: str | None,
    vision_compute: str,
    on_progress: ProgressCallback | None,
) -> Backend:
    """Loads a model into the backend called `name`; the keywords are those of `load`.

    Raises:
        InputError: `vision_compute` is none of what there is.
        UnsupportedError: There is no such backend, or it lacks `isa`, `vision_compute` or a type that the
            files need.
        FormatError: A file is damaged, or text and projector do not belong together.
    """
    require_backend(name)
    module: _BackendModule = import_module(BACKENDS[name], __name__)
    return module.open_model(
        files, config, pool=pool, isa=isa, vision_compute=vision_compute, on_progress=on_progress
    )


def require_backend(name: str) -> None:
    """Raises UnsupportedError unless there is a backend called `name`."""
    if name not in BACKENDS:
        raise UnsupportedError(f"backend {name!r} is not there; available: {', '.join(BACKENDS)}")
