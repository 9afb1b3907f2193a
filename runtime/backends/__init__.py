"""What runs a model: the protocol every backend keeps, and the table of those there are."""

if __name__ != "pocketvlm.backends":
    raise ImportError(
        f"this folder is the package pocketvlm.backends, imported as {__name__!r}: "
        "install pocketvlm (pip install .) and import pocketvlm.backends"
    )

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..config import ModelConfig
from ..errors import UnsupportedError
from ..images import LoadedImage
from ..processor import Processor, TilePlan
from ..result import TokenLogprob, TokenLogprobs
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

    def step_logits(
        self,
        token_ids: Sequence[int],
        image_features: NDArray[np.float32],
        continuation: Sequence[int],
        *,
        stop: _core.StopFlag,
    ) -> NDArray[np.float32]:
        """Returns the logits behind a prompt, as for `generate`, and behind each token of a continuation that
        is forced: float32 [1 + len(continuation), vocab_size].

        Raises:
            Cancelled: `stop` was set.
        """

    def info(self) -> dict[str, Any]:
        """Returns what there is to say of it: types, parameters, bytes of the weights, choices made."""


class TracedPicture(NamedTuple):
    """What a `PictureEncoder` makes of a picture."""

    token_ids: list[int]  # what it would put into a prompt; -1 for every image token
    patches: NDArray[np.float32]  # pixel values, [T, patches, 3 * patch_size^2], channels first


@runtime_checkable
class PictureEncoder(Protocol):
    """A backend that resizes and cuts pictures its own way: called in the place of `encode_images`."""

    def encode_pictures(
        self,
        pictures: Sequence[LoadedImage],
        plans: Sequence[TilePlan],
        *,
        stop: _core.StopFlag,
        on_progress: ProgressCallback | None,
    ) -> NDArray[np.float32]:
        """Encodes pictures to float32 [image tokens, hidden_size], in the order of their tiles.

        Raises:
            UnsupportedError: It cannot read a picture, or would cut it otherwise than planned.
            BackendError: The foreign runtime failed.
            Cancelled: `stop` was set.
        """

    def trace_picture(self, picture: LoadedImage, plan: TilePlan) -> TracedPicture:
        """Returns what it makes of a picture on the way. Errors as `encode_pictures`."""


class Files(Protocol):
    """The files of a model, in the form that a backend reads."""

    @property
    def folder(self) -> Path:
        """Where they are."""

    def describe(self) -> tuple[ModelConfig, Processor]:
        """Reads what model it is: configurations, tokenizer, prompt format.

        Raises:
            FormatError: Something is missing or damaged, or the files do not belong together.
            UnsupportedError: The model is of another architecture, its tokenizer or prompt format is unknown.
        """

    def info(self) -> dict[str, Any]:
        """Returns what there is to say of the files: names and sizes."""


class _BackendModule(Protocol):
    def find_files(
        self, source: str | os.PathLike[str], type: str | None, mmproj: str | os.PathLike[str] | None = None
    ) -> Any: ...

    def open_model(
        self,
        files: Any,
        config: ModelConfig,
        *,
        pool: _core.ThreadPool,
        isa: str | None,
        vision_compute: str,
        vision_engine: str | None,
        on_progress: ProgressCallback | None,
    ) -> Backend: ...


# name -> module; imported when asked for, because some bring a foreign runtime along.
BACKENDS = {"native": ".native", "onnx": ".onnx", "llama_cpp": ".llama_cpp"}

# What to install for a backend whose packages are not there.
_EXTRAS = {"onnx": "onnx", "llama_cpp": "llama"}


def find_files(
    name: str,
    source: str | os.PathLike[str],
    type: str | None,
    mmproj: str | os.PathLike[str] | None = None,
) -> Files:
    """Finds the files of a model that the backend called `name` reads; the others as in `load`.

    Raises:
        InputError: There is no such model or type, or the backend has no use for `mmproj`.
        FormatError: Files are missing, damaged, or do not belong together.
        UnsupportedError: There is no such backend, or its packages are not installed.
    """
    files: Files = _module(name).find_files(source, type, mmproj)
    return files


def open_backend(
    name: str,
    files: Files,
    config: ModelConfig,
    *,
    pool: _core.ThreadPool,
    isa: str | None,
    vision_compute: str,
    vision_engine: str | None,
    on_progress: ProgressCallback | None,
) -> Backend:
    """Loads a model into the backend called `name`; the keywords are those of `load`.

    Raises:
        InputError: `vision_compute` or `vision_engine` is none of what there is.
        UnsupportedError: There is no such backend, or it lacks `isa`, `vision_compute`, `vision_engine` or a
            type that the files need.
        FormatError: A file is damaged, or text and projector do not belong together.
    """
    return _module(name).open_model(
        files,
        config,
        pool=pool,
        isa=isa,
        vision_compute=vision_compute,
        vision_engine=vision_engine,
        on_progress=on_progress,
    )


def read_result(result: _core.GenerateResult, *, with_logprobs: bool) -> Generated:
    """Returns what the core's generation gave, for a reader of any backend."""
    logprobs = [
        TokenLogprobs(token_id, entry.chosen, [TokenLogprob(top.token_id, top.logprob) for top in entry.top])
        for token_id, entry in zip(result.token_ids, result.logprobs, strict=with_logprobs)
    ]
    return Generated(
        result.token_ids,
        result.finish_reason,
        result.prefill_s,
        result.decode_s,
        logprobs if with_logprobs else None,
        tuple(read_result(answer, with_logprobs=with_logprobs) for answer in result.alternatives),
    )


class TextReader(Protocol):
    """A text model before an empty KV cache and a prompt, as `_core.generate_with` reads one."""

    def read_prompt(self, on_progress: Callable[[int, int], None]) -> NDArray[np.float32]: ...

    def read_token(self, token_id: int) -> NDArray[np.float32]: ...


def read_steps(reader: TextReader, continuation: Sequence[int]) -> NDArray[np.float32]:
    """Runs `Backend.step_logits` on a reader."""
    return np.stack([reader.read_prompt(lambda done, total: None), *map(reader.read_token, continuation)])


def _module(name: str) -> _BackendModule:
    require_backend(name)
    try:
        module: _BackendModule = import_module(BACKENDS[name], __name__)
    except ModuleNotFoundError as error:
        if name not in _EXTRAS or (error.name or "").startswith(__name__.partition(".")[0]):
            raise
        raise UnsupportedError(
            f"backend {name!r} needs the package {error.name}: pip install 'pocketvlm[{_EXTRAS[name]}]'"
        ) from error
    return module


def default_backend(source: str | os.PathLike[str]) -> str:
    """Returns what runs a source by default: "onnx" for a folder of graphs alone, else "native"."""
    folder = Path(source).expanduser()
    has_graphs = any((folder / "onnx").glob("*.onnx"))
    has_weights = any(any(folder.glob(pattern)) for pattern in ("*.gguf", "*.safetensors"))
    return "onnx" if has_graphs and not has_weights else "native"


def require_backend(name: str) -> None:
    """Raises UnsupportedError unless there is a backend called `name`."""
    if name not in BACKENDS:
        raise UnsupportedError(f"backend {name!r} is not there; available: {', '.join(BACKENDS)}")


def require_own_vision(backend: str, vision_engine: str | None) -> None:
    """Raises UnsupportedError if a backend that has one vision tower was asked for another."""
    if vision_engine is not None:
        raise UnsupportedError(
            f"vision_engine {vision_engine!r}: the {backend} backend makes image features itself; "
            "the backend llama_cpp has the choice"
        )
