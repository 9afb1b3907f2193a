"""Features of images that were encoded lately: neither a conversation nor a camera that stands still is to
pay twice for the same image.

An image is known by the SHA-256 of its pixels and by how it is cut; what changes neither changes no token.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from .camera_frame import CameraFrame
from .images import ImageSource, LoadedImage
from .processor import TilePlan

# Nine photos of 17 tiles for SmolVLM-256M, two for 2.2B.
DEFAULT_CACHE_BYTES = 24 << 20


def digest_image(source: ImageSource, pixels: LoadedImage) -> bytes:
    """Returns what tells the pixels of an image from those of any other; `pixels` is `source`, loaded."""
    digest = hashlib.sha256()
    if isinstance(source, CameraFrame):
        digest.update(f"{source.matrix} {source.full_range}".encode())
    planes = source.planes if isinstance(source, CameraFrame) else (pixels,)
    for plane in planes:
        assert isinstance(plane, np.ndarray)
        digest.update(str(plane.shape).encode())
        digest.update(np.ascontiguousarray(plane).data)
    return digest.digest()


class ImageCache:
    """Image features by image and plan; those used least lately go first. Not safe for several threads."""

    def __init__(self, max_bytes: int) -> None:
        """Holds at most `max_bytes` of features; 0: none."""
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._features: OrderedDict[tuple[bytes, TilePlan], NDArray[np.float32]] = OrderedDict()

    def find(self, digest: bytes, plan: TilePlan) -> NDArray[np.float32] | None:
        """Returns the features of an image, float32 [image tokens, hidden_size], if they are held."""
        key = (digest, plan)
        if key not in self._features:
            return None
        self._features.move_to_end(key)
        return self._features[key]

    def add(self, digest: bytes, plan: TilePlan, features: NDArray[np.float32]) -> None:
        """Holds a copy of an image's features, if there can be room for them."""
        if features.nbytes > self.max_bytes or (digest, plan) in self._features:
            return
        while self.nbytes + features.nbytes > self.max_bytes:
            _, oldest = self._features.popitem(last=False)
            self.nbytes -= oldest.nbytes
        self._features[digest, plan] = features.copy()
        self.nbytes += features.nbytes

    def clear(self) -> None:
        """Forgets all."""
        self._features.clear()
        self.nbytes = 0
