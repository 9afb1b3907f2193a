"""Loops that measure what the processor can do: they compute what their contract says, so that one that the
compiler shortened is noticed, and the table lists what a processor has."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pocketvlm import _core
from pocketvlm.errors import InputError, UnsupportedError

HERE = _core.roofs(_core.cpu_features())
COMPUTING = [roof for roof in HERE if roof.kind != "read"]
READING = [roof for roof in HERE if roof.kind == "read"]
ON_X86 = pytest.mark.skipif("avx2" not in _core.cpu_features(), reason="rows of x86-64")

AVX2 = ["avx2", "fma", "f16c"]
AVX512 = [*AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl"]
SCALAR_ROWS = ["int32 in C++", "float in C++", "uint64 in C++"]
AVX2_ROWS = ["vpmaddubsw ymm", "vfmadd231ps ymm", "vmovdqa ymm", *SCALAR_ROWS]
AVX512_ROWS = ["vfmadd231ps zmm", "vmovdqa64 zmm", *AVX2_ROWS]


def name(roof: _core.Roof) -> str:
    return roof.instruction.replace(" ", "-")


# As large as the contract lets products be, in floats and beyond.
FACTORS = [(1, 2), (1, 1), (2, -1), (0, 1)]
INT8_FACTORS = [*FACTORS, (100, -2), (127, -1), (7, 28)]


@pytest.mark.parametrize("roof", COMPUTING, ids=name)
@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 1000, _core.kernels.MAX_ROOF_ROUNDS])
def test_every_product_is_added(roof: _core.Roof, rounds: int) -> None:
    for x, y in INT8_FACTORS if roof.kind == "int8" else FACTORS:
        starts = sum(range(roof.accumulators))
        expected = roof.lanes * (starts + roof.accumulators * rounds * roof.depth * x * y)
        assert _core.kernels.run_roof(roof.instruction, rounds=rounds, x=x, y=y) == expected, (x, y)


@pytest.mark.parametrize("roof", READING, ids=name)
@pytest.mark.parametrize("words", [0, 64, 128, 64 * 9])
def test_every_word_is_read(roof: _core.Roof, words: int) -> None:
    values = np.random.default_rng(words).integers(0, 2**64, words, dtype=np.uint64)
    expected = sum(int(value) for value in values) % 2**64
    assert _core.kernels.read_sum(roof.instruction, values) == expected


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("roof", HERE, ids=name)
def test_a_rate(roof: _core.Roof, threads: int) -> None:
    rate = _core.measure_roof(roof.instruction, _core.ThreadPool(threads), seconds=0.002)
    assert math.isfinite(rate)
    assert rate > 0


@ON_X86
@pytest.mark.parametrize(
    ("features", "rows"),
    [
        ([], SCALAR_ROWS),
        (["avx2"], SCALAR_ROWS),
        (AVX2, AVX2_ROWS),
        (AVX512, AVX512_ROWS),
        ([*AVX512, "avx512_vnni"], ["vpdpbusd zmm", *AVX512_ROWS]),
        ([*AVX512, "avx512_bf16"], ["vdpbf16ps zmm", *AVX512_ROWS]),
        (["avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"], SCALAR_ROWS),
        ([*AVX2, "amx_tile"], AVX2_ROWS),
        ([*AVX2, "amx_tile", "amx_int8"], ["tdpbusd", *AVX2_ROWS]),
        ([*AVX2, "amx_tile", "amx_bf16"], ["tdpbf16ps", *AVX2_ROWS]),
    ],
)
def test_every_kind_of_processor(features: list[str], rows: list[str]) -> None:
    assert {roof.instruction for roof in _core.roofs(features)} == set(rows)


def test_names_are_unique() -> None:
    assert len({roof.instruction for roof in HERE}) == len(HERE)


def test_what_is_not_there() -> None:
    pool = _core.ThreadPool(1)
    with pytest.raises(
        UnsupportedError, match=r"^instruction: pmull is not available, expected one of: .*C\+\+"
    ):
        _core.measure_roof("pmull", pool, seconds=0.01)
    with pytest.raises(InputError, match="rounds: found -1"):
        _core.kernels.run_roof("float in C++", rounds=-1, x=1, y=1)
    with pytest.raises(InputError, match="reads nothing"):
        _core.kernels.read_sum("float in C++", np.zeros(64, np.uint64))
    with pytest.raises(InputError, match="computes nothing"):
        _core.kernels.run_roof("uint64 in C++", rounds=1, x=1, y=1)
    with pytest.raises(InputError, match="8 bytes, expected a multiple of 512"):
        _core.kernels.read_sum("uint64 in C++", np.zeros(1, np.uint64))
