"""Packing and batching: what counts something moves, everything else stays as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.errors import ProcessingError
from molmopoint.processing.rows import IGNORED, TRUNK, Row, collate, pack

PATCH, SLOT, IMAGE, PAD = 50, 51, 60, 0
SIDE = 4  # ViT patches per crop


def row(num_patches=0, num_slots=2, crops=2, patches=(), label=7):
    """A row of image tokens, then one PATCH and SUBPATCH per choice and an end of the list."""
    ids = [1] + [IMAGE] * num_patches + [i for _ in patches for i in (PATCH, SLOT)] + [PATCH]
    selections = [-1] * (1 + num_patches) + [s for p in patches for s in (p, 1)] + [-2]
    n = len(ids)
    pooling = (
        (torch.arange(num_patches * num_slots) % (crops * SIDE)).reshape(num_patches, num_slots)
        if num_patches
        else None
    )
    if pooling is not None:
        pooling[-1, -1] = -1
    return Row(
        input_ids=torch.tensor(ids),
        selection_ids=torch.tensor(selections),
        shift_labels=torch.full((n,), label),
        loss_weights=torch.linspace(0, 1, n),
        position_ids=torch.arange(n),
        example_ids=torch.zeros(n, dtype=torch.long),
        branch_ids=torch.tensor([TRUNK] * (1 + num_patches) + [0] * (n - 1 - num_patches)),
        mm_token_type_ids=torch.tensor([0] + [1] * num_patches + [0] * (n - 1 - num_patches)),
        pixel_values=torch.rand(crops, SIDE, 3) if num_patches else None,
        pooling=pooling,
    )


def features(row_or_pixels, pooling):
    """What each image token pools, as values: independent of how the ViT patches are numbered."""
    flat = row_or_pixels.reshape(-1, 3)
    return [flat[slots[slots >= 0]] for slots in pooling]


def test_packing_shifts_patches_and_nothing_else():
    first, text_only, second = row(3, patches=(0, 2)), row(), row(2, patches=(1,))
    packed = pack([first, text_only, second], PATCH)
    assert packed.selection_ids.tolist() == [-1] * 4 + [0, 1, 2, 1, -2] + [-1, -2] + [-1] * 3 + [3 + 1, 1, -2]
    assert packed.example_ids.tolist() == [0] * 9 + [1] * 2 + [2] * 6
    assert packed.position_ids.tolist() == [*range(9), *range(2), *range(6)]
    for name in ("input_ids", "shift_labels", "loss_weights", "branch_ids", "mm_token_type_ids"):
        assert torch.equal(
            getattr(packed, name), torch.cat([getattr(r, name) for r in (first, text_only, second)])
        )
    pooled = features(packed.pixel_values, packed.pooling)
    expected = features(first.pixel_values, first.pooling) + features(second.pixel_values, second.pooling)
    assert all(torch.equal(a, b) for a, b in zip(pooled, expected, strict=True))


def test_packing_twice_is_packing_once():
    rows = [row(2, patches=(0,)), row(3, num_slots=3, patches=(2,)), row(1, patches=(0,))]
    once, twice = pack(rows, PATCH), pack([pack(rows[:2], PATCH), rows[2]], PATCH)
    for name in Row.__dataclass_fields__:
        ours, theirs = getattr(once, name), getattr(twice, name)
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, name


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=4),
    st.sampled_from(["left", "right"]),
)
def test_a_batch_holds_every_row(shapes, side):
    rows = [row(*shape, patches=tuple(range(shape[0]))) for shape in shapes]
    batch = collate(rows, PAD, side)
    length = max(map(len, rows))
    for i, one in enumerate(rows):
        at = slice(0, len(one)) if side == "right" else slice(length - len(one), length)
        real = torch.zeros(length, dtype=torch.long)
        real[at] = 1
        assert torch.equal(batch["attention_mask"][i], real)
        for name, fill in {
            "input_ids": PAD, "selection_ids": -1, "shift_labels": IGNORED, "loss_weights": 0, "position_ids": 0,
            "example_ids": -1, "branch_ids": TRUNK, "mm_token_type_ids": 0,
        }.items():  # fmt: skip
            assert torch.equal(batch[name][i, at], getattr(one, name))
            assert (batch[name][i, real == 0] == fill).all()
    tables = [one.pooling for one in rows if one.pooling is not None]
    if not tables:
        assert "pixel_values" not in batch
        return
    assert batch["image_token_pooling"].shape == (
        sum(map(len, tables)),
        max(table.shape[1] for table in tables),
    )
    pooled = features(batch["pixel_values"], batch["image_token_pooling"])
    expected = [f for one in rows if one.pooling is not None for f in features(one.pixel_values, one.pooling)]
    assert all(torch.equal(a, b) for a, b in zip(pooled, expected, strict=True))


def test_rows_are_left_as_they_were():
    rows = [row(2, patches=(1,)), row(2, num_slots=3, patches=(0,))]
    tables = [one.pooling for one in rows if one.pooling is not None]
    before = [table.clone() for table in tables]
    pack(rows, PATCH)
    collate(rows, PAD)
    assert len(tables) == len(rows) and all(torch.equal(a, b) for a, b in zip(before, tables, strict=True))


def test_nothing_to_join_and_crops_of_two_sizes():
    for call in (lambda: pack([], PATCH), lambda: collate([], PAD)):
        with pytest.raises(ProcessingError, match="one or more rows"):
            call()
    other = row(1)
    wider = Row(**{**vars(other), "pixel_values": torch.rand(1, 9, 3)})
    with pytest.raises(ProcessingError, match="crops of one size"):
        collate([row(1), wider], PAD)


def test_frames_stay_apart_where_places_are_numbered_by_slots():
    picture, clip = row(2, num_slots=2), replace(row(3, num_slots=3), is_clip=True)
    apart = collate([picture, clip], PAD, "left", clips_apart=True)
    assert apart["image_token_pooling"].shape == (2, 2) and apart["video_token_pooling"].shape == (3, 3)
    assert torch.equal(apart["pixel_values_videos"], clip.pixel_values)
    assert torch.equal(apart["video_token_pooling"], clip.pooling), "each table counts over its own pixels"
    joined = collate([picture, clip], PAD)
    assert joined["image_token_pooling"].shape == (5, 3) and "pixel_values_videos" not in joined


def test_a_row_without_columns_is_one_example_and_a_trunk():
    plain = Row(torch.tensor([1, 2, 3]), torch.tensor([0, 1, 0]))
    batch = collate([plain, Row(torch.tensor([4]), torch.tensor([0]))], PAD, "left")
    assert set(batch) == {"input_ids", "selection_ids", "mm_token_type_ids", "attention_mask"}
    packed = pack([plain, row(2, patches=(1,))], PATCH)
    assert packed.branch_ids.tolist()[:3] == [TRUNK] * 3 and packed.shift_labels.tolist()[:3] == [IGNORED] * 3
    assert packed.example_ids.tolist() == [0] * 3 + [1] * (len(packed) - 3)
    assert packed.position_ids.tolist()[:3] == [0, 1, 2]


def test_features_stand_in_for_pixels_in_all_rows_or_none():
    seen = replace(row(2), pixel_values=None, pooling=None, image_features=torch.rand(2, 4))
    assert torch.equal(collate([seen, row()], PAD)["image_features"], seen.image_features)
    with pytest.raises(ProcessingError, match="features in 1 and pixels in 1"):
        collate([seen, row(2)], PAD)
