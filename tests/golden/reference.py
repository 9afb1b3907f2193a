"""The reference: transformers' own processor and model for a checkpoint folder, with every stage's output at
hand.

Runs only in the environment of requirements.txt. What is run on it, and what is written down, is
make_golden's part.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from PIL import Image

# By their modules: the package itself would give the torchvision image processor, which resamples
# differently.
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

from ..model import tolerance
from .images import formula_image

TRANSFORMERS = "5.23.0"  # 4.55 to 4.57 shift the position ids of the vision tower

Float32Array = npt.NDArray[np.float32]


def versions() -> dict[str, str]:
    """Returns the versions that a golden records; raises RuntimeError for a transformers that is not the
    reference."""
    if transformers.__version__ != TRANSFORMERS:
        raise RuntimeError(f"transformers {transformers.__version__}: the reference is {TRANSFORMERS}")
    return {name: version(name) for name in ("transformers", "torch", "tokenizers", "pillow", "numpy")}


def sha256_of_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_processor(folder: Path) -> Idefics3Processor:
    """Builds the reference processor: PIL images, token ids straight from tokenizer.json."""
    image_config = json.loads((folder / "preprocessor_config.json").read_text())
    processor_config = json.loads((folder / "processor_config.json").read_text())
    for key in ("image_processor_type", "processor_class"):
        image_config.pop(key, None)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    size_before = len(tokenizer)
    if (folder / "chat_template.json").exists():
        template = json.loads((folder / "chat_template.json").read_text())["chat_template"]
    else:
        template = (folder / "chat_template.jinja").read_text()
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(**image_config),
        tokenizer=tokenizer,
        image_seq_len=processor_config["image_seq_len"],
        chat_template=template,
    )
    if len(tokenizer) != size_before:
        raise RuntimeError(f"{folder}: the processor added tokens that tokenizer.json lacks")
    return processor


def processor_inputs(
    processor: Idefics3Processor, messages: list[dict[str, Any]], images: Sequence[Image.Image], split: bool
) -> dict[str, torch.Tensor]:
    """Runs template, image processor and tokenizer.

    Returns:
        input_ids [1, n] and, with images, pixel_values [1, tiles, 3, S, S] and pixel_attention_mask [1,
        tiles, S, S].
    """
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    if not images:
        return dict(processor(text=text, return_tensors="pt"))
    return dict(
        processor(
            text=text,
            images=list(images),
            do_image_splitting=split,
            add_special_tokens=False,
            return_tensors="pt",
        )
    )


def tiles_of(pixel_values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Undoes rescale and normalise exactly: [tiles, 3, S, S] float32 -> uint8 [tiles, S, S, 3].

    Raises RuntimeError if some value is not the image of a byte.
    """
    tiles = np.rint((pixel_values * 0.5 + 0.5) * 255.0).astype(np.uint8)
    again = (
        (tiles.astype(np.float64) * 0.00392156862745098).astype(np.float32) - np.float32(0.5)
    ) / np.float32(0.5)
    if not np.array_equal(again, pixel_values):
        raise RuntimeError("pixel_values are not normalised bytes (x / 255 - 0.5) / 0.5")
    return np.ascontiguousarray(tiles.transpose(0, 2, 3, 1))


def draw(image: dict[str, int]) -> Image.Image:
    """The formula image of a case: {height, width, seed}."""
    return Image.fromarray(formula_image(image["height"], image["width"], image["seed"]))


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Loads the checkpoint with plain (eager) attention, one thread, deterministic."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", local_files_only=True
    )
    return model.eval()


def sizes(folder: Path) -> dict[str, Any]:
    """The sizes that tolerances are derived from, with the defaults of the model's class where config.json
    has none."""
    return tolerance.sizes(transformers.AutoConfig.from_pretrained(folder).to_dict())


@contextmanager
def edited(folder: Path, edits: dict[str, dict[str, float]]) -> Iterator[Path]:
    """A copy of a checkpoint whose config.json has other values: section -> key -> value. No edits: the
    original."""
    if not edits:
        yield folder
        return
    with tempfile.TemporaryDirectory() as other:
        shutil.copytree(folder, other, dirs_exist_ok=True)
        config = json.loads((folder / "config.json").read_text())
        for section, values in edits.items():
            config[section] |= values
        (Path(other) / "config.json").write_text(json.dumps(config))
        yield Path(other)


@contextmanager
def recorded_stages(model: Any) -> Iterator[dict[str, Float32Array]]:
    """Records each stage of the forward passes run inside, in the model's own dtype.

    Yields:
        A dict filled as the model runs, keyed as the engine's traces are: "vision.patch_embed",
        "vision.layer.{i}", "vision.post_layernorm" [tiles, patches, d], "vision.connector" [tiles, image
        tokens, hidden]; "text.embed" (text and image rows merged), "text.layer.{i}", "text.final_norm"
        [positions, hidden]. Only the first call of each counts, so that generation after a prefill does not
        overwrite it.
    """
    stages: dict[str, Float32Array] = {}
    handles = []

    def keep(name: str, value: torch.Tensor) -> None:
        if name not in stages:
            stages[name] = value.detach().numpy().copy()

    def after(module: Any, name: str, squeeze: bool) -> None:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            keep(name, value[0] if squeeze else value)

        handles.append(module.register_forward_hook(hook))

    def embed_hook(_module: Any, args: Any, kwargs: Any) -> None:
        keep("text.embed", (kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])[0])

    vision, text = model.model.vision_model, model.model.text_model
    after(vision.embeddings, "vision.patch_embed", False)
    for i, layer in enumerate(vision.encoder.layers):
        after(layer, f"vision.layer.{i}", False)
    after(vision.post_layernorm, "vision.post_layernorm", False)
    after(model.model.connector, "vision.connector", False)
    handles.append(text.layers[0].register_forward_pre_hook(embed_hook, with_kwargs=True))
    for i, layer in enumerate(text.layers):
        after(layer, f"text.layer.{i}", True)
    after(text.norm, "text.final_norm", True)
    try:
        yield stages
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def float64_throughout() -> Iterator[None]:
    """Lets a float64 model compute in float64 where transformers asks for float32: in norms and softmax.

    The angles of RoPE stay float32, position times frequency: there that is the definition, not an error.
    """
    float32 = torch.float32
    torch.float32 = torch.float64
    try:
        yield
    finally:
        torch.float32 = float32


def to_float64(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same inputs with float64 pixels."""
    return {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}


@dataclass(frozen=True)
class Greedy:
    """A greedy continuation."""

    token_ids: list[int]  # [n]
    prompt_logits: npt.NDArray[Any]  # [vocab], of the prompt's last position
    margins: npt.NDArray[np.float64]  # [n], by how much the largest logit beats the second
    logits: npt.NDArray[Any]  # [n, vocab], what each token was taken from


@torch.no_grad()
def greedy(model: Any, inputs: dict[str, torch.Tensor], max_new_tokens: int) -> Greedy:
    """Decodes greedily with a KV cache, ignoring stop tokens.

    Args:
        model: As load_model returns.
        inputs: As processor_inputs returns; further arguments of the first forward pass may be among them.
        max_new_tokens: Exactly this many are made.
    """
    output = model(**inputs, use_cache=True)
    cache = output.past_key_values
    token_ids: list[int] = []
    rows = []
    for _ in range(max_new_tokens):
        logits = output.logits[0, -1]
        rows.append(logits.numpy().copy())
        token_ids.append(int(logits.argmax()))
        output = model(input_ids=torch.tensor([[token_ids[-1]]]), past_key_values=cache, use_cache=True)
        cache = output.past_key_values
    logits_by_step = np.stack(rows)
    top2 = np.partition(logits_by_step, -2, axis=1)[:, -2:]
    margins = (top2[:, 1] - top2[:, 0]).astype(np.float64)
    return Greedy(token_ids, logits_by_step[0], margins, logits_by_step)
