"""Training rows: one visual trunk, and conversations about it that do not see each other.

    [BOS][pictures]  [branch 0]  [branch 1] ... [branch K-1]        positions of every branch go on from the trunk

Every answer is followed by the end-of-answer token as **target** only: the last position of a branch predicts
it, and the next branch starts in its place. So a branch is supervised exactly as the same conversation alone.

Letters: S tokens of the row, P image tokens, K slots per image token, N crops or frames, G ViT patches per
crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from molmopoint.errors import ProcessingError
from molmopoint.processing.grounding_answers import EncodedText
from molmopoint.processing.rows import IGNORED, TRUNK, Row
from molmopoint.tokens import NO_SELECTION


@dataclass(frozen=True)
class Turn:
    """A user message with the answer's header, and the answer."""

    prompt: EncodedText
    answer: EncodedText


@dataclass(frozen=True)
class MessageTree:
    """A trunk and its branches, each a conversation of one or more turns.

    Raises:
        ProcessingError: no branch, a branch without turns, or an empty answer.
    """

    trunk: Row
    branches: Sequence[Sequence[Turn]]

    def __post_init__(self) -> None:
        if not self.branches or any(not branch for branch in self.branches):
            raise ProcessingError(
                "expected one or more branches of one or more turns, got an empty one; leave empty "
                "conversations out"
            )
        if any(not len(turn.answer) for branch in self.branches for turn in branch):
            raise ProcessingError(
                'expected an answer in every turn, got an empty one; nothing to point at is "There are none."'
            )


@dataclass(frozen=True)
class LossWeighting:
    """How much the targets of a row count; only the relation between rows matters.

    Attributes:
        factor: of every target; 0.2 for pointing and tracking in the published fine-tuning, 0.1 for clip
            captions.
        root_length: c of c / sqrt(n) for a branch with n targets, 2 in the published code; None leaves length
            out.
        root_branches: divide by the root of the number of branches.

    Source: Molmo2 report, section on token weighting, and the public training code: in a tree, n leaves the
        end-of-answer token of the branch out; a single conversation counts it.
    """

    factor: float = 1.0
    root_length: float | None = None
    root_branches: bool = False

    def of_branch(self, num_targets: int, num_branches: int) -> float:
        """Weight of each of the `num_targets` targets (end of answer included) of one of `num_branches`
        branches.
        """
        weight = self.factor
        if self.root_length is not None:
            counted = num_targets if num_branches == 1 else max(num_targets - 1, 1)
            weight *= self.root_length / counted**0.5
        return weight / num_branches**0.5 if self.root_branches else weight


def build_row(
    tree: MessageTree,
    end_token_id: int,
    weighting: LossWeighting | None = None,
    *,
    max_length: int | None = None,
    rng: np.random.Generator | None = None,
) -> Row:
    """Lays a tree out as one row.

    Args:
        tree: trunk and branches.
        end_token_id: what ends an answer, `tokenizer.eos_token_id`.
        weighting: of the targets; the default counts each one once.
        max_length: S at most. Branches without a target inside it are left out with all later ones, the last
            one is cut.
        rng: shuffles the branches; None keeps their order.

    Raises:
        ProcessingError: not even the first branch has a target inside `max_length`.
    """
    order = range(len(tree.branches))
    if rng is not None:
        order = rng.permutation(len(tree.branches)).tolist()
    laid_out = [_lay_out_branch(tree.branches[i], end_token_id) for i in order]
    branches = _branches_that_fit(laid_out, len(tree.trunk), max_length)

    weighting = weighting or LossWeighting()
    trunk = len(tree.trunk)
    ids = [tree.trunk.input_ids.numpy()]
    selections = [np.full(trunk, NO_SELECTION)]
    labels = [np.full(trunk, IGNORED)]
    weights = [np.zeros(trunk)]
    positions = [np.arange(trunk)]
    numbers = [np.full(trunk, TRUNK)]
    for number, (branch_ids, branch_selections, branch_labels) in enumerate(branches):
        length = len(branch_ids)
        num_targets = int((branch_labels != IGNORED).sum())
        ids.append(branch_ids)
        selections.append(branch_selections)
        labels.append(branch_labels)
        weights.append(np.full(length, weighting.of_branch(num_targets, len(branches))))
        positions.append(np.arange(trunk, trunk + length))
        numbers.append(np.full(length, number))

    input_ids = _join(ids, max_length)
    shift_labels = _join(labels, max_length)
    per_token = torch.from_numpy(np.concatenate(weights)[:max_length].astype(np.float32))
    types = torch.zeros_like(input_ids)
    types[:trunk] = tree.trunk.mm_token_type_ids
    return replace(
        tree.trunk,
        input_ids=input_ids,
        mm_token_type_ids=types,
        selection_ids=_join(selections, max_length),
        shift_labels=shift_labels,
        loss_weights=torch.where(shift_labels == IGNORED, 0.0, per_token),
        position_ids=_join(positions, max_length),
        example_ids=torch.zeros_like(input_ids),
        branch_ids=_join(numbers, max_length),
    )


def _lay_out_branch(turns: Sequence[Turn], end_token_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, selections and labels of a branch; the position before each answer token predicts it, the last one
    the end.
    """
    ids, selections, labels = [], [], []
    for turn in turns:
        if not len(turn.prompt):
            raise ProcessingError(
                "expected a prompt before every answer, got none; its last token predicts the answer's first"
            )
        ids += [turn.prompt.ids, turn.answer.ids]
        selections += [turn.prompt.selections, turn.answer.selections]
        # Labels stand one place to the left: the end of the answer is predicted where its last token stands.
        labels += [np.full(len(turn.prompt) - 1, IGNORED), turn.answer.ids, [end_token_id]]
    return np.concatenate(ids), np.concatenate(selections), np.concatenate(labels)


_Branch = tuple[np.ndarray, np.ndarray, np.ndarray]


def _branches_that_fit(branches: list[_Branch], start: int, max_length: int | None) -> list[_Branch]:
    """The first branches, up to the first one whose first target lies beyond `max_length`."""
    if max_length is None:
        return branches
    kept = []
    for branch in branches:
        if start + int(np.argmax(branch[2] != IGNORED)) >= max_length:
            break
        kept.append(branch)
        start += len(branch[0])
    if not kept:
        raise ProcessingError(
            f"expected a target within max_length {max_length}, got a first one at {start} or later; use "
            "fewer crops"
        )
    return kept


def _join(parts: Sequence[np.ndarray], max_length: int | None) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)[:max_length].astype(np.int64))
