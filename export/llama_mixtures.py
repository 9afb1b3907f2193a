"""The mixtures of types that llama.cpp knows and this package does not write: its own quantiser makes them.

It needs the extra `llama`. A mixture gives matrices that lose more by rounding a finer type than others; its
name says the type of most.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from ..errors import UnsupportedError
from .quantize import QuantType

# Those whose types the core reads.
MIXTURES = ("q4_1", "q5_0", "q5_1", "iq4_nl", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k")


def require_quantizer(mixture: str) -> None:
    """Raises UnsupportedError where llama-cpp-python is not installed."""
    try:
        import llama_cpp  # noqa: F401
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"type {mixture} is written by llama.cpp and needs the package {error.name}: "
            "pip install 'pocketvlm[llama]'"
        ) from error


def quantize_text_file(source: Path, target: Path, mixture: str, embedding: QuantType | None = None) -> None:
    """Writes a text file with its matrices in a mixture; keys and their values stay as they are.

    Args:
        source: A text file of whatever types.
        target: What to write.
        mixture: One of `MIXTURES`.
        embedding: The type of token embedding and head; None: what the mixture has for them.

    Raises:
        UnsupportedError: llama-cpp-python is not installed.
        BackendError: llama.cpp fails, as it does where the disk is full.
    """
    require_quantizer(mixture)
    from llama_cpp import llama_cpp

    from ..backends import llama_library

    llama_library.start()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{mixture.upper()}")
    parameters.allow_requantize = True
    if embedding is not None:
        parameters.token_embedding_type = parameters.output_tensor_type = embedding.ggml_type
    if llama_cpp.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(parameters)) != 0:
        raise llama_library.failure(f"{source} as {mixture}")
