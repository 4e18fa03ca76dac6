"""Sight: the vision transformer learns forms without names, and says of its old world what it said before.

What 300 pictures of a new shape can teach depends on what the vision transformer tells apart already; after
the first stages that is eight shapes. Here it tells the outline and the code of one of thousands of forms at
each ViT patch and, through the connector, at each image token. Outlines come first: a network that has to say
at once what form it sees, whatever way it is turned, learns nothing for long. On scenes of the old world the
outputs of both are compared with those of the model that the stage starts from, so that the decoder, which is
not here, still understands them. The heads that tell of forms are thrown away.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from molmopoint.data.drawing import SHAPES
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.training.precision import autocast
from nano.attention import use_lean_attention
from nano.cache import SHARDS, load_shard, patchify
from nano.cells import FRAME_WINDOW, PICTURE_WINDOW, pooling_of_crop, pooling_of_crops, turn_pictures
from nano.forms import CELLS, CODE, codes, load_form_shard
from nano.forms import SHARDS as FORM_SHARDS
from nano.loop import ShardStream, Stage, train
from nano.pointing import Check
from nano.settings import GRID, LOCATIONS, PATCH, Settings

_POOLED = GRID // PICTURE_WINDOW
_SIDE, _STRIDE = 16, 4
"""Samples per side of the window in which an outline is told, and pixels between them."""


def outlines(owners: Tensor, labels: Tensor) -> Tensor:
    """(N * GRID * GRID, _SIDE ** 2) bool: where in the window around each ViT patch the object of the patch
    is.

    Args:
        owners: (N, CROP, CROP), see `draw_forms`.
        labels: (N, GRID * GRID, 3), likewise.
    """
    reach = _STRIDE * _SIDE // 2
    padded = F.pad(owners, (reach, reach, reach, reach))
    first = torch.arange(GRID) * PATCH + PATCH // 2 + _STRIDE // 2
    ticks = first[:, None] + _STRIDE * torch.arange(_SIDE)
    windows = padded[:, ticks[:, :, None, None], ticks]
    windows = windows.permute(0, 1, 3, 2, 4).reshape(-1, _SIDE**2)
    return windows == labels[..., 2].reshape(-1, 1).to(windows.dtype)


def _by_token(values: Tensor) -> Tensor:
    """(N * 36, 4): values of ViT patches (N * GRID * GRID,) by image token."""
    return (
        values.view(-1, _POOLED, PICTURE_WINDOW, _POOLED, PICTURE_WINDOW)
        .transpose(2, 3)
        .flatten(3)
        .flatten(0, 2)
    )


class _Head(nn.Module):
    """Outline, code and further numbers as one linear map of normed features."""

    def __init__(self, width: int, further: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, _SIDE**2 + CODE + further)
        self.parts = (_SIDE**2, CODE, further)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outlines (n, _SIDE ** 2), codes (n, CODE) and the rest (n, further) of features (n, width)."""
        outline, code, further = self.linear(self.norm(features)).float().split(self.parts, dim=-1)
        return outline, code, further


class FormHeads(nn.Module):
    """What form is at a ViT patch or an image token, and where its point is.

    Args:
        vit_width: F.
        token_width: H.
        codes: (forms and known shapes, CODE).
    """

    codes: Tensor

    def __init__(self, vit_width: int, token_width: int, codes: Tensor) -> None:
        super().__init__()
        self.patch, self.token = _Head(vit_width, 1 + LOCATIONS**2), _Head(token_width, 1)
        self.register_buffer("codes", codes, persistent=False)

    def loss(
        self, features: Tensor, tokens: Tensor, owners: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of some pictures, and how good the answers are where points are.

        Args:
            features: (N * GRID * GRID, F).
            tokens: (N * 36, H).
            owners: (N, CROP, CROP), see `draw_forms`.
            labels: (N, GRID * GRID, 3), likewise.
        """
        outline = outlines(owners, labels)  # (N * GRID * GRID, _SIDE ** 2)
        form, cell, _ = labels.long().flatten(0, 1).unbind(-1)
        of_patches = self._patch_loss(features, outline, form, cell)
        of_tokens, seen = self._token_loss(tokens, outline, form, cell >= 0)
        return of_patches + of_tokens, seen

    def _patch_loss(self, features: Tensor, outline: Tensor, form: Tensor, cell: Tensor) -> Tensor:
        """What is at each ViT patch; patches that hold a point count once more."""
        thing, centre = form > 0, cell >= 0
        drawn, code, where = self.patch(features)
        blurred = F.binary_cross_entropy_with_logits(
            drawn[thing], outline[thing].float(), reduction="none"
        ).mean(1)
        wrong = (code[thing] - self.codes[form[thing] - 1]).square().mean(1)
        at_centre = centre[thing]
        loss = 4 * (blurred.mean() + blurred[at_centre].mean()) + 3 * (wrong.mean() + wrong[at_centre].mean())
        has_point = F.binary_cross_entropy_with_logits(
            where[:, 0], centre.float(), pos_weight=torch.tensor(4.0)
        )
        in_cell = F.cross_entropy(where[centre, 1:], cell[centre])
        return loss + 2 * has_point + 0.3 * in_cell

    def _token_loss(
        self, tokens: Tensor, outline: Tensor, form: Tensor, centre: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """What is at each image token that holds one point, and which tokens hold any."""
        count = _by_token(centre.long()).sum(1)  # (N * 36,)
        single = count == 1
        patch = _by_token(torch.arange(len(form)) * centre).amax(1)[single]
        drawn, code, has_point = self.token(tokens)
        drawn, has_point = drawn[single], has_point.squeeze(1)
        blurred = F.binary_cross_entropy_with_logits(drawn, outline[patch].float())
        wrong = (code[single] - self.codes[form[patch] - 1]).square().mean(1)
        pointed = F.binary_cross_entropy_with_logits(has_point, (count > 0).float())
        loss = 8 * blurred + 6 * wrong.mean() + 2 * pointed

        num_forms = len(self.codes) - len(SHAPES)
        is_new = form[patch] <= num_forms
        found = (has_point > 0) & (count > 0)
        common = ((drawn > 0) & outline[patch]).sum(1)
        either = ((drawn > 0) | outline[patch]).sum(1)
        return loss, {
            "outline": blurred.item(),
            "outline_iou": float((common / either.clamp(min=1)).mean()),
            "code": float(wrong[is_new].mean().detach() / self.codes[:num_forms].square().mean()),
            "point_f1": float(2 * found.sum() / ((has_point > 0).sum() + (count > 0).sum())),
        }


class Sight(nn.Module):
    """Vision transformer and connector of a model.

    Args:
        model: whose parts they are.
    """

    def __init__(self, model: MolmoPointForConditionalGeneration) -> None:
        super().__init__()
        use_lean_attention(model.config.vision_config)
        self.vision, self.connector = model.model.vision_tower, model.model.connector
        self.layers = list(model.config.adapter_config.vision_feature_layer)

    def forward(self, patches: Tensor) -> Tensor:
        """Tapped features (N * GRID * GRID, F) of patches (N, GRID * GRID, 588)."""
        return self.vision(patches, self.layers)


def relative_error(new: Tensor, old: Tensor) -> Tensor:
    """Mean square of the difference, in those of the old values."""
    return (new.float() - old.float()).square().mean() / old.float().square().mean()


class FormStage(Stage):
    """Forms to tell apart, turned any way, and scenes to see as before.

    Args:
        folder: of the run.
        start: folder of the model whose sight is trained.
        settings: of the run.
        check: is run on the model with every checkpoint.
    """

    def __init__(self, folder: Path, start: Path, settings: Settings, check: Check) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.settings, self.look = settings, check
        self.model = MolmoPointForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
        self.sight = Sight(self.model)
        self.before = copy.deepcopy(self.sight).requires_grad_(False)
        of_forms = torch.from_numpy(codes(folder / "cache", settings.num_forms))
        self.heads = FormHeads(
            self.model.config.vit_feature_dim, self.model.config.text_config.hidden_size, of_forms
        )
        self.modules = {"sight": self.sight, "heads": self.heads}
        self.rates = [(self.sight, settings.form_rate), (self.heads, settings.form_head_rate)]
        self.clipped = self.sight
        self.forms = ShardStream([folder / "cache"], FORM_SHARDS, load_form_shard)
        self.scenes = ShardStream([folder / "cache"], SHARDS, load_shard)
        self.streams = {"forms": self.forms, "scenes": self.scenes}
        self.items = settings.form_batch

    def add_gradients(self, step: int, steps: int, rng: np.random.Generator) -> dict[str, float]:
        """Of some pictures of forms, and of some scenes."""
        shard, rows = self.forms.take(self.items, rng)
        layers = torch.cat([shard.pixels[rows], shard.owners[rows].unsqueeze(-1)], dim=-1)
        layers, labels = turn_pictures(layers, shard.labels[rows], int(rng.integers(8)), CELLS)
        scenes, old_rows = self.scenes.take(self.settings.form_replayed, rng)
        new, old = patchify(layers[..., :3]), patchify(scenes.pixels[old_rows])
        with autocast():
            of_new, of_old = self.sight(torch.cat([new, old])).split(
                [len(new) * GRID * GRID, len(old) * GRID * GRID]
            )
            tokens = self.sight.connector(of_new, pooling_of_crops(pooling_of_crop(PICTURE_WINDOW), len(new)))
            loss, seen = self.heads.loss(of_new, tokens, layers[..., 3], labels)
            apart = self._apart(old, of_old)
        kept_tokens = apart["picture"] + 0.5 * apart["clip"]
        loss_of_old = self.settings.kept_vit * apart["vit"] + self.settings.kept_tokens * kept_tokens
        (loss + loss_of_old).backward()
        distances = {f"apart_{name}": value.item() for name, value in apart.items()}
        return {"loss": loss.item(), **seen, **distances}

    def check(self) -> dict[str, float]:
        """Scores of real decoding."""
        return self.look(self.model)

    def _apart(self, patches: Tensor, features: Tensor) -> dict[str, Tensor]:
        """How far features (N * GRID * GRID, F) of scenes, and their image tokens, are from what they were
        before the stage.
        """
        with torch.no_grad():
            features_before = self.before(patches)
        apart = {"vit": relative_error(features, features_before)}
        for name, window in (("picture", PICTURE_WINDOW), ("clip", FRAME_WINDOW)):
            pooling = pooling_of_crops(pooling_of_crop(window), len(patches))
            with torch.no_grad():
                tokens_before = self.before.connector(features_before, pooling)
            apart[name] = relative_error(self.sight.connector(features, pooling), tokens_before)
        return apart


def train_forms(
    folder: Path, start: Path, settings: Settings, steps: int, check: Check, log_every: int = 25
) -> None:
    """Runs or resumes the stage.

    Args:
        folder: of checkpoints, logs and caches.
        start: folder of the model whose sight is trained.
        settings: numbers of the recipe.
        steps: of the whole stage.
        check: is run on the model with every checkpoint, and its numbers are logged.
        log_every: steps per line of the log.
    """
    train(
        FormStage(folder, start, settings, check),
        folder / "forms",
        settings,
        steps,
        seed=4,
        log_every=log_every,
    )
