"""First stage: the vision transformer learns what stands at each of its patches.

Linear heads on the tapped layers predict, per patch: whether anything stands there, its kind, colour, icon,
states and name, the letters that are written in the patch, and whether an element's point lies in it and in
which cell. The heads are thrown away.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from nano.cache import patchify
from nano.dense import LinearTasks, TappedModel
from nano.loop import ShardStream, Stage, train
from torch import Tensor, nn

from molmopoint.training.precision import autocast
from screens.drawing import SHARDS, decode, read_shard
from screens.labels import GROUPS, LETTERS, PageLabels
from screens.settings import CROP, GRID, LOCATIONS, ScreenSettings

_SIZES = {"thing": 1, **GROUPS, "letters": len(LETTERS), "centre": 1, "cell": LOCATIONS**2}
_WEIGHTS = {
    "thing": 0.5,
    "kind": 1.0,
    "colour": 0.7,
    "icon": 1.5,
    "state": 0.5,
    "name": 15.0,
    "letters": 0.4,
    "centre": 1.5,
    "cell": 0.3,
}
Page = tuple[bytes, dict[str, Any]]
"""Picture, as PNG, and row of a page of a shard."""
_CHOICES = ("kind", "colour", "icon")
"""Groups of which an element has at most one."""


@dataclass(frozen=True)
class DenseTargets:
    """Labels of some pages, as tensors over all their patches.

    Attributes:
        vectors: (patches, SIZE) of the element at the patch, zero on the ground.
        thing: (patches,) bool, whether there is one.
        centre: (patches,) bool, whether its point lies there.
        cell: (patches,) where, -1 elsewhere.
        letters: (patches, 36).
    """

    vectors: Tensor
    thing: Tensor
    centre: Tensor
    cell: Tensor
    letters: Tensor


def targets_of(labels: list[PageLabels]) -> DenseTargets:
    """Labels of some pages together."""
    vectors = [
        np.where(page.owner[:, None] >= 0, page.vectors[page.owner] if len(page.vectors) else 0, 0)
        for page in labels
    ]
    owner, cell = (
        np.concatenate([page.owner for page in labels]),
        np.concatenate([page.cell for page in labels]),
    )
    return DenseTargets(
        torch.from_numpy(np.concatenate(vectors).astype(np.float32)),
        torch.from_numpy(owner >= 0),
        torch.from_numpy(cell >= 0),
        torch.from_numpy(cell),
        torch.from_numpy(np.concatenate([page.letters for page in labels])),
    )


def dense_head(settings: ScreenSettings) -> LinearTasks:
    """All tasks of this stage on the tapped layers."""
    head = LinearTasks(2 * settings.vit_width, _SIZES)
    nn.init.constant_(head.linear.bias, -3.0)  # most of what can be said of a patch is not so
    return head


class DenseModel(TappedModel):
    """The vision transformer of screens and its temporary heads."""

    def __init__(self, settings: ScreenSettings) -> None:
        super().__init__(settings, CROP, dense_head(settings))
        initialise(self.vision, settings)


@torch.no_grad()
def initialise(vision: Any, settings: ScreenSettings) -> None:
    """Weights from which letters are learned soon.

    Pages are mostly even: without care an even ground would be louder than anything that is drawn on it, and
    places could not be told apart, so that no patch would find its neighbours.
    """
    weight = vision.patch_embedding.weight
    nn.init.normal_(weight, std=0.06)
    filters = weight.view(settings.vit_width, -1, 3)
    filters -= 0.85 * filters.mean(dim=1, keepdim=True)
    nn.init.zeros_(vision.patch_embedding.bias)
    vision.positional_embedding.copy_(0.4 * waves(settings.vit_width))
    for name, module in vision.layers.named_modules():
        if isinstance(module, nn.Linear):
            shrink = math.sqrt(2 * settings.vit_layers) if name.endswith(("o_proj", "fc2")) else 1.0
            nn.init.normal_(module.weight, std=module.in_features**-0.5 / shrink)


def waves(width: int) -> Tensor:
    """(GRID * GRID, width): the place of each patch as sines and cosines of its row and column."""
    frequencies = 2 * math.pi / torch.logspace(math.log10(2.5), math.log10(4 * GRID), width // 4)
    phases = torch.arange(GRID)[:, None] * frequencies
    line = torch.cat([phases.sin(), phases.cos()], dim=1)
    rows, columns = line[:, None].expand(-1, GRID, -1), line[None].expand(GRID, -1, -1)
    return torch.cat([rows, columns], dim=-1).reshape(GRID * GRID, width)


def dense_loss(logits: dict[str, Tensor], targets: DenseTargets) -> tuple[Tensor, dict[str, float]]:
    """Weighted sum of the tasks, and how often they are right where points are."""
    thing, centre = targets.thing, targets.centre
    parts = dict(zip(GROUPS, targets.vectors.split(list(GROUPS.values()), dim=-1), strict=True))
    # Patches of elements count alike, and those with points count alike once more.
    weight = thing.float() / thing.sum().clamp(min=1) + centre.float() / centre.sum().clamp(min=1)
    losses = {"thing": F.binary_cross_entropy_with_logits(logits["thing"].squeeze(-1), thing.float())}
    seen: dict[str, float] = {}
    for name in _CHOICES:
        is_told = parts[name].sum(-1) > 0
        wanted = parts[name].argmax(-1)
        share = weight * is_told
        each = F.cross_entropy(logits[name], wanted, reduction="none")
        losses[name] = (each * share).sum() / share.sum().clamp(min=1e-6)
        right = logits[name].argmax(-1) == wanted
        seen[name] = float(right[centre & is_told].float().mean())
    for name in ("state", "name"):
        each = _told(logits[name], parts[name], weight=3.0).mean(-1)
        losses[name] = (each * weight).sum() / weight.sum()
        seen[name] = _f1(logits[name][centre] > 0, parts[name][centre] > 0)

    written = targets.letters.sum(-1) > 0
    each = _told(logits["letters"], targets.letters, weight=2.0).sum(-1)
    losses["letters"] = each[written].mean() + 0.3 * each[~written].mean()
    seen["letters"] = _f1(logits["letters"][written] > 0, targets.letters[written] > 0)

    guess = logits["centre"].squeeze(-1)
    losses["centre"] = _told(guess, centre.float(), weight=4.0).mean() * 4
    losses["cell"] = F.cross_entropy(logits["cell"][centre], targets.cell[centre])
    seen["centre"] = _f1(guess > 1.0, centre)

    total = torch.zeros(())
    for name, loss in losses.items():
        total = total + _WEIGHTS[name] * loss
    return total, seen


def _told(logits: Tensor, said: Tensor, weight: float) -> Tensor:
    """Binary cross-entropy of each value; what is said counts `weight` times."""
    return F.binary_cross_entropy_with_logits(logits, said, reduction="none", pos_weight=torch.tensor(weight))


def pages_of(*folders: Path) -> ShardStream[list[Page]]:
    """Pages of the shards in some folders: a quarter of each, and as often one of the newest as one of any
    age.
    """
    return ShardStream(folders, SHARDS, read_shard, part=0.25, newest=0.5)


def moved(pixels: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """A picture moved to the right and downwards; its edges are drawn out."""
    right, down = shift
    rows = np.clip(np.arange(pixels.shape[0]) - down, 0, pixels.shape[0] - 1)
    columns = np.clip(np.arange(pixels.shape[1]) - right, 0, pixels.shape[1] - 1)
    return pixels[rows][:, columns]


def load_page(
    page: Page, rng: np.random.Generator, shift: int
) -> tuple[np.ndarray, PageLabels, tuple[int, int]]:
    """Pixels, labels and shift of a page of a shard, moved by chance."""
    png, row = page
    by = int(rng.integers(-shift, shift + 1)), int(rng.integers(-shift, shift + 1))
    return moved(decode(png), by), PageLabels(row["elements"], row["letters"], by), by


class DenseStage(Stage):
    """Small pages and boards, moved by chance, and what stands at their patches.

    Args:
        folder: of the run.
        settings: of the run.
    """

    def __init__(self, folder: Path, settings: ScreenSettings) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.settings, self.model = settings, DenseModel(settings)
        self.modules, self.clipped = {"dense": self.model}, self.model
        self.rates = [(self.model, settings.vit_rate)]
        self.streams = {"small": pages_of(folder / "small")}
        if any((folder / "boards").glob(SHARDS)):
            self.streams["boards"] = pages_of(folder / "boards")
        self.items = settings.vit_batch

    def add_gradients(self, step: int, steps: int, rng: np.random.Generator) -> dict[str, float]:
        """Of one batch of pages."""
        pictures: list[np.ndarray] = []
        labels: list[PageLabels] = []
        streams = itertools.cycle(self.streams.values())
        for stream in itertools.islice(streams, self.items):
            shard, (number,) = stream.take(1, rng)
            pixels, of_page, _ = load_page(shard[number], rng, self.settings.shift)
            pictures.append(pixels)
            labels.append(of_page)
        with autocast():
            logits = self.model(patchify(torch.from_numpy(np.stack(pictures))))
        flat = {name: values.flatten(0, 1) for name, values in logits.items()}
        loss, seen = dense_loss(flat, targets_of(labels))
        loss.backward()
        return {"loss": loss.item(), **seen}


def train_dense(folder: Path, settings: ScreenSettings, steps: int, log_every: int = 25) -> None:
    """Runs or resumes the first stage."""
    train(DenseStage(folder, settings), folder / "vit", settings, steps, seed=1, log_every=log_every)


def _f1(said: Tensor, true: Tensor) -> float:
    return float(2 * (said & true).sum() / (said.sum() + true.sum()).clamp(min=1))
