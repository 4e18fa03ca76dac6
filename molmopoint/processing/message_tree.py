"""Training rows: one visual trunk, and conversations about it that do not see each other.

    [BOS][pictures]  [branch 0]  [branch 1] ... [branch K-1]        positions of every branch go on from the trunk

Every answer is followed by the end-of-answer token as **target** only: the last position of a branch predicts it, and the
next branch starts in its place. So a branch is supervised exactly as the same conversation alone.

Letters: S tokens of the row, P image tokens, K slots per image token, N crops or frames, G ViT patches per crop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molmopoint.errors import ProcessingError
from molmopoint.processing.answers import EncodedText, encode_answer, encode_prompt
from molmopoint.tokens import NO_SELECTION

IGNORED = -100
"""Label of a position that carries no loss."""

TRUNK = -1
"""Branch id of tokens that every branch sees."""


@dataclass(frozen=True, eq=False)
class Trunk:
    """What all conversations share: beginning of sequence and the pictures or the clip.

    Attributes:
        input_ids: (n,) int64, image tokens expanded.
        mm_token_type_ids: (n,) int64, 1 at vision tokens.
        pixel_values: (N, G, patch values) crops or frames; None without pictures.
        pooling: (P, K) ViT patches of each image token, numbered over this sample; -1 for an empty slot.
    """

    input_ids: Tensor
    mm_token_type_ids: Tensor
    pixel_values: Tensor | None = None
    pooling: Tensor | None = None

    @classmethod
    def from_processor(cls, inputs: Mapping[str, Any]) -> Trunk:
        """Reads the output of the processor for one sample whose text is nothing but the placeholders of its pictures.

        Raises:
            ProcessingError: more than one row, or pictures and a clip together.
        """
        ids = torch.as_tensor(inputs["input_ids"])
        if ids.ndim != 2 or len(ids) != 1:
            raise ProcessingError(f"expected the processor's output for one sample, input_ids (1, n), got {tuple(ids.shape)}")
        visual = [
            (inputs[pixels], inputs[pooling])
            for pixels, pooling in (("pixel_values", "image_token_pooling"), ("pixel_values_videos", "video_token_pooling"))
            if inputs.get(pixels) is not None
        ]
        if len(visual) > 1:
            raise ProcessingError("expected pictures or a clip in one sample, got both; pack two rows instead")
        pixels, pooling = (torch.as_tensor(part) for part in visual[0]) if visual else (None, None)
        types = torch.as_tensor(inputs["mm_token_type_ids"])[0].long()
        return cls(ids[0].long(), types, pixels, None if pooling is None else pooling.long())

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Turn:
    """A user message with the answer's header, and the answer."""

    prompt: EncodedText
    answer: EncodedText


def encode_conversation(turns: Sequence[tuple[str, Sequence[Any]]], tokenizer: Any) -> tuple[Turn, ...]:
    """A branch from (user text, pieces of the answer) pairs; pieces as `write_answer` gives them."""
    return tuple(
        Turn(encode_prompt(text, tokenizer, follows_answer=i > 0), encode_answer(pieces, tokenizer))
        for i, (text, pieces) in enumerate(turns)
    )


@dataclass(frozen=True)
class MessageTree:
    """A trunk and its branches, each a conversation of one or more turns.

    Raises:
        ProcessingError: no branch, a branch without turns, or an empty answer.
    """

    trunk: Trunk
    branches: Sequence[Sequence[Turn]]

    def __post_init__(self) -> None:
        if not self.branches or any(not branch for branch in self.branches):
            raise ProcessingError("expected one or more branches of one or more turns, got an empty one; leave empty conversations out")
        if any(not len(turn.answer) for branch in self.branches for turn in branch):
            raise ProcessingError('expected an answer in every turn, got an empty one; nothing to point at is "There are none."')


@dataclass(frozen=True)
class LossWeighting:
    """How much the targets of a row count; only the relation between rows matters.

    Attributes:
        factor: of every target; 0.2 for pointing and tracking in the published fine-tuning, 0.1 for clip captions.
        root_length: c of c / sqrt(n) for a branch with n targets, 2 in the published code; None leaves length out.
        root_branches: divide by the root of the number of branches.

    Source: Molmo2 report, section on token weighting, and the public training code: in a tree, n leaves the end-of-answer
        token of the branch out; a single conversation counts it.
    """

    factor: float = 1.0
    root_length: float | None = None
    root_branches: bool = False

    def of_branch(self, num_targets: int, num_branches: int) -> float:
        """Weight of each of the `num_targets` targets (end of answer included) of one of `num_branches` branches."""
        weight = self.factor
        if self.root_length is not None:
            counted = num_targets if num_branches == 1 else max(num_targets - 1, 1)
            weight *= self.root_length / counted**0.5
        return weight / num_branches**0.5 if self.root_branches else weight


@dataclass(frozen=True, eq=False)
class TrainingRow:
    """One row of a training batch: a tree, or several packed examples.

    Attributes:
        input_ids: (S,) plain token ids.
        selection_ids: (S,) what each grounding token selects, patches counted over the row.
        shift_labels: (S,) target of each position, IGNORED where there is none.
        loss_weights: (S,) float32 weight of that target.
        position_ids: (S,) restart at the trunk's end with each branch, and at 0 with each packed example.
        example_ids: (S,) number of the packed example, from 0.
        branch_ids: (S,) number of the branch within its example, TRUNK for the shared part.
        mm_token_type_ids: (S,) 1 at vision tokens.
        pixel_values: (N, G, patch values) of all pictures and frames of the row; None without any.
        pooling: (P, K) ViT patches of each image token, numbered over the row; None without pictures.
    """

    input_ids: Tensor
    selection_ids: Tensor
    shift_labels: Tensor
    loss_weights: Tensor
    position_ids: Tensor
    example_ids: Tensor
    branch_ids: Tensor
    mm_token_type_ids: Tensor
    pixel_values: Tensor | None = None
    pooling: Tensor | None = None

    def __len__(self) -> int:
        return len(self.input_ids)


def build_row(
    tree: MessageTree,
    end_token_id: int,
    weighting: LossWeighting | None = None,
    *,
    max_length: int | None = None,
    rng: np.random.Generator | None = None,
) -> TrainingRow:
    """Lays a tree out as one row.

    Args:
        tree: trunk and branches.
        end_token_id: what ends an answer, `tokenizer.eos_token_id`.
        weighting: of the targets; the default counts each one once.
        max_length: S at most. Branches without a target inside it are left out with all later ones, the last one is cut.
        rng: shuffles the branches; None keeps their order.

    Raises:
        ProcessingError: not even the first branch has a target inside `max_length`.
    """
    order = range(len(tree.branches)) if rng is None else rng.permutation(len(tree.branches)).tolist()
    branches = _branches_that_fit([_lay_out_branch(tree.branches[i], end_token_id) for i in order], len(tree.trunk), max_length)
    weighting = weighting or LossWeighting()
    trunk = len(tree.trunk)
    lengths = [len(ids) for ids, _, _ in branches]
    weights = [weighting.of_branch(int((labels != IGNORED).sum()), len(branches)) for _, _, labels in branches]
    labels = _join([np.full(trunk, IGNORED), *(labels for _, _, labels in branches)], max_length)
    per_token = torch.from_numpy(np.repeat([0.0, *weights], [trunk, *lengths])[:max_length].astype(np.float32))
    input_ids = _join([tree.trunk.input_ids.numpy(), *(ids for ids, _, _ in branches)], max_length)
    types = torch.zeros_like(input_ids)
    types[:trunk] = tree.trunk.mm_token_type_ids
    return TrainingRow(
        input_ids=input_ids,
        selection_ids=_join([np.full(trunk, NO_SELECTION), *(selections for _, selections, _ in branches)], max_length),
        shift_labels=labels,
        loss_weights=torch.where(labels == IGNORED, 0.0, per_token),
        position_ids=_join([np.arange(trunk), *(np.arange(trunk, trunk + n) for n in lengths)], max_length),
        example_ids=torch.zeros_like(input_ids),
        branch_ids=_join([np.repeat([TRUNK, *range(len(branches))], [trunk, *lengths])], max_length),
        mm_token_type_ids=types,
        pixel_values=tree.trunk.pixel_values,
        pooling=tree.trunk.pooling,
    )


def _lay_out_branch(turns: Sequence[Turn], end_token_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, selections and labels of a branch; the position before each answer token predicts it, the last one the end."""
    ids, selections, labels = [], [], []
    for turn in turns:
        ids += [turn.prompt.ids, turn.answer.ids]
        selections += [turn.prompt.selections, turn.answer.selections]
        if not len(turn.prompt):
            raise ProcessingError("expected a prompt before every answer, got none; its last token predicts the answer's first")
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
        raise ProcessingError(f"expected a target within max_length {max_length}, got a first one at {start} or later; use fewer crops")
    return kept


def _join(parts: Sequence[np.ndarray], max_length: int | None) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)[:max_length].astype(np.int64))
