"""Trains the demo model: `python -m pocketvlm.demo_model.train OUT` writes a Hugging Face checkpoint to OUT.

Two phases. First the vision tower alone learns from heads that tell what every patch shows: without that, the
whole stays at guessing from the text for very long. Then everything learns to answer questions, while the
heads go on at a fifth of the weight. The heads are thrown away. README.md gives times and results.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional
from transformers import Idefics3Config, Idefics3ForConditionalGeneration

from .architecture import PATCH, PATCHES, checkpoint_files
from .batches import Batch, Batches
from .labels import HALVES, NUM_CHARACTERS, NUM_POSITIONS, NUM_THINGS

HEADS_WEIGHT = 0.2  # in the joint phase
_WARM_UP = 100  # steps
_LOG_EVERY = 50
_SAVE_EVERY = 500


Losses: TypeAlias = dict[str, torch.Tensor]


class Heads(nn.Module):
    """What each patch shows, told from its features alone."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.things = nn.Linear(hidden_size, NUM_THINGS)
        self.characters = nn.Linear(hidden_size, HALVES * NUM_CHARACTERS)
        self.positions = nn.Linear(hidden_size, HALVES * NUM_POSITIONS)

    def losses(self, features: torch.Tensor, batch: Batch[torch.Tensor]) -> Losses:
        """Returns the loss of each head over `features`, [tiles, patches, hidden_size]."""
        return {
            "things": _loss(self.things(features), batch.things),
            "characters": _loss(self.characters(features), batch.characters),
            "positions": _loss(self.positions(features), batch.positions),
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
        self.tower_losses: Callable[[Batch[torch.Tensor]], Losses] = torch.compile(self._tower_losses)
        self._joint: Callable[..., Losses] = torch.compile(self._joint_losses)

    def features(self, tiles: torch.Tensor) -> torch.Tensor:
        """Runs the tower over uint8 tiles; transformers' own entry rebuilds position ids in a Python loop."""
        tower = self.model.model.vision_model
        embeddings = tower.embeddings
        grid = tiles.reshape(-1, PATCHES, PATCH, PATCHES, PATCH, 3).permute(0, 1, 3, 5, 2, 4)
        rows = grid.reshape(len(tiles), PATCHES * PATCHES, -1).float() / 127.5 - 1
        weight = embeddings.patch_embedding.weight.flatten(1)
        patches = functional.linear(rows, weight, embeddings.patch_embedding.bias)
        patches = patches + embeddings.position_embedding.weight
        encoded = tower.encoder(inputs_embeds=patches).last_hidden_state
        return tower.post_layernorm(encoded)  # [tiles, patches, hidden_size]

    def joint_losses(self, batch: Batch[torch.Tensor]) -> Losses:
        """Returns the loss of the answers, and those of the heads at their weight."""
        places = (batch.token_ids.flatten() == self._image_token_id).nonzero().squeeze(1)
        order = torch.ones_like(batch.segments[0]).cumsum(0)
        before = order[None, :, None] >= order[None, None, :]
        seen = batch.segments[:, None, :]
        visible = before & (seen >= 0) & ((seen == 0) | (seen == batch.segments[:, :, None]))
        mask = torch.where(visible, 0.0, -1e9).to(torch.bfloat16)[:, None]
        return self._joint(batch, places, mask)

    def _tower_losses(self, batch: Batch[torch.Tensor]) -> Losses:
        return self.heads.losses(self.features(batch.tiles), batch)

    def _joint_losses(self, batch: Batch[torch.Tensor], places: torch.Tensor, mask: torch.Tensor) -> Losses:
        features = self.features(batch.tiles)
        image_tokens = self.model.model.connector(features)
        text = self.model.model.text_model
        embedded = text.embed_tokens(batch.token_ids)
        flat = embedded.reshape(-1, embedded.shape[-1])
        flat = flat.index_copy(0, places, image_tokens.reshape(len(places), -1).to(flat.dtype))
        hidden = text(
            inputs_embeds=flat.reshape(embedded.shape),
            attention_mask=mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
        logits = self.model.lm_head(hidden).float()
        answers = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        heads = self.heads.losses(features, batch)
        return {"answers": answers} | {name: HEADS_WEIGHT * loss for name, loss in heads.items()}


class _Phase:
    """Steps of the optimizers under a warm-up and half a cosine, with a line in the log now and then."""

    def __init__(self, name: str, steps: int, rate: float, model: nn.Module, log: Path) -> None:
        self._name, self._steps, self._log = name, steps, log
        self._parameters = list(model.parameters())
        self._optimizers = _optimizers(model, rate)
        self._schedules = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate) for optimizer in self._optimizers
        ]

    def _rate(self, step: int) -> float:
        return min(1.0, (step + 1) / _WARM_UP) * (
            0.5 + 0.5 * math.cos(math.pi * min(step / max(self._steps, 1), 1))
        )

    def run(
        self,
        batches: Batches,
        first_seed: int,
        losses: Callable[[Batch[torch.Tensor]], Losses],
        save: Callable[[], None],
    ) -> None:
        """Trains on batches from `first_seed` on; `losses` gives the parts of the loss, to be added up."""
        rank, world = distributed.get_rank(), distributed.get_world_size()
        start = time.monotonic()
        sums: dict[str, float] = {}
        for step in range(1, self._steps + 1):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                batch = batches.batch(first_seed + (step - 1) * world + rank)
                parts = losses(Batch(*map(torch.from_numpy, batch)))
            torch.stack(list(parts.values())).sum().backward()
            self._average_gradients(world)
            nn.utils.clip_grad_norm_(self._parameters, 1.0)
            for optimizer, schedule in zip(self._optimizers, self._schedules, strict=True):
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            for name, part in parts.items():
                sums[name] = sums.get(name, 0.0) + part.item() / _LOG_EVERY
            if rank == 0 and step % _LOG_EVERY == 0:
                means = {name: round(mean, 4) for name, mean in sums.items()}
                line = {
                    "phase": self._name,
                    "step": step,
                    "seconds": round(time.monotonic() - start),
                    **means,
                }
                print(line, flush=True)
                with self._log.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                sums = {}
            if rank == 0 and step % _SAVE_EVERY == 0:
                save()

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
    trainer, batches, log = Trainer(args.out), Batches(args.out), args.out / "training.jsonl"

    def save() -> None:
        """Writes the weights as bfloat16, and the configurations again: transformers changes them."""
        trainer.model.save_pretrained(
            args.out,
            state_dict={name: weight.bfloat16() for name, weight in trainer.model.state_dict().items()},
        )
        _write_files(args.out)

    if args.start is not None:
        trained = Idefics3ForConditionalGeneration.from_pretrained(args.start, dtype=torch.float32)
        trainer.model.load_state_dict(trained.state_dict())
    tower = nn.ModuleList([trainer.model.model.vision_model, trainer.heads])
    _Phase("tower", args.tower_steps, args.rate, tower, log).run(
        batches, args.first_seed, trainer.tower_losses, save
    )
    everything = nn.ModuleList([trainer.model, trainer.heads])
    first_seed = args.first_seed + args.tower_steps * args.processes
    _Phase("joint", args.joint_steps, args.rate, everything, log).run(
        batches, first_seed, trainer.joint_losses, save
    )
    if rank == 0:
        save()


def _write_files(out: Path) -> None:
    for name, content in checkpoint_files().items():
        (out / name).write_bytes(content)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    parser.add_argument("--tower-steps", type=int, default=1000, help="(%(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="of the pictures (%(default)s)")
    parser.add_argument("--start", type=Path, help="go on from this checkpoint; the heads begin anew")
    parser.add_argument("--joint-steps", type=int, default=3000, help="(%(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="one for each core (%(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    _write_files(args.out)
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(train, (args, Path(folder) / "meeting"), nprocs=args.processes)


if __name__ == "__main__":
    main()
