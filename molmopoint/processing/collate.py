"""Rows to batches: packing several examples into one row, and padding rows to one length.

Numbers that count something move when the things before it do: patch selections by the image tokens, pooling tables by the
ViT patches of the examples before (in a packed row) or of the rows before (in a batch). Tables of pictures and of clips have
different widths; the narrower ones get empty slots.

Letters: B rows, S tokens per row, P image tokens, K slots, N crops or frames, G ViT patches per crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from molmopoint.errors import ProcessingError
from molmopoint.geometry import EMPTY_SLOT
from molmopoint.processing.message_tree import IGNORED, TRUNK, TrainingRow
from molmopoint.tokens import NO_SELECTION

PADDING_EXAMPLE = -1
"""Example id of padding: it belongs to nobody."""


def pack(rows: Sequence[TrainingRow], patch_token_id: int) -> TrainingRow:
    """Several rows as one whose examples do not see each other.

    Args:
        rows: one or more; rows that are packed already may be packed again.
        patch_token_id: the PATCH token, whose selections count over the row.

    Raises:
        ProcessingError: no rows.
    """
    if not rows:
        raise ProcessingError("expected one or more rows to pack, got none")
    selections, examples, num_patches, num_examples = [], [], 0, 0
    for row in rows:
        is_patch = (row.input_ids == patch_token_id) & (row.selection_ids >= 0)
        selections.append(row.selection_ids + num_patches * is_patch)
        examples.append(row.example_ids + num_examples)
        num_patches += 0 if row.pooling is None else len(row.pooling)
        num_examples += int(row.example_ids.max()) + 1
    pixel_values, pooling = _join_visual(rows)
    unchanged = ("input_ids", "shift_labels", "loss_weights", "position_ids", "branch_ids", "mm_token_type_ids")
    return TrainingRow(
        selection_ids=torch.cat(selections),
        example_ids=torch.cat(examples),
        pixel_values=pixel_values,
        pooling=pooling,
        **{name: torch.cat([getattr(row, name) for row in rows]) for name in unchanged},
    )


def collate(rows: Sequence[TrainingRow], pad_token_id: int, padding_side: Literal["left", "right"] = "right") -> dict[str, Tensor]:
    """A training batch: the arguments of the model's forward pass.

    Args:
        rows: one or more.
        pad_token_id: id at padding.
        padding_side: where shorter rows are filled up.

    Returns:
        input_ids, selection_ids, shift_labels, loss_weights, attention_mask, position_ids, example_ids, branch_ids and
        mm_token_type_ids, all (B, S); and, if any row has pictures, pixel_values (N, G, patch values) flat over the call
        and image_token_pooling (P of all rows, K), numbered over the call. Frames of clips are crops among the others.

    Raises:
        ProcessingError: no rows, or crops of different sizes.
    """
    if not rows:
        raise ProcessingError("expected one or more rows for a batch, got none")
    fill = {
        "input_ids": pad_token_id,
        "selection_ids": NO_SELECTION,
        "shift_labels": IGNORED,
        "loss_weights": 0.0,
        "position_ids": 0,
        "example_ids": PADDING_EXAMPLE,
        "branch_ids": TRUNK,
        "mm_token_type_ids": 0,
    }
    length = max(map(len, rows))
    columns = [field.name for field in fields(TrainingRow) if field.name in fill]
    batch = {name: torch.stack([_fill_up(getattr(row, name), length, fill[name], padding_side) for row in rows]) for name in columns}
    batch["attention_mask"] = torch.stack([_fill_up(torch.ones_like(row.input_ids), length, 0, padding_side) for row in rows])
    pixel_values, pooling = _join_visual(rows)
    if pixel_values is not None and pooling is not None:
        batch |= {"pixel_values": pixel_values, "image_token_pooling": pooling}
    return batch


def _fill_up(column: Tensor, length: int, value: float, side: Literal["left", "right"]) -> Tensor:
    missing = length - len(column)
    return pad(column, (0, missing) if side == "right" else (missing, 0), value=value)


def join_pooling(tables: Sequence[Tensor], num_patches: Sequence[int]) -> Tensor:
    """Pooling tables (P, K) of several samples as one (P of all, largest K), narrower ones filled up with empty slots.

    Args:
        tables: one or more, each counting from 0 over its own ViT patches.
        num_patches: ViT patches of each sample; the result counts over all of them.
    """
    width = max(table.shape[1] for table in tables)
    joined, first = [], 0
    for table, count in zip(tables, num_patches, strict=True):
        moved = torch.where(table >= 0, table + first, EMPTY_SLOT)
        joined.append(pad(moved, (0, width - table.shape[1]), value=EMPTY_SLOT))
        first += count
    return torch.cat(joined)


def _join_visual(rows: Sequence[TrainingRow]) -> tuple[Tensor | None, Tensor | None]:
    """All crops, and one table that numbers their ViT patches in that order; None without pictures."""
    seen = [(row.pixel_values, row.pooling) for row in rows if row.pixel_values is not None and row.pooling is not None]
    if not seen:
        return None, None
    if len(shapes := {tuple(pixels.shape[1:]) for pixels, _ in seen}) > 1:
        raise ProcessingError(f"expected crops of one size in a batch, got {sorted(shapes)}; process all samples with one processor")
    num_patches = [pixels.shape[0] * pixels.shape[1] for pixels, _ in seen]
    return torch.cat([pixels for pixels, _ in seen]), join_pooling([pooling for _, pooling in seen], num_patches)
