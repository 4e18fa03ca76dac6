"""What is asked about forms: their outlines, their codes and their points, at each ViT patch and each image token.

Outlines come first: a network that has to say at once what form it sees, whatever way it is turned, learns nothing for long.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from molmopoint.data.drawing import SHAPES
from nano.forms import CODE
from nano.settings import GRID, LOCATIONS, PATCH

_POOLED, _SLOTS = GRID // 2, 2
_SIDE, _STRIDE = 16, 4
"""Samples per side of the window in which an outline is told, and pixels between them."""


def outlines(owners: Tensor, labels: Tensor) -> Tensor:
    """(N * GRID * GRID, _SIDE ** 2) bool: where in the window around each ViT patch the object of the patch is.

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
    return values.view(-1, _POOLED, _SLOTS, _POOLED, _SLOTS).transpose(2, 3).flatten(3).flatten(0, 2)


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

    def loss(self, features: Tensor, tokens: Tensor, owners: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss of some pictures, and how good the answers are where points are.

        Args:
            features: (N * GRID * GRID, F).
            tokens: (N * 36, H).
            owners: (N, CROP, CROP), see `draw_forms`.
            labels: (N, GRID * GRID, 3), likewise.
        """
        outline = outlines(owners, labels)
        form, cell, _ = labels.long().flatten(0, 1).unbind(-1)
        thing, centre = form > 0, cell >= 0
        drawn, code, where = self.patch(features)
        blurred = F.binary_cross_entropy_with_logits(drawn[thing], outline[thing].float(), reduction="none").mean(1)
        wrong = (code[thing] - self.codes[form[thing] - 1]).square().mean(1)
        at_centre = centre[thing]
        loss = 4 * (blurred.mean() + blurred[at_centre].mean()) + 3 * (wrong.mean() + wrong[at_centre].mean())
        loss = loss + 2 * F.binary_cross_entropy_with_logits(where[:, 0], centre.float(), pos_weight=torch.tensor(4.0))
        loss = loss + 0.3 * F.cross_entropy(where[centre, 1:], cell[centre])

        count = _by_token(centre.long()).sum(1)
        single = count == 1
        patch = _by_token(torch.arange(len(form)) * centre).amax(1)[single]
        new = form[patch] <= len(self.codes) - len(SHAPES)
        drawn, code, has_point = self.token(tokens)
        drawn, has_point = drawn[single], has_point.squeeze(1)
        blurred = F.binary_cross_entropy_with_logits(drawn, outline[patch].float())
        wrong = (code[single] - self.codes[form[patch] - 1]).square().mean(1)
        loss = loss + 8 * blurred + 6 * wrong.mean()
        loss = loss + 2 * F.binary_cross_entropy_with_logits(has_point, (count > 0).float())
        found = (has_point > 0) & (count > 0)
        common, either = ((drawn > 0) & outline[patch]).sum(1), ((drawn > 0) | outline[patch]).sum(1)
        return loss, {
            "outline": blurred.item(),
            "outline_iou": float((common / either.clamp(min=1)).mean()),
            "code": float(wrong[new].mean().detach() / self.codes[: -len(SHAPES)].square().mean()),
            "point_f1": float(2 * found.sum() / ((has_point > 0).sum() + (count > 0).sum())),
        }
