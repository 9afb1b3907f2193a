"""The ways to preprocess that `pocketvlm bench preprocess` compares, each as one call that can be timed and
whose pixels can be read back.

All start at the same uint8 array, or at a PIL image where their interface takes no other. What is measured
when, and how it is shown, is bench_preprocess.py's part.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pocketvlm import _core
from pocketvlm.config import ProcessorConfig
from pocketvlm.errors import BackendError, UnsupportedError
from pocketvlm.processor import TilePlan

from .transformers_process import TransformersProcess

PILLOW_RESIZES = "pillow_resizes"
TRANSFORMERS = "transformers"
_CACHE_LINE = 64
PREPARE_OPENCV = "pip install '.[bench]' in the folder of the project"


@dataclass(frozen=True)
class Job:
    """One picture and what is to become of it; the plan splits it and adds the whole as last tile."""

    pixels: NDArray[np.uint8]  # [H, W, 3], C-contiguous
    plan: TilePlan
    config: ProcessorConfig
    patch_size: int

    @property
    def tiles_shape(self) -> tuple[int, int, int, int]:
        """The shape of tiles and pixel values: [T, 3, S, S]."""
        return (self.plan.num_tiles, 3, self.config.tile_size, self.config.tile_size)

    @property
    def rows_shape(self) -> tuple[int, int, int]:
        """The shape of patch rows: [T, (S / p)^2, 3 p^2]."""
        tiles, channels, side, _ = self.tiles_shape
        return (tiles, (side // self.patch_size) ** 2, channels * self.patch_size**2)


class Subject(Protocol):
    """One way to do a job."""

    name: str  # for programs; with threads and isa it tells subjects apart
    title: str  # for people
    threads: int
    isa: str | None  # the row of our kernels

    def run(self) -> float:
        """Does the job once: its seconds."""

    def tiles(self) -> NDArray[np.uint8] | None:
        """Returns the last run's pixels, uint8 [T, 3, S, S]; None from one that promises no equal pixels."""


@dataclass
class Call:
    """A subject that runs in this process."""

    name: str
    title: str
    threads: int
    function: Callable[[], Any]
    to_tiles: Callable[[Any], NDArray[np.uint8]] | None = None
    isa: str | None = None
    prepare: Callable[[], None] | None = None  # before the clock starts
    _result: Any = field(default=None, init=False)

    def run(self) -> float:
        """Calls the function once: its seconds."""
        self._result = None  # memory of the last run goes back before the clock starts
        if self.prepare is not None:
            self.prepare()
        started = time.perf_counter()
        self._result = self.function()
        return time.perf_counter() - started

    def tiles(self) -> NDArray[np.uint8] | None:
        """Returns the last run's pixels, uint8 [T, 3, S, S], or None."""
        return self.to_tiles(self._result) if self.to_tiles is not None else None


@dataclass
class _Transformers:
    process: TransformersProcess
    config: ProcessorConfig
    name: str = TRANSFORMERS
    title: str = "transformers, PIL processor"
    threads: int = 1
    isa: str | None = None

    def run(self) -> float:
        return self.process.run()

    def tiles(self) -> NDArray[np.uint8] | None:
        return bytes_of_pixel_values(self.process.pixel_values(), self.config)


def transformers_subject(process: TransformersProcess, job: Job) -> Subject:
    """Returns the image processor in its process, which takes the job's picture."""
    process.set_picture(job.pixels)
    return _Transformers(process, job.config)


def pillow_subjects(job: Job) -> list[Subject]:
    """Returns the resizes alone, from PIL image to PIL images, and the whole chain of the reference."""
    image = Image.fromarray(job.pixels)
    values = np.empty(job.tiles_shape, np.float32)

    def resize(source: Image.Image) -> tuple[Image.Image, Image.Image]:
        """The image after resize 2, and the global tile made from it."""
        resample = Image.Resampling(job.config.resample)
        for height, width in _sizes(job):
            source = source.resize((width, height), resample)
        return source, source.resize((job.config.tile_size,) * 2, resample)

    def preprocess() -> NDArray[np.float32]:
        enlarged, whole = resize(Image.fromarray(job.pixels))
        for tile, out in zip(_cut(np.asarray(enlarged), np.asarray(whole), job), values, strict=True):
            _normalize(tile.transpose(2, 0, 1), job.config, out)
        return values

    return [
        Call(PILLOW_RESIZES, "Pillow, resizes alone", 1, lambda: resize(image)),
        Call(
            "pillow_numpy",
            "Pillow + NumPy",
            1,
            preprocess,
            lambda values: bytes_of_pixel_values(values, job.config),
        ),
    ]


def opencv_is_there() -> bool:
    """Whether OpenCV is installed."""
    return importlib.util.find_spec("cv2") is not None


def import_opencv() -> ModuleType:
    """Imports OpenCV. Raises UnsupportedError if it is installed but does not work."""
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise UnsupportedError(f"OpenCV is installed, but cannot be imported: {error}") from error


def opencv_subjects(job: Job, thread_counts: Sequence[int]) -> list[Subject]:
    """Returns INTER_LANCZOS4, for scale, the resizes alone and the chain, with each number of threads.

    It reads 8x8 pixels whatever the scale, without a wider filter when it shrinks: other pixels, less work.
    """
    cv2: Any = import_opencv()
    # blobFromImages computes (p - mean) * scale: (p * rescale - image_mean) / image_std, up to rounding.
    means = tuple(mean / job.config.rescale_factor for mean in job.config.image_mean)
    scale = job.config.rescale_factor / job.config.image_std[0]

    def resize() -> tuple[Any, Any]:
        source: Any = job.pixels
        for height, width in _sizes(job):
            source = cv2.resize(source, (width, height), interpolation=cv2.INTER_LANCZOS4)
        side = job.config.tile_size
        return source, cv2.resize(source, (side, side), interpolation=cv2.INTER_LANCZOS4)

    def preprocess() -> Any:
        tiles = list(_cut(*resize(), job))
        return cv2.dnn.blobFromImages(tiles, scalefactor=scale, mean=means)  # float32 [T, 3, S, S]

    def subjects(threads: int) -> list[Subject]:
        def prepare() -> None:
            cv2.setNumThreads(threads)

        return [
            Call("opencv_resizes", "OpenCV LANCZOS4, resizes alone", threads, resize, prepare=prepare),
            Call("opencv", "OpenCV LANCZOS4, normalised", threads, preprocess, prepare=prepare),
        ]

    return [subject for threads in thread_counts for subject in subjects(threads)]


def our_subjects(
    job: Job, pools: Sequence[_core.ThreadPool], *, isa: str, other_isas: Sequence[str]
) -> list[Subject]:
    """Returns our preprocessing with the row of kernels `isa` and, patch rows only, with each other row."""

    def call(
        name: str,
        title: str,
        isa: str,
        pool: _core.ThreadPool,
        layout: Literal["tiles", "patches_bf16"],
        out: NDArray[Any] | None,
    ) -> Subject:
        def preprocess() -> NDArray[Any]:
            return _core.preprocess(
                job.pixels,
                resized=job.plan.resized,
                split=job.plan.split,
                tile_size=job.config.tile_size,
                resample=job.config.resample,
                pool=pool,
                isa=isa,
                layout=layout,
                patch_size=job.patch_size if layout != "tiles" else None,
                out=out,
            )

        def to_tiles(result: NDArray[Any]) -> NDArray[np.uint8]:
            written = result if out is None else out
            return written if layout == "tiles" else bytes_of_patch_rows(written, job)

        return Call(name, title, pool.num_threads, preprocess, to_tiles, isa=isa)

    def new_rows() -> NDArray[np.uint16]:
        """Zeros from a cache line on, as arrays of ours begin."""
        size = math.prod(job.rows_shape)
        room = np.zeros(size + _CACHE_LINE // 2, np.uint16)
        first = -room.ctypes.data % _CACHE_LINE // 2
        return room[first : first + size].reshape(job.rows_shape)

    rows = "bf16 patch rows"
    return [
        *(call("ours_rows", f"ours, {rows}", isa, p, "patches_bf16", new_rows()) for p in pools),
        call("ours_rows_new_array", f"ours, {rows}, new array", isa, pools[-1], "patches_bf16", None),
        *(
            call("ours_tiles", "ours, uint8 tiles", isa, p, "tiles", np.zeros(job.tiles_shape, np.uint8))
            for p in pools
        ),
        *(
            call("ours_rows", f"ours, {rows}, {other}", other, p, "patches_bf16", new_rows())
            for other in other_isas
            for p in pools
        ),
    ]


def bytes_of_pixel_values(values: NDArray[np.float32], config: ProcessorConfig) -> NDArray[np.uint8]:
    """Undoes rescale and normalise: float32 [T, 3, S, S] -> uint8 [T, 3, S, S].

    Raises BackendError unless the values are, to the bit, what the reference makes of bytes.
    """
    mean = np.array(config.image_mean)[:, None, None]
    std = np.array(config.image_std)[:, None, None]
    tiles = np.empty(values.shape, np.uint8)
    again = np.empty(values.shape[1:], np.float32)
    for tile, value in zip(tiles, values, strict=True):
        tile[:] = np.rint((value * std + mean) / config.rescale_factor)
        _normalize(tile, config, again)
        if not np.array_equal(again, value):
            raise BackendError("pixel values are not (p * rescale_factor - mean) / std of bytes p")
    return tiles


def bytes_of_patch_rows(rows: NDArray[np.uint16], job: Job) -> NDArray[np.uint8]:
    """Undoes centring and layout: bits of bfloat16, [T, (S / p)^2, 3 p^2] -> uint8 [T, 3, S, S].

    Raises BackendError unless all values are exact.
    """
    centred = (rows.astype(np.uint32) << 16).view(np.float32)
    pixels = np.rint((centred + 255.0) / 2.0).astype(np.uint8)
    if not np.array_equal(pixels * np.float32(2.0) - np.float32(255.0), centred):
        raise BackendError("patch rows are not 2 p - 255 of bytes p")
    patch = job.patch_size
    grid = job.config.tile_size // patch
    patches = pixels.reshape(-1, grid, grid, 3, patch, patch)  # [T, row, column, channel, y, x]
    tiles: NDArray[np.uint8] = patches.transpose(0, 3, 1, 4, 2, 5).reshape(job.tiles_shape)
    return tiles


def _sizes(job: Job) -> list[tuple[int, int]]:
    """The (height, width) that resizes 1 and 2 make, without one that would change nothing."""
    assert job.plan.split is not None
    sizes = [job.pixels.shape[:2], job.plan.resized, job.plan.split]
    return [(after[0], after[1]) for before, after in pairwise(sizes) if tuple(before) != tuple(after)]


def _cut(enlarged: NDArray[np.uint8], whole: NDArray[np.uint8], job: Job) -> Iterator[NDArray[np.uint8]]:
    """Yields views [S, S, 3] of the enlarged image, row by row, then the whole as one tile."""
    side = job.config.tile_size
    for top in range(0, enlarged.shape[0], side):
        for left in range(0, enlarged.shape[1], side):
            yield enlarged[top : top + side, left : left + side]
    yield whole


def _normalize(tile: NDArray[np.uint8], config: ProcessorConfig, out: NDArray[np.float32]) -> None:
    """uint8 [3, S, S] -> float32, as the reference: p * rescale_factor in float64, the rest in float32."""
    np.multiply(tile, config.rescale_factor, out=out, dtype=np.float64, casting="same_kind")
    out -= np.array(config.image_mean, np.float32)[:, None, None]
    out /= np.array(config.image_std, np.float32)[:, None, None]
