"""Another push over a plateau: image tokens of a clip learn to find their object in other frames.

To know that something moves, an image token has to look at the same object at another time, and nothing tells it to: neither
words like "left" nor the velocity itself give a gradient while attention is elsewhere. So two attention heads are told where to
look, one at the last place to which the object can be followed and one at the first, and linear readers on the layers behind
them predict the velocity. The frames next to its own would not do: one step is shorter than an image token, and what
is known of places inside a token is coarse. The readers are thrown away.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from molmopoint.modeling import MolmoPointForConditionalGeneration

_GUIDED = ((1, 0, 1), (2, 1, 0))
"""Decoder layer, attention head, and where it looks: 0 is the first place of the object, 1 the last one."""


class Motion(nn.Module):
    """The readers, and a look at what the decoder computes; attention must be `lean_attention`.

    Args:
        model: whose layers are watched.
    """

    def __init__(self, model: MolmoPointForConditionalGeneration) -> None:
        super().__init__()
        layers, width = model.model.language_model.layers, model.config.text_config.hidden_size
        self.readers = nn.ModuleList(nn.Linear(width, 2) for _ in range(1, len(layers)))
        self.norm = nn.RMSNorm(width)
        self.seen: dict[int, Tensor] = {}
        self.attention: list[Any] = [layers[layer].self_attn for layer, _, _ in _GUIDED]
        for module in self.attention:
            module.keeps_scores = True
        for number in range(1, len(layers)):
            layers[number].register_forward_hook(partial(self._note, number - 1))

    def _note(self, number: int, _: nn.Module, __: tuple, output: Any) -> None:
        self.seen[number] = output[0] if isinstance(output, tuple) else output

    def loss(self, is_image: Tensor, velocity: Tensor, ends: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss of the pass that was just made.

        Args:
            is_image: (B, S) True at image tokens, of which there are T in all.
            velocity: (T, 2), NaN where there is nothing to know.
            ends: (T, 2) image tokens of the row that show the same object first and last, -1 where there is nothing to look for.
        """
        known = ~velocity.isnan().any(1)
        wanted, total, error = velocity[known], torch.zeros(()), 0.0
        for number, reader in enumerate(self.readers):
            guess = reader(self.norm(self.seen[number][is_image][known].float()))
            total = total + 4 * F.mse_loss(guess, wanted)
            error = float((guess.detach() - wanted).square().mean() / wanted.square().mean())
        looks, found = self._looks(is_image, ends)
        return total + looks, {"motion_unexplained": error, "motion_found": found}

    def _looks(self, is_image: Tensor, ends: Tensor) -> tuple[Tensor, float]:
        """Cross-entropy of the guided heads, and how often they look most at the right token."""
        rows, columns = is_image.nonzero(as_tuple=True)
        first = torch.searchsorted(rows.contiguous(), torch.arange(len(is_image)))
        total, found = torch.zeros(()), []
        for module, (_, head, way) in zip(self.attention, _GUIDED, strict=True):
            known = ends[:, way] >= 0
            target = columns[first[rows[known]] + ends[known, way]]
            scores = module.scores[rows[known], head, columns[known]].float()
            total = total + F.cross_entropy(scores, target)
            found.append(float((scores.detach().argmax(-1) == target).float().mean()))
        return total, sum(found) / len(found)
