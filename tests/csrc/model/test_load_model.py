"""Loading a pair of GGUF files: what must be there and fit, and what a loaded model may be used for."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from pocketvlm import _core
from pocketvlm.errors import Cancelled, Error, FormatError, InputError, UnsupportedError
from pocketvlm.export.gguf_export import export_gguf
from pocketvlm.export.synthetic import write_synthetic, write_weights

from ...patches import random_patches
from ..forking import in_forked_child

Change = Callable[[Any], Any]


def pair(folder: Path) -> tuple[Path, Path]:
    """The text and the projector file of an exported folder."""
    (projector,) = folder.glob("mmproj-*.gguf")
    (text,) = (path for path in folder.glob("*.gguf") if path != projector)
    return text, projector


def open_pair(text: Path, projector: Path, **options: Any) -> _core.Model:
    return _core.Model(text, projector, pool=_core.ThreadPool(2), **options)


def rewrite(
    source: Path,
    target: Path,
    *,
    keys: dict[str, Any] | None = None,
    drop: str | None = None,
    tensors: dict[str, Change] | None = None,
) -> Path:
    """Copies a GGUF file with values changed, a key or a tensor dropped, or tensors of other contents."""
    reader = gguf.GGUFReader(source)
    keys, tensors = keys or {}, tensors or {}
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert drop is None or drop in fields or drop in {tensor.name for tensor in reader.tensors}
    architecture = keys.get("general.architecture", fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, architecture)
    for name, field in fields.items():
        if name in ("general.architecture", drop):
            continue
        kind = field.types[0]
        sub_type = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, keys.get(name, field.contents()), kind, sub_type)
    for name in keys.keys() - fields.keys():
        writer.add_string(name, keys[name])
    for tensor in reader.tensors:
        if tensor.name != drop:
            data = tensors.get(tensor.name, lambda values: values)(np.array(tensor.data))
            writer.add_tensor(
                tensor.name, data, raw_dtype=None if tensor.name in tensors else tensor.tensor_type
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


TEXT_KEYS = [
    ("llama.block_count", 0, "0, expected 1 to 4096"),
    ("llama.block_count", 4_000_000_000, "4000000000, expected 1 to 4096"),
    ("llama.block_count", 4096, "tensor blk.2.attn_norm.weight: missing"),
    ("llama.embedding_length", 0, "0, expected 1 to"),
    ("llama.embedding_length", 192, "projection_dim: 128, expected 192, the embedding_length of"),
    ("llama.feed_forward_length", 224, r"tensor blk.0.ffn_gate.weight: \[128, 192\], expected \[128, 224\]"),
    ("llama.attention.head_count", 0, "0, expected 1 to"),
    ("llama.attention.head_count_kv", 3, "3, expected a divisor of head_count 2"),
    ("llama.attention.key_length", 63, "63, expected an even number"),
    ("llama.attention.key_length", 66, "expected the head size 66"),
    ("llama.context_length", 0, "0, expected 1 to"),
    ("llama.rope.freq_base", float("nan"), "expected 1 or more"),
    ("llama.attention.layer_norm_rms_epsilon", 0.0, "0, expected above 0 and below 1"),
    ("general.architecture", "gemma", "gemma, expected llama for the text model"),
    ("llama.rope.scaling.type", "yarn", "RoPE scaling is not supported"),
    ("pocketvlm.pair_id", "0" * 64, "the two files come from different checkpoints"),
]
PROJECTOR_KEYS = [
    ("clip.vision.projector.scale_factor", 0, "0, expected 1 to"),
    ("clip.vision.projector.scale_factor", 3, "3, expected a divisor of the grid 8"),
    ("clip.vision.block_count", 2**32 - 1, "4294967295, expected 1 to 4096"),
    ("clip.vision.image_size", 0, "0, expected 1 to"),
    ("clip.vision.patch_size", 65, "65, expected at most image_size 64"),
    ("clip.vision.attention.head_count", 5, "5, expected a divisor of embedding_length 64"),
    ("clip.vision.projection_dim", 64, "64, expected 128, the embedding_length of"),
    ("clip.vision.attention.layer_norm_epsilon", -1.0, "expected above 0 and below 1"),
    ("clip.vision.image_std", [0.5, 0.0, 0.5], "0, expected a positive number"),
    ("clip.vision.image_mean", [0.5, 0.5], "2 values, expected 3"),
    ("clip.projector_type", "ldp", "ldp, expected idefics3 for the image projector"),
    ("clip.use_gelu", False, "another activation, expected GELU"),
]


@pytest.mark.parametrize(("key", "value", "message"), TEXT_KEYS)
def test_a_text_file_that_cannot_be(
    tiny_f32: Path, tmp_path: Path, key: str, value: object, message: str
) -> None:
    text, projector = pair(tiny_f32)
    changed = rewrite(text, tmp_path / "changed.gguf", keys={key: value})
    with pytest.raises((FormatError, UnsupportedError), match=message):
        open_pair(changed, projector)


@pytest.mark.parametrize(("key", "value", "message"), PROJECTOR_KEYS)
def test_a_projector_file_that_cannot_be(
    tiny_f32: Path, tmp_path: Path, key: str, value: object, message: str
) -> None:
    text, projector = pair(tiny_f32)
    changed = rewrite(projector, tmp_path / "changed.gguf", keys={key: value})
    with pytest.raises((FormatError, UnsupportedError), match=message):
        open_pair(text, changed)


@pytest.mark.parametrize("which", [0, 1])
def test_every_missing_tensor_is_named(tiny_f32: Path, tmp_path: Path, which: int) -> None:
    """Each tensor alone; but without a head of its own a text model uses its embedding."""
    files = list(pair(tiny_f32))
    names = [tensor.name for tensor in gguf.GGUFReader(files[which]).tensors]
    for name in names:
        changed = files.copy()
        changed[which] = rewrite(files[which], tmp_path / "changed.gguf", drop=name)
        if name == "output.weight":
            open_pair(*changed)
        else:
            with pytest.raises(FormatError, match=rf"changed\.gguf: tensor {re.escape(name)}: missing"):
                open_pair(*changed)


def test_a_tensor_of_another_shape(tiny_f32: Path, tmp_path: Path) -> None:
    text, projector = pair(tiny_f32)
    changed = rewrite(text, tmp_path / "changed.gguf", tensors={"blk.1.attn_k.weight": lambda w: w[:-1]})
    with pytest.raises(
        FormatError, match=r"tensor blk\.1\.attn_k\.weight: \[128, 63\], expected \[128, 64\]"
    ):
        open_pair(changed, projector)
    changed = rewrite(text, tmp_path / "changed.gguf", tensors={"output_norm.weight": lambda w: w[:-1]})
    with pytest.raises(FormatError, match=r"tensor output_norm\.weight: \[127\], expected 128 values"):
        open_pair(changed, projector)


def test_swapped_files(tiny_f32: Path) -> None:
    text, projector = pair(tiny_f32)
    with pytest.raises(UnsupportedError, match="clip, expected llama for the text model"):
        open_pair(projector, text)


def test_a_path_that_is_not_utf8(tiny_f32: Path, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    with pytest.raises(Error, match="No such file"):
        open_pair(folder / "a.gguf", folder / "b.gguf")


def test_loading_reports_and_can_be_stopped(tiny_f32: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    open_pair(*pair(tiny_f32), on_progress=lambda *step: seen.append(step))
    done = [step[1] for step in seen]
    assert {step[0] for step in seen} == {"load"}
    assert done == sorted(done)
    assert done[-1] == seen[-1][2]

    stop = _core.StopFlag()
    with pytest.raises(Cancelled):
        open_pair(*pair(tiny_f32), stop=stop, on_progress=lambda *step: stop.set())


def test_a_tower_without_its_text_model(tiny_f32: Path) -> None:
    """The same features; of the text file nothing is packed, and nothing of it runs."""
    seen: list[tuple[str, int, int]] = []
    text, projector = pair(tiny_f32)
    whole = open_pair(text, projector)
    tower = open_pair(text, projector, vision_only=True, on_progress=lambda *step: seen.append(step))
    tiles = random_patches(whole, 2)
    assert np.array_equal(tower.encode_images(tiles), whole.encode_images(tiles))
    assert seen[-1][2] == len(_core.GgufFile(projector).tensors)
    assert 0 < tower.weight_bytes < whole.weight_bytes
    assert tower.vocab_size == whole.vocab_size
    with pytest.raises(InputError, match="vision_only: this model was loaded without its text model"):
        tower.new_cache()
    with pytest.raises(InputError, match="vision_only"):
        tower.trace_text(np.array([1], np.int32), np.empty((0, tower.hidden_size), np.float32), 2)


def test_several_models_share_a_pool_and_threads(tiny_f32: Path, tiny_q8_0: Path) -> None:
    """Two models, one pool, four threads at once: the results of each alone."""
    pool = _core.ThreadPool(2)
    models = [_core.Model(*pair(folder), pool=pool) for folder in (tiny_f32, tiny_q8_0)]
    tiles = random_patches(models[0], 2)
    alone = [model.encode_images(tiles) for model in models]
    assert not np.array_equal(*alone)
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(5):
            if not np.array_equal(models[index % 2].encode_images(tiles), alone[index % 2]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive(), "a thread hangs"
    assert wrong == []


def test_a_forked_child_uses_the_model(tiny_f32: Path) -> None:
    """Loaded once, then forked: packed weights, mapped files and threads serve the child as well."""
    model = open_pair(*pair(tiny_f32))
    tiles = random_patches(model, 2)
    features = model.encode_images(tiles)
    logits = model.decode(model.new_cache(), 5)

    def same() -> bool:
        again = model.encode_images(tiles)
        return np.array_equal(again, features) and np.array_equal(model.decode(model.new_cache(), 5), logits)

    in_forked_child(same)
    assert same()


def test_cancelling_leaves_model_and_cache_usable(tiny_f32: Path) -> None:
    """A stop while tiles or a prompt are under way; then the same call gives what it would have given."""
    model = open_pair(*pair(tiny_f32))
    tiles = random_patches(model, 3)
    whole = model.encode_images(tiles)
    stop = _core.StopFlag()
    with pytest.raises(Cancelled):
        model.encode_images(tiles, stop=stop, on_progress=lambda stage, done, total: stop.set())
    assert np.array_equal(model.encode_images(tiles), whole)

    ids = np.arange(1500, dtype=np.int32) % 500  # two chunks
    nothing = np.empty((0, model.hidden_size), np.float32)
    logits = model.prefill(model.new_cache(), ids, nothing, -1)
    cache, stop = model.new_cache(), _core.StopFlag()
    with pytest.raises(Cancelled):
        model.prefill(cache, ids, nothing, -1, stop=stop, on_progress=lambda stage, done, total: stop.set())
    assert cache.length == 1280, "the chunk that was done stays"
    assert np.array_equal(model.prefill(cache, ids[1280:], nothing, -1), logits)


def test_a_callback_that_raises_ends_the_call(tiny_f32: Path) -> None:
    model = open_pair(*pair(tiny_f32))

    def fail(stage: str, done: int, total: int) -> None:
        raise LookupError(stage)

    with pytest.raises(LookupError, match="vision"):
        model.encode_images(random_patches(model, 2), on_progress=fail)
    assert np.isfinite(model.encode_images(random_patches(model, 1))).all()


def test_a_prompt_in_chunks_is_a_prompt_in_one(tiny_f32: Path) -> None:
    """However a prompt is cut up, image tokens across the cuts: the same bits."""
    model = open_pair(*pair(tiny_f32))
    features = model.encode_images(random_patches(model, 40)).reshape(-1, model.hidden_size)
    image_token = 7
    ids = np.full(60 + len(features), image_token, dtype=np.int32)
    ids[:30] = np.arange(30) + 100
    ids[-30:] = np.arange(30) + 200
    assert len(ids) > 512
    whole = model.prefill(model.new_cache(), ids, features, image_token)
    cache = model.new_cache()
    for first in range(0, len(ids), 97):
        part = ids[first : first + 97]
        before = int((ids[:first] == image_token).sum())
        count = int((part == image_token).sum())
        logits = model.prefill(cache, part, features[before : before + count].copy(), image_token)
    assert cache.length == len(ids)
    assert np.array_equal(logits, whole)


def test_a_cache_grows_by_need_and_ends_with_the_context(tiny_f32: Path) -> None:
    model = open_pair(*pair(tiny_f32))
    cache = model.new_cache()
    nothing = np.empty((0, model.hidden_size), np.float32)
    assert (cache.length, cache.capacity, cache.nbytes) == (0, 0, 0)
    model.prefill(cache, np.zeros(129, np.int32), nothing, -1)
    assert (cache.length, cache.capacity) == (129, 256)
    context = model.max_position_embeddings
    with pytest.raises(InputError, match=rf"context: {context + 1} positions, the model has {context}"):
        model.prefill(cache, np.zeros(context + 1 - 129, np.int32), nothing, -1)
    assert cache.length == 129


@pytest.mark.parametrize(
    ("ids", "rows", "message"),
    [
        ([], 0, "token_ids: empty"),
        ([1, -2], 0, r"token_ids\[1\]: -2, expected 0 to"),
        ([10**6], 0, r"token_ids\[0\]: 1000000, expected 0 to"),
        ([7, 7], 1, "image_features: 1 rows, expected 2"),
        ([1], 1, "image_features: 1 rows, expected 0"),
    ],
)
def test_a_prompt_that_cannot_be(tiny_f32: Path, ids: list[int], rows: int, message: str) -> None:
    model = open_pair(*pair(tiny_f32))
    features = np.zeros((rows, model.hidden_size), np.float32)
    with pytest.raises(InputError, match=message):
        model.prefill(model.new_cache(), np.array(ids, np.int32), features, 7)


def test_a_cache_of_another_model(tiny_f32: Path) -> None:
    first, second = open_pair(*pair(tiny_f32)), open_pair(*pair(tiny_f32))
    with pytest.raises(InputError, match="cache: made by another model"):
        second.decode(first.new_cache(), 1)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_the_type_is_that_of_the_layers(tiny_checkpoint: Path, tmp_path: Path, kind: str) -> None:
    """Not that of the embedding, which is larger than the layers here and never below 8 bits."""
    export_gguf(tiny_checkpoint, tmp_path / "model", type=kind, vision_type="f16")
    model = open_pair(*pair(tmp_path / "model"))
    assert (model.text_type, model.vision_type) == (kind, "f16")


@pytest.mark.parametrize("isa", _core.isas())
def test_a_tower_in_bfloat16_is_close_to_one_in_float32(tiny_f32: Path, isa: str) -> None:
    """Operands keep 8 bits: errors of some thousandths, and the same bits on any number of threads."""
    if not any(kernel == "gemm_bf16_bf16" for _, kernel, *_ in _core.kernel_cases(isa)):
        with pytest.raises(UnsupportedError, match="no products in bfloat16"):
            open_pair(*pair(tiny_f32), isa=isa, vision_compute="bf16")
        return
    exact = open_pair(*pair(tiny_f32), isa=isa)
    rounded = open_pair(*pair(tiny_f32), isa=isa, vision_compute="bf16")
    tiles = random_patches(exact, 2)
    features, close = exact.encode_images(tiles), rounded.encode_images(tiles)
    assert 1e-4 < np.linalg.norm(close - features) / np.linalg.norm(features) < 1e-2
    # Pixels are exact, and weights of patches the sum of two numbers.
    embedded, close_embedded = (model.trace_vision(tiles[:1])["patch_embed"] for model in (exact, rounded))
    assert not np.array_equal(close_embedded, embedded)
    assert np.linalg.norm(close_embedded - embedded) / np.linalg.norm(embedded) < 1e-4
    one_thread = _core.Model(*pair(tiny_f32), pool=_core.ThreadPool(1), isa=isa, vision_compute="bf16")
    assert np.array_equal(one_thread.encode_images(tiles), close)


@pytest.fixture(scope="module")
def odd_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tower whose fc2 has rows that blocks of 32 do not divide, as 2.2B's, and 64 tokens a tile, at f32
    and at q8_0, which stores fc2 as float16."""
    folder = tmp_path_factory.mktemp("odd-rows")
    checkpoint = write_synthetic("tiny-2.2b", folder / "checkpoint")
    changes = {
        "config.json": ("vision_config", "image_size", 336),
        "preprocessor_config.json": ("max_image_size", "longest_edge", 336),
        "processor_config.json": (None, "image_seq_len", 64),
    }
    for name, (group, key, value) in changes.items():
        config = json.loads((checkpoint / name).read_text())
        (config[group] if group else config)[key] = value
        (checkpoint / name).write_text(json.dumps(config))
    write_weights(checkpoint, 0)
    for kind in ("f32", "q8_0"):
        export_gguf(checkpoint, folder / kind, type=kind)
    return folder / "f32", folder / "q8_0"


@pytest.mark.parametrize("isa", _core.isas())
def test_weights_of_16_bits_among_quantised_ones_cost_nothing(odd_rows: tuple[Path, Path], isa: str) -> None:
    """Left to themselves they may be multiplied in bfloat16: what the others' rounding costs hides it."""
    f32, q8_0 = odd_rows
    exact = open_pair(*pair(f32), isa=isa)
    automatic = open_pair(*pair(q8_0), isa=isa)
    asked = open_pair(*pair(q8_0), isa=isa, vision_compute="int8")
    tiles = random_patches(exact, 1)
    features, rounded, reference = (model.encode_images(tiles) for model in (exact, automatic, asked))
    assert np.linalg.norm(rounded - features) < 1.1 * np.linalg.norm(reference - features)
    assert np.array_equal(rounded, reference) == (isa not in ("avx512_bf16", "amx"))
