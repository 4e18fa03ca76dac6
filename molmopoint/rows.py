"""What each token of a row is: image token, indexable, part of which example and branch, and what it selects.

Letters: B rows, S tokens per row, P image tokens per row (padded), T image tokens of the call, K slots, L
location cells.

Everything here is integer bookkeeping on `input_ids`; no feature and no weight is touched.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from molmopoint.config import GroundingSettings
from molmopoint.errors import GroundingError
from molmopoint.tokens import NO_MORE_POINTS, NO_SELECTION


@dataclass(frozen=True)
class RowLayout:
    """Where the image tokens of a batch are.

    Attributes:
        image_tokens: (B, S) True at image tokens, those of global crops included.
        patch_ids: (B, S) number of each image token within its row; elsewhere the number of the next one.
        num_patches: (B,) image tokens per row.
        rows, columns: (T,) position of every image token, row by row.
        patches: (T,) its patch id.
        indexable: (T,) True where it may be chosen.
        rotary_positions: (T,) its number among the indexable tokens of its example, never negative.
        examples: (T,) its packed example.
        max_patches: P, the largest number of image tokens of a row.
    """

    image_tokens: Tensor
    patch_ids: Tensor
    num_patches: Tensor
    rows: Tensor
    columns: Tensor
    patches: Tensor
    indexable: Tensor
    rotary_positions: Tensor
    examples: Tensor
    max_patches: int

    def scatter(self, values: Tensor, fill: int | float | bool) -> Tensor:
        """Spreads one value per image token (T, ...) over padded rows (B, P, ...)."""
        padded = values.new_full((len(self.num_patches), self.max_patches, *values.shape[1:]), fill)
        return padded.index_put((self.rows, self.patches), values)


def lay_out(
    input_ids: Tensor,
    settings: GroundingSettings,
    example_ids: Tensor | None = None,
    vision: Tensor | None = None,
) -> RowLayout:
    """Finds the image tokens of (B, S) token ids. The one place of a prompt pass that waits for the device.

    Args:
        input_ids: plain or extended ids.
        settings: supply the ids of image tokens.
        example_ids: (B, S) packed examples; one per row if not given.
        vision: (B, S) True where an image token really is one; elsewhere its id was generated, and stands for
            nothing.
    """
    indexable = input_ids == settings.image_patch_id
    image_tokens = indexable | (input_ids == settings.image_non_indexable_patch_id)
    if vision is not None:
        indexable, image_tokens = indexable & vision, image_tokens & vision
    examples = torch.zeros_like(input_ids) if example_ids is None else example_ids
    counts = image_tokens.cumsum(1)
    rows, columns = image_tokens.nonzero(as_tuple=True)
    patch_ids = counts - image_tokens.long()
    num_patches = counts[:, -1] if counts.shape[1] else counts.new_zeros(len(counts))
    return RowLayout(
        image_tokens=image_tokens,
        patch_ids=patch_ids,
        num_patches=num_patches,
        rows=rows,
        columns=columns,
        patches=patch_ids[rows, columns],
        indexable=indexable[rows, columns],
        rotary_positions=_positions_within(indexable, examples)[rows, columns],
        examples=examples[rows, columns],
        max_patches=int(num_patches.max()) if len(num_patches) else 0,
    )


def check_image_tokens(layout: RowLayout, table_rows: int) -> None:
    """Checks that every row of the pooling table has its image token.

    Raises:
        ValueError: another number of image tokens.
    """
    if len(layout.rows) != table_rows:
        raise ValueError(
            f"expected {table_rows} image tokens for the {table_rows} rows of the pooling table, got "
            f"{len(layout.rows)}; "
            "pass the ids and the pictures of the same processor call, truncated nowhere"
        )


def _positions_within(indexable: Tensor, examples: Tensor) -> Tensor:
    """Running number (B, S) of indexable tokens, from 0, restarting with each example; never negative."""
    before = indexable.cumsum(1) - indexable.long()
    starts = torch.ones_like(indexable)
    starts[:, 1:] = examples[:, 1:] != examples[:, :-1]
    base = torch.where(starts, before, 0).cummax(1).values
    return (before + indexable.long() - base - 1).clamp(min=0)


def split_extended(
    input_ids: Tensor, num_patches: Tensor, num_slots: Tensor, settings: GroundingSettings
) -> tuple[Tensor, Tensor]:
    """Splits token ids (B, S) that may be extended into plain ids and selections (B, S).

    Args:
        input_ids: plain and extended ids.
        num_patches: (B,) P of each row.
        num_slots: (B,) K of each row.
        settings: supply the plain ids and L.
    """
    n = input_ids - settings.extended_start
    first_slot = num_patches.unsqueeze(1) + 1
    first_location = first_slot + num_slots.unsqueeze(1)
    is_patch, is_slot = (n >= 0) & (n < first_slot), (n >= first_slot) & (n < first_location)
    is_location = n >= first_location
    patch = torch.where(n == first_slot - 1, NO_MORE_POINTS, n)
    selections = torch.full_like(input_ids, NO_SELECTION)
    plain = input_ids
    for where, token, chosen in (
        (is_patch, settings.patch_token_id, patch),
        (is_slot, settings.subpatch_token_id, n - first_slot),
        (is_location, settings.location_token_id, n - first_location),
    ):
        plain, selections = torch.where(where, token, plain), torch.where(where, chosen, selections)
    return plain, selections


class ExtendedIds:
    """Folds plain ids and selections into extended ids; the reverse of `split_extended`.

    Args:
        settings: supply the plain ids and the start.
        num_patches: (B,) P of each row.
        num_slots: (B,) K of each row.
    """

    def __init__(self, settings: GroundingSettings, num_patches: Tensor, num_slots: Tensor) -> None:
        self.subpatch_token_id, self.location_token_id = (
            settings.subpatch_token_id,
            settings.location_token_id,
        )
        self.first_patch = torch.full_like(num_patches, settings.extended_start)
        self.no_more_points = self.first_patch + num_patches
        self.first_slot = self.no_more_points + 1
        self.first_location = self.first_slot + num_slots

    def join(self, token_ids: Tensor, selections: Tensor) -> Tensor:
        """Extended ids (B,) of plain ids (B,) and selections (B,)."""
        first = torch.where(token_ids == self.subpatch_token_id, self.first_slot, self.first_patch)
        first = torch.where(token_ids == self.location_token_id, self.first_location, first)
        extended = torch.where(selections == NO_MORE_POINTS, self.no_more_points, first + selections)
        return torch.where(selections == NO_SELECTION, token_ids, extended)


@dataclass(frozen=True)
class PatchHistory:
    """For every position of a row, the last PATCH selection up to and including it.

    Attributes:
        column: (B, S) where that token stands, -1 if there is none.
        selection: (B, S) what it selected: a patch id, NO_MORE_POINTS, or NO_SELECTION if there is none.
    """

    column: Tensor
    selection: Tensor

    @classmethod
    def of(cls, input_ids: Tensor, selections: Tensor, settings: GroundingSettings) -> PatchHistory:
        """Reads plain ids and selections (B, S)."""
        chosen = (input_ids == settings.patch_token_id) & (selections != NO_SELECTION)
        columns = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        column = torch.where(chosen, columns, -1).cummax(1).values
        return cls(column, torch.where(column >= 0, selections.gather(1, column.clamp(min=0)), NO_SELECTION))


def check_selections(
    selections: Tensor, input_ids: Tensor, num_patches: Tensor, num_slots: Tensor, settings: GroundingSettings
) -> None:
    """Refuses selections that name no place of their row, before they index anything.

    Args:
        selections: (B, S).
        input_ids: (B, S) plain ids.
        num_patches: (B,) P of each row.
        num_slots: (B,) K of each row.
        settings: supply the grounding tokens and L.

    Raises:
        GroundingError: naming the kind, the range and the first offender.
    """
    is_patch, is_slot = input_ids == settings.patch_token_id, input_ids == settings.subpatch_token_id
    limit = torch.where(is_slot, num_slots.unsqueeze(1), settings.num_locations)
    limit = torch.where(is_patch, num_patches.unsqueeze(1), limit)
    lowest = torch.where(is_patch, NO_MORE_POINTS, NO_SELECTION)
    grounding = is_patch | is_slot | (input_ids == settings.location_token_id)
    bad = torch.where(grounding, (selections >= limit) | (selections < lowest), selections != NO_SELECTION)
    if bool(bad.any()):
        row, column = (int(i) for i in bad.nonzero()[0])
        raise GroundingError(
            f"expected a selection below {int(limit[row, column]) if grounding[row, column] else 0} at "
            f"token {column} of row {row}, "
            f"got {int(selections[row, column])}; selections count within their own row (packed examples "
            "are shifted by the image "
            "tokens before them) and stand only at PATCH, SUBPATCH and LOCATION tokens"
        )
