"""What a pair of GGUF files says of its model, where no config.json and no tokenizer.json lie beside it.

The core reads and proves the sizes; here are the processor's values, of which the metadata has a part:

- `size.longest_edge` is `clip.vision.preproc_image_size`. Files from before October 2025 lack it; it is four
  tiles in every SmolVLM (2048 of 512, 1536 of 384).
- Tiles are as large as the vision tower's `image_size`; image tokens per tile follow from its grid.
- Images are split and resized by LANCZOS, as in the checkpoints of all of the family.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import _core
from .chat_template import IMAGE_TOKEN
from .config import ModelConfig, ProcessorConfig, TextConfig, VisionConfig
from .errors import FormatError, UnsupportedError
from .gguf_tokenizer import read_stop_token_ids, read_tokenizer
from .processor import Processor, ProcessorParts

_TILES_PER_LONGEST_EDGE = 4
_LANCZOS = 1
_NUM_CHANNELS = 3


def describe_pair(text: Path, projector: Path) -> tuple[ModelConfig, Processor]:
    """Reads configurations and tokenizer of a text and a projector file from their metadata.

    Raises:
        FormatError: A file is damaged, lacks a key, or the two do not belong together.
        UnsupportedError: The model is of another architecture, its tokenizer or prompt format is not known.
    """
    text_file, projector_file = _core.GgufFile(text), _core.GgufFile(projector)
    found = _core.read_config(text_file, projector_file)
    where = str(text)
    tokenizer = read_tokenizer(text_file, where)
    image_token_id = tokenizer.token_to_id(IMAGE_TOKEN)
    if image_token_id is None:
        raise UnsupportedError(f"{where}: key tokenizer.ggml.tokens: has no {IMAGE_TOKEN}")
    config = _model_config(found, text_file, image_token_id)
    num_tokens = len(text_file.require_strings("tokenizer.ggml.tokens"))
    if num_tokens > config.text.vocab_size:
        raise FormatError(
            f"{where}: key tokenizer.ggml.tokens: {num_tokens} tokens, expected at most "
            f"{config.text.vocab_size}, the rows of token_embd.weight"
        )
    parts = ProcessorParts(
        where,
        _processor_config(found, projector_file, config),
        tokenizer,
        read_stop_token_ids(text_file, where),
    )
    return config, Processor(parts)


def _model_config(found: dict[str, Any], text_file: _core.GgufFile, image_token_id: int) -> ModelConfig:
    return ModelConfig(
        model_type="idefics3",
        text=TextConfig(**found["text"]),
        vision=VisionConfig(**found["vision"], num_channels=_NUM_CHANNELS),
        scale_factor=found["scale_factor"],
        image_token_id=image_token_id,
        tie_word_embeddings="output.weight" not in text_file.tensors,
        pad_token_id=text_file.find_u32("tokenizer.ggml.padding_token_id") or 0,
    )


def _processor_config(
    found: dict[str, Any], projector_file: _core.GgufFile, config: ModelConfig
) -> ProcessorConfig:
    tile_size = config.vision.image_size
    longest_edge = projector_file.find_u32("clip.vision.preproc_image_size")
    return ProcessorConfig(
        longest_edge=_TILES_PER_LONGEST_EDGE * tile_size if longest_edge is None else longest_edge,
        tile_size=tile_size,
        image_seq_len=config.image_seq_len,
        do_image_splitting=True,
        resample=_LANCZOS,
        image_mean=found["image_mean"],
        image_std=found["image_std"],
        rescale_factor=1 / 255,
    )
