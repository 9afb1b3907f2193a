"""What the stages of a model made of one request, for holding it against another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Trace:
    """The stages in their order; `Model.trace` makes it.

    Attributes:
        token_ids: The prompt. Where the backend's own library prepares images, with what that would write
            around them.
        patches: Pixel values, float32 [tiles, patches, 3 * patch_size^2], of all images, channels first.
        image_features: float32 [image tokens, hidden_size].
        logits: Behind the prompt and behind each forced token, float32 [1 + forced, vocab_size].
    """

    token_ids: list[int]
    patches: NDArray[np.float32]
    image_features: NDArray[np.float32]
    logits: NDArray[np.float32]
