"""The decoder's graph under every way to feed it: batches, pieces, a cache that stays where it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from .exports import Exported

Floats = npt.NDArray[np.float32]


def feeds_of(exported: Exported, embeds: Floats, past: int | None = None) -> dict[str, npt.NDArray[Any]]:
    """The inputs of the decoder for a first run over [batch, n, hidden], with a cache of `past` places."""
    config = exported.config.text
    batch, n = embeds.shape[:2]
    shape = (batch, config.num_key_value_heads, past or 0, config.head_dim)
    return {
        "inputs_embeds": embeds,
        "attention_mask": np.ones((batch, n), np.int64),
        "position_ids": np.tile(np.arange(n), (batch, 1)),
        **{
            f"past_key_values.{i}.{part}": np.zeros(shape, np.float32)
            for i in range(config.num_hidden_layers)
            for part in ("key", "value")
        },
    }


def random_embeds(exported: Exported, batch: int, n: int) -> Floats:
    shape = (batch, n, exported.config.text.hidden_size)
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def test_padding_on_either_side(exported: Exported) -> None:
    """A batch whose mask has zeros before or after the tokens computes what each row does alone."""
    decoder = exported.session("decoder_model_merged")
    embeds = random_embeds(exported, 2, 12)
    feeds = feeds_of(exported, embeds)
    feeds["attention_mask"][0, :5] = 0
    feeds["attention_mask"][1, 9:] = 0
    feeds["position_ids"] = np.maximum(feeds["attention_mask"].cumsum(axis=1) - 1, 0)
    (found,) = decoder.run(["logits"], feeds)
    for row, tokens in ((0, slice(5, 12)), (1, slice(0, 9))):
        (alone,) = decoder.run(["logits"], feeds_of(exported, embeds[row : row + 1, tokens]))
        np.testing.assert_allclose(found[row, tokens], alone[0], atol=1e-4)


def test_pieces_of_a_prompt(exported: Exported) -> None:
    """Logits of all tokens, of the last ones, and of a prompt that is read in two pieces."""
    decoder = exported.session("decoder_model_merged")
    embeds = random_embeds(exported, 1, 12)
    (all_logits,) = decoder.run(["logits"], feeds_of(exported, embeds))
    assert all_logits.shape == (1, 12, exported.config.text.vocab_size)
    for keep in (1, 3):
        feeds = feeds_of(exported, embeds) | {"num_logits_to_keep": np.array(keep, np.int64)}
        (kept,) = decoder.run(["logits"], feeds)
        np.testing.assert_allclose(kept, all_logits[:, -keep:], atol=1e-4)
    names = [spec.name for spec in decoder.get_outputs()]
    first = dict(zip(names, decoder.run(names, feeds_of(exported, embeds[:, :7])), strict=True))
    feeds = feeds_of(exported, embeds[:, 7:])
    feeds["attention_mask"] = np.ones((1, 12), np.int64)
    feeds["position_ids"] = np.arange(7, 12)[None]
    for name, value in first.items():
        if name.startswith("present."):
            feeds[name.replace("present", "past_key_values")] = value
    (rest,) = decoder.run(["logits"], feeds)
    np.testing.assert_allclose(rest, all_logits[:, 7:], atol=1e-4)


def test_a_cache_in_place(exported: Exported) -> None:
    """Past and present in one buffer that is longer than the tokens: the same logits, nothing copied."""
    decoder = exported.session("decoder_model_merged")
    embeds = random_embeds(exported, 1, 12)
    (expected,) = decoder.run(["logits"], feeds_of(exported, embeds))
    feeds = feeds_of(exported, embeds, past=40)
    cache = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(value)
        for name, value in feeds.items()
        if name.startswith("past_key_values")
    }
    for start, stop in ((0, 7), (7, 8), (8, 12)):
        binding = decoder.io_binding()
        binding.bind_cpu_input("inputs_embeds", np.ascontiguousarray(embeds[:, start:stop]))
        binding.bind_cpu_input("attention_mask", np.ones((1, stop), np.int64))
        binding.bind_cpu_input("position_ids", np.arange(start, stop)[None])
        for name, value in cache.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        binding.bind_output("logits", "cpu")
        decoder.run_with_iobinding(binding)
        logits = binding.get_outputs()[-1].numpy()
        np.testing.assert_allclose(logits, expected[:, start:stop], atol=1e-4)
    for value in cache.values():
        assert np.abs(value.numpy()[:, :, 11]).max() > 0
        assert not value.numpy()[:, :, 12:].any()
