"""Frames as cameras and video decoders give them, in 4:2:0, read where they lie.

Becoming RGB is the business of the C++ core: each value of chroma stands for its 2 x 2 pixels, which are not
interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _core
from .arguments import read_integer
from .errors import InputError

ColourMatrix: TypeAlias = Literal["bt601", "bt709"]


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """A frame in NV12 or I420; made by `nv12`, `i420` or `from_bytes`. Nothing is copied.

    What is not said with a frame is a convention: webcams and standard definition use BT.601, high definition
    BT.709; video codes black as 16 and white as 235, while JPEG, and with it MJPEG, uses the full range.

    Attributes:
        planes: uint8, rows at any positive distance: `(y [H, W], uv [H/2, W/2, 2])` for NV12,
            `(y [H, W], u [H/2, W/2], v [H/2, W/2])` for I420. H and W are even.
        matrix: "bt601" or "bt709": the luma factors that colours were coded by.
        full_range: Whether luma goes from 0 to 255, and not from 16 to 235 (chroma: 16 to 240).

    Raises:
        InputError: The planes do not fit each other, or an argument is of the wrong kind.
    """

    planes: tuple[NDArray[np.uint8], ...]
    matrix: ColourMatrix = "bt601"
    full_range: bool = False

    def __post_init__(self) -> None:
        if self.matrix not in ("bt601", "bt709"):
            raise InputError(f"matrix is {self.matrix!r}, expected 'bt601' or 'bt709'")
        if not isinstance(self.full_range, bool):
            raise InputError(f"full_range is {self.full_range!r}, expected True or False")
        if len(self.planes) not in (2, 3):
            raise InputError(f"found {len(self.planes)} planes, expected 2 for NV12 or 3 for I420")
        luma: tuple[int, ...] = getattr(self.planes[0], "shape", ())
        if len(luma) == 2 and any(side == 0 or side % 2 for side in luma):
            raise InputError(f"y: found {luma[0]}x{luma[1]} (height x width), expected even sides, not 0")
        try:
            self.for_core()  # checks the rest
        except TypeError as error:
            raise InputError(str(error)) from None

    @classmethod
    def nv12(
        cls,
        y: NDArray[np.uint8],
        uv: NDArray[np.uint8],
        *,
        matrix: ColourMatrix = "bt601",
        full_range: bool = False,
    ) -> CameraFrame:
        """Takes luma [H, W], and U and V in turn, [H/2, W] or [H/2, W/2, 2].

        Raises:
            InputError: An array is of another dtype or shape, its rows are not contiguous or run backwards,
                or a side is odd.
        """
        flat = isinstance(uv, np.ndarray) and uv.ndim == 2 and uv.shape[1:] == np.shape(y)[1:]
        if flat and uv.shape[1] % 2 == 0:
            uv = uv.reshape(len(uv), uv.shape[1] // 2, 2)
        return cls((y, uv), matrix, full_range)

    @classmethod
    def i420(
        cls,
        y: NDArray[np.uint8],
        u: NDArray[np.uint8],
        v: NDArray[np.uint8],
        *,
        matrix: ColourMatrix = "bt601",
        full_range: bool = False,
    ) -> CameraFrame:
        """Takes luma [H, W], and U and V, [H/2, W/2] each.

        Raises:
            InputError: As for `nv12`.
        """
        return cls((y, u, v), matrix, full_range)

    @classmethod
    def from_bytes(
        cls,
        data: bytes | bytearray | memoryview | NDArray[np.uint8],
        height: int,
        width: int,
        *,
        format: Literal["nv12", "i420"],
        row_stride: int | None = None,
        matrix: ColourMatrix = "bt601",
        full_range: bool = False,
    ) -> CameraFrame:
        """Takes the planes one behind the other, as one buffer.

        Args:
            data: The bytes; an array may have any shape. They must not change while the frame is in use.
            height: Rows of luma.
            width: Pixels in a row.
            format: "nv12": Y, then rows of U and V in turn. "i420": Y, then U, then V.
            row_stride: Bytes from one row of luma to the next, and of U and V in turn; those of U and V alone
                are half as far apart. By default `width`: no padding.
            matrix: As in the class.
            full_range: As in the class.

        Raises:
            InputError: The buffer is not as long as that takes (the padding of the last row may be missing),
                a side is odd, or an argument is of the wrong kind.
        """
        height = read_integer("height", height, at_least=2)
        width = read_integer("width", width, at_least=2)
        if height % 2 or width % 2:
            raise InputError(f"found {height}x{width} (height x width), expected even sides")
        stride = read_integer("row_stride", width if row_stride is None else row_stride, at_least=width)
        rows, columns = height // 2, width // 2
        chroma: list[tuple[tuple[int, ...], tuple[int, ...]]]  # shape and strides of each plane
        if format == "nv12":
            chroma = [((rows, columns, 2), (stride, 2, 1))]
        elif format == "i420":
            if stride % 2:
                raise InputError(f"row_stride is {stride}, expected an even one: rows of U take half")
            chroma = [((rows, columns), (stride // 2, 1))] * 2
        else:
            raise InputError(f"format is {format!r}, expected 'nv12' or 'i420'")

        flat = _flat(data)
        last_row = width if format == "nv12" else columns
        most = height * stride + rows * stride
        least = most - chroma[-1][1][0] + last_row
        if not least <= flat.nbytes <= most:
            expected = f"{most:,}" if least == most else f"{least:,} to {most:,}"
            raise InputError(
                f"data: found {flat.nbytes:,} bytes, expected {expected} for {format}, {height}x{width} "
                f"(height x width), with rows {stride} bytes apart"
            )
        planes = []
        offset = 0
        for shape, strides in [((height, width), (stride, 1)), *chroma]:
            planes.append(np.ndarray(shape, np.uint8, buffer=flat, offset=offset, strides=strides))
            offset += shape[0] * strides[0]
        return cls(tuple(planes), matrix, full_range)

    @property
    def height(self) -> int:
        """Rows of luma."""
        return len(self.planes[0])

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return int(self.planes[0].shape[1])

    def for_core(self) -> _core.YuvFrame:
        """Returns the frame as the C++ core takes it."""
        return _core.YuvFrame(*self.planes, matrix=self.matrix, full_range=self.full_range)


def _flat(data: Any) -> memoryview:
    try:
        return memoryview(data).cast("B")
    except TypeError as error:
        raise InputError(f"data: found {type(data).__name__}, expected contiguous bytes: {error}") from None
