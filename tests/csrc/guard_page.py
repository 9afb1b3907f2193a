"""Memory that begins and ends where the process may not read: a byte too many is a segmentation fault."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import numpy.typing as npt

Uint8Array = npt.NDArray[np.uint8]

_PROT_NONE = 0


def guarded_bytes(size: int, *, at_start: bool = False) -> Uint8Array:
    """Returns uint8 [size] that ends at a guard page, or starts behind one."""
    page = mmap.PAGESIZE
    inner = -(-max(size, 1) // page) * page
    memory = np.frombuffer(mmap.mmap(-1, inner + 2 * page), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    for guard in (0, page + inner):
        address = ctypes.c_void_p(memory.ctypes.data + guard)
        if libc.mprotect(address, ctypes.c_size_t(page), _PROT_NONE) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    begin = page if at_start else page + inner - size
    return memory[begin : begin + size]


def guarded_rows(pixels: Uint8Array, *, gap: int = 0, at_start: bool = False) -> Uint8Array:
    """Returns a copy of `pixels` [H, ...] whose rows lie `gap` bytes apart, at a guard page.

    The last row ends exactly at the guard page, or the first begins there; gaps hold 171.
    """
    row_bytes = pixels[0].size
    stride = row_bytes + gap
    memory = guarded_bytes((len(pixels) - 1) * stride + row_bytes, at_start=at_start)
    memory[:] = 171
    strides = (stride, *np.ascontiguousarray(pixels).strides[1:])
    rows: Uint8Array = np.ndarray(pixels.shape, np.uint8, buffer=memory, strides=strides)
    rows[:] = pixels
    return rows
