"""Golden of the demo model: what the reference answers to held-out questions, and every logit on the way.

How a picture is drawn depends on Pillow's version, so the pictures lie beside the golden, as PNG. Choosing
and drawing them takes the installed package beside the reference; --check takes those that lie there.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ..model import tolerance
from . import cases, reference
from .images import sha256_of_array
from .store import Store

NAME = "demo-f32"
PICTURES = "demo-pictures"  # the folder beside the golden

# Which of the held-out examples: the first of each kind that take little room, ask about something that is
# there, and that the model gets right and is sure of. Weights of 8 bits move the logarithm of
# a token's odds by a tenth or so; from 0.9 to a half it is 2.2.
PER_KIND = 2
MAX_PICTURE_BYTES = 90_000
MIN_PROBABILITY = 0.9  # of every token of the answer
MOST_EXAMPLES = 600  # to look through
MIN_MARGIN = 100  # of the logits' tolerance, so that no correct float32 evaluation can pick another token

MAX_NEW_TOKENS = 96


@dataclass(frozen=True)
class Case:
    """A question about pictures."""

    example: int  # its number among the held-out ones
    kind: str
    question: str
    truth: str | None  # None: the example has no such question
    images: tuple[str, ...]  # names of files in PICTURES
    do_image_splitting: bool = True


@dataclass(frozen=True)
class Answer:
    """What the reference makes of a case."""

    prompt_ids: list[int]
    token_ids: list[int]  # the stop token included
    text: str
    logits: npt.NDArray[np.float32]  # [steps, vocab]
    logits64: npt.NDArray[np.float64]  # the same, fed the same tokens
    tiles: npt.NDArray[np.uint8]  # [T, S, S, 3]

    @property
    def least_probability(self) -> float:
        """How likely the least likely token of the answer was."""
        top = self.logits64.max(axis=1, keepdims=True)
        return float(1 / np.exp(self.logits64 - top).sum(axis=1).max())


class Reference:
    """transformers, with the checkpoint loaded."""

    def __init__(self, folder: Path) -> None:
        self._processor = reference.load_processor(folder)
        self._model = reference.load_model(folder)
        self._model64 = reference.load_model(folder, torch.float64)

    @torch.no_grad()
    def answer(self, case: Case, images: list[Image.Image]) -> Answer:
        """Lets transformers' own generate() answer greedily."""
        messages = [cases.user(*[None] * len(images), case.question)]
        inputs = reference.processor_inputs(self._processor, messages, images, case.do_image_splitting)
        output = self._model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
            return_dict_in_generate=True,
            output_logits=True,
        )
        prompt_length = inputs["input_ids"].shape[1]
        token_ids = output.sequences[0, prompt_length:].tolist()
        sequence = output.sequences[:, :-1]
        inputs64 = reference.to_float64(inputs) | {
            "input_ids": sequence,
            "attention_mask": torch.ones_like(sequence),
        }
        with reference.float64_throughout():
            logits64 = self._model64(**inputs64).logits[0, prompt_length - 1 :]
        return Answer(
            prompt_ids=inputs["input_ids"][0].tolist(),
            token_ids=token_ids,
            text=self._processor.tokenizer.decode(token_ids, skip_special_tokens=True),
            logits=torch.cat(output.logits).numpy(),
            logits64=logits64.numpy(),
            tiles=reference.tiles_of(inputs["pixel_values"][0].numpy()),
        )


def make(store: Store, folder: Path) -> None:
    """Makes demo-f32.json (questions, tokens, margins), demo-f32.npz (logits) and the pictures.

    Raises RuntimeError when there are not enough examples to choose from, or a choice among tokens is so
    close that correct evaluations may differ.
    """
    pictures = store.folder / PICTURES
    model = Reference(folder)
    chosen = _read(store.folder) if store.check else _choose(model, pictures)
    files = ("config.json", "tokenizer.json", "model.safetensors")
    golden: dict[str, Any] = {
        "reference": reference.versions(),
        "sha256": {file: reference.sha256_of_file(folder / file) for file in files},
        "sizes": reference.sizes(folder),
        "cases": {},
    }
    arrays, tolerances = {}, {}
    for name, case in chosen.items():
        answer = model.answer(case, [_open(pictures / image) for image in case.images])
        positions = len(answer.prompt_ids) + len(answer.token_ids)
        relative = tolerance.relative_tolerances(golden["sizes"], positions)["logits"]
        scale = np.sqrt(np.mean(answer.logits64**2, axis=1, keepdims=True))  # [steps, 1]
        top2 = np.partition(answer.logits64, -2, axis=1)[:, -2:]
        margins = (top2[:, 1] - top2[:, 0]) / (relative * scale[:, 0])
        if answer.token_ids != answer.logits64.argmax(axis=1).tolist() or margins.min() < MIN_MARGIN:
            raise RuntimeError(f"{name}: a margin of {margins.min()} tolerances, {MIN_MARGIN} are needed")
        golden["cases"][name] = {
            "example": case.example,
            "kind": case.kind,
            "images": list(case.images),
            "do_image_splitting": case.do_image_splitting,
            "question": case.question,
            "truth": case.truth,
            "answer": answer.text,
            "tiles": len(answer.tiles),
            "tiles_sha256": sha256_of_array(answer.tiles),
            "prompt_ids": answer.prompt_ids,
            "token_ids": answer.token_ids,
            "least_probability": round(answer.least_probability, 4),
            "margins": [round(margin, 1) for margin in margins.tolist()],
            "observed": float(f"{np.max(abs(answer.logits - answer.logits64) / (relative * scale)):.2g}"),
        }
        arrays[name] = answer.logits
        tolerances[name] = np.broadcast_to(relative * scale, answer.logits.shape)
    store.put_json(NAME, golden)
    store.put_arrays(NAME, arrays, tolerances)


def _choose(model: Reference, pictures: Path) -> dict[str, Case]:
    """Chooses by the rule above and writes the pictures. Adds the questions what changed with the pictures
    swapped, and the first question that is answered right where the picture is not split: of these answers
    too the model must be sure."""
    from pocketvlm.demo_model.scenes import KINDS, held_out

    pictures.mkdir(exist_ok=True)
    for old in pictures.glob("*.png"):
        old.unlink()
    chosen: dict[str, Case] = {}
    found: Counter[str] = Counter()
    for number, example in enumerate(held_out(MOST_EXAMPLES)):
        files = [_encode(image) for image in example.images]
        if found[example.kind] == PER_KIND or max(map(len, files)) > MAX_PICTURE_BYTES:
            continue
        if example.answer.startswith("There is no "):
            continue
        name = f"{example.kind} {found[example.kind] + 1}"
        letters = ("",) if len(files) == 1 else ("a", "b")
        names = [f"{name.replace(' ', '-')}{letter}.png" for letter in letters]
        case = Case(number, example.kind, example.question, example.answer, tuple(names))
        variants = {name: case}
        if len(names) > 1:
            variants[f"{name} swapped"] = replace(case, truth=None, images=case.images[::-1])
        content = dict(zip(names, files, strict=True))
        answers = [
            model.answer(variant, [_open(io.BytesIO(content[image])) for image in variant.images])
            for variant in variants.values()
        ]
        print(f"{number}, {name}: {[(answer.text, answer.least_probability) for answer in answers]}")
        if (
            answers[0].text.strip() == example.answer
            and min(answer.least_probability for answer in answers) >= MIN_PROBABILITY
            and len({answer.text for answer in answers}) == len(answers)
        ):
            found[example.kind] += 1
            chosen |= variants
            for image, data in content.items():
                (pictures / image).write_bytes(data)
        if found.total() == PER_KIND * len(KINDS):
            break
    else:
        raise RuntimeError(f"{dict(found)} of {MOST_EXAMPLES} examples, {PER_KIND} of each kind are needed")
    chosen = {name: chosen[name] for name in sorted(chosen)}
    for name, case in chosen.items():
        unsplit = replace(case, do_image_splitting=False)
        answer = model.answer(unsplit, [_open(pictures / image) for image in case.images])
        if answer.text.strip() == case.truth and answer.least_probability >= MIN_PROBABILITY:
            return chosen | {f"{name} unsplit": unsplit}
    raise RuntimeError("no picture that the model understands unsplit")


def _read(folder: Path) -> dict[str, Case]:
    """The cases of the golden on disk."""
    golden = json.loads((folder / f"{NAME}.json").read_text())
    return {
        name: Case(
            case["example"],
            case["kind"],
            case["question"],
            case["truth"],
            tuple(case["images"]),
            case["do_image_splitting"],
        )
        for name, case in golden["cases"].items()
    }


def _encode(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _open(file: Path | io.BytesIO) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")
