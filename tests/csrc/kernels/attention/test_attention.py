"""Attention over blocks of keys, against a float64 softmax."""

import numpy as np
import pytest

from pocketvlm import _core

KINDS = ("f32", "f16")
EPSILON = float(np.finfo(np.float32).eps)


def attention(isa: str, kind: str, *arrays: np.ndarray) -> np.ndarray:
    """Runs the kernel for keys and values of that kind, which they hold exactly."""
    q, k, v, visible = arrays
    if kind == "f32":
        return _core.kernels.attention_f32(isa, q, k, v, visible)
    halves = [values.astype(np.float16).view(np.uint16) for values in (k, v)]
    return _core.kernels.attention_f16(isa, q, *halves, visible)


def normal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Float32 values that float16 holds exactly."""
    return rng.standard_normal((rows, columns)).astype(np.float16).astype(np.float32)


def exact_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, visible: np.ndarray) -> np.ndarray:
    scores = q.astype(np.float64) @ k.T.astype(np.float64)
    scores[np.arange(len(k)) >= visible[:, None]] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True) @ v.astype(np.float64)


@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head_dim", [32, 64, 72, 6])
@pytest.mark.parametrize("keys", [1, 15, 127, 128, 129, 300])
def test_against_softmax(isa: str, kind: str, head_dim: int, keys: int) -> None:
    """A score's error, d eps sum |q k|, shifts its weight relatively; so does the sum of `keys` weights."""
    rng = np.random.default_rng(keys * 100 + head_dim)
    for rows in (1, 3, 6, 7, 13):
        q = rng.standard_normal((rows, head_dim), dtype=np.float32) / np.float32(np.sqrt(head_dim)) * 3
        k = normal(rng, keys, head_dim)
        v = normal(rng, keys, head_dim)
        visible = rng.integers(1, keys + 1, rows).astype(np.int32)
        y = attention(isa, kind, q, k, v, visible)
        score_error = head_dim * EPSILON * (np.abs(q) @ np.abs(k.T)).max()
        bound = 2 * (score_error + (keys + 8) * EPSILON) * np.abs(v).max()
        assert np.abs(y - exact_attention(q, k, v, visible)).max() <= bound, rows


def has_bf16(isa: str) -> bool:
    return any(kernel == "attend_block_bf16" for _, kernel, *_ in _core.kernel_cases(isa))


BF16_ISAS = [isa for isa in _core.isas() if has_bf16(isa)]


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Float32 values that bfloat16 holds exactly."""
    return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)


@pytest.mark.parametrize("isa", BF16_ISAS)
@pytest.mark.parametrize("head_dim", [32, 64, 72, 6])
@pytest.mark.parametrize("keys", [1, 15, 31, 33, 127, 128, 129, 300])
def test_bf16_against_softmax(isa: str, head_dim: int, keys: int) -> None:
    """A weight is rounded to 8 bits, and exact to 2^-12 before; their sum is not rounded, the result is."""
    rng = np.random.default_rng(keys * 100 + head_dim)
    for rows in (1, 3, 15, 16, 17, 33, 50):
        q = bfloat16(rng.standard_normal((rows, head_dim), dtype=np.float32))
        scale = 1 / np.sqrt(np.float32(head_dim))
        k = bfloat16(rng.standard_normal((keys, head_dim), dtype=np.float32))
        v = bfloat16(rng.standard_normal((keys, head_dim), dtype=np.float32))
        visible = rng.integers(1, keys + 1, rows).astype(np.int32)
        y = _core.kernels.attention_bf16(isa, q, k, v, visible, scale)
        score_error = 2 * head_dim * EPSILON * scale * (np.abs(q) @ np.abs(k.T)).max()
        bound = (2 * 2**-9 + 2 * 2**-12 + 2 * score_error + keys * EPSILON) * np.abs(v).max()
        assert np.abs(y - exact_attention(q * scale, k, v, visible)).max() <= bound, rows


@pytest.mark.parametrize("isa", BF16_ISAS)
def test_bf16_unseen_keys_do_not_matter(isa: str) -> None:
    """What lies behind the last visible key, however large, changes no bit; nor do the rows beside one."""
    rng = np.random.default_rng(5)
    q = rng.standard_normal((37, 64), dtype=np.float32)
    k = rng.standard_normal((200, 64), dtype=np.float32)
    v = rng.standard_normal((200, 64), dtype=np.float32)
    visible = rng.integers(1, 141, 37).astype(np.int32)
    before = _core.kernels.attention_bf16(isa, q, k, v, visible, 1.0)
    k[140:] = 6e4
    v[140:] = -6e4
    assert np.array_equal(_core.kernels.attention_bf16(isa, q, k, v, visible, 1.0), before)
    for row in (0, 20, 36):
        one = slice(row, row + 1)
        assert np.array_equal(
            _core.kernels.attention_bf16(isa, q[one], k, v, visible[one], 1.0)[0], before[row]
        )


@pytest.mark.parametrize("isa", BF16_ISAS)
def test_bf16_large_scores_stay_finite(isa: str) -> None:
    """The maximum is taken off before exp, also when it grows from block to block."""
    k = np.linspace(-500, 500, 300, dtype=np.float32).reshape(-1, 1) * np.ones((1, 16), dtype=np.float32)
    v = np.arange(256, dtype=np.float32)[np.minimum(np.arange(300), 255)].reshape(-1, 1) * np.ones(
        (1, 16), dtype=np.float32
    )
    visible = np.array([300, 2], dtype=np.int32)
    y = _core.kernels.attention_bf16(isa, np.ones((2, 16), dtype=np.float32), k, v, visible, 1.0)
    assert np.allclose(y, [[255], [1]], rtol=2**-9)  # of the weights


@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize("kind", KINDS)
def test_unseen_keys_do_not_matter(isa: str, kind: str) -> None:
    """What lies behind the last visible key, however large, changes no bit."""
    rng = np.random.default_rng(5)
    q = rng.standard_normal((7, 64), dtype=np.float32)
    k = normal(rng, 200, 64)
    v = normal(rng, 200, 64)
    visible = np.array([1, 16, 17, 127, 128, 129, 140], dtype=np.int32)
    before = attention(isa, kind, q, k, v, visible)
    k[140:] = 6e4
    v[140:] = -6e4
    assert np.array_equal(attention(isa, kind, q, k, v, visible), before)


@pytest.mark.parametrize("isa", _core.isas())
def test_large_scores_stay_finite(isa: str) -> None:
    """The maximum is taken off before exp, also when it grows from block to block."""
    k = np.linspace(-500, 500, 300, dtype=np.float32).reshape(-1, 1) * np.ones((1, 16), dtype=np.float32)
    v = np.arange(300, dtype=np.float32).reshape(-1, 1) * np.ones((1, 16), dtype=np.float32)
    y = attention(isa, "f32", np.ones((2, 16), dtype=np.float32), k, v, np.array([300, 2], dtype=np.int32))
    assert np.allclose(y[0], 299)
    assert np.allclose(y[1], 1)
