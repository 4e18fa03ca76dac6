"""Auxiliary losses that push the training over its plateaus; what they add to the network is thrown away.

**Words.** Which patch is asked for is a product of two things that have to be learned together: a query that
knows the words of the question and a key that knows what stands there. Left alone, both stay at chance for
long, because neither gets a signal while the other is random. So early in the stage each of them is also
compared with one vector per word, the same for
both: a query should be close to the words of its question, a key to the words of the objects whose points lie
in its
image token. Points come in order, so the same is done for places: a query should be close to the place of the
next point, a key to its own. The loss fades out.

**Motion.** To know that something moves, an image token of a clip has to look at the same object at another
time, and nothing tells it to: neither words like "left" nor the velocity itself give a gradient while
attention is elsewhere. So two attention heads are told where to look, one at the last place to which the
object can be followed and one at the first, and linear readers on the layers behind them predict the
velocity. The frames next to its own would not do: one step is shorter than an image token, and what is known
of places inside a token is coarse.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from molmopoint.data.drawing import COLOURS, SHAPES
from molmopoint.data.questions import PLURALS
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.tokens import NO_SELECTION
from nano.cache import CELLS
from nano.cells import PICTURE_WINDOW
from nano.settings import GRID

_STILL = 0.4
"""Pairs of a rotated vector before this part of its width turn too much with the position to carry a word."""


class WordVectors(nn.Module):
    """One vector per word, the same for queries and keys, and a look at what the patch head computes.

    Args:
        model: whose patch head is watched.
        num_words: W, words that questions and keys can say.
        query_bias: of the logits of queries, before training.
        key_bias: the same of keys.
    """

    still: Tensor

    def __init__(
        self, model: MolmoPointForConditionalGeneration, num_words: int, query_bias: float, key_bias: float
    ) -> None:
        super().__init__()
        head = model.model.point_predictor.patch
        width = model.config.patch_embed_dim
        self.words = nn.Parameter(torch.randn(num_words, width) * width**-0.5)
        self.query_bias = nn.Parameter(torch.full((num_words,), query_bias))
        self.key_bias = nn.Parameter(torch.full((num_words,), key_bias))
        pair = torch.arange(width) % (width // 2)
        self.register_buffer("still", (pair >= _STILL * width / 2).float(), persistent=False)
        self.seen: dict[str, Tensor] = {}
        head.query.register_forward_hook(partial(self._note, "query"))
        head.key.register_forward_hook(partial(self._note, "key"))

    def _note(self, name: str, _: nn.Module, __: tuple, output: Tensor) -> None:
        self.seen[name] = output

    def queries(self, counts: Sequence[int]) -> Tensor:
        """(Q, E): what the last pass asked with, without padding; `counts` are the PATCH tokens of each row."""
        asked = [row[:count] for row, count in zip(self.seen["query"], counts, strict=True)]
        return torch.cat(asked).float()


class Alignment(WordVectors):
    """The vectors of the words and of the places.

    Args:
        model: whose patch head is watched.
        num_words: W, words that questions and keys can say.
        num_places: places that a point can have in one input.
    """

    def __init__(self, model: MolmoPointForConditionalGeneration, num_words: int, num_places: int) -> None:
        super().__init__(model, num_words, query_bias=-2.0, key_bias=-3.0)
        width = model.config.patch_embed_dim
        self.places = nn.Parameter(torch.randn(num_places, width) * width**-0.5)

    def loss(
        self,
        queries: Tensor,
        named: Tensor,
        keys: Tensor,
        there: Tensor,
        chosen: Tensor,
        placed_keys: Tensor,
        places: Tensor,
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of a pass.

        Args:
            queries: (Q, E).
            named: (Q, W) 1 where the question says the word.
            keys: (..., E).
            there: (..., W) 1 where the image token shows what the word means.
            chosen: (Q,) place of the next point, negative at the end of a list.
            placed_keys: (P, E) keys that have places.
            places: (P,) those places.
        """
        words, vectors = self.words * self.still, self.places * self.still
        query_logits = F.linear(queries, words, self.query_bias)  # (Q, W)
        key_logits = F.linear(keys, words, self.key_bias)  # (..., W)
        query_loss = F.binary_cross_entropy_with_logits(query_logits, named.float())
        key_loss = F.binary_cross_entropy_with_logits(key_logits, there.float(), pos_weight=torch.tensor(3.0))

        goes_on = chosen >= 0
        next_place = F.linear(queries[goes_on], vectors)
        next_loss = F.cross_entropy(next_place, chosen[goes_on])
        own_loss = F.cross_entropy(F.linear(placed_keys, vectors), places)
        loss = query_loss + 5 * key_loss + 0.3 * next_loss + 0.3 * own_loss

        right = ((query_logits > 0) == (named > 0)).all(1)
        full = there.amax(-1) > 0
        found = ((key_logits > 0) == (there > 0)).all(-1)[full]
        placed = next_place.argmax(-1) == chosen[goes_on]
        shares = {"query_words": right, "key_words": found, "query_place": placed}
        return loss, {name: float(share.float().mean()) for name, share in shares.items()}


class PictureAlignment(Alignment):
    """The vectors of colours, shapes and places in a picture.

    Args:
        model: whose patch head is watched.
        num_places: image tokens of a crop.
    """

    def __init__(self, model: MolmoPointForConditionalGeneration, num_places: int) -> None:
        super().__init__(model, len(words_of("")), num_places)

    def loss_of_pictures(
        self, asked: Sequence[Sequence[str]], labels: Tensor, chosen: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of a pass over pictures that was just made.

        Args:
            asked: per row, the phrase behind each of its PATCH tokens, in order.
            labels: (rows, GRID * GRID, 4) dense labels of the pictures.
            chosen: selections of all PATCH tokens, row by row.
        """
        queries = self.queries([len(phrases) for phrases in asked])
        named: list[tuple[float, ...]] = []
        for phrases in asked:
            named += map(words_of, phrases)
        # Overview and tile show the same; points lie in the tile.
        there = words_at(labels).unsqueeze(1).expand(-1, 2, -1, -1)  # (rows, 2, T, W)
        keys = self.seen["key"].float().view(*there.shape[:3], -1)
        tiles = len(self.places)
        places = torch.arange(tiles).repeat(len(asked))
        next_place = (chosen - tiles).clamp(min=NO_SELECTION)
        return self.loss(
            queries, torch.tensor(named), keys, there, next_place, keys[:, 1].flatten(0, 1), places
        )


@cache
def words_of(label: str) -> tuple[float, ...]:
    """One number per colour and shape: 1 if the phrase names it."""
    said = set(label.split())
    colours = [float(colour in said) for colour in COLOURS]
    shapes = [float(shape in said or PLURALS[shape] in said) for shape in SHAPES]
    return (*colours, *shapes)


def words_at(labels: Tensor) -> Tensor:
    """(N, image tokens of a crop, words): what is pointed at inside each image token; `labels` as in
    `dense_labels`.
    """
    labels = labels.long()
    is_point = (labels[..., CELLS:] >= 0).float()
    colours = F.one_hot((labels[..., 0] - 1).clamp(min=0), len(COLOURS)).float()
    shapes = F.one_hot((labels[..., 1] - 1).clamp(min=0), len(SHAPES)).float()
    at_patch = torch.cat([colours, shapes], dim=-1) * is_point
    side = GRID // PICTURE_WINDOW
    windows = at_patch.view(-1, side, PICTURE_WINDOW, side, PICTURE_WINDOW, at_patch.shape[-1])
    return windows.amax(dim=(2, 4)).flatten(1, 2)


_GUIDED = ((1, 0, 1), (2, 1, 0))
"""Decoder layer, attention head, and where it looks: 0 is the first place of the object, 1 the last one."""


class Motion(nn.Module):
    """The readers of velocities, and a look at what the decoder computes; attention must be `lean_attention`.

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
            ends: (T, 2) image tokens of the row that show the same object first and last, -1 where there is
                nothing to look for.
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
        total, found = torch.zeros(()), 0.0
        for module, (_, head, way) in zip(self.attention, _GUIDED, strict=True):
            known = ends[:, way] >= 0
            target = columns[first[rows[known]] + ends[known, way]]
            scores = module.scores[rows[known], head, columns[known]].float()
            total = total + F.cross_entropy(scores, target)
            found += float((scores.detach().argmax(-1) == target).float().mean())
        return total, found / len(_GUIDED)
