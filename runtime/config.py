"""Model and processor configurations of a Hugging Face folder as frozen dataclasses.

Field names are the Hugging Face names. A *model* key that is missing takes the default of its config class
in transformers; a *processor* value that is missing is an error, because those class defaults are wrong for
every SmolVLM. Unknown keys are ignored, except those that change the arithmetic: they raise UnsupportedError.
Tensor shapes are the business of `export.checkpoint`, image sizes that of `processor`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FormatError, UnsupportedError

MODEL_CLASSES = {
    "idefics3": "Idefics3ForConditionalGeneration",
    "smolvlm": "SmolVLMForConditionalGeneration",
}

# Class defaults of transformers 5.23.0. Idefics3Config and SmolVLMConfig agree in all of them.
_MODEL_DEFAULTS = {
    "scale_factor": 2,
    "image_token_id": 128257,
    "tie_word_embeddings": False,
    "pad_token_id": 128002,
}
_TEXT_DEFAULTS = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
}
_VISION_DEFAULTS = {
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 32,
    "layer_norm_eps": 1e-6,
    "num_channels": 3,
}

# Keys that change the arithmetic, each with the only values the engine computes. Missing and null are fine.
_MODEL_ARITHMETIC: dict[str, tuple[Any, ...]] = {"quantization_config": ()}
_TEXT_ARITHMETIC: dict[str, tuple[Any, ...]] = {
    "model_type": ("llama",),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_interleaved": (False,),
    "partial_rotary_factor": (1,),
    "qk_layer_norms": (False,),
    "use_resampler": (False,),
    "sliding_window": (),
    "quantization_config": (),
}
_ROPE_ARITHMETIC: dict[str, tuple[Any, ...]] = {
    "rope_type": ("default",),
    "type": ("default",),
    "partial_rotary_factor": (1,),
}
_VISION_ARITHMETIC: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu_pytorch_tanh",),
    "num_channels": (3,),
    "quantization_config": (),
}
_PROCESSOR_ARITHMETIC: dict[str, tuple[Any, ...]] = {
    "do_resize": (True,),
    "do_rescale": (True,),
    "do_normalize": (True,),
    "do_convert_rgb": (True,),
    "rescale_factor": (1 / 255,),
}

# Far above any model; keeps products of two sizes inside 64 bits.
_MAX_SIZE = 1 << 24


@dataclass(frozen=True)
class TextConfig:
    """The Llama decoder."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float
    vocab_size: int
    max_position_embeddings: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "text_config") -> TextConfig:
        """Reads the `text_config` part of a config.json.

        Args:
            values: The parsed JSON object.
            where: What to call it in errors.

        Raises:
            FormatError: A value is of the wrong kind, or sizes contradict each other.
            UnsupportedError: A key asks for arithmetic that is not implemented.
        """
        section = _Section(values, where, _TEXT_DEFAULTS)
        section.refuse_other_arithmetic(_TEXT_ARITHMETIC)
        hidden_size = section.size("hidden_size")
        num_attention_heads = section.size("num_attention_heads")
        num_key_value_heads = section.size("num_key_value_heads", num_attention_heads)
        head_dim = section.size("head_dim", hidden_size // num_attention_heads)
        if num_attention_heads % num_key_value_heads:
            raise FormatError(
                f"{where}: num_attention_heads {num_attention_heads} is not a multiple of "
                f"num_key_value_heads {num_key_value_heads}"
            )
        if head_dim % 2:
            raise FormatError(f"{where}: head_dim {head_dim} is odd, rotary embeddings need pairs")
        return cls(
            hidden_size=hidden_size,
            intermediate_size=section.size("intermediate_size"),
            num_hidden_layers=section.size("num_hidden_layers"),
            num_attention_heads=num_attention_heads,
            num_key_value_heads=num_key_value_heads,
            head_dim=head_dim,
            rope_theta=_rope_theta(section),
            rms_norm_eps=section.positive("rms_norm_eps"),
            vocab_size=section.size("vocab_size"),
            max_position_embeddings=section.size("max_position_embeddings"),
        )


@dataclass(frozen=True)
class VisionConfig:
    """The SigLIP vision tower."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    layer_norm_eps: float
    num_channels: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "vision_config") -> VisionConfig:
        """Reads the `vision_config` part of a config.json. Arguments and errors as `TextConfig.from_dict`."""
        section = _Section(values, where, _VISION_DEFAULTS)
        section.refuse_other_arithmetic(_VISION_ARITHMETIC)
        config = cls(
            hidden_size=section.size("hidden_size"),
            intermediate_size=section.size("intermediate_size"),
            num_hidden_layers=section.size("num_hidden_layers"),
            num_attention_heads=section.size("num_attention_heads"),
            image_size=section.size("image_size"),
            patch_size=section.size("patch_size"),
            layer_norm_eps=section.positive("layer_norm_eps"),
            num_channels=section.size("num_channels"),
        )
        if config.hidden_size % config.num_attention_heads:
            raise FormatError(
                f"{where}: hidden_size {config.hidden_size} is not a multiple of "
                f"num_attention_heads {config.num_attention_heads}"
            )
        if config.patch_size > config.image_size:
            raise FormatError(
                f"{where}: patch_size {config.patch_size} is larger than image_size {config.image_size}"
            )
        return config

    @property
    def num_patches_per_side(self) -> int:
        """Patches along one side of a tile; pixels beyond the last whole patch are unused."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class ModelConfig:
    """A whole config.json."""

    model_type: str
    text: TextConfig
    vision: VisionConfig
    scale_factor: int
    image_token_id: int
    tie_word_embeddings: bool
    pad_token_id: int  # may lie outside the vocabulary: SmolVLM2 says 128002

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
        """Reads a config.json. Arguments and errors as `TextConfig.from_dict`."""
        model_type = _known_model_type(values, where)
        section = _Section(values, where, _MODEL_DEFAULTS)
        section.refuse_other_arithmetic(_MODEL_ARITHMETIC)
        text = TextConfig.from_dict(section.object("text_config"), f"{where}: text_config")
        vision = VisionConfig.from_dict(section.object("vision_config"), f"{where}: vision_config")
        scale_factor = section.size("scale_factor")
        if vision.num_patches_per_side % scale_factor:
            raise FormatError(
                f"{where}: scale_factor {scale_factor} does not divide the {vision.num_patches_per_side} "
                f"patches per side (image_size {vision.image_size}, patch_size {vision.patch_size})"
            )
        image_token_id = section.natural("image_token_id")
        if image_token_id >= text.vocab_size:
            raise FormatError(
                f"{where}: image_token_id {image_token_id} lies outside the vocabulary of "
                f"{text.vocab_size} tokens"
            )
        # transformers 5 saves the deprecated top-level key with an underscore.
        pad_key = "pad_token_id" if "pad_token_id" in values else "_pad_token_id"
        return cls(
            model_type=model_type,
            text=text,
            vision=vision,
            scale_factor=scale_factor,
            image_token_id=image_token_id,
            tie_word_embeddings=section.boolean("tie_word_embeddings"),
            pad_token_id=section.natural(pad_key, _MODEL_DEFAULTS["pad_token_id"]),
        )

    @classmethod
    def from_folder(cls, folder: str | Path) -> ModelConfig:
        """Reads `folder`/config.json.

        Raises:
            FormatError: The file is missing or is not a sound configuration.
            UnsupportedError: The model is of another architecture or needs other arithmetic.
        """
        path = Path(folder) / "config.json"
        return cls.from_dict(read_json_object(path), str(path))

    @property
    def image_seq_len(self) -> int:
        """Image tokens per tile."""
        return (self.vision.num_patches_per_side // self.scale_factor) ** 2


@dataclass(frozen=True)
class ProcessorConfig:
    """What turns an image into tiles: preprocessor_config.json and processor_config.json together."""

    longest_edge: int
    tile_size: int
    image_seq_len: int
    do_image_splitting: bool
    resample: int  # Pillow's filter number, 1 is LANCZOS
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    rescale_factor: float

    @classmethod
    def from_dict(
        cls,
        preprocessor: Mapping[str, Any],
        processor: Mapping[str, Any],
        *,
        preprocessor_where: str = "preprocessor_config.json",
        processor_where: str = "processor_config.json",
    ) -> ProcessorConfig:
        """Reads the two parsed files. No value has a default.

        Raises:
            FormatError: A value is missing or of the wrong kind; the message names file and key.
            UnsupportedError: A step that the engine always does is switched off.
        """
        section = _Section(preprocessor, preprocessor_where)
        section.refuse_other_arithmetic(_PROCESSOR_ARITHMETIC)
        resample = section.natural("resample")
        if resample > 5:
            raise FormatError(f"{preprocessor_where}: resample is {resample}, Pillow's filters are 0 to 5")
        return cls(
            longest_edge=section.inner("size").size("longest_edge"),
            tile_size=section.inner("max_image_size").size("longest_edge"),
            image_seq_len=_Section(processor, processor_where).size("image_seq_len"),
            do_image_splitting=section.boolean("do_image_splitting"),
            resample=resample,
            image_mean=section.channels("image_mean"),
            image_std=section.channels("image_std", positive=True),
            rescale_factor=section.positive("rescale_factor"),
        )

    @classmethod
    def from_folder(cls, folder: str | Path) -> ProcessorConfig:
        """Reads the processor files of `folder`, in the layout of transformers 4 (two files) or 5 (one file).

        Raises:
            FormatError: A file or a value is missing or unusable.
            UnsupportedError: As `from_dict`.
        """
        preprocessor_path = Path(folder) / "preprocessor_config.json"
        processor_path = Path(folder) / "processor_config.json"
        processor = read_json_object(processor_path)
        # transformers 5 saves the image processor inside processor_config.json.
        if not preprocessor_path.exists() and "image_processor" in processor:
            where = f"{processor_path}: image_processor"
            preprocessor = _Section(processor, str(processor_path)).object("image_processor")
        else:
            where = str(preprocessor_path)
            preprocessor = read_json_object(preprocessor_path)
        return cls.from_dict(
            preprocessor, processor, preprocessor_where=where, processor_where=str(processor_path)
        )

    def require_match(self, model: ModelConfig, where: str) -> None:
        """Raises FormatError unless tile size and image tokens per tile are those of `model`.

        Args:
            model: The model the tiles are for.
            where: The folder both were read from, for the message.
        """
        if self.tile_size != model.vision.image_size:
            raise FormatError(
                f"{where}: the processor makes tiles of {self.tile_size} pixels, "
                f"the vision tower expects image_size {model.vision.image_size}"
            )
        if self.image_seq_len != model.image_seq_len:
            raise FormatError(
                f"{where}: the processor places image_seq_len {self.image_seq_len} image tokens per tile, "
                f"the model makes {model.image_seq_len}"
            )


@dataclass(frozen=True)
class _Section:
    """One JSON object with typed access: each method returns the value of a key or raises FormatError."""

    values: Mapping[str, Any]
    where: str
    defaults: Mapping[str, Any] | None = None

    def _get(self, key: str, default: Any = None) -> Any:
        if default is None and self.defaults is not None:
            default = self.defaults.get(key)
        # null means "not set" in Hugging Face configs.
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise FormatError(f"{self.where}: {key} is missing")
        return value

    def _wrong(self, key: str, value: Any, expected: str) -> FormatError:
        return FormatError(f"{self.where}: {key} is {value!r}, expected {expected}")

    def size(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        if type(value) is not int or not 1 <= value <= _MAX_SIZE:
            raise self._wrong(key, value, f"an integer from 1 to {_MAX_SIZE}")
        return value

    def natural(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        if type(value) is not int or not 0 <= value <= _MAX_SIZE:
            raise self._wrong(key, value, f"an integer from 0 to {_MAX_SIZE}")
        return value

    def boolean(self, key: str) -> bool:
        value = self._get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def positive(self, key: str) -> float:
        value = self._get(key)
        if not _is_number(value) or not 0 < value < math.inf:
            raise self._wrong(key, value, "a positive number")
        return float(value)

    def channels(self, key: str, *, positive: bool = False) -> tuple[float, float, float]:
        value = self._get(key)
        expected = "three positive numbers" if positive else "three numbers"
        if not isinstance(value, list) or len(value) != 3:
            raise self._wrong(key, value, expected)
        for number in value:
            if not _is_number(number) or not math.isfinite(number) or (positive and number <= 0):
                raise self._wrong(key, value, expected)
        return float(value[0]), float(value[1]), float(value[2])

    def object(self, key: str) -> Mapping[str, Any]:
        value = self._get(key)
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return value

    def inner(self, key: str) -> _Section:
        return _Section(self.object(key), f"{self.where}: {key}")

    def refuse_other_arithmetic(self, allowed: Mapping[str, tuple[Any, ...]]) -> None:
        for key, values in allowed.items():
            found = self.values.get(key)
            if found is not None and found not in values:
                supported = " or ".join(json.dumps(value) for value in (*values, None))
                raise UnsupportedError(f"{self.where}: {key} is {json.dumps(found)}; supported: {supported}")


def _known_model_type(values: Mapping[str, Any], where: str) -> str:
    """Returns `model_type` if it, and the class in `architectures`, name an Idefics3 or SmolVLM model."""
    classes = ", ".join(MODEL_CLASSES.values())
    architectures = values.get("architectures")
    if architectures is not None and (
        not isinstance(architectures, list) or not set(map(str, architectures)) & set(MODEL_CLASSES.values())
    ):
        raise UnsupportedError(f"{where}: architectures is {architectures!r}; supported: {classes}")
    model_type = values.get("model_type")
    if model_type is None:
        raise FormatError(f"{where}: model_type is missing, expected one of {', '.join(MODEL_CLASSES)}")
    if model_type not in list(MODEL_CLASSES):
        raise UnsupportedError(
            f"{where}: model_type is {model_type!r}; supported: {', '.join(MODEL_CLASSES)}"
        )
    return str(model_type)


def _rope_theta(section: _Section) -> float:
    """Returns the rotary base: in `rope_parameters` since transformers 5, a key of its own before."""
    theta_section = section
    for key in ("rope_scaling", "rope_parameters"):
        if section.values.get(key) is None:
            continue
        rope = _Section(section.object(key), f"{section.where}: {key}", _TEXT_DEFAULTS)
        rope.refuse_other_arithmetic(_ROPE_ARITHMETIC)
        if "rope_theta" in rope.values:
            theta_section = rope
    return theta_section.positive("rope_theta")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_json_object(path: Path) -> Mapping[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
        FormatError: The file is missing, unreadable, not JSON or not an object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(f"{path}: the file is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise FormatError(f"{path}: holds a JSON {type(values).__name__}, expected an object")
    return values
