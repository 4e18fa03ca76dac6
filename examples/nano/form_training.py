"""Sight: the vision transformer learns forms without names, and says of its old world what it said before.

What 300 pictures of a new shape can teach depends on what the vision transformer tells apart already; after the first stages that is
eight shapes. Here it tells the outline and the code of one of thousands of forms at each ViT patch and, through the connector, at each
image token. On scenes of the old world the outputs of both are compared with those of the model that the stage starts from, so that
the decoder, which is not here, still understands them. The heads that tell of forms are thrown away.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from molmopoint.modeling import MolmoPointForConditionalGeneration
from nano.cache import patchify
from nano.clip_examples import frame_pooling
from nano.clip_training import Check, Scenes
from nano.form_heads import FormHeads
from nano.forms import codes
from nano.pointing import pooling_table
from nano.running import LEAN_ATTENTION, Log, StopRequest, load_checkpoint, optimiser_for, save_checkpoint, set_rates
from nano.settings import GRID, LOCATIONS, Settings

_POOLED = GRID // 2


def picture_pooling(pictures: int) -> Tensor:
    """(pictures * 36, 4): the tile of each of some pictures."""
    tile = pooling_table()[: _POOLED**2]
    return (tile[None] + GRID * GRID * torch.arange(pictures)[:, None, None]).flatten(0, 1)


def clip_pooling(pictures: int) -> Tensor:
    """(pictures * 16, 9): the same pictures as frames of a clip."""
    return (frame_pooling()[None] + GRID * GRID * torch.arange(pictures)[:, None, None]).flatten(0, 1)


class Sight(nn.Module):
    """Vision transformer and connector of a model.

    Args:
        model: whose parts they are.
    """

    def __init__(self, model: MolmoPointForConditionalGeneration) -> None:
        super().__init__()
        model.config.vision_config._attn_implementation = LEAN_ATTENTION
        self.vision, self.connector = model.model.vision_tower, model.model.connector
        self.layers = list(model.config.adapter_config.vision_feature_layer)

    def forward(self, patches: Tensor) -> Tensor:
        """Tapped features (N * GRID * GRID, F) of patches (N, GRID * GRID, 588)."""
        return self.vision(patches, self.layers)


def dihedral(pixels: Tensor, labels: Tensor, way: int) -> tuple[Tensor, Tensor]:
    """Pictures (N, CROP, CROP, C) and their labels (N, GRID * GRID, 3) mirrored (`way` 4 to 7) and turned by quarters (`way` modulo 4)."""
    inner = torch.arange(LOCATIONS**2).view(LOCATIONS, LOCATIONS)
    grid = labels.unflatten(1, (GRID, GRID))

    def turned(x: Tensor, first: int) -> Tensor:
        x = x.flip(first + 1) if way >= 4 else x
        return torch.rot90(x, way % 4, (first, first + 1))

    # Cells are numbered column first, so their table is turned transposed.
    moved = torch.empty(LOCATIONS**2, dtype=torch.long)
    moved[turned(inner.T, 0).flatten()] = inner.T.flatten()
    grid = turned(grid, 1).clone()
    cell = grid[..., 1].long()
    grid[..., 1] = torch.where(cell >= 0, moved[cell.clamp(min=0)], cell).to(grid.dtype)
    return turned(pixels, 1), grid.flatten(1, 2)


def relative_error(new: Tensor, old: Tensor) -> Tensor:
    """Mean square of the difference, in those of the old values."""
    return (new.float() - old.float()).square().mean() / old.float().square().mean()


def form_shards(folder: Path) -> list[Path]:
    """Shards of forms that are complete."""
    return sorted(folder.glob("forms_*.safetensors"))


def train_forms(folder: Path, start: Path, settings: Settings, steps: int, check: Check, log_every: int = 25) -> None:
    """Runs or resumes the stage.

    Args:
        folder: of checkpoints, logs and caches.
        start: folder of the model whose sight is trained.
        settings: numbers of the recipe.
        steps: of the whole stage.
        check: is run on the model with every checkpoint, and its numbers are logged.
        log_every: steps per line of the log.
    """
    torch.manual_seed(0)
    checkpoint, log = folder / "forms.safetensors", Log(folder / "forms.jsonl")
    model = MolmoPointForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
    sight = Sight(model)
    before = copy.deepcopy(sight).requires_grad_(False)
    of_forms = torch.from_numpy(codes(folder / "cache", settings.num_forms))
    heads = FormHeads(model.config.vit_feature_dim, model.config.text_config.hidden_size, of_forms)
    optimiser = optimiser_for([(sight, settings.form_rate), (heads, settings.form_head_rate)], settings)
    modules = {"sight": sight, "heads": heads}
    done = load_checkpoint(checkpoint, modules, optimiser)["step"] if checkpoint.exists() else 0
    rng = np.random.default_rng([4, done])
    scenes = Scenes(folder / "cache", rng)
    step, saved, stop = done, time.monotonic(), StopRequest()
    while step < steps and not stop:
        shards = form_shards(folder / "cache")
        drawn = load_file(shards[int(rng.integers(len(shards)))])
        for rows in np.array_split(rng.permutation(len(drawn["pixels"])), len(drawn["pixels"]) // settings.form_batch):
            if step >= steps or stop:
                break
            index = torch.from_numpy(rows)
            layers = torch.cat([drawn["pixels"][index], drawn["owners"][index].unsqueeze(-1)], dim=-1)
            layers, labels = dihedral(layers, drawn["labels"][index], int(rng.integers(8)))
            pixels, owners = layers[..., :3], layers[..., 3]
            old = patchify(scenes.take(settings.form_replayed)[0])
            set_rates(optimiser, step, steps, settings)
            count, of_new = len(old), len(rows) * GRID * GRID
            with torch.autocast("cpu", torch.bfloat16):
                features = sight(torch.cat([patchify(pixels), old]))
                tokens = sight.connector(features[:of_new], picture_pooling(len(rows)))
                loss, seen = heads.loss(features[:of_new], tokens, owners, labels)
                with torch.no_grad():
                    features_before = before(old)
                apart = {"vit": relative_error(features[of_new:], features_before)}
                for name, table in (("picture", picture_pooling(count)), ("clip", clip_pooling(count))):
                    with torch.no_grad():
                        aim = before.connector(features_before, table)
                    apart[name] = relative_error(sight.connector(features[of_new:], table), aim)
            kept = settings.kept_vit * apart["vit"] + settings.kept_tokens * (apart["picture"] + 0.5 * apart["clip"])
            (loss + kept).backward()
            norm = nn.utils.clip_grad_norm_(sight.parameters(), settings.clip)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
            log.add({"loss": loss.item(), "norm": norm.item(), **seen, **{f"apart_{k}": v.item() for k, v in apart.items()}})
            if step % log_every == 0:
                log.write(step, log_every * settings.form_batch)
            if time.monotonic() - saved > 60 * settings.save_minutes or step == steps or stop:
                save_checkpoint(checkpoint, modules, optimiser, {"step": step, "steps": steps})
                log.write(step, 0, **check(model))
                saved = time.monotonic()
