"""Rows and batches: the one form in which requests, training examples and lists of answers reach a model.

A row is made once, by whoever knows its text and pictures. What it is for decides which columns it has: a
request has ids alone, a training row has targets and branches, a row of answers to be judged has the places
where they are read. One `collate` makes a batch of them, one `pack` puts several into one row whose examples
do not see each other.

Numbers that count something move when the things before it do: patch selections by the image tokens, pooling
tables by the ViT patches of the examples before (in a packed row) or of the rows before (in a batch). Tables
of pictures and of clips have different widths; the narrower ones get empty slots.

Letters: B rows, S tokens of a row, N crops or frames, G ViT patches per crop, P image tokens, K slots per
image token, H text width, R answers to be judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from molmopoint.errors import ProcessingError
from molmopoint.geometry import EMPTY_SLOT
from molmopoint.tokens import NO_SELECTION

IGNORED = -100
"""Label of a position that carries no loss."""

TRUNK = -1
"""Branch id of tokens that every branch sees."""

PADDING_EXAMPLE = -1
"""Example id of padding: it belongs to nobody."""

NO_RESPONSE = -1
"""Place of an answer that is not there."""

NO_PATCH_TOKEN = -1
"""For `pack`: no token of the model selects a place, as in a Molmo2."""

PIXELS_OF = {
    False: ("pixel_values", "image_token_pooling"),
    True: ("pixel_values_videos", "video_token_pooling"),
}
"""Names of pixels and pooling table in model input, by whether they are frames of a clip."""

_FILL: dict[str, float] = {
    "selection_ids": NO_SELECTION,
    "shift_labels": IGNORED,
    "loss_weights": 0.0,
    "position_ids": 0,
    "example_ids": PADDING_EXAMPLE,
    "branch_ids": TRUNK,
    "mm_token_type_ids": 0,
}
"""Columns of a row beside its ids, and what stands in them at padding."""


Column = Any
"""A tensor, or None where a row has no such column; whoever reads one knows what its row is for."""


@dataclass(frozen=True, eq=False)
class Row:
    """One row of model input.

    Attributes:
        input_ids: (S,) int64 plain token ids, image tokens expanded.
        mm_token_type_ids: (S,) int64, 1 at vision tokens.
        pixel_values: (N, G, patch values) crops of pictures, or frames of a clip; None without any.
        pooling: (P, K) ViT patches of each image token, numbered over the row; -1 for an empty slot. None
            without pictures.
        grids: (pictures, 4) rows and columns of image tokens of each picture's overview, then of its canvas.
            None for models that do not ask for them.
        selection_ids: (S,) what each grounding token selects, patches counted over the row; nothing if not
            given.
        position_ids: (S,) restart at the trunk's end with each branch, and at 0 with each packed example;
            None counts from 0.
        example_ids: (S,) number of the packed example, from 0; None is one example.
        branch_ids: (S,) number of the branch within its example, TRUNK for the shared part; None is a trunk
            alone.
        shift_labels: (S,) target of each position, IGNORED where there is none; None without targets.
        loss_weights: (S,) float32 weight of that target; None without targets.
        response_starts: (R,) token at which each answer to be judged begins, branch after branch: the blank
            line behind the separator, but for the first one. None without answers.
        response_words: (R,) first token of its own words, which differs for all but the first one; None
            without answers.
        response_positions: (R,) token at which each answer is read; None without answers.
        image_features: (P, H) what the connector made of the pictures; stands in for pixels and table that
            were seen before.
        is_clip: whether the pixels are frames of a clip.
    """

    input_ids: Tensor
    mm_token_type_ids: Tensor
    pixel_values: Column = None
    pooling: Column = None
    grids: Column = None
    selection_ids: Column = None
    position_ids: Column = None
    example_ids: Column = None
    branch_ids: Column = None
    shift_labels: Column = None
    loss_weights: Column = None
    response_starts: Column = None
    response_words: Column = None
    response_positions: Column = None
    image_features: Column = None
    is_clip: bool = False

    @classmethod
    def from_processor(cls, inputs: Mapping[str, Any]) -> Self:
        """Reads the output of the processor for one sample.

        Raises:
            ProcessingError: more than one row, or pictures and a clip together.
        """
        ids = torch.as_tensor(inputs["input_ids"])
        if ids.ndim != 2 or len(ids) != 1:
            raise ProcessingError(
                f"expected the processor's output for one sample, input_ids (1, n), got {tuple(ids.shape)}"
            )
        given = [is_clip for is_clip, (pixels, _) in PIXELS_OF.items() if inputs.get(pixels) is not None]
        if len(given) > 1:
            raise ProcessingError(
                "expected pictures or a clip in one sample, got both; pack two rows instead"
            )
        row = cls(ids[0].long(), torch.as_tensor(inputs["mm_token_type_ids"])[0].long())
        columns: dict[str, Any] = dict(vars(row))
        if inputs.get("selection_ids") is not None:
            columns["selection_ids"] = torch.as_tensor(inputs["selection_ids"])[0].long()
        if given:
            pixels, pooling = PIXELS_OF[given[0]]
            columns["pixel_values"] = torch.as_tensor(inputs[pixels])
            columns["pooling"] = torch.as_tensor(inputs[pooling]).long()
            columns["is_clip"] = given[0]
        return cls(**columns)

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_crops(self) -> int:
        """Crops or frames; pictures, where a model takes them in any size, uncut."""
        if self.pixel_values is None:
            return 0
        if self.grids is not None and self.pixel_values.shape[1] == 1:
            return len(self.grids)
        return len(self.pixel_values)

    def column(self, name: str) -> Tensor:
        """(S,) a column by name, with what stands for it where the row does not have it."""
        given = getattr(self, name)
        if given is not None:
            return given
        if name == "position_ids":
            return torch.arange(len(self))
        if name == "example_ids":
            return torch.zeros_like(self.input_ids)
        if name == "loss_weights":
            return torch.zeros(len(self))
        return torch.full_like(self.input_ids, int(_FILL[name]))


def pack(rows: Sequence[Row], patch_token_id: int) -> Row:
    """Several rows as one whose examples do not see each other.

    Args:
        rows: one or more; rows that are packed already may be packed again.
        patch_token_id: the PATCH token, whose selections count over the row.

    Raises:
        ProcessingError: no rows, or crops of different sizes.
    """
    if not rows:
        raise ProcessingError("expected one or more rows to pack, got none")
    selections, examples = [], []
    num_patches = num_examples = 0
    for row in rows:
        own_selections = row.column("selection_ids")
        own_examples = row.column("example_ids")
        is_patch = (row.input_ids == patch_token_id) & (own_selections >= 0)
        selections.append(own_selections + num_patches * is_patch)
        examples.append(own_examples + num_examples)
        num_patches += 0 if row.pooling is None else len(row.pooling)
        num_examples += int(own_examples.max()) + 1
    pixel_values, pooling = _join_visual(rows)
    columns: dict[str, Any] = {"selection_ids": torch.cat(selections), "example_ids": torch.cat(examples)}
    for name in _columns_of(rows):
        if name not in columns:
            columns[name] = torch.cat([row.column(name) for row in rows])
    return Row(
        input_ids=torch.cat([row.input_ids for row in rows]),
        pixel_values=pixel_values,
        pooling=pooling,
        grids=_joined_grids(rows),
        **columns,
    )


def collate(
    rows: Sequence[Row],
    pad_token_id: int,
    padding_side: Literal["left", "right"] = "right",
    *,
    clips_apart: bool = False,
) -> dict[str, Tensor]:
    """A batch of rows: arguments of a model's forward pass, or of `generate`.

    Args:
        rows: one or more.
        pad_token_id: id at padding.
        padding_side: where shorter rows are filled up.
        clips_apart: give frames of clips under their own names, so that the slots of a row are as many as its
            own table has; the places that `generate` returns are numbered by them. Without it frames are
            crops among the others.

    Returns:
        input_ids, selection_ids, attention_mask and mm_token_type_ids (B, S), and each further column that a
        row has: position_ids, example_ids, branch_ids, shift_labels and loss_weights (B, S); response_starts,
        response_words and response_positions (B, R), -1 where a row has fewer answers. If any row has
        pictures, pixel_values (N, G, patch values) flat over the call and image_token_pooling (P of all rows,
        K), numbered over the call, and image_grids (pictures, 4) where rows have them; or image_features (P
        of all rows, H), if rows have them.

    Raises:
        ProcessingError: no rows, crops of different sizes, or features in some rows and pixels in others.
    """
    if not rows:
        raise ProcessingError("expected one or more rows for a batch, got none")
    length = max(len(row) for row in rows)

    def filled(columns: Sequence[Tensor], value: float) -> Tensor:
        padded = []
        for column in columns:
            missing = length - len(column)
            sides = (0, missing) if padding_side == "right" else (missing, 0)
            padded.append(pad(column, sides, value=value))
        return torch.stack(padded)

    batch = {"input_ids": filled([row.input_ids for row in rows], pad_token_id)}
    for name in _columns_of(rows):
        batch[name] = filled([row.column(name) for row in rows], _FILL[name])
    batch["attention_mask"] = filled([torch.ones_like(row.input_ids) for row in rows], 0)
    batch |= _responses(rows, length, padding_side)
    return batch | _visual_input(rows, clips_apart)


def join_pooling(tables: Sequence[Tensor], num_patches: Sequence[int]) -> Tensor:
    """Pooling tables (P, K) of several samples as one (P of all, largest K), narrower ones filled up with
    empty slots.

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


def _columns_of(rows: Sequence[Row]) -> list[str]:
    """Names of the columns that one of the rows has; every row has selections and types."""
    always = ("selection_ids", "mm_token_type_ids")
    return [name for name in _FILL if name in always or any(getattr(row, name) is not None for row in rows)]


def _responses(rows: Sequence[Row], length: int, padding_side: str) -> dict[str, Tensor]:
    """Places of answers (B, R), moved by the padding before them."""
    batch = {}
    for name in ("response_starts", "response_words", "response_positions"):
        places = [getattr(row, name) for row in rows]
        if any(given is None for given in places):
            continue
        most = max(len(given) for given in places)
        moved = []
        for row, given in zip(rows, places, strict=True):
            before = length - len(row) if padding_side == "left" else 0
            moved.append(pad(given + before, (0, most - len(given)), value=NO_RESPONSE))
        batch[name] = torch.stack(moved)
    return batch


def _visual_input(rows: Sequence[Row], clips_apart: bool) -> dict[str, Tensor]:
    """Pixels with their tables, or features that were made of them."""
    batch = {}
    groups = {False: [row for row in rows if not row.is_clip], True: [row for row in rows if row.is_clip]}
    if not clips_apart:
        groups = {False: list(rows)}
    for is_clip, members in groups.items():
        pixel_values, pooling = _join_visual(members)
        if pixel_values is not None and pooling is not None:
            pixels_name, pooling_name = PIXELS_OF[is_clip]
            batch[pixels_name] = pixel_values
            batch[pooling_name] = pooling
    grids = _joined_grids(rows)
    if grids is not None:
        batch["image_grids"] = grids
    features = [row.image_features for row in rows if row.image_features is not None]
    if features and batch:
        with_pixels = sum(row.pixel_values is not None for row in rows)
        raise ProcessingError(
            f"expected features or pixels in all rows, got features in {len(features)} and pixels in "
            f"{with_pixels}"
        )
    if features:
        batch["image_features"] = torch.cat(features)
    return batch


def _joined_grids(rows: Sequence[Row]) -> Tensor | None:
    """(pictures, 4) of all rows; None where no row has any."""
    grids = [row.grids for row in rows if row.grids is not None]
    return torch.cat(grids) if grids else None


def _join_visual(rows: Sequence[Row]) -> tuple[Tensor | None, Tensor | None]:
    """All crops, and one table that numbers their ViT patches in that order; None without pictures."""
    seen = [
        (row.pixel_values, row.pooling)
        for row in rows
        if row.pixel_values is not None and row.pooling is not None
    ]
    if not seen:
        return None, None
    shapes = {tuple(pixels.shape[1:]) for pixels, _ in seen}
    if len(shapes) > 1:
        raise ProcessingError(
            f"expected crops of one size in a batch, got {sorted(shapes)}; process all samples with one "
            "processor"
        )
    num_patches = [pixels.shape[0] * pixels.shape[1] for pixels, _ in seen]
    pooling = join_pooling([table for _, table in seen], num_patches)
    return torch.cat([pixels for pixels, _ in seen]), pooling
