"""Trains the demo model: `python -m pocketvlm.demo_model.train OUT` writes a Hugging Face checkpoint to OUT.

Two phases. First the vision tower alone learns from heads that tell what every patch shows: without that, the
whole stays at guessing from the text for very long. Then everything learns to answer questions, while the
heads go on at a fifth of the weight. The heads are thrown away. README.md gives times and results.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional
from transformers import Idefics3Config, Idefics3ForConditionalGeneration

from .architecture import PATCH, PATCHES, checkpoint_files
from .batches import IGNORED, SINGLES, Batches, Pictures, Sequences
from .labels import HALVES, NUM_CHARACTERS, NUM_POSITIONS, NUM_THINGS

HEADS_WEIGHT = 0.2  # in the joint phase
PAIR_WEIGHT = 3.0  # of an answer about two pictures: it is short, and there are few
_WARM_UP = 100  # steps
_LOG_EVERY = 50
_SAVE_EVERY = 250
_UNFINISHED = "unfinished.pt"  # in the folder of a run, until it is done


Losses: TypeAlias = dict[str, torch.Tensor]


class Heads(nn.Module):
    """What each patch shows, told from its features alone."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.things = nn.Linear(hidden_size, NUM_THINGS)
        self.characters = nn.Linear(hidden_size, HALVES * NUM_CHARACTERS)
        self.positions = nn.Linear(hidden_size, HALVES * NUM_POSITIONS)

    def losses(self, features: torch.Tensor, pictures: Pictures[torch.Tensor]) -> Losses:
        """Returns the loss of each head over `features`, [tiles, patches, hidden_size]."""
        return {
            "things": _loss(self.things(features), pictures.things),
            "characters": _loss(self.characters(features), pictures.characters),
            "positions": _loss(self.positions(features), pictures.positions),
        }


def _loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy; most patches show nothing, so that class counts for a twentieth."""
    logits = logits.reshape(targets.numel(), -1).float()
    weight = torch.ones(logits.shape[1])
    weight[0] = 0.05
    return functional.cross_entropy(logits, targets.flatten(), weight)


class Trainer:
    """The model, its heads, and one forward pass for each phase."""

    def __init__(self, folder: Path) -> None:
        """Makes a model with random weights for the config.json in `folder`."""
        config = Idefics3Config.from_pretrained(folder)
        # For sequences this short, the backward pass of fused attention is slow on a CPU.
        config._attn_implementation = "eager"
        self.model = Idefics3ForConditionalGeneration(config).float()  # the configuration says bfloat16
        self.heads = Heads(config.vision_config.hidden_size)
        self._image_token_id = config.image_token_id
        self._batches = Batches(folder)
        self._tower: Callable[..., Losses] = torch.compile(self._tower_losses)
        self._joint: Callable[..., Losses] = torch.compile(self._joint_losses)

    def features(self, tiles: torch.Tensor) -> torch.Tensor:
        """Runs the tower over uint8 tiles; transformers' own entry rebuilds position ids in a Python loop."""
        tower = self.model.model.vision_model
        embeddings = tower.embeddings
        grid = tiles.reshape(-1, 3, PATCHES, PATCH, PATCHES, PATCH).permute(0, 2, 4, 1, 3, 5)
        rows = grid.reshape(len(tiles), PATCHES * PATCHES, -1).float() / 127.5 - 1
        weight = embeddings.patch_embedding.weight.flatten(1)
        patches = functional.linear(rows, weight, embeddings.patch_embedding.bias)
        patches = patches + embeddings.position_embedding.weight
        encoded = tower.encoder(inputs_embeds=patches).last_hidden_state
        return tower.post_layernorm(encoded)  # [tiles, patches, hidden_size]

    def tower_losses(self, seed: int) -> Losses:
        """Returns the losses of the heads over the batch of a seed."""
        return self._tower(Pictures(*map(torch.from_numpy, self._batches.tower_batch(seed))))

    def joint_losses(self, seed: int) -> Losses:
        """Returns the loss of the answers over the batch of a seed, and the weighted ones of the heads."""
        pictures, sequences = self._batches.batch(seed)
        asked = Sequences(*map(torch.from_numpy, sequences))
        places = (asked.token_ids.flatten() == self._image_token_id).nonzero().squeeze(1)
        order = torch.ones_like(asked.segments[0]).cumsum(0)
        before = order[None, :, None] >= order[None, None, :]
        seen = asked.segments[:, None, :]
        visible = before & (seen >= 0) & ((seen == 0) | (seen == asked.segments[:, :, None]))
        mask = torch.where(visible, 0.0, -1e9).to(torch.bfloat16)[:, None]
        return self._joint(Pictures(*map(torch.from_numpy, pictures)), asked, places, mask)

    def _tower_losses(self, pictures: Pictures[torch.Tensor]) -> Losses:
        return self.heads.losses(self.features(pictures.tiles), pictures)

    def _joint_losses(
        self,
        pictures: Pictures[torch.Tensor],
        asked: Sequences[torch.Tensor],
        places: torch.Tensor,
        mask: torch.Tensor,
    ) -> Losses:
        features = self.features(pictures.tiles)
        image_tokens = self.model.model.connector(features)
        text = self.model.model.text_model
        embedded = text.embed_tokens(asked.token_ids)
        flat = embedded.reshape(-1, embedded.shape[-1])
        flat = flat.index_copy(0, places, image_tokens.reshape(len(places), -1).to(flat.dtype))
        hidden = text(
            inputs_embeds=flat.reshape(embedded.shape),
            attention_mask=mask,
            position_ids=asked.position_ids,
            use_cache=False,
        ).last_hidden_state
        logits = self.model.lm_head(hidden).float()
        losses = functional.cross_entropy(logits.transpose(1, 2), asked.targets, reduction="none")
        weights = (asked.targets != IGNORED).float()
        weights[SINGLES:] *= PAIR_WEIGHT
        answers = (losses * weights).sum() / weights.sum()
        heads = self.heads.losses(features, pictures)
        return {"answers": answers} | {name: HEADS_WEIGHT * loss for name, loss in heads.items()}


class _Phase:
    """Steps of the optimizers under a warm-up and half a cosine, with a line in the log now and then."""

    def __init__(
        self, name: str, steps: int, rate: float, model: nn.Module, losses: Callable[[int], Losses]
    ) -> None:
        """`losses` gives the parts of the loss over the batch of a seed, to be added up."""
        self.steps = steps
        self._name, self._rate, self._losses = name, rate, losses
        self._parameters = list(model.parameters())
        self._optimizers = _optimizers(model, rate)
        self._step, self._seconds = 0, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Returns what a run needs to go on from here, besides the weights."""
        optimizers = [optimizer.state_dict() for optimizer in self._optimizers]
        return {"step": self._step, "seconds": self._seconds, "optimizers": optimizers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from where `state_dict` was called."""
        self._step, self._seconds = state["step"], state["seconds"]
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def run(self, first_seed: int, log: Path, save: Callable[[], None]) -> None:
        """Makes the steps that are left, over the batches of the seeds from `first_seed` on."""
        rank, world = distributed.get_rank(), distributed.get_world_size()
        start = time.monotonic() - self._seconds
        sums: dict[str, float] = {}
        for step in range(self._step + 1, self.steps + 1):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                parts = self._losses(first_seed + (step - 1) * world + rank)
            torch.stack(list(parts.values())).sum().backward()
            self._average_gradients(world)
            nn.utils.clip_grad_norm_(self._parameters, 1.0)
            for optimizer in self._optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = self._rate_at(step)
                optimizer.step()
                optimizer.zero_grad()
            for name, part in parts.items():
                sums[name] = sums.get(name, 0.0) + part.item() / _LOG_EVERY
            self._step, self._seconds = step, time.monotonic() - start
            if rank == 0 and step % _LOG_EVERY == 0:
                means = {name: round(mean, 4) for name, mean in sums.items()}
                line = {"phase": self._name, "step": step, "seconds": round(self._seconds), **means}
                print(line, flush=True)
                with log.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                sums = {}
            if rank == 0 and step % _SAVE_EVERY == 0:
                save()

    def _rate_at(self, step: int) -> float:
        done = (step - 1) / self.steps
        return self._rate * min(1.0, step / _WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * done))

    def _average_gradients(self, world: int) -> None:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        together = nn.utils.parameters_to_vector(gradients)
        distributed.all_reduce(together)
        nn.utils.vector_to_parameters(together / world, gradients)


def _optimizers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the matrices inside the layers, AdamW for everything else."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = ".layers." in name and parameter.ndim == 2
        (matrices if inside else others).append(parameter)
    muon = torch.optim.Muon(matrices, rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(others, rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    return [muon, adamw]


def train(rank: int, args: argparse.Namespace, meeting: Path) -> None:
    """Trains in one of `args.processes` processes, which average their gradients; the first one saves."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    distributed.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=args.processes)
    trainer, log, unfinished = Trainer(args.out), args.out / "training.jsonl", args.out / _UNFINISHED
    tower = nn.ModuleList([trainer.model.model.vision_model, trainer.heads])
    everything = nn.ModuleList([trainer.model, trainer.heads])
    phases = [
        _Phase("tower", args.tower_steps, args.rate, tower, trainer.tower_losses),
        _Phase("joint", args.joint_steps, args.rate, everything, trainer.joint_losses),
    ]
    if unfinished.exists():
        state = torch.load(unfinished)
        everything.load_state_dict(state["weights"])
        for phase, saved in zip(phases, state["phases"], strict=True):
            phase.load_state_dict(saved)
        if rank == 0:
            os.truncate(log, state["log_size"])

    def save() -> None:
        _save_checkpoint(trainer.model, args.out)
        state = {
            "weights": everything.state_dict(),
            "phases": [phase.state_dict() for phase in phases],
            "log_size": log.stat().st_size,
        }
        torch.save(state, unfinished.with_suffix(".partial"))
        unfinished.with_suffix(".partial").replace(unfinished)

    first_seed = 0
    for phase in phases:
        phase.run(first_seed, log, save)
        first_seed += phase.steps * args.processes
    if rank == 0:
        _save_checkpoint(trainer.model, args.out)
        unfinished.unlink(missing_ok=True)


def _save_checkpoint(model: Idefics3ForConditionalGeneration, out: Path) -> None:
    """Writes the weights as bfloat16, and the configurations again: transformers changes them."""
    weights = {name: weight.bfloat16() for name, weight in model.state_dict().items()}
    model.save_pretrained(out, state_dict=weights)
    _write_files(out)


def _write_files(out: Path) -> None:
    for name, content in checkpoint_files().items():
        (out / name).write_bytes(content)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="new folder to write, or one of a run to go on with")
    parser.add_argument("--tower-steps", type=int, default=1300, help="(%(default)s)")
    parser.add_argument("--joint-steps", type=int, default=4700, help="(%(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="one for each core (%(default)s)")
    args = parser.parse_args()
    if args.out.exists() and not (args.out / _UNFINISHED).exists():
        parser.error(f"{args.out} exists, and holds no unfinished run")
    args.out.mkdir(parents=True, exist_ok=True)
    _write_files(args.out)
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(train, (args, Path(folder) / "meeting"), nprocs=args.processes)


if __name__ == "__main__":
    main()
