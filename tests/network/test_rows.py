"""Integer bookkeeping on ids, against loops and against the vocabulary of the border."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_config

from molmopoint.errors import GroundingError
from molmopoint.rows import (
    ExtendedIds,
    PatchHistory,
    check_image_tokens,
    check_selections,
    lay_out,
    split_extended,
)
from molmopoint.tokens import NO_MORE_POINTS, NO_SELECTION, ExtendedVocabulary, Kind

CONFIG = tiny_config().grounding
PATCH, SUBPATCH, LOCATION = CONFIG.patch_token_id, CONFIG.subpatch_token_id, CONFIG.location_token_id
IMAGE, LOW = CONFIG.image_patch_id, CONFIG.image_non_indexable_patch_id
KINDS = {Kind.PATCH: PATCH, Kind.SUBPATCH: SUBPATCH, Kind.LOCATION: LOCATION}


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=4), st.data())
def test_extended_ids_split_as_the_vocabulary_says_and_join_again(sizes, data):
    """Every row has its own P and K; also P = 0, where only no-more-points is a patch id."""
    vocabularies = [ExtendedVocabulary(CONFIG.extended_start, p, k, CONFIG.num_locations) for p, k in sizes]
    length = data.draw(st.integers(1, 6))
    ids = [
        [data.draw(st.integers(0, CONFIG.extended_start + v.size - 1)) for _ in range(length)]
        for v in vocabularies
    ]
    patches, slots = torch.tensor(sizes).unbind(1)
    plain, selections = split_extended(torch.tensor(ids), patches, slots, CONFIG)
    for b, vocabulary in enumerate(vocabularies):
        for t, token in enumerate(ids[b]):
            kind, selection = vocabulary.decode(token)
            assert (plain[b, t], selections[b, t]) == (KINDS.get(kind, token), selection)
    for t in range(length):
        joined = ExtendedIds(CONFIG, patches, slots).join(plain[:, t], selections[:, t])
        assert joined.tolist() == [row[t] for row in ids]


def test_labels_that_are_ignored_stay_ignored():
    plain, selections = split_extended(
        torch.tensor([[-100, 5, -1]]), torch.tensor([0]), torch.tensor([0]), CONFIG
    )
    assert plain.tolist() == [[-100, 5, -1]]
    assert selections.tolist() == [[NO_SELECTION] * 3]


TOKENS = st.sampled_from([3, IMAGE, IMAGE, LOW])


@settings(max_examples=80)
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.lists(st.lists(TOKENS, min_size=n, max_size=n), min_size=1, max_size=3)
    ),
    st.data(),
)
def test_layout(rows, data):
    length = len(rows[0])
    starts = [sorted(data.draw(st.sets(st.integers(1, length), max_size=2))) for _ in rows]
    examples = [[sum(t >= s for s in row_starts) for t in range(length)] for row_starts in starts]
    layout = lay_out(torch.tensor(rows), CONFIG, torch.tensor(examples))
    expected = []
    for b, row in enumerate(rows):
        seen: dict[int, int] = {}
        patch = 0
        for t, token in enumerate(row):
            example = examples[b][t]
            seen[example] = seen.get(example, 0) + (token == IMAGE)
            if token in (IMAGE, LOW):
                expected.append((b, t, patch, token == IMAGE, max(seen[example] - 1, 0), example))
                patch += 1
        assert layout.num_patches[b] == patch
    found = (
        layout.rows,
        layout.columns,
        layout.patches,
        layout.indexable,
        layout.rotary_positions,
        layout.examples,
    )
    assert list(zip(*(part.tolist() for part in found), strict=True)) == expected
    assert layout.max_patches == layout.num_patches.max()
    spread = layout.scatter(layout.columns, -7)
    for b, t, patch, *_ in expected:
        assert spread[b, patch] == t
    assert int((spread != -7).sum()) == len(expected)


def test_image_ids_that_were_generated_count_for_nothing():
    ids = torch.tensor([[IMAGE, 3, IMAGE, LOW]])
    vision = torch.tensor([[True, False, False, False]])
    assert lay_out(ids, CONFIG, vision=vision).num_patches.tolist() == [1]
    assert lay_out(ids, CONFIG).num_patches.tolist() == [3]


def test_no_rows_and_no_images():
    assert lay_out(torch.zeros(0, 4, dtype=torch.long), CONFIG).max_patches == 0
    empty = lay_out(torch.full((2, 3), 5), CONFIG)
    assert empty.scatter(torch.zeros(0, 7), 0.0).shape == (2, 0, 7)
    check_image_tokens(empty, 0)
    with pytest.raises(ValueError, match="expected 4 image tokens"):
        check_image_tokens(empty, 4)


CHOICES = st.sampled_from(
    [(3, -1), (PATCH, 2), (PATCH, 0), (PATCH, NO_MORE_POINTS), (PATCH, -1), (SUBPATCH, 1)]
)


@given(
    st.integers(1, 10).flatmap(
        lambda n: st.lists(st.lists(CHOICES, min_size=n, max_size=n), min_size=1, max_size=3)
    )
)
def test_history(rows):
    ids, selections = torch.tensor(rows).unbind(-1)
    history = PatchHistory.of(ids, selections, CONFIG)
    for b, row in enumerate(rows):
        last = (-1, NO_SELECTION)
        for t, (token, selection) in enumerate(row):
            last = (t, selection) if token == PATCH and selection != NO_SELECTION else last
            assert (history.column[b, t], history.selection[b, t]) == last


def check(token, selection, patches=6, slots=4):
    ids, selections = torch.full((2, 3), 5), torch.full((2, 3), NO_SELECTION)
    ids[1, 2], selections[1, 2] = token, selection
    check_selections(selections, ids, torch.tensor([9, patches]), torch.tensor([9, slots]), CONFIG)


@pytest.mark.parametrize(
    "token, selection",
    [(PATCH, 0), (PATCH, 5), (PATCH, -1), (PATCH, -2), (SUBPATCH, 3), (LOCATION, 8), (5, -1)],
)
def test_selections_of_the_row_pass(token, selection):
    check(token, selection)


NOWHERE = [
    (PATCH, 6),
    (PATCH, -3),
    (SUBPATCH, 4),
    (SUBPATCH, -2),
    (LOCATION, 9),
    (LOCATION, -2),
    (5, 0),
    (5, -2),
]


@pytest.mark.parametrize("token, selection", NOWHERE)
def test_selections_of_no_place_are_named(token, selection):
    """Also those that another row of the batch could make: P and K are the row's own."""
    with pytest.raises(GroundingError, match=f"at token 2 of row 1, got {selection}"):
        check(token, selection)


def test_a_row_without_pictures_selects_only_no_more_points():
    check(PATCH, NO_MORE_POINTS, patches=0, slots=0)
    for token in (PATCH, SUBPATCH):
        with pytest.raises(GroundingError):
            check(token, 0, patches=0, slots=0)
