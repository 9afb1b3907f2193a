"""Configurations: real ones, class defaults, old and new spellings, and one named error per defect."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from pocketvlm.config import ModelConfig, ProcessorConfig, TextConfig, VisionConfig
from pocketvlm.errors import FormatError, UnsupportedError

Change = Callable[[dict[str, Any]], object]

# All left to the class defaults but image_size: scale_factor 2 cannot halve the 7 patches per side of 224.
MINIMAL = {
    "model_type": "smolvlm",
    "image_token_id": 31999,
    "text_config": {},
    "vision_config": {"image_size": 256},
}
PREPROCESSOR = {
    "do_image_splitting": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.5, 1],
    "max_image_size": {"longest_edge": 512},
    "resample": 1,
    "rescale_factor": 0.00392156862745098,
    "size": {"longest_edge": 2048},
}


@pytest.fixture
def real() -> dict[str, Any]:
    """The config.json of SmolVLM-256M-Instruct."""
    data = files("pocketvlm.export") / "data" / "smolvlm-256m-instruct" / "config.json"
    values: dict[str, Any] = json.loads(data.read_text())
    return values


def test_256m(real: dict[str, Any]) -> None:
    config = ModelConfig.from_dict(real)
    assert config.text == TextConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        rope_theta=100000.0,
        rms_norm_eps=1e-5,
        vocab_size=49280,
        max_position_embeddings=8192,
    )
    assert config.vision == VisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=512,
        patch_size=16,
        layer_norm_eps=1e-6,
        num_channels=3,
    )
    assert (config.model_type, config.scale_factor, config.image_token_id) == ("idefics3", 4, 49190)
    assert (config.image_seq_len, config.vision.num_patches_per_side) == (64, 32)
    assert not config.tie_word_embeddings


def test_missing_model_keys_take_the_class_defaults() -> None:
    """As AutoConfig of transformers 5.23.0 fills them in."""
    config = ModelConfig.from_dict(MINIMAL)
    assert (config.scale_factor, config.pad_token_id, config.tie_word_embeddings) == (2, 128002, False)
    assert config.text == TextConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        head_dim=128,
        rope_theta=10000.0,
        rms_norm_eps=1e-6,
        vocab_size=32000,
        max_position_embeddings=2048,
    )
    assert config.vision == VisionConfig(
        hidden_size=1152,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=16,
        image_size=256,
        patch_size=32,
        layer_norm_eps=1e-6,
        num_channels=3,
    )


def test_null_is_missing() -> None:
    nulls = {
        "text_config": {"head_dim": None, "rope_scaling": None, "hidden_act": None},
        "scale_factor": None,
    }
    assert ModelConfig.from_dict(MINIMAL | nulls) == ModelConfig.from_dict(MINIMAL)


@pytest.mark.parametrize(
    "text",
    [
        {"rope_theta": 273768},
        {"rope_parameters": {"rope_theta": 273768.0, "rope_type": "default"}},
        {"rope_theta": 1, "rope_parameters": {"rope_theta": 273768.0}},
        {"rope_theta": 273768.0, "rope_parameters": {"rope_type": "default"}},
        {"rope_theta": 273768.0, "rope_scaling": {"type": "default"}},
    ],
)
def test_rope_theta_in_all_its_places(text: dict[str, Any]) -> None:
    assert TextConfig.from_dict(text).rope_theta == 273768.0


@pytest.mark.parametrize("key", ["pad_token_id", "_pad_token_id"])
def test_pad_token_id_as_saved_by_either_version(key: str) -> None:
    """It may lie outside the vocabulary: SmolVLM2 says 128002."""
    assert ModelConfig.from_dict(MINIMAL | {key: 99999}).pad_token_id == 99999


def test_foreign_keys_are_ignored(real: dict[str, Any]) -> None:
    expected = ModelConfig.from_dict(real)
    for section in (real, real["text_config"], real["vision_config"]):
        section |= {
            "_flash_attn_2_enabled": True,
            "neftune_noise_alpha": 5.0,
            "dtype": "float16",
            "future": [],
        }
    assert ModelConfig.from_dict(real) == expected


def refusal(values: dict[str, Any], change: Change, error: type[Exception]) -> str:
    values = copy.deepcopy(values)
    change(values)
    with pytest.raises(error) as caught:
        ModelConfig.from_dict(values, "here/config.json")
    assert str(caught.value).startswith("here/config.json: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(model_type=["idefics3"]), "model_type is ['idefics3']"),
        (lambda c: c.update(model_type="llava"), "model_type is 'llava'; supported: idefics3, smolvlm"),
        (lambda c: c.update(architectures=["LlamaForCausalLM"]), "architectures is ['LlamaForCausalLM']"),
        (lambda c: c.update(architectures=3), "architectures is 3"),
        (lambda c: c.update(quantization_config={"bits": 4}), 'quantization_config is {"bits": 4}'),
        (lambda c: c["text_config"].update(model_type="granite"), 'text_config: model_type is "granite"'),
        (lambda c: c["text_config"].update(hidden_act="gelu"), 'hidden_act is "gelu"; supported: "silu"'),
        (lambda c: c["text_config"].update(attention_bias=True), "attention_bias is true; supported: false"),
        (lambda c: c["text_config"].update(mlp_bias=True), "mlp_bias is true"),
        (lambda c: c["text_config"].update(rope_interleaved=True), "rope_interleaved is true"),
        (lambda c: c["text_config"].update(qk_layer_norms=True), "qk_layer_norms is true"),
        (lambda c: c["text_config"].update(use_resampler=True), "use_resampler is true"),
        (lambda c: c["text_config"].update(partial_rotary_factor=0.5), "partial_rotary_factor is 0.5"),
        (lambda c: c["text_config"].update(sliding_window=4096), "sliding_window is 4096; supported: null"),
        (
            lambda c: c["text_config"].update(rope_scaling={"type": "linear", "factor": 2}),
            'rope_scaling: type is "linear"',
        ),
        (
            lambda c: c["text_config"].update(rope_scaling={"rope_type": "llama3"}),
            'rope_scaling: rope_type is "llama3"',
        ),
        (
            lambda c: c["text_config"].update(rope_parameters={"rope_type": "yarn", "rope_theta": 1e5}),
            'rope_parameters: rope_type is "yarn"',
        ),
        (lambda c: c["vision_config"].update(hidden_act="gelu"), 'vision_config: hidden_act is "gelu"'),
        (lambda c: c["vision_config"].update(num_channels=4), "num_channels is 4; supported: 3"),
    ],
)
def test_other_arithmetic_is_refused(real: dict[str, Any], change: Change, message: str) -> None:
    assert message in refusal(real, change, UnsupportedError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("model_type"), "model_type is missing"),
        (lambda c: c.pop("text_config"), "text_config is missing"),
        (lambda c: c.update(text_config=[]), "text_config is [], expected an object"),
        (lambda c: c.update(scale_factor=0), "scale_factor is 0, expected an integer from 1"),
        (lambda c: c.update(scale_factor=5), "scale_factor 5 does not divide the 32 patches per side"),
        (
            lambda c: c.update(image_token_id=49280),
            "image_token_id 49280 lies outside the vocabulary of 49280",
        ),
        (lambda c: c.update(image_token_id=-1), "image_token_id is -1"),
        (lambda c: c.update(tie_word_embeddings=1), "tie_word_embeddings is 1, expected true or false"),
        (lambda c: c["text_config"].update(hidden_size=0), "hidden_size is 0"),
        (lambda c: c["text_config"].update(hidden_size=-576), "hidden_size is -576"),
        (lambda c: c["text_config"].update(hidden_size=576.0), "hidden_size is 576.0"),
        (lambda c: c["text_config"].update(hidden_size=True), "hidden_size is True"),
        (lambda c: c["text_config"].update(hidden_size="576"), "hidden_size is '576'"),
        (lambda c: c["text_config"].update(num_hidden_layers=2**40), f"num_hidden_layers is {2**40}"),
        (
            lambda c: c["text_config"].update(num_key_value_heads=2),
            "is not a multiple of num_key_value_heads 2",
        ),
        (lambda c: c["text_config"].update(head_dim=63), "head_dim 63 is odd"),
        (lambda c: c["text_config"].update(rope_theta=0), "rope_theta is 0, expected a positive number"),
        (lambda c: c["text_config"].update(rope_theta=float("inf")), "rope_theta is inf"),
        (lambda c: c["text_config"].update(rope_theta="1e5"), "rope_theta is '1e5'"),
        (lambda c: c["text_config"].update(rms_norm_eps=float("nan")), "rms_norm_eps is nan"),
        (lambda c: c["text_config"].update(rope_parameters=3), "rope_parameters is 3, expected an object"),
        (
            lambda c: c["vision_config"].update(num_attention_heads=7),
            "is not a multiple of num_attention_heads 7",
        ),
        (lambda c: c["vision_config"].update(patch_size=513), "patch_size 513 is larger than image_size 512"),
        (lambda c: c["vision_config"].update(image_size=[512, 512]), "image_size is [512, 512]"),
        (lambda c: c["vision_config"].update(layer_norm_eps=-1e-6), "layer_norm_eps is -1e-06"),
    ],
)
def test_unsound_values_are_refused(real: dict[str, Any], change: Change, message: str) -> None:
    assert message in refusal(real, change, FormatError)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000, "\ud800"])
def test_a_config_that_is_not_a_json_object(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(FormatError, match=r"config\.json: "):
        ModelConfig.from_folder(tmp_path)


def test_a_missing_config(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"config\.json: the file is missing"):
        ModelConfig.from_folder(tmp_path)


def test_processor_values() -> None:
    assert ProcessorConfig.from_dict(PREPROCESSOR, {"image_seq_len": 64}) == ProcessorConfig(
        longest_edge=2048,
        tile_size=512,
        image_seq_len=64,
        do_image_splitting=True,
        resample=1,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.25, 0.5, 1.0),
        rescale_factor=1 / 255,
    )


def test_processor_as_transformers_5_saves_it(tmp_path: Path) -> None:
    nested = {"image_seq_len": 64, "image_processor": PREPROCESSOR}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert ProcessorConfig.from_folder(tmp_path) == ProcessorConfig.from_dict(PREPROCESSOR, nested)


@pytest.mark.parametrize("key", PREPROCESSOR)
def test_no_processor_value_has_a_default(tmp_path: Path, key: str) -> None:
    """transformers' own defaults, tile 364 and image_seq_len 169, are wrong for every SmolVLM."""
    left = {name: value for name, value in PREPROCESSOR.items() if name != key}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(left))
    (tmp_path / "processor_config.json").write_text('{"image_seq_len": 64}')
    with pytest.raises(FormatError, match=rf"preprocessor_config\.json: {key} is missing"):
        ProcessorConfig.from_folder(tmp_path)


def test_a_missing_image_seq_len(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    with pytest.raises(FormatError, match=r"processor_config\.json: the file is missing"):
        ProcessorConfig.from_folder(tmp_path)
    (tmp_path / "processor_config.json").write_text("{}")
    with pytest.raises(FormatError, match=r"processor_config\.json: image_seq_len is missing"):
        ProcessorConfig.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"do_resize": False}, UnsupportedError, "do_resize is false; supported: true"),
        ({"do_rescale": False}, UnsupportedError, "do_rescale is false"),
        ({"do_normalize": False}, UnsupportedError, "do_normalize is false"),
        ({"do_convert_rgb": False}, UnsupportedError, "do_convert_rgb is false"),
        ({"rescale_factor": 1.0}, UnsupportedError, "rescale_factor is 1.0"),
        ({"resample": 6}, FormatError, "resample is 6, Pillow's filters are 0 to 5"),
        ({"resample": "lanczos"}, FormatError, "resample is 'lanczos'"),
        ({"size": {"height": 512, "width": 512}}, FormatError, "size: longest_edge is missing"),
        ({"size": 2048}, FormatError, "size is 2048, expected an object"),
        ({"max_image_size": {"longest_edge": 0}}, FormatError, "max_image_size: longest_edge is 0"),
        ({"image_mean": 0.5}, FormatError, "image_mean is 0.5, expected three numbers"),
        ({"image_mean": [0.5, 0.5]}, FormatError, "expected three numbers"),
        ({"image_mean": [0.5, 0.5, None]}, FormatError, "expected three numbers"),
        ({"image_std": [0.5, 0.5, 0]}, FormatError, "expected three positive numbers"),
        ({"do_image_splitting": "yes"}, FormatError, "do_image_splitting is 'yes'"),
    ],
)
def test_unusable_processor_values(values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        ProcessorConfig.from_dict(PREPROCESSOR | values, {"image_seq_len": 64})
    assert message in str(caught.value)


def test_processor_and_model_must_match(real: dict[str, Any]) -> None:
    model = ModelConfig.from_dict(real)
    ProcessorConfig.from_dict(PREPROCESSOR, {"image_seq_len": 64}).require_match(model, "here")
    with pytest.raises(
        FormatError, match=r"here: .* image_seq_len 169 image tokens per tile, the model makes 64"
    ):
        ProcessorConfig.from_dict(PREPROCESSOR, {"image_seq_len": 169}).require_match(model, "here")
    small = PREPROCESSOR | {"max_image_size": {"longest_edge": 364}}
    with pytest.raises(FormatError, match=r"here: .* tiles of 364 pixels, .* expects image_size 512"):
        ProcessorConfig.from_dict(small, {"image_seq_len": 64}).require_match(model, "here")
