"""Packed matrix products of every row of the kernel table, against float64 and the scalar row."""

import itertools

import gguf
import numpy as np
import pytest

from pocketvlm import _core
from pocketvlm.errors import UnsupportedError

from ...quant.random_blocks import random_blocks

ISAS = _core.isas()
KINDS = ("f32", "f16", "bf16", "q8_0", "q4_0")
AFFINE_KINDS = ("q4_1", "q5_1", "q4_k", "q5_k", "q6_k")


def multiplies_bf16(isa: str) -> bool:
    return any(kernel == "gemm_bf16_bf16" for _, kernel, *_ in _core.kernel_cases(isa))


BF16_ISAS = [isa for isa in ISAS if multiplies_bf16(isa)]
# One column more and one less than a panel of 16 and of 64, and one beyond two panels.
COLUMNS = (1, 15, 16, 17, 63, 64, 65, 129)
# Remainders of every register tile (2, 3 and 6 rows), and one row more than a block of rows.
ROWS = (1, 2, 3, 5, 7, 97)
# Of 32 along k: parts of a panel that kernels for many rows take at a time (8), and one more.
BLOCKS = (1, 2, 7, 8, 9, 17)
EPSILON = float(np.finfo(np.float32).eps)


def stored_bytes(weights: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A weight matrix as it lies in a file, and the float32 values that these bytes stand for."""
    quant = gguf.GGMLQuantizationType[kind.upper()]
    stored = gguf.quants.quantize(weights, quant)
    return stored.view(np.uint8).reshape(-1), gguf.quants.dequantize(stored, quant)


@pytest.mark.parametrize("kind", AFFINE_KINDS)
@pytest.mark.parametrize("isa", ISAS)
def test_affine_weights(isa: str, kind: str) -> None:
    """Rows of the identity give every weight back, to the bit; other rows, what float32 sums allow."""
    rng = np.random.default_rng(11)
    for k in (256, 512, 768) if kind.endswith("k") else (32, 96, 128, 160, 288):
        for n in (1, 17, 63, 65, 129):
            stored, weights = random_blocks(rng, n, k, kind)
            found = _core.kernels.linear(
                isa, np.eye(k, dtype=np.float32), stored, type=kind, n=n, arithmetic="int8"
            )
            assert np.array_equal(found, weights.T), (k, n)
            x = rng.standard_normal((3, k), dtype=np.float32)
            bias = rng.standard_normal(n, dtype=np.float32)
            before = rng.standard_normal((3, n), dtype=np.float32)
            y = _core.kernels.linear(
                isa, x, stored, type=kind, n=n, bias=bias, initial=before, arithmetic="int8"
            )
            exact = before.astype(np.float64) + bias + x.astype(np.float64) @ weights.T.astype(np.float64)
            magnitude = np.abs(before) + np.abs(bias) + np.abs(x) @ np.abs(weights.T)
            assert np.all(np.abs(y - exact) <= (k + 2) * EPSILON * magnitude), (k, n)


@pytest.mark.parametrize("kind", ["q5_0", "iq4_nl"])
@pytest.mark.parametrize("isa", ISAS)
def test_types_that_are_q8_0_with_fewer_bits(isa: str, kind: str) -> None:
    """The same bits as of blocks of q8_0 with the same scale and the same integers."""
    rng = np.random.default_rng(12)
    for n, k in ((1, 32), (66, 96), (130, 288)):
        stored, weights = random_blocks(rng, n, k, kind)
        scales = stored.reshape(n, k // 32, -1)[..., :2]
        d = scales.copy().view(np.float16).astype(np.float32)
        values = np.rint(weights.reshape(n, k // 32, 32) / d).astype(np.int8)
        assert np.array_equal(values * d, weights.reshape(n, k // 32, 32))
        as_q8_0 = np.concatenate([scales, values.view(np.uint8)], axis=-1).reshape(-1)
        x = rng.standard_normal((5, k), dtype=np.float32)
        for arithmetic in ("int8", *(["bf16"] if isa in BF16_ISAS else [])):
            found, expected = (
                _core.kernels.linear(isa, x, blocks, type=type, n=n, arithmetic=arithmetic)
                for type, blocks in ((kind, stored), ("q8_0", as_q8_0))
            )
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("isa", ISAS)
def test_float_weights(isa: str, kind: str) -> None:
    """Each result is within the error of a float32 sum of k products, k * eps * sum |x w|."""
    rng = np.random.default_rng(1)
    for m in ROWS:
        for n in COLUMNS:
            k = int(rng.integers(1, 70))
            x = rng.standard_normal((m, k), dtype=np.float32)
            stored, weights = stored_bytes(rng.standard_normal((n, k), dtype=np.float32), kind)
            bias = rng.standard_normal(n, dtype=np.float32)
            before = rng.standard_normal((m, n), dtype=np.float32)
            y = _core.kernels.linear(isa, x, stored, type=kind, n=n, bias=bias, initial=before)
            exact = before.astype(np.float64) + bias + x.astype(np.float64) @ weights.T.astype(np.float64)
            magnitude = np.abs(before) + np.abs(bias) + np.abs(x) @ np.abs(weights.T)
            assert np.all(np.abs(y - exact) <= (k + 2) * EPSILON * magnitude), (m, n, k)


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
@pytest.mark.parametrize("isa", ISAS)
def test_block_weights(isa: str, kind: str) -> None:
    """The integer dots are exact: what is left is a float32 sum over the blocks of 32."""
    rng = np.random.default_rng(2)
    for m in ROWS:
        for n in COLUMNS:
            blocks = int(rng.choice(BLOCKS))
            x = rng.standard_normal((m, 32 * blocks), dtype=np.float32)
            stored, weights = stored_bytes(rng.standard_normal((n, 32 * blocks), dtype=np.float32), kind)
            y = _core.kernels.linear(isa, x, stored, type=kind, n=n, arithmetic="int8")
            rows = [_core.kernels.quantize_row_i8("scalar", row) for row in x]
            quantised = np.stack([v.reshape(blocks, 32) * s[:, None].astype(np.float64) for v, s, _ in rows])
            products = np.einsum("mbi,nbi->mnb", quantised, weights.reshape(n, blocks, 32).astype(np.float64))
            bound = (blocks + 3) * EPSILON * np.abs(products).sum(axis=2)
            assert np.all(np.abs(y - products.sum(axis=2)) <= bound + 1e-30), (m, n, blocks)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("kind", "byte", "weight"),
    [
        ("q8_0", 0x80, -128),
        ("q8_0", 0x81, -127),
        ("q8_0", 0x7F, 127),
        ("q4_0", 0x00, -8),
        ("q4_0", 0xFF, 7),
    ],
)
def test_extreme_bytes(isa: str, kind: str, byte: int, weight: int) -> None:
    """The largest values throughout, where a saturating or 16-bit step would go wrong, and scales near both
    ends of float32, for few rows and many."""
    n, k = 66, 64
    blocks = np.full((n, k // 32, 34 if kind == "q8_0" else 18), byte, dtype=np.uint8)
    blocks[..., :2] = np.frombuffer(np.float16(0.5).tobytes(), dtype=np.uint8)
    for m, scale in itertools.product((3, 15), (-1.0, 1.0, 2.0**-120, 2.0**100)):
        x = np.full((m, k), scale * 127.0, dtype=np.float32)
        y = _core.kernels.linear(isa, x, blocks.reshape(-1), type=kind, n=n, arithmetic="int8")
        assert np.array_equal(y, np.full((m, n), k * 0.5 * weight * scale * 127.0, dtype=np.float32))


def rounded(values: np.ndarray) -> np.ndarray:
    """Values to the nearest bfloat16, as float64."""
    stored = gguf.quants.quantize(values.astype(np.float32), gguf.GGMLQuantizationType.BF16)
    return gguf.quants.dequantize(stored, gguf.GGMLQuantizationType.BF16).astype(np.float64)


@pytest.mark.parametrize("kind", [*KINDS, *AFFINE_KINDS])
@pytest.mark.parametrize("isa", BF16_ISAS)
def test_weights_become_bfloat16(isa: str, kind: str) -> None:
    """Rows of the identity give every weight back, rounded once; so no weight is lost, moved or doubled."""
    rng = np.random.default_rng(4)
    sizes = (1, 2, 31, 32, 33, 64, 95) if kind in ("f32", "f16", "bf16") else (32, 64, 96)
    for k in (256, 512) if kind.endswith("k") else sizes:
        for n in (1, 17, 64, 130):
            if kind in AFFINE_KINDS:
                stored, weights = random_blocks(rng, n, k, kind)
            else:
                stored, weights = stored_bytes(rng.standard_normal((n, k), dtype=np.float32), kind)
            x = np.eye(k, dtype=np.float32)
            y = _core.kernels.linear(isa, x, stored, type=kind, n=n, arithmetic="bf16")
            assert np.array_equal(y.astype(np.float64), rounded(weights).T), (k, n)


@pytest.mark.parametrize("isa", BF16_ISAS)
def test_products_in_bfloat16(isa: str) -> None:
    """Operands are rounded to bfloat16, and sums are float32's: each product and each sum rounds once."""
    rng = np.random.default_rng(5)
    for m in (*ROWS, 16, 17, 31, 32, 33, 300):
        for n in COLUMNS:
            k = int(rng.integers(1, 200))
            x = rng.standard_normal((m, k), dtype=np.float32)
            stored, weights = stored_bytes(rng.standard_normal((n, k), dtype=np.float32), "f32")
            bias = rng.standard_normal(n, dtype=np.float32)
            before = rng.standard_normal((m, n), dtype=np.float32)
            y = _core.kernels.linear(
                isa, x, stored, type="f32", n=n, bias=bias, initial=before, arithmetic="bf16"
            )
            exact = before.astype(np.float64) + bias + rounded(x) @ rounded(weights).T
            magnitude = np.abs(before) + np.abs(bias) + np.abs(rounded(x)) @ np.abs(rounded(weights)).T
            assert np.all(np.abs(y - exact) <= (2 * k + 2) * EPSILON * magnitude), (m, n, k)


@pytest.mark.parametrize("isa", BF16_ISAS)
def test_gelu_of_products_in_bfloat16(isa: str) -> None:
    """To half a unit of bfloat16, and 2^-12 of the product before: GELU is at most 1.13 times as steep."""
    rng = np.random.default_rng(7)
    for m in (1, 17, 40):
        for n in COLUMNS:
            x = rng.standard_normal((m, 64), dtype=np.float32)
            stored, weights = stored_bytes(rng.standard_normal((n, 64), dtype=np.float32), "f32")
            bias = rng.standard_normal(n, dtype=np.float32)
            y = _core.kernels.linear(
                isa, x, stored, type="f32", n=n, bias=bias, arithmetic="bf16", gelu_to_bf16=True
            )
            product = bias + rounded(x) @ rounded(weights).T
            magnitude = np.abs(bias) + np.abs(rounded(x)) @ np.abs(rounded(weights)).T
            cubic = np.sqrt(2 / np.pi) * (product + 0.044715 * product**3)
            exact = 0.5 * product * (1 + np.tanh(cubic))
            error = 2**-8 * np.abs(exact) + 2**-12 * np.abs(product) + 1.13 * 130 * EPSILON * magnitude
            assert np.all(np.abs(y - exact) <= error), (m, n)


@pytest.mark.parametrize(
    ("isa", "arithmetic"), [*((isa, "int8") for isa in ISAS), *((isa, "bf16") for isa in BF16_ISAS)]
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [96, 544])
def test_same_bits_for_any_rows_and_threads(isa: str, arithmetic: str, kind: str, k: int) -> None:
    """A row's result depends neither on the rows beside it nor on the number of threads."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((300, k), dtype=np.float32)
    stored, _ = stored_bytes(rng.standard_normal((130, k), dtype=np.float32), kind)

    def product(rows: np.ndarray, threads: int = 1) -> np.ndarray:
        return _core.kernels.linear(
            isa, rows, stored, type=kind, n=130, arithmetic=arithmetic, threads=threads
        )

    whole = product(x)
    for threads in (2, 3, 8):
        assert np.array_equal(product(x, threads), whole)
    for row in (0, 1, 95, 96, 256, 299):
        assert np.array_equal(product(x[row : row + 1])[0], whole[row])


@pytest.mark.parametrize("isa", ISAS)
def test_automatic_arithmetic_is_one_of_both(isa: str) -> None:
    """Few rows are multiplied in int8, also where tiles make bfloat16 faster for many."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((64, 96), dtype=np.float32)
    stored, _ = stored_bytes(rng.standard_normal((70, 96), dtype=np.float32), "q8_0")
    for rows in (1, 64):
        auto, int8 = (
            _core.kernels.linear(isa, x[:rows], stored, type="q8_0", n=70, arithmetic=arithmetic)
            for arithmetic in ("auto", "int8")
        )
        assert np.array_equal(auto, int8) == (rows == 1 or isa != "amx")


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"type: q9_9, expected one of .*q8_0"):
        _core.kernels.linear("scalar", np.zeros((1, 32), np.float32), np.zeros(4, np.uint8), type="q9_9", n=4)


def test_an_unknown_isa_lists_what_is_there() -> None:
    with pytest.raises(UnsupportedError, match=r"isa: mmx is not available, expected one of: .*scalar"):
        _core.kernels.gelu_tanh("mmx", np.zeros(1, dtype=np.float32))
