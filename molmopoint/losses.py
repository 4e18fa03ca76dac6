"""Text, patch, subpatch and location losses, and the mask of a sorted point list.

Letters: B rows, S tokens per row, P image tokens per row (padded), R positions that carry a text loss, Q patch queries per row
(padded), M targets of one kind, V + A vocabulary, H text width.

All losses are sums in float32. The state that predicts a token stands one position before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from molmopoint.config import MolmoPointConfig
from molmopoint.heads import GroundingHeads, GroundingState, patch_scale
from molmopoint.rows import PatchHistory
from molmopoint.tokens import NO_MORE_POINTS, NO_SELECTION

IGNORED = -100
"""Label of a position that carries no loss."""


@dataclass(frozen=True)
class TextSupervision:
    """Which positions carry a text loss, read off a training batch once.

    Attributes:
        rows, columns: (R,) positions whose next token carries a text loss.
        labels: (R,) those tokens.
        weights: (R,) their weights, float32.
    """

    rows: Tensor
    columns: Tensor
    labels: Tensor
    weights: Tensor

    @classmethod
    def of_labels(cls, shift_labels: Tensor, loss_weights: Tensor | None) -> TextSupervision:
        """Reads labels (already shifted) and weights, both (B, S); without weights every label counts once."""
        supervised = shift_labels != IGNORED
        if loss_weights is not None:
            supervised = supervised & (loss_weights > 0)
        rows, columns = supervised.nonzero(as_tuple=True)
        weights = torch.ones_like(rows, dtype=torch.float32) if loss_weights is None else loss_weights[rows, columns].float()
        return TextSupervision(rows, columns, shift_labels[rows, columns], weights)


@dataclass(frozen=True)
class Supervision(TextSupervision):
    """What is supervised, read off a training batch once.

    Attributes:
        predictors: kind -> (rows, columns), each (M,): positions whose next token makes a supervised selection.
        selections: kind -> (M,) what it selects.
        history: last PATCH selection at every position.
    """

    predictors: dict[str, tuple[Tensor, Tensor]]
    selections: dict[str, Tensor]
    history: PatchHistory

    @classmethod
    def of(
        cls, input_ids: Tensor, selections: Tensor, shift_labels: Tensor, loss_weights: Tensor | None, config: MolmoPointConfig
    ) -> Supervision:
        """Reads plain ids, selections, labels (already shifted) and weights, all (B, S)."""
        supervised = shift_labels != IGNORED
        if loss_weights is not None:
            supervised = supervised & (loss_weights > 0)
        text = TextSupervision.of_labels(shift_labels, loss_weights)
        chooses = supervised[:, :-1] & (selections[:, 1:] != NO_SELECTION)
        predictors, chosen = {}, {}
        kinds = {"patch": config.patch_token_id, "subpatch": config.subpatch_token_id, "location": config.location_token_id}
        for kind, token in kinds.items():
            at = (chooses & (input_ids[:, 1:] == token)).nonzero(as_tuple=True)
            predictors[kind], chosen[kind] = at, selections[at[0], at[1] + 1]
        history = PatchHistory.of(input_ids, selections, config)
        return cls(text.rows, text.columns, text.labels, text.weights, predictors, chosen, history)


def text_loss(logits: Tensor, supervision: TextSupervision, z_loss: float) -> dict[str, Tensor]:
    """Weighted sums over (R, V + A) logits: "text" is cross-entropy alone; "z" is added only for a positive `z_loss`."""
    logits = logits.float()
    normaliser = logits.logsumexp(-1)
    entropy = normaliser - logits.gather(1, supervision.labels.unsqueeze(1)).squeeze(1)
    sums = {"text": (supervision.weights * entropy).sum()}
    if z_loss > 0:
        sums["z"] = z_loss * (supervision.weights * normaliser.square()).sum()
    return sums


@dataclass(frozen=True)
class SelectionTargets:
    """Logits and targets of every supervised selection.

    Attributes:
        logits: kind -> patch (M, P + 1), subpatch (M, K), location (M, L); disallowed classes hold a very negative number.
        targets: kind -> (M,).
        weights: kind -> (M,) text weight of the predictor.
    """

    logits: dict[str, Tensor]
    targets: dict[str, Tensor]
    weights: dict[str, Tensor]

    def logits_or_none(self, kind: str) -> Tensor | None:
        """Those of a kind; None where nothing of it is supervised."""
        logits = self.logits.get(kind)
        return None if logits is None or not len(logits) else logits

    def losses(self, weighted: bool) -> dict[str, Tensor]:
        """Cross-entropy sums by kind, times the weight of their text token if `weighted`."""
        return {
            kind: (functional.cross_entropy(logits, self.targets[kind], reduction="none") * (self.weights[kind] if weighted else 1.0)).sum()
            for kind, logits in self.logits.items()
        }


@dataclass(frozen=True)
class Membership:
    """Which packed example and which branch every token (B, S) belongs to; one example and one branch if not given."""

    examples: Tensor
    branches: Tensor


def select(
    heads: GroundingHeads,
    hidden: Tensor,
    state: GroundingState,
    supervision: Supervision,
    membership: Membership,
    weights: Tensor | None,
    config: MolmoPointConfig,
) -> SelectionTargets:
    """Teacher-forced selection logits, computed only where they are supervised.

    Args:
        heads: the pointing heads.
        hidden: (B, S, H) states before the final norm.
        state: what the prompt pass kept.
        supervision: what to predict.
        membership: of every token.
        weights: (B, S) text weights or None.
        config: scale, masks and the input of the location head, read at call time.
    """
    logits = {"patch": _patch_logits(heads, hidden, state, supervision, membership, config)}
    patches = supervision.selections["patch"]
    targets = {"patch": torch.where(patches == NO_MORE_POINTS, logits["patch"].shape[1] - 1, patches)}

    rows, columns = supervision.predictors["subpatch"]
    slots = state.slots_of(rows, supervision.history.selection[rows, columns])
    logits["subpatch"] = heads.subpatch(heads.norm(hidden[rows, columns]), state.vit_features_of(slots))
    targets["subpatch"] = supervision.selections["subpatch"]

    if heads.location is not None:
        rows, columns = supervision.predictors["location"]
        states = hidden[rows, columns]
        logits["location"] = heads.location(heads.norm(states) if config.location_input == "normed" else states)
        targets["location"] = supervision.selections["location"]
    by_kind = {
        kind: torch.ones_like(targets[kind], dtype=torch.float32) if weights is None else weights[supervision.predictors[kind]].float()
        for kind in logits
    }
    return SelectionTargets({kind: part.to(hidden.device) for kind, part in logits.items()}, targets, by_kind)


def _patch_logits(
    heads: GroundingHeads,
    hidden: Tensor,
    state: GroundingState,
    supervision: Supervision,
    membership: Membership,
    config: MolmoPointConfig,
) -> Tensor:
    """Scaled and masked patch logits (M, P + 1) of every supervised PATCH token."""
    rows, columns = supervision.predictors["patch"]
    previous = supervision.history.selection[rows, columns]
    positions = state.positions_of(rows, previous)
    # Rows have their own keys, so the queries of a row are brought side by side: (B, Q, H).
    first = torch.searchsorted(rows.contiguous(), torch.arange(len(hidden), device=rows.device))
    rank = torch.arange(len(rows), device=rows.device) - first[rows]
    longest = int(rank.max()) + 1 if len(rank) else 0
    queries = hidden.new_zeros((len(hidden), longest, hidden.shape[-1])).index_put((rows, rank), hidden[rows, columns])
    places = positions.new_zeros((len(hidden), longest)).index_put((rows, rank), positions)
    logits = heads.patch(heads.norm(queries), places, state.patch_keys).to(hidden.device)[rows, rank]

    example = membership.examples[rows, columns]
    own = state.example_of_patch[rows] == example.unsqueeze(1)
    scale = patch_scale(config.patch_logit_scale, own.sum(1), config.patch_embed_dim)
    logits = logits * (scale.unsqueeze(1) if isinstance(scale, Tensor) else scale)
    allowed = own & state.patch_key_mask[rows]
    if config.mask_patches == "always":
        before = supervision.history.column[rows, columns].clamp(min=0)
        same_branch = membership.branches[rows, before] == membership.branches[rows, columns + 1]
        same_list = same_branch & (membership.examples[rows, before] == example)
        earliest = torch.where(same_list & (previous >= 0), previous, 0)
        allowed = allowed & (torch.arange(own.shape[1], device=rows.device) >= earliest.unsqueeze(1))
    allowed = functional.pad(allowed, (0, 1), value=True)
    return logits.masked_fill(~allowed, torch.finfo(logits.dtype).min)
