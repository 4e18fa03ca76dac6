"""First stage: the vision transformer learns what stands at each of its patches.

A decoder that has to find out at once what a star is and how to point at one stays at chance for long. So linear heads
on the tapped layers first predict, per patch: colour, shape and size class of the object there, whether its point lies
in this patch and in which cell, and the row and column of the patch itself. The heads are thrown away.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.molmo2.configuration_molmo2 import Molmo2VisionConfig
from transformers.models.molmo2.modeling_molmo2 import Molmo2VisionModel

from nano.cache import CLASSES, load_shard, patchify, shard_paths
from nano.running import LEAN_ATTENTION, Log, StopRequest, load_checkpoint, optimiser_for, save_checkpoint, set_rates
from nano.settings import CROP, GRID, LOCATIONS, PATCH, Settings

_SIZES = {
    "colour": len(CLASSES["colour"]) + 1, "shape": len(CLASSES["shape"]) + 1, "size": len(CLASSES["size"]) + 1,
    "centre": 1, "cell": LOCATIONS**2, "row": GRID, "column": GRID,
}  # fmt: skip
_WEIGHTS = {"colour": 1.0, "shape": 1.5, "size": 0.5, "centre": 2.0, "cell": 0.5, "row": 0.05, "column": 0.05}


def vision_config(settings: Settings) -> Molmo2VisionConfig:
    """The native vision transformer at nano size."""
    heads = settings.vit_width // settings.head_dim
    return Molmo2VisionConfig(
        hidden_size=settings.vit_width, intermediate_size=settings.vit_mlp, num_hidden_layers=settings.vit_layers,
        num_attention_heads=heads, num_key_value_heads=heads, head_dim=settings.head_dim, image_size=[CROP, CROP], patch_size=PATCH,
    )  # fmt: skip


class DenseHead(nn.Module):
    """All tasks as one linear map of the tapped layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, sum(_SIZES.values()))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """(N, GRID * GRID, F) to logits per patch and task."""
        logits = self.linear(features).float()
        return dict(zip(_SIZES, logits.split(list(_SIZES.values()), dim=-1), strict=True))


class DenseModel(nn.Module):
    """The vision transformer and its temporary heads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        config = vision_config(settings)
        config._attn_implementation = LEAN_ATTENTION
        self.vision = Molmo2VisionModel(config)
        nn.init.normal_(self.vision.patch_embedding.weight, std=0.05)
        self.taps = (settings.vit_layers - 1, settings.vit_layers - 3)
        self.head = DenseHead(2 * settings.vit_width)

    def forward(self, patches: Tensor) -> dict[str, Tensor]:
        """(N, GRID * GRID, 588) to logits per patch."""
        vision, outputs = self.vision, []
        hidden = vision.patch_embedding(patches) + vision.positional_embedding
        for layer in vision.layers:
            hidden = layer(hidden, None)
            outputs.append(hidden)
        return self.head(torch.cat([outputs[i] for i in self.taps], dim=-1))


def dense_loss(logits: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Weighted sum of the tasks, and accuracies where points are. `labels`: (N, GRID * GRID, 4), see `dense_labels`."""
    labels = labels.long()
    thing, centre = labels[..., 0] > 0, labels[..., 3] >= 0
    losses, seen = {}, {}
    for column, name in enumerate(("colour", "shape", "size")):
        each = F.cross_entropy(logits[name].flatten(0, 1), labels[..., column].flatten(), reduction="none").view_as(thing)
        losses[name] = each[thing].mean() + 0.3 * each[~thing].mean() + each[centre].mean()
        seen[name] = (logits[name][centre].argmax(-1) == labels[..., column][centre]).float().mean()
    guess = logits["centre"].squeeze(-1)
    losses["centre"] = F.binary_cross_entropy_with_logits(guess, centre.float(), pos_weight=torch.tensor(4.0)) * 4
    losses["cell"] = F.cross_entropy(logits["cell"][centre], labels[..., 3][centre])
    place = torch.arange(GRID * GRID).expand(len(labels), -1)
    losses["row"] = F.cross_entropy(logits["row"].flatten(0, 1), (place // GRID).flatten())
    losses["column"] = F.cross_entropy(logits["column"].flatten(0, 1), (place % GRID).flatten())
    found = (guess > 1.0) & centre
    seen["centre_f1"] = 2 * found.sum() / ((guess > 1.0).sum() + centre.sum())
    seen["cell"] = (logits["cell"][centre].argmax(-1) == labels[..., 3][centre]).float().mean()
    total = sum((_WEIGHTS[name] * loss for name, loss in losses.items()), torch.zeros(()))
    return total, {name: float(value) for name, value in seen.items()}


def flipped(patches: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mirrors pictures left to right: patches (N, GRID * GRID, 588) and their dense labels."""
    side = CROP // GRID
    grid = patches.view(-1, GRID, GRID, side, side, 3).flip(2, 4).reshape(patches.shape)
    turned = labels.view(-1, GRID, GRID, 4).flip(2).reshape(labels.shape).clone()
    cell = turned[..., 3]
    mirrored = LOCATIONS * (LOCATIONS - 1 - cell // LOCATIONS) + cell % LOCATIONS
    turned[..., 3] = torch.where(cell >= 0, mirrored, cell)
    return grid, turned


def train_dense(folder: Path, settings: Settings, steps: int, log_every: int = 50) -> None:
    """Runs or resumes the first stage."""
    torch.manual_seed(0)
    model = DenseModel(settings)
    optimiser = optimiser_for([(model, settings.vit_rate)], settings)
    checkpoint, log = folder / "vit.safetensors", Log(folder / "vit.jsonl")
    start = load_checkpoint(checkpoint, {"dense": model}, optimiser)["step"] if checkpoint.exists() else 0
    rng = np.random.default_rng([1, start])
    step, saved, stop = start, time.monotonic(), StopRequest()
    while step < steps and not stop:
        shards = shard_paths(folder / "cache")
        tensors, _ = load_shard(shards[int(rng.integers(len(shards)))])
        for rows in np.array_split(rng.permutation(len(tensors["pixels"])), len(tensors["pixels"]) // settings.vit_batch):
            if step >= steps or stop:
                break
            index = torch.from_numpy(rows)
            patches, labels = patchify(tensors["pixels"][index]), tensors["labels"][index]
            if rng.random() < 0.5:
                patches, labels = flipped(patches, labels)
            set_rates(optimiser, step, steps, settings)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(patches)
            loss, seen = dense_loss(logits, labels)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
            log.add({"loss": loss.item(), "norm": norm.item(), **seen})
            if step % log_every == 0:
                log.write(step, log_every * settings.vit_batch)
            if time.monotonic() - saved > 60 * settings.save_minutes or step == steps or stop:
                save_checkpoint(checkpoint, {"dense": model}, optimiser, {"step": step, "steps": steps})
                saved = time.monotonic()
