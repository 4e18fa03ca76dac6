"""Text, patch, subpatch and location losses, and the mask of a sorted point list.

Letters: B rows, S tokens per row, P image tokens per row (padded), R positions that carry a text loss, Q
patch queries per row (padded), M targets of one kind, V + A vocabulary, H text width.

All losses are sums in float32. The state that predicts a token stands one position before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from molmopoint.config import GroundingSettings
from molmopoint.heads import GroundingHeads, GroundingState, LocationHead, patch_scale
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
        rows, columns = is_supervised(shift_labels, loss_weights).nonzero(as_tuple=True)
        labels = shift_labels[rows, columns]  # (R,)
        return TextSupervision(rows, columns, labels, weights_at(rows, columns, loss_weights))


@dataclass(frozen=True)
class Supervision(TextSupervision):
    """What is supervised, read off a training batch once.

    Attributes:
        predictors: kind -> (rows, columns), each (M,): positions whose next token makes a supervised
            selection.
        selections: kind -> (M,) what it selects.
        history: last PATCH selection at every position.
    """

    predictors: dict[str, tuple[Tensor, Tensor]]
    selections: dict[str, Tensor]
    history: PatchHistory

    @classmethod
    def of(
        cls,
        input_ids: Tensor,
        selections: Tensor,
        shift_labels: Tensor,
        loss_weights: Tensor | None,
        settings: GroundingSettings,
    ) -> Supervision:
        """Reads plain ids, selections, labels (already shifted) and weights, all (B, S)."""
        text = TextSupervision.of_labels(shift_labels, loss_weights)
        supervised = is_supervised(shift_labels, loss_weights)
        selects_next = supervised[:, :-1] & (selections[:, 1:] != NO_SELECTION)  # (B, S - 1)
        tokens = {
            "patch": settings.patch_token_id,
            "subpatch": settings.subpatch_token_id,
            "location": settings.location_token_id,
        }
        predictors: dict[str, tuple[Tensor, Tensor]] = {}
        chosen: dict[str, Tensor] = {}
        for kind, token in tokens.items():
            rows, columns = (selects_next & (input_ids[:, 1:] == token)).nonzero(as_tuple=True)
            predictors[kind] = rows, columns
            chosen[kind] = selections[rows, columns + 1]
        history = PatchHistory.of(input_ids, selections, settings)
        return cls(text.rows, text.columns, text.labels, text.weights, predictors, chosen, history)


def is_supervised(shift_labels: Tensor, loss_weights: Tensor | None) -> Tensor:
    """(B, S) True where the next token carries a loss: it has a label, and a weight above 0."""
    supervised = shift_labels != IGNORED
    if loss_weights is not None:
        supervised = supervised & (loss_weights > 0)
    return supervised


def weights_at(rows: Tensor, columns: Tensor, loss_weights: Tensor | None) -> Tensor:
    """(n,) float32 weights at positions (n,) of (B, S); ones where none are given."""
    if loss_weights is None:
        return torch.ones_like(rows, dtype=torch.float32)
    return loss_weights[rows, columns].float()


def text_loss(logits: Tensor, supervision: TextSupervision, z_loss: float) -> dict[str, Tensor]:
    """Weighted sums over (R, V + A) logits: "text" is cross-entropy alone; "z" is added only for a positive
    `z_loss`.
    """
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
        logits: kind -> patch (M, P + 1), subpatch (M, K), location (M, L); disallowed classes hold a very
            negative number.
        targets: kind -> (M,).
        weights: kind -> (M,) text weight of the predictor.
    """

    logits: dict[str, Tensor]
    targets: dict[str, Tensor]
    weights: dict[str, Tensor]

    def logits_or_none(self, kind: str) -> Tensor | None:
        """Those of a kind; None where nothing of it is supervised."""
        logits = self.logits.get(kind)
        if logits is None or not len(logits):
            return None
        return logits

    def losses(self, weighted: bool) -> dict[str, Tensor]:
        """Cross-entropy sums by kind, times the weight of their text token if `weighted`."""
        sums: dict[str, Tensor] = {}
        for kind, logits in self.logits.items():
            entropy = functional.cross_entropy(logits, self.targets[kind], reduction="none")  # (M,)
            if weighted:
                entropy = entropy * self.weights[kind]
            sums[kind] = entropy.sum()
        return sums


@dataclass(frozen=True)
class Membership:
    """Which packed example and which branch every token (B, S) belongs to; one example and one branch if not
    given.
    """

    examples: Tensor
    branches: Tensor

    @classmethod
    def of(
        cls,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        examples: Tensor | None,
        branches: Tensor | None,
    ) -> Membership:
        """That of rows (B, S); a row that does not say is one example (-1 at padding) without branches."""
        if examples is None:
            real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            examples = real.to(input_ids.dtype) - 1
        if branches is None:
            branches = torch.full_like(input_ids, -1)
        return cls(examples, branches)


def shifted(labels: Tensor) -> Tensor:
    """Labels aligned with the inputs (B, S), moved so that the target of position t stands at t."""
    return functional.pad(labels[:, 1:], (0, 1), value=IGNORED)


def mean_loss(sums: dict[str, Tensor], weight_sum: Tensor, num_items: Tensor | float | None) -> Tensor:
    """The loss of a batch from its weighted sums.

    Args:
        sums: by kind of loss.
        weight_sum: sum of the weights of the batch, its divisor where none is given.
        num_items: another divisor, such as that of several batches.
    """
    total = torch.stack(list(sums.values())).sum()
    divisor = weight_sum.clamp(min=torch.finfo(weight_sum.dtype).tiny) if num_items is None else num_items
    return total / divisor


def select(
    heads: GroundingHeads,
    hidden: Tensor,
    state: GroundingState,
    supervision: Supervision,
    membership: Membership,
    loss_weights: Tensor | None,
    settings: GroundingSettings,
) -> SelectionTargets:
    """Teacher-forced selection logits, computed only where they are supervised.

    Args:
        heads: the pointing heads.
        hidden: (B, S, H) states before the final norm.
        state: what the prompt pass kept.
        supervision: what to predict.
        membership: of every token.
        loss_weights: (B, S) text weights or None.
        settings: scale, masks and the input of the location head.
    """
    logits = {
        "patch": _patch_logits(heads, hidden, state, supervision, membership, settings),  # (M, P + 1)
        "subpatch": _subpatch_logits(heads, hidden, state, supervision),  # (M, K)
    }
    if heads.location is not None:
        logits["location"] = _location_logits(heads, heads.location, hidden, supervision, settings)  # (M, L)

    targets = dict(supervision.selections)
    last = logits["patch"].shape[1] - 1
    targets["patch"] = targets["patch"].masked_fill(targets["patch"] == NO_MORE_POINTS, last)

    selected = SelectionTargets({}, {}, {})
    for kind, scores in logits.items():
        selected.logits[kind] = scores.to(hidden.device)
        selected.targets[kind] = targets[kind]
        selected.weights[kind] = weights_at(*supervision.predictors[kind], loss_weights)
    return selected


def _patch_logits(
    heads: GroundingHeads,
    hidden: Tensor,
    state: GroundingState,
    supervision: Supervision,
    membership: Membership,
    settings: GroundingSettings,
) -> Tensor:
    """Scaled and masked patch logits (M, P + 1) of every supervised PATCH token."""
    rows, columns = supervision.predictors["patch"]
    previous = supervision.history.selection[rows, columns]  # (M,)
    positions = state.positions_of(rows, previous)  # (M,)

    # Rows have their own keys, so the queries of a row are brought side by side: (B, Q, H).
    row_starts = torch.searchsorted(rows.contiguous(), torch.arange(len(hidden), device=rows.device))  # (B,)
    rank = torch.arange(len(rows), device=rows.device) - row_starts[rows]  # (M,)
    longest = int(rank.max()) + 1 if len(rank) else 0
    queries = hidden.new_zeros((len(hidden), longest, hidden.shape[-1])).index_put(
        (rows, rank), hidden[rows, columns]
    )
    places = positions.new_zeros((len(hidden), longest)).index_put((rows, rank), positions)  # (B, Q)
    scores = heads.patch(heads.norm(queries), places, state.patch_keys).to(hidden.device)  # (B, Q, P + 1)
    logits = scores[rows, rank]  # (M, P + 1)

    example = membership.examples[rows, columns]  # (M,)
    is_own = state.example_of_patch[rows] == example.unsqueeze(1)  # (M, P)
    scale = patch_scale(settings.patch_logit_scale, is_own.sum(1), settings.patch_embed_dim)
    if isinstance(scale, Tensor):
        scale = scale.unsqueeze(1)  # (M, 1)
    allowed = is_own & state.patch_key_mask[rows]
    if settings.masks_patches:
        earliest = _earliest_patches(supervision, membership)  # (M,)
        patch_ids = torch.arange(is_own.shape[1], device=rows.device)
        allowed = allowed & (patch_ids >= earliest.unsqueeze(1))
    allowed = functional.pad(allowed, (0, 1), value=True)  # no more points
    return (logits * scale).masked_fill(~allowed, torch.finfo(logits.dtype).min)


def _earliest_patches(supervision: Supervision, membership: Membership) -> Tensor:
    """(M,) the previous patch of each PATCH token's list, below which none may be chosen; 0 at the start of a
    list.
    """
    rows, columns = supervision.predictors["patch"]
    previous = supervision.history.selection[rows, columns]
    before = supervision.history.column[rows, columns].clamp(min=0)
    same_branch = membership.branches[rows, before] == membership.branches[rows, columns + 1]
    same_example = membership.examples[rows, before] == membership.examples[rows, columns]
    return torch.where(same_branch & same_example & (previous >= 0), previous, 0)


def _subpatch_logits(
    heads: GroundingHeads, hidden: Tensor, state: GroundingState, supervision: Supervision
) -> Tensor:
    """Logits (M, K) of every supervised SUBPATCH token, over the slots of the patch chosen before it."""
    rows, columns = supervision.predictors["subpatch"]
    slots = state.slots_of(rows, supervision.history.selection[rows, columns])  # (M, K)
    return heads.subpatch(heads.norm(hidden[rows, columns]), state.vit_features_of(slots))


def _location_logits(
    heads: GroundingHeads,
    head: LocationHead,
    hidden: Tensor,
    supervision: Supervision,
    settings: GroundingSettings,
) -> Tensor:
    """Logits (M, L) of every supervised LOCATION token."""
    rows, columns = supervision.predictors["location"]
    states = hidden[rows, columns]  # (M, H)
    return head(heads.norm(states) if settings.norms_location else states)
