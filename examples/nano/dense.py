"""First stage: the vision transformer learns what stands at each of its patches.

A decoder that has to find out at once what a star is and how to point at one stays at chance for long. So
linear heads on the tapped layers first predict, per patch: colour, shape and size class of the object there,
whether its point lies in this patch and in which cell, and the row and column of the patch itself. The heads
are thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.molmo2.configuration_molmo2 import Molmo2VisionConfig
from transformers.models.molmo2.modeling_molmo2 import Molmo2VisionModel

from molmopoint.training.precision import autocast
from nano.attention import use_lean_attention
from nano.cache import CELLS, CLASSES, SHARDS, load_shard, patchify
from nano.cells import turn_pictures
from nano.loop import ShardStream, Stage, load_checkpoint, train
from nano.settings import CROP, GRID, LOCATIONS, PATCH, Settings

_SIZES = {
    "colour": len(CLASSES["colour"]) + 1, "shape": len(CLASSES["shape"]) + 1, "size": len(CLASSES["size"]) + 1,
    "centre": 1, "cell": LOCATIONS**2, "row": GRID, "column": GRID,
}  # fmt: skip
_WEIGHTS = {"colour": 1.0, "shape": 1.5, "size": 0.5, "centre": 2.0, "cell": 0.5, "row": 0.05, "column": 0.05}
_MIRRORED = 4
"""The way of `turn_pictures` that mirrors left to right."""


def vision_config(settings: Any, crop: int) -> Molmo2VisionConfig:
    """The native vision transformer at the size of some settings, for crops of so many pixels."""
    heads = settings.vit_width // settings.head_dim
    return Molmo2VisionConfig(
        hidden_size=settings.vit_width, intermediate_size=settings.vit_mlp, num_hidden_layers=settings.vit_layers,
        num_attention_heads=heads, num_key_value_heads=heads, head_dim=settings.head_dim, image_size=[crop, crop], patch_size=PATCH,
    )  # fmt: skip


class LinearTasks(nn.Module):
    """Several tasks as one linear map.

    Args:
        width: F, of the features.
        sizes: numbers to predict, by task.
    """

    def __init__(self, width: int, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.sizes = dict(sizes)
        self.linear = nn.Linear(width, sum(self.sizes.values()))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """(..., F) to float32 logits (..., size) per task."""
        logits = self.linear(features).float()
        parts = logits.split(list(self.sizes.values()), dim=-1)
        return dict(zip(self.sizes, parts, strict=True))


class TappedModel(nn.Module):
    """A vision transformer, and temporary heads on the layers that a model taps.

    Args:
        settings: with the sizes of the vision transformer; its last and third last layers are tapped.
        crop: side of a picture in pixels.
        head: on the tapped layers.
    """

    def __init__(self, settings: Any, crop: int, head: LinearTasks) -> None:
        super().__init__()
        config = vision_config(settings, crop)
        use_lean_attention(config)
        self.vision = Molmo2VisionModel(config)
        self.taps = (settings.vit_layers - 1, settings.vit_layers - 3)
        self.head = head

    def forward(self, patches: Tensor) -> dict[str, Tensor]:
        """(N, patches, 588) to logits per patch."""
        hidden = self.vision.patch_embedding(patches) + self.vision.positional_embedding
        outputs = []
        for layer in self.vision.layers:
            hidden = layer(hidden, None)
            outputs.append(hidden)
        tapped = [outputs[i] for i in self.taps]
        return self.head(torch.cat(tapped, dim=-1))


def dense_head(settings: Settings) -> LinearTasks:
    """All tasks of this stage on the tapped layers."""
    return LinearTasks(2 * settings.vit_width, _SIZES)


class DenseModel(TappedModel):
    """The vision transformer of nano and its temporary heads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, CROP, dense_head(settings))
        nn.init.normal_(self.vision.patch_embedding.weight, std=0.05)


def dense_loss(logits: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Weighted sum of the tasks, and accuracies where points are. `labels`: (N, GRID * GRID, 4), see
    `dense_labels`.
    """
    labels = labels.long()
    thing, centre = labels[..., 0] > 0, labels[..., CELLS] >= 0  # (N, GRID * GRID)
    losses: dict[str, Tensor] = {}
    seen: dict[str, Tensor] = {}
    for column, name in enumerate(("colour", "shape", "size")):
        wanted = labels[..., column]
        each = F.cross_entropy(logits[name].flatten(0, 1), wanted.flatten(), reduction="none").view_as(thing)
        losses[name] = each[thing].mean() + 0.3 * each[~thing].mean() + each[centre].mean()
        right = logits[name][centre].argmax(-1) == wanted[centre]
        seen[name] = right.float().mean()

    guess = logits["centre"].squeeze(-1)
    losses["centre"] = (
        F.binary_cross_entropy_with_logits(guess, centre.float(), pos_weight=torch.tensor(4.0)) * 4
    )
    found = (guess > 1.0) & centre
    seen["centre_f1"] = 2 * found.sum() / ((guess > 1.0).sum() + centre.sum())

    cell = labels[..., CELLS][centre]
    losses["cell"] = F.cross_entropy(logits["cell"][centre], cell)
    seen["cell"] = (logits["cell"][centre].argmax(-1) == cell).float().mean()

    place = torch.arange(GRID * GRID).expand(len(labels), -1)
    losses["row"] = F.cross_entropy(logits["row"].flatten(0, 1), (place // GRID).flatten())
    losses["column"] = F.cross_entropy(logits["column"].flatten(0, 1), (place % GRID).flatten())

    total = torch.zeros(())
    for name, loss in losses.items():
        total = total + _WEIGHTS[name] * loss
    return total, {name: float(value) for name, value in seen.items()}


class DenseStage(Stage):
    """Scenes, half of them mirrored, and what stands at their patches.

    Args:
        folder: of the run.
        settings: of the run.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = DenseModel(settings)
        self.modules, self.clipped = {"dense": self.model}, self.model
        self.rates = [(self.model, settings.vit_rate)]
        self.scenes = ShardStream([folder / "cache"], SHARDS, load_shard)
        self.streams = {"scenes": self.scenes}
        self.items = settings.vit_batch

    def add_gradients(self, step: int, steps: int, rng: np.random.Generator) -> dict[str, float]:
        """Of one batch of scenes."""
        shard, rows = self.scenes.take(self.items, rng)
        pixels, labels = shard.pixels[rows], shard.labels[rows]
        if rng.random() < 0.5:
            pixels, labels = turn_pictures(pixels, labels, _MIRRORED, CELLS)
        with autocast():
            logits = self.model(patchify(pixels))
        loss, seen = dense_loss(logits, labels)
        loss.backward()
        return {"loss": loss.item(), **seen}


def train_dense(folder: Path, settings: Settings, steps: int, log_every: int = 50) -> None:
    """Runs or resumes the first stage."""
    train(DenseStage(folder, settings), folder / "vit", settings, steps, seed=1, log_every=log_every)


def take_over(
    checkpoint: Path, trained: TappedModel, vision: nn.Module, head: nn.Module | None = None
) -> None:
    """Loads a checkpoint of the first stage into `trained`, and takes over its vision transformer and, if
    asked for, its heads.
    """
    load_checkpoint(checkpoint, {"dense": trained})
    vision.load_state_dict(trained.vision.state_dict())
    if head is not None:
        head.load_state_dict(trained.head.state_dict())
