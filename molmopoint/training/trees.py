"""Rows on the same pictures as one message tree: grouping, shuffling, and the tree as a training row."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch

from molmopoint.backends import Backend, PointWriter
from molmopoint.backends.clips import ClipOptions
from molmopoint.backends.media import RequestMedia
from molmopoint.data.records import TRACK_STYLES, Record
from molmopoint.processing.chat import ChatWriter, Media
from molmopoint.processing.message_tree import MessageTree, Turn, build_row
from molmopoint.processing.rows import IGNORED, Row
from molmopoint.training.formatting import (
    Conversation,
    FormattingRules,
    expressions,
    format_record,
    join_turns,
)
from molmopoint.training.sources import Example


def group_records(records: Iterable[Record], max_points: int = 60) -> list[tuple[Record, ...]]:
    """Expressions on the same visual input together, in the order of the rows; at most `max_points` points in
    a group.

    Rows without visual input stay alone: they share nothing. A track of more points than the limit has a
    group of its own.

    Args:
        records: rows in any order; those with several point labels are taken apart.
        max_points: of a group, and of an expression.

    Returns:
        Groups in the order of their first rows.

    Raises:
        ProcessingError: an expression has too many points, see `expressions`.
    """
    groups: list[list[Record]] = []
    last_of_visual: dict[Hashable, int] = {}
    points: list[int] = []
    for whole in records:
        for record in expressions(whole, max_points):
            count = record.num_points
            place = last_of_visual.get(record.visual) if any(record.visual) else None
            if place is None or points[place] + count > max_points:
                place = len(groups)
                last_of_visual[record.visual] = place
                groups.append([])
                points.append(0)
            groups[place].append(record)
            points[place] += count
    return [tuple(group) for group in groups]


def format_tree(
    group: Sequence[Record],
    writer: PointWriter | None,
    rng: np.random.Generator,
    rules: FormattingRules | None = None,
) -> tuple[Conversation, ...]:
    """Conversations of a group in a drawn order; every draw may give other styles, templates and another
    order.

    Raises:
        ProcessingError: as `format_record`, naming the row.
    """
    rules = rules or FormattingRules()
    order = rng.permutation(len(group)).tolist()
    conversations = tuple(format_record(group[i], writer, rng, rules) for i in order)
    may_share = len(group) > 1 and all(_may_share_a_conversation(record) for record in group)
    if may_share and rules.multi_turn and rng.random() < rules.multi_turn:
        return (join_turns(conversations),)
    return conversations


def _may_share_a_conversation(record: Record) -> bool:
    """Whether this is a request for points in a clip, alone and no track. Source: public training code."""
    return (
        record.video is not None
        and record.is_pointing
        and not record.turns
        and record.style not in TRACK_STYLES
    )


def media_of(record: Record) -> tuple[Media, int]:
    """What a row is about, and how many pictures or clips that is."""
    if record.video is not None:
        return "video", 1
    return "image", len(record.images)


def read_media(backend: Backend, example: Example) -> RequestMedia:
    """The pictures or the clip of an example, as `Pointer` would see them.

    Raises:
        ProcessingError: a picture or clip is missing or broken.
    """
    if example.clip is not None:
        return backend.requests.process_video(example.clip, ClipOptions())
    return backend.requests.process_images(list(example.pictures) or None)


def training_row(
    backend: Backend,
    example: Example,
    rng: np.random.Generator,
    rules: FormattingRules | None = None,
    *,
    max_length: int | None = None,
) -> Row:
    """The training row of an example; every draw of the generator may give other styles, templates and
    another order.

    Args:
        backend: of the model.
        example: rows on the same pictures or clip.
        rng: draws.
        rules: of formatting.
        max_length: tokens at most; branches that do not fit are left out, the last one is cut.

    Raises:
        ProcessingError: a picture is missing or broken, or a point lies outside of it.
    """
    media = read_media(backend, example)
    conversations = format_tree(example.records, backend.writer_of(media), rng, rules)
    trunk = backend.requests.build_trunk(media)
    return tree_row(trunk, conversations, backend.processor.chat, max_length=max_length)


def tree_row(
    trunk: Row, conversations: Sequence[Conversation], chat: ChatWriter, *, max_length: int | None = None
) -> Row:
    """A training row of a trunk and its conversations, each with the loss weighting of its own record.

    Args:
        trunk: what `RequestBuilder.build_trunk` made of the pictures of the group.
        conversations: one or more, in the order of the branches.
        chat: of the model.
        max_length: tokens at most; branches that do not fit are left out, the last one is cut.

    Raises:
        ProcessingError: no conversations, or not even the first one fits.
    """
    branches = [chat.conversation(each.turns, *media_of(each.record)) for each in conversations]
    row = build_row(MessageTree(trunk, branches), chat.tokenizer.eos_token_id, max_length=max_length)
    num_kept = int(row.branch_ids.max()) + 1
    weights = []
    for conversation, branch in zip(conversations, branches, strict=True):
        weights.append(conversation.weighting.of_branch(_num_targets(branch), num_kept))
    branch_of_token = row.branch_ids.clamp(min=0)  # (S,) of the trunk any will do, it has no targets
    per_token = torch.tensor(weights, dtype=torch.float32)[branch_of_token]  # (S,)
    return replace(row, loss_weights=torch.where(row.shift_labels == IGNORED, 0.0, per_token))


def _num_targets(branch: Sequence[Turn]) -> int:
    """Answer tokens of a branch and the end of each answer."""
    return sum(len(turn.answer) + 1 for turn in branch)
