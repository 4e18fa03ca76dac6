"""First stage: the vision transformer learns what stands at each of its patches.

Linear heads on the tapped layers predict, per patch: whether anything stands there, its kind, colour, icon, states and name, the letters
that are written in the patch, and whether an element's point lies in it and in which cell. The heads are thrown away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from nano.running import LEAN_ATTENTION, Log, StopRequest, load_checkpoint, optimiser_for, save_checkpoint, set_rates
from torch import Tensor, nn
from transformers.models.molmo2.configuration_molmo2 import Molmo2VisionConfig
from transformers.models.molmo2.modeling_molmo2 import Molmo2VisionModel

from screens.drawing import decode, read_shard, shard_paths
from screens.labels import GROUPS, LETTERS, PageLabels
from screens.settings import CROP, GRID, LOCATIONS, PATCH, ScreenSettings

_SIZES = {"thing": 1, **GROUPS, "letters": len(LETTERS), "centre": 1, "cell": LOCATIONS**2}
_WEIGHTS = {"thing": 0.5, "kind": 1.0, "colour": 0.7, "icon": 1.5, "state": 0.5, "name": 3.0, "letters": 0.4, "centre": 1.5, "cell": 0.3}
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
    vectors = [np.where(page.owner[:, None] >= 0, page.vectors[page.owner] if len(page.vectors) else 0, 0) for page in labels]
    owner, cell = np.concatenate([page.owner for page in labels]), np.concatenate([page.cell for page in labels])
    return DenseTargets(
        torch.from_numpy(np.concatenate(vectors).astype(np.float32)),
        torch.from_numpy(owner >= 0),
        torch.from_numpy(cell >= 0),
        torch.from_numpy(cell),
        torch.from_numpy(np.concatenate([page.letters for page in labels])),
    )


class DenseHead(nn.Module):
    """All tasks as one linear map of the tapped layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, sum(_SIZES.values()))
        with torch.no_grad():
            self.linear.bias.fill_(-3.0)  # most of what can be said of a patch is not so

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """(..., F) to logits per task."""
        logits = self.linear(features).float()
        return dict(zip(_SIZES, logits.split(list(_SIZES.values()), dim=-1), strict=True))


class DenseModel(nn.Module):
    """The vision transformer and its temporary heads."""

    def __init__(self, settings: ScreenSettings) -> None:
        super().__init__()
        config = vision_config(settings)
        config._attn_implementation = LEAN_ATTENTION
        self.vision = Molmo2VisionModel(config)
        initialise(self.vision, settings)
        self.taps = (settings.vit_layers - 1, settings.vit_layers - 3)
        self.head = DenseHead(2 * settings.vit_width)

    def forward(self, patches: Tensor) -> dict[str, Tensor]:
        """(N, GRID * GRID, 588) to logits per patch, (N * GRID * GRID, ...)."""
        vision, outputs = self.vision, []
        hidden = vision.patch_embedding(patches) + vision.positional_embedding
        for layer in vision.layers:
            hidden = layer(hidden, None)
            outputs.append(hidden)
        return self.head(torch.cat([outputs[i] for i in self.taps], dim=-1).flatten(0, 1))


@torch.no_grad()
def initialise(vision: Any, settings: ScreenSettings) -> None:
    """Weights from which letters are learned soon.

    Pages are mostly even: without care an even ground would be louder than anything that is drawn on it, and places could not be
    told apart, so that no patch would find its neighbours.
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


def vision_config(settings: ScreenSettings) -> Molmo2VisionConfig:
    """The native vision transformer at this size."""
    heads = settings.vit_width // settings.head_dim
    return Molmo2VisionConfig(
        hidden_size=settings.vit_width, intermediate_size=settings.vit_mlp, num_hidden_layers=settings.vit_layers,
        num_attention_heads=heads, num_key_value_heads=heads, head_dim=settings.head_dim, image_size=[CROP, CROP], patch_size=PATCH,
    )  # fmt: skip


def dense_loss(logits: dict[str, Tensor], targets: DenseTargets) -> tuple[Tensor, dict[str, float]]:
    """Weighted sum of the tasks, and how often they are right where points are."""
    thing, centre = targets.thing, targets.centre
    parts = dict(zip(GROUPS, targets.vectors.split(list(GROUPS.values()), dim=-1), strict=True))
    losses = {"thing": F.binary_cross_entropy_with_logits(logits["thing"].squeeze(-1), thing.float())}
    seen: dict[str, float] = {}
    weight = thing.float() / thing.sum().clamp(min=1) + centre.float() / centre.sum().clamp(min=1)
    for name in _CHOICES:
        told = parts[name].sum(-1) > 0
        share = weight * told
        each = F.cross_entropy(logits[name], parts[name].argmax(-1), reduction="none")
        losses[name] = (each * share).sum() / share.sum().clamp(min=1e-6)
        right = logits[name].argmax(-1) == parts[name].argmax(-1)
        seen[name] = float(right[centre & told].float().mean())
    for name in ("state", "name"):
        each = F.binary_cross_entropy_with_logits(logits[name], parts[name], reduction="none", pos_weight=torch.tensor(3.0)).mean(-1)
        losses[name] = (each * weight).sum() / weight.sum()
        said = logits[name][centre] > 0
        seen[name] = _f1(said, parts[name][centre] > 0)
    written = targets.letters.sum(-1) > 0
    each = F.binary_cross_entropy_with_logits(logits["letters"], targets.letters, reduction="none", pos_weight=torch.tensor(2.0)).sum(-1)
    losses["letters"] = each[written].mean() + 0.3 * each[~written].mean()
    seen["letters"] = _f1(logits["letters"][written] > 0, targets.letters[written] > 0)
    guess = logits["centre"].squeeze(-1)
    losses["centre"] = F.binary_cross_entropy_with_logits(guess, centre.float(), pos_weight=torch.tensor(4.0)) * 4
    losses["cell"] = F.cross_entropy(logits["cell"][centre], targets.cell[centre])
    seen["centre"] = _f1(guess > 1.0, centre)
    total = sum((_WEIGHTS[name] * loss for name, loss in losses.items()), torch.zeros(()))
    return total, seen


def pages_for_ever(folders: Sequence[Path], rng: np.random.Generator) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Pages of the shards that are there, from each folder as often, in an order drawn anew; later shards join in as they appear."""
    while True:
        there = [shards for folder in folders if (shards := shard_paths(folder))]
        shards = there[int(rng.integers(len(there)))]
        # The newest half of the shards has been seen least.
        first = int(rng.integers(len(shards))) if rng.random() < 0.5 else int(rng.integers(len(shards) // 2, len(shards)))
        pages = list(read_shard(shards[first]))
        for i in rng.permutation(len(pages))[: len(pages) // 4]:
            yield pages[i]


def moved(pixels: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """A picture moved to the right and downwards; its edges are drawn out."""
    right, down = shift
    rows = np.clip(np.arange(pixels.shape[0]) - down, 0, pixels.shape[0] - 1)
    columns = np.clip(np.arange(pixels.shape[1]) - right, 0, pixels.shape[1] - 1)
    return pixels[rows][:, columns]


def patchify(pixels: Tensor) -> Tensor:
    """(N, CROP, CROP, 3) uint8 to (N, GRID * GRID, 588) float in [-1, 1]: rows, columns and channels of each patch."""
    blocks = pixels.reshape(-1, GRID, PATCH, GRID, PATCH, 3).transpose(2, 3)
    return blocks.reshape(-1, GRID * GRID, PATCH * PATCH * 3).float() / 127.5 - 1


def load_page(page: tuple[bytes, dict[str, Any]], rng: np.random.Generator, shift: int) -> tuple[np.ndarray, PageLabels, tuple[int, int]]:
    """Pixels, labels and shift of a page of a shard, moved by chance."""
    png, row = page
    by = int(rng.integers(-shift, shift + 1)), int(rng.integers(-shift, shift + 1))
    return moved(decode(png), by), PageLabels(row["elements"], row["letters"], by), by


def train_dense(folder: Path, settings: ScreenSettings, steps: int, log_every: int = 25) -> None:
    """Runs or resumes the first stage."""
    torch.manual_seed(0)
    model = DenseModel(settings)
    optimiser = optimiser_for([(model, settings.vit_rate)], settings)  # type: ignore[arg-type]
    checkpoint, log = folder / "vit.safetensors", Log(folder / "vit.jsonl")
    step = load_checkpoint(checkpoint, {"dense": model}, optimiser)["step"] if checkpoint.exists() else 0
    rng = np.random.default_rng([1, step])
    pages = pages_for_ever([folder / "small", folder / "boards"], rng)
    saved, stop = time.monotonic(), StopRequest()
    while step < steps and not stop:
        loaded = [load_page(next(pages), rng, settings.shift) for _ in range(settings.vit_batch)]
        patches = patchify(torch.from_numpy(np.stack([pixels for pixels, _, _ in loaded])))
        targets = targets_of([labels for _, labels, _ in loaded])
        set_rates(optimiser, step, steps, settings)  # type: ignore[arg-type]
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(patches)
        loss, seen = dense_loss(logits, targets)
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


def _f1(said: Tensor, true: Tensor) -> float:
    return float(2 * (said & true).sum() / (said.sum() + true.sum()).clamp(min=1))
