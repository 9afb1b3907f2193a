"""Camera frames: planes are taken as they lie, whatever carries them, and what does not fit is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pocketvlm
from pocketvlm import CameraFrame, _core
from pocketvlm.errors import InputError
from pocketvlm.images import load_image

HEIGHT, WIDTH = 6, 8
NOISE = np.random.default_rng(1)
Y = NOISE.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
U = NOISE.integers(0, 256, (HEIGHT // 2, WIDTH // 2), np.uint8)
V = NOISE.integers(0, 256, (HEIGHT // 2, WIDTH // 2), np.uint8)
UV = np.stack([U, V], axis=-1)


def pixels(frame: CameraFrame) -> NDArray[np.uint8]:
    """uint8 RGB [H, W, 3]."""
    return _core.kernels.unpack("scalar", frame.for_core()).transpose(1, 2, 0)


EXPECTED = pixels(CameraFrame.i420(Y, U, V))


def padded(plane: NDArray[np.uint8], row_stride: int) -> NDArray[np.uint8]:
    """Rows of bytes, as they lie in memory."""
    flat = plane.reshape(len(plane), -1)
    return np.pad(flat, ((0, 0), (0, row_stride - flat.shape[1])), constant_values=171)


def test_every_way_to_make_a_frame_gives_the_same_pixels() -> None:
    nv12 = Y.tobytes() + UV.tobytes()
    i420 = Y.tobytes() + U.tobytes() + V.tobytes()
    frames = [
        CameraFrame.nv12(Y, UV),
        CameraFrame.nv12(Y, UV.reshape(HEIGHT // 2, WIDTH)),
        CameraFrame.from_bytes(nv12, HEIGHT, WIDTH, format="nv12"),
        CameraFrame.from_bytes(bytearray(i420), HEIGHT, WIDTH, format="i420"),
        CameraFrame.from_bytes(memoryview(i420), HEIGHT, WIDTH, format="i420"),
        # As OpenCV shapes a frame.
        CameraFrame.from_bytes(
            np.frombuffer(i420, np.uint8).reshape(-1, WIDTH), HEIGHT, WIDTH, format="i420"
        ),
    ]
    for frame in frames:
        assert (frame.height, frame.width) == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(pixels(frame), EXPECTED)


@pytest.mark.parametrize("row_stride", [8, 10, 64])
def test_padded_rows_are_skipped(row_stride: int) -> None:
    nv12 = padded(Y, row_stride).tobytes() + padded(UV, row_stride).tobytes()
    half = row_stride // 2
    i420 = padded(Y, row_stride).tobytes() + padded(U, half).tobytes() + padded(V, half).tobytes()
    # The last row may come with its padding or without.
    shorter = len(nv12) - (row_stride - WIDTH), len(i420) - (half - WIDTH // 2)
    for data in (nv12, nv12[: shorter[0]]):
        frame = CameraFrame.from_bytes(data, HEIGHT, WIDTH, format="nv12", row_stride=row_stride)
        np.testing.assert_array_equal(pixels(frame), EXPECTED)
    for data in (i420, i420[: shorter[1]]):
        frame = CameraFrame.from_bytes(data, HEIGHT, WIDTH, format="i420", row_stride=row_stride)
        np.testing.assert_array_equal(pixels(frame), EXPECTED)


def test_nothing_is_copied() -> None:
    data = np.zeros(HEIGHT * WIDTH * 3 // 2, np.uint8)
    crop = np.zeros((HEIGHT, 20), np.uint8)[:, 3 : 3 + WIDTH]
    for frame, sources in [
        (CameraFrame.nv12(crop, UV.reshape(HEIGHT // 2, WIDTH)), [crop, UV]),
        (CameraFrame.i420(Y, U, V), [Y, U, V]),
        (CameraFrame.from_bytes(data, HEIGHT, WIDTH, format="i420"), [data, data, data]),
    ]:
        for plane, source in zip(frame.planes, sources, strict=True):
            assert np.shares_memory(plane, source)


def test_a_frame_keeps_its_planes_alive() -> None:
    frame = CameraFrame.nv12(np.full((1000, 2000), 255, np.uint8), np.full((500, 2000), 128, np.uint8))
    core = frame.for_core()
    del frame
    np.full((3000, 1000), 7, np.uint8)  # would take the memory over
    assert (_core.kernels.unpack("scalar", core) == 255).all()


def test_matrix_and_range_reach_the_core() -> None:
    kinds = [(matrix, full) for matrix in ("bt601", "bt709") for full in (False, True)]
    results = [pixels(CameraFrame.nv12(Y, UV, matrix=matrix, full_range=full)) for matrix, full in kinds]  # type: ignore[arg-type]
    for i, result in enumerate(results):
        for other in results[:i]:
            assert not np.array_equal(result, other)
    np.testing.assert_array_equal(results[0], EXPECTED)


def test_it_is_an_image() -> None:
    frame = CameraFrame.nv12(Y, UV)
    loaded = load_image(frame, pixel_limit=HEIGHT * WIDTH)
    assert isinstance(loaded, _core.YuvFrame)
    assert loaded.shape == (HEIGHT, WIDTH)
    with pytest.raises(InputError, match="cam: 8x6 is 48 pixels, pixel_limit is 47"):
        load_image(frame, name="cam", pixel_limit=47)
    assert pocketvlm.CameraFrame is CameraFrame


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        ((Y.astype(np.float32), UV), r"y: found float32 \[6, 8\], expected a numpy array uint8 \[H, W\]"),
        ((Y.tolist(), UV), "y: found list"),
        ((Y[..., None], UV), r"y: found uint8 \[6, 8, 1\]"),
        ((Y[::-1], UV), r"y: found uint8 \[6, 8\] with strides \[-8, 1\], expected contiguous rows"),
        ((Y[:, ::-1], UV), r"with strides \[8, -1\]"),
        ((np.broadcast_to(Y[:1], Y.shape), UV), r"with strides \[0, 1\]"),
        ((Y, UV.astype(np.int8)), r"uv: found int8 \[3, 4, 2\], expected a numpy array uint8 \[3, 4, 2\]"),
        ((Y, UV[:-1]), r"uv: found uint8 \[2, 4, 2\], expected a numpy array uint8 \[3, 4, 2\]"),
        ((Y, UV[:, :, ::-1]), r"uv: .* with strides \[8, 2, -1\], expected .*\[1 or more, 2, 1\]"),
        ((Y, None), "uv: found NoneType"),
        ((Y, U, V[:, 1:]), r"v: found uint8 \[3, 3\], expected a numpy array uint8 \[3, 4\]"),
        ((Y, U.astype(np.uint16), V), r"u: found uint16 \[3, 4\]"),
        ((Y, U[::-1], V), r"u: .* with strides \[-4, 1\]"),
        ((Y,), "found 1 planes, expected 2 for NV12 or 3 for I420"),
        ((Y[:5], UV), r"y: found 5x8 \(height x width\), expected even sides"),
        ((Y[:, :7], UV), "y: found 6x7"),
        ((Y[:, :7], UV.reshape(3, 8)[:, :7]), "y: found 6x7"),
        ((Y[:0], UV[:0]), "y: found 0x8"),
        ((Y[:, :0], U[:, :0], V[:, :0]), "y: found 6x0"),
    ],
)
def test_planes_that_do_not_fit_are_named(planes: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CameraFrame(planes)
    if len(planes) == 2:
        with pytest.raises(InputError, match=message):
            CameraFrame.nv12(*planes)


@pytest.mark.parametrize("shape", [(3, 7), (3, 10), (2, 8), (8,), ()])
def test_a_flat_plane_of_pairs_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"uv: found uint8 .*, expected a numpy array uint8 \[3, 4, 2\]"):
        CameraFrame.nv12(Y, np.zeros(shape, np.uint8))


FRAME: dict[str, Any] = {"data": bytes(72), "height": 6, "width": 8, "format": "nv12"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": bytes(71)}, "data: found 71 bytes, expected 72 for nv12, 6x8"),
        ({"data": bytes(73)}, "found 73 bytes, expected 72"),
        ({"data": b""}, "found 0 bytes"),
        ({"row_stride": 10}, "found 72 bytes, expected 88 to 90 for nv12, .* rows 10 bytes apart"),
        ({"row_stride": 10, "format": "i420"}, "found 72 bytes, expected 89 to 90 for i420"),
        ({"row_stride": 7}, "row_stride is 7, expected an integer of at least 8"),
        ({"row_stride": -8}, "row_stride is -8"),
        ({"row_stride": 9, "format": "i420"}, "row_stride is 9, expected an even one"),
        ({"height": 5}, r"found 5x8 \(height x width\), expected even sides"),
        ({"width": 9}, "found 6x9"),
        ({"height": 0}, "height is 0, expected an integer of at least 2"),
        ({"width": -8}, "width is -8"),
        ({"height": 6.0}, "height is 6.0"),
        ({"height": 2**80}, "data: found 72 bytes"),
        ({"format": "yuyv"}, "format is 'yuyv', expected 'nv12' or 'i420'"),
        ({"data": [0] * 72}, "data: found list, expected contiguous bytes"),
        ({"data": memoryview(bytes(144))[::2]}, "data: found memoryview, expected contiguous bytes"),
        ({"matrix": "bt2020"}, "matrix is 'bt2020', expected 'bt601' or 'bt709'"),
        ({"matrix": ["bt601"]}, "matrix is"),
        ({"full_range": 1}, "full_range is 1, expected True or False"),
    ],
)
def test_bytes_that_do_not_fit_are_named(changes: dict[str, Any], message: str) -> None:
    CameraFrame.from_bytes(**FRAME)
    with pytest.raises(InputError, match=message):
        CameraFrame.from_bytes(**{**FRAME, **changes})
