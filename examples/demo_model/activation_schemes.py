"""What rounding activations to eight bits costs, by scheme, on the demo model and on its outlier twins.

    python -m pocketvlm.demo_model.activation_schemes [CHECKPOINT] [--examples N] [--weights q8_0]

prints a Markdown table of right answers. The model is that of transformers; the inputs of all its linear
layers are rounded as a scheme says and multiplied in float32: schemes are compared here, not kernels. Needs
torch and transformers. What the engine itself loses, `pocketvlm verify --quality --outliers 1,20,100` says.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForImageTextToText, PreTrainedModel

from pocketvlm import _core
from pocketvlm.export.outlier_twin import write_outlier_twin
from pocketvlm.export.quality import Question, prepare_questions
from pocketvlm.processor import Processor

_MAX_NEW_TOKENS = 96
_BATCH = 50

Rounding = Callable[[torch.Tensor], torch.Tensor]


def per_block(size: int | None, *, power_of_two: bool = False) -> Rounding:
    """Returns a rounding to int8 with a scale for each `size` elements of a row; None: for the whole row."""

    def rounded(x: torch.Tensor) -> torch.Tensor:
        length = x.shape[-1]
        block = size or length
        # A last block that is not full is filled up with zeros, as the kernels do.
        blocks = functional.pad(x, (0, -length % block)).unflatten(-1, (-1, block))
        scale = blocks.abs().amax(-1, keepdim=True) / 127
        if power_of_two:
            scale = torch.exp2(torch.ceil(torch.log2(scale)))
        quants = torch.where(scale > 0, blocks / scale, 0).round()
        return (quants * scale).flatten(-2)[..., :length]

    return rounded


SCHEMES: dict[str, Rounding | None] = {
    "none": None,
    "int8 per 32, as the engine does": per_block(32),
    "int8 per 32, scale a power of two": per_block(32, power_of_two=True),
    "int8 per 128": per_block(128),
    "int8 per 256": per_block(256),
    "int8 per row": per_block(None),
}


def round_weights(model: PreTrainedModel) -> None:
    """Rounds the weights of all linear layers, in place, as q8_0 does: int8, a float16 scale per 32."""
    for layer in _linear_layers(model):
        blocks = layer.weight.data.unflatten(1, (-1, 32))
        scale = blocks.abs().amax(-1, keepdim=True) / 127
        quants = torch.where(scale > 0, blocks / scale, 0).round()
        layer.weight.data = (quants * scale.half().float()).flatten(1)


def _linear_layers(model: PreTrainedModel) -> Iterator[nn.Linear]:
    return (layer for layer in model.modules() if isinstance(layer, nn.Linear))


@torch.inference_mode()
def count_right(model: PreTrainedModel, processor: Processor, questions: list[Question]) -> int:
    """Returns how many of the questions are answered right, greedily."""
    # A batch has equally many tiles in every row; of similar lengths, there is little padding.
    ordered = sorted(questions, key=lambda question: (len(question.patches), len(question.token_ids)))
    right = 0
    for _, group in groupby(ordered, key=lambda question: len(question.patches)):
        while batch := list(islice(group, _BATCH)):
            answers = _answer(model, processor, batch)
            right += sum(answer == question.answer for answer, question in zip(answers, batch, strict=True))
    return right


def _answer(model: PreTrainedModel, processor: Processor, batch: list[Question]) -> list[str]:
    longest = max(len(question.token_ids) for question in batch)
    # Padding to the left, so that all answers begin at the same position.
    padding = [longest - len(question.token_ids) for question in batch]
    token_ids = [[0] * pad + question.token_ids for pad, question in zip(padding, batch, strict=True)]
    mask = [[0] * pad + [1] * (longest - pad) for pad in padding]
    patches = torch.stack([torch.from_numpy(question.patches) for question in batch])
    generated: torch.Tensor = model.generate(
        input_ids=torch.tensor(token_ids),
        attention_mask=torch.tensor(mask),
        pixel_values=_pixel_values(patches.view(torch.bfloat16), model.config.vision_config.patch_size),
        max_new_tokens=_MAX_NEW_TOKENS,
        do_sample=False,
    )
    return [_text(processor, row) for row in generated[:, longest:].tolist()]


def _pixel_values(patches: torch.Tensor, size: int) -> torch.Tensor:
    """Rows of patches, 2 p - 255, [B, T, patches, 3 * size^2] -> [B, T, 3, tile_size, tile_size]."""
    batch, tiles, count, _ = patches.shape
    grid = math.isqrt(count)
    rows = patches.reshape(batch, tiles, grid, grid, 3, size, size).permute(0, 1, 4, 2, 5, 3, 6)
    return rows.reshape(batch, tiles, 3, grid * size, grid * size).float() / 255


def _text(processor: Processor, token_ids: list[int]) -> str:
    """Returns the text up to the stop token; what comes after it is padding."""
    ends = [i for i, token_id in enumerate(token_ids) if token_id in processor.stop_token_ids]
    answer = token_ids[: ends[0]] if ends else token_ids
    return b"".join(map(processor.tokenizer.decode_bytes, answer)).decode(errors="replace").strip()


def examine(checkpoint: Path, questions: list[Question], weights: str) -> list[int]:
    """Returns the right answers under each of `SCHEMES`."""
    model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    if weights == "q8_0":
        round_weights(model)
    processor = Processor(checkpoint)
    found = []
    for name, rounding in SCHEMES.items():
        hooks = [
            layer.register_forward_pre_hook(lambda _, inputs, rounding=rounding: (rounding(inputs[0]),))
            for layer in _linear_layers(model)
            if rounding is not None
        ]
        found.append(count_right(model, processor, questions))
        print(f"{checkpoint.name}, {name}: {found[-1]} of {len(questions)}", flush=True)
        for hook in hooks:
            hook.remove()
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = Path(__file__).parent / "checkpoint"
    parser.add_argument("checkpoint", type=Path, nargs="?", default=here, metavar="CHECKPOINT")
    parser.add_argument("--examples", type=int, default=500, metavar="N", help="questions (%(default)s)")
    parser.add_argument("--weights", choices=("f32", "q8_0"), default="f32", help="of all linear layers")
    parser.add_argument("--factors", type=float, nargs="*", default=[20, 100], help="of outliers (20 100)")
    args = parser.parse_args()
    pool = _core.ThreadPool(_core.default_threads())
    questions = list(prepare_questions(args.checkpoint, args.examples, pool))
    columns = {"no outliers": examine(args.checkpoint, questions, args.weights)}
    with tempfile.TemporaryDirectory() as work:
        for factor in args.factors:
            twin = write_outlier_twin(args.checkpoint, Path(work) / f"twin-{factor:g}x", factor=factor)
            columns[f"{factor:g}x"] = examine(twin, questions, args.weights)
    print(f"\n| activations | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for scheme, *counts in zip(SCHEMES, *columns.values(), strict=True):
        print(f"| {scheme} | {' | '.join(f'{100 * count / len(questions):.1f}' for count in counts)} |")


if __name__ == "__main__":
    main()
