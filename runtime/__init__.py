"""pocketvlm: SmolVLM on CPUs. Start with `load`; `engine` is the page to read first."""

if __name__ != "pocketvlm":
    raise ImportError(
        f"this folder is the package pocketvlm, imported as {__name__!r}: "
        "install it (pip install .) and import pocketvlm"
    )

from importlib.metadata import version as _version

from .camera_frame import CameraFrame
from .engine import Model, load
from .errors import (
    BackendError,
    Cancelled,
    ContextLengthError,
    Error,
    FormatError,
    InputError,
    OutOfBudgetError,
    UnsupportedError,
)
from .image_plan import ImagePlan
from .pixel_values import preprocess
from .result import GenerationResult, Memory, Timings, TokenLogprob, TokenLogprobs
from .stream import Stream

__version__ = _version("pocketvlm")

__all__ = [
    "BackendError",
    "CameraFrame",
    "Cancelled",
    "ContextLengthError",
    "Error",
    "FormatError",
    "GenerationResult",
    "ImagePlan",
    "InputError",
    "Memory",
    "Model",
    "OutOfBudgetError",
    "Stream",
    "Timings",
    "TokenLogprob",
    "TokenLogprobs",
    "UnsupportedError",
    "__version__",
    "load",
    "preprocess",
]
