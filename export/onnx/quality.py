"""What each type of an ONNX export costs in right answers: the questions of `quality`, asked of its graphs.

The reference is the checkpoint in our own engine at float32. Only a model that was trained on such pictures,
the demo model, answers them right; how often another agrees with its reference can be told all the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import _core
from ...backends.onnx_graphs import OnnxGraphs
from ...config import ModelConfig
from ...processor import Processor
from ..gguf_export import export_gguf
from ..quality import (
    MAX_NEW_TOKENS,
    Examinee,
    Question,
    Subject,
    answer_text,
    ask,
    ask_reference,
    prepare_questions,
)
from .check import decoder_logits, open_graphs
from .types import OnnxType


class OnnxExaminee:
    """The graphs of one type as `quality.ask` takes them."""

    def __init__(self, graphs: OnnxGraphs, checkpoint: Path) -> None:
        """Takes the graphs, and the folder of their checkpoint for tokenizer and sizes."""
        self._graphs = graphs
        self._vision = ModelConfig.from_folder(checkpoint).vision
        self._processor = Processor(checkpoint)

    def encode(self, question: Question) -> NDArray[np.float32]:
        """Returns the features of the pictures, float32 [image tokens, hidden_size]."""
        vision = self._vision
        tiles = pixel_values(question.patches, vision.patch_size, side=vision.image_size)
        return np.concatenate([self._graphs.encode(tile) for tile in tiles])

    def answer(self, question: Question, features: NDArray[np.float32]) -> list[int]:
        """Returns the tokens of the answer, the stop token included."""
        embeds = self._graphs.embed_prompt(question.token_ids, features)
        cache = self._graphs.new_cache(len(embeds) + MAX_NEW_TOKENS)
        token_ids = [int(self._graphs.decode(embeds, cache).argmax())]
        while token_ids[-1] not in self._processor.stop_token_ids and len(token_ids) < MAX_NEW_TOKENS:
            logits = self._graphs.decode(self._graphs.embed(token_ids[-1:]), cache)
            token_ids.append(int(logits.argmax()))
        return token_ids

    def logits(
        self, question: Question, features: NDArray[np.float32], token_ids: Sequence[int]
    ) -> NDArray[np.float32]:
        """Returns the logits for each of `token_ids` when these are forced, float32 [steps, vocab]."""
        embeds = self._graphs.embed_prompt(question.token_ids, features)
        return decoder_logits(self._graphs, embeds, self._graphs.embed(token_ids))

    def text(self, token_ids: Iterable[int]) -> str:
        """Returns the text of an answer, without space around it; special tokens give none."""
        return answer_text(self._processor, token_ids)


def measure_quality(
    checkpoint: Path, model: Path, types: Sequence[OnnxType], *, count: int, threads: int, work: Path
) -> Mapping[str, dict[str, Any]]:
    """Asks the graphs of every type the first `count` held-out questions.

    Args:
        checkpoint: The folder that the graphs were made from.
        model: That of their model, which has them in its subfolder `onnx`.
        types: Theirs.
        count: How many questions.
        threads: To compute with.
        work: A folder on a disk with room for a float32 model, which is removed again.

    Returns:
        type -> questions, right answers of it and of the reference, and its agreement with that.

    Raises:
        InputError: The context is too short for a question.
        BackendError: onnxruntime failed.
    """
    pool = _core.ThreadPool(threads)
    config = ModelConfig.from_folder(checkpoint)
    questions = list(prepare_questions(checkpoint, count, pool))
    with tempfile.TemporaryDirectory(dir=work, prefix="float32-") as folder:
        export_gguf(checkpoint, Path(folder) / "model", type="f32")
        reference = Examinee(Path(folder) / "model", _core.isas()[0], pool)
        references = ask_reference(reference, questions, _nothing)
        texts = [reference.text(answered.token_ids) for answered in references]
    right = sum(text == question.answer for text, question in zip(texts, questions, strict=True))
    found = {}
    for type in types:
        graphs = open_graphs(model, type, config, threads)
        subject = Subject(type.name, "onnxruntime")
        outcome = ask(OnnxExaminee(graphs, checkpoint), subject, questions, references, _nothing)
        found[type.name] = {
            "questions": count,
            "right": sum(outcome.right),
            "reference_right": right,
            "top1": outcome.top1,
            "kl_mean": outcome.kl_mean,
            "kl_max": outcome.kl_max,
        }
    return found


def pixel_values(patches: NDArray[np.uint16], patch_size: int, *, side: int) -> NDArray[np.float32]:
    """Puts patches together again.

    Args:
        patches: The bits of bfloat16, [T, patches, 3 * patch_size^2], of 2 p - 255 for each pixel p.
        patch_size: The side of a patch, in pixels.
        side: That of a tile. Pixels beyond the last whole patch, which are in none, become 0.

    Returns:
        float32 [T, 3, side, side] of p / 127.5 - 1.
    """
    grid = side // patch_size
    values = (patches.astype(np.uint32) << 16).view(np.float32) / np.float32(255)
    cells = values.reshape(-1, grid, grid, 3, patch_size, patch_size).transpose(0, 3, 1, 4, 2, 5)
    tiles = np.zeros((len(patches), 3, side, side), np.float32)
    used = grid * patch_size
    tiles[:, :, :used, :used] = cells.reshape(-1, 3, used, used)
    return tiles


def _nothing() -> None:
    pass
