"""Reading answers: the grammar from ids and from text, answers cut short, and everything a model must not
write.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.decoding import read_answer
from molmopoint.errors import GroundingError
from molmopoint.geometry import PointingMetadata, triples_to_points

START = 200  # plain ids are characters below 200
# Two image tokens of a global view, then four that may be chosen; the last one has an empty slot.
GLOBAL, P, K = (
    2,
    6,
    2,
)


def metadata(location_grid=3):
    pooling = np.array([[0, 1], [2, -1], [3, 4], [5, 6], [7, 8], [9, -1]])
    patch_map = np.array([[3, 4, 5, 6, 7, 8, 9]])
    return PointingMetadata(
        pooling, np.arange(P) >= GLOBAL, [patch_map], [(70, 10)], location_grid=location_grid
    )


def decode_ids(ids):
    return "".join(map(chr, ids))


def spell(*parts):
    """An answer as ids and as text: strings are text, tuples are the selections of a triple (its first ones,
    if shorter).
    """
    ids, text = [], ""
    for part in parts:
        if isinstance(part, str):
            ids += map(ord, part)
            text += part
        else:
            numbers = [n + first for n, first in zip(part, (0, P + 1, P + 1 + K), strict=False)]
            ids += [START + n for n in numbers]
            text += "".join(f"<POINT_{n}>" for n in numbers)
    return ids, text


NM = (P,)  # the id after the last patch


def read(*parts, location_grid=3):
    """Reads ids and text, which must agree; returns (triples, object ids), invalid, truncated."""
    ids, text = spell(*parts)
    answers = [
        read_answer(a, metadata(location_grid), START, decode_ids)
        for a in (ids, np.array(ids), torch.tensor(ids), text)
    ]
    for other in answers[1:]:
        assert (other.points, other.invalid, other.truncated_triple) == (
            answers[0].points,
            answers[0].invalid,
            answers[0].truncated_triple,
        )
        assert other.labels == answers[0].labels
    assert answers[-1].token_positions is None
    first = answers[0]
    assert first.points.triples is not None
    return (
        [tuple(t) for t in first.points.triples.tolist()],
        first.points.object_id.tolist(),
        first.invalid,
        first.truncated_triple,
    )


A, B, C = (2, 0, 4), (3, 1, 8), (5, 0, 0)


def test_a_list_of_points():
    ids, _ = spell('<points coords="', A, "1", B, "2", C, "13", NM, '">red cats</point>')
    answer = read_answer(ids, metadata(), START, decode_ids)
    group, xy = triples_to_points([A, B, C], metadata())
    assert answer.points.object_id.tolist() == [1, 2, 13]
    np.testing.assert_array_equal(answer.points.xy, xy)
    np.testing.assert_array_equal(answer.points.group, group)
    assert answer.labels == ("red cats",)
    assert answer.points.labels == ("red cats",) * 3
    assert answer.points.image_sizes == ((70, 10),)
    assert answer.token_positions is not None
    assert [ids[i] for i in answer.token_positions[1]] == [
        START + 3,
        START + P + 1 + 1,
        START + P + 1 + K + 8,
    ]


TABLE = [
    # what stands in the answer; object ids found, invalid triples, whether a triple is cut
    (("There are none.",), [], 0, False),  # a sentence
    ((), [], 0, False),  # nothing at all
    ((A, "1", B, "2"), [1, 2], 0, False),  # no list around, and no end
    ((A, " 1 ", B, " 2"), [1, 2], 0, False),  # one space before and after an id
    ((A[:1], " ", A, "1"), [1], 1, False),  # a PATCH abandoned for another one
    ((A, B, C, NM), [1, 2, 3], 0, False),  # no ids: count up
    ((A, "7", B, C, NM), [7, 8, 9], 0, False),  # ids stop: count on
    ((A, "x", B, "y"), [1, 2], 0, False),  # something else than an id
    ((A, "9" * 30, B, "2"), [1, 2], 0, False),  # an id beyond 64 bits is as good as none
    ((A, "1", B, "1", C, "2"), [1, 1, 2], 0, False),  # one object in several frames
    ((A, "1", NM, '">a</point> ', B, NM, '">b</point>'), [1, 1], 0, False),  # two lists count apart
    ((A, NM, B, NM), [1, 1], 0, False),  # also without labels
    ((A, "1", B[:1]), [1], 0, True),  # cut after the PATCH
    ((A, "1", B[:2]), [1], 0, True),  # cut after the SUBPATCH
    ((A, "1", B), [1, 2], 0, False),  # cut after the LOCATION: the place is known
    ((A, "1", B[:2], "text"), [1], 1, False),  # not cut, given up
    ((A, "1", B[:2], NM), [1], 1, False),  # ended inside a triple
    (((0, 0, 0), "1", A, "2"), [2], 1, False),  # a place in the global view
    (((5, 1, 0), "1", A, "2"), [2], 1, False),  # an empty slot
    (((2, 0, 9), "1", A, "2"), [2], 1, False),  # beyond the locations: beyond the vocabulary
    (((2, 5, 0), "1", A, "2"), [2], 1, False),  # a location where a slot belongs
    (((P + 1,), "1", A, "2"), [2], 1, False),  # a triple that starts with its slot
    (((999,), A, "1"), [1], 1, False),  # another input's id
]


@pytest.mark.parametrize(("parts", "object_ids", "invalid", "truncated"), TABLE)
def test_table_of_answers(parts, object_ids, invalid, truncated):
    assert read(*parts)[1:] == (object_ids, invalid, truncated)


def test_numbers_no_id_can_have_are_counted_in_text():
    answer = read_answer(f"<POINT_{'9' * 40}><POINT_2><POINT_7><POINT_13>1", metadata(), START)
    assert (len(answer.points), answer.invalid) == (1, 1)


def test_spaces_inside_a_triple_are_read():
    text = '<points coords="<POINT_2> <POINT_7> <POINT_13> 1<POINT_6>">a</point>'
    triples = read_answer(text, metadata(), START).points.triples
    assert triples is not None and triples.tolist() == [[2, 0, 4]]


def test_closing_tags_of_points_and_tracks():
    for tag in ("point", "points", "track", "tracks"):
        answer = read_answer(
            f'<POINT_2><POINT_7><POINT_13>1<POINT_6>">a "b"> c</{tag}> shows a total of 1.', metadata(), START
        )
        assert answer.labels == ('a "b"> c',)


def test_without_a_location_head():
    assert read((2, 0), "1", (3, 1), "2", NM, location_grid=0) == ([(2, 0, -1), (3, 1, -1)], [1, 2], 0, False)
    assert read((2, 0), "1", (3,), location_grid=0)[2:] == (0, True)


def test_scores_are_products_of_the_selections():
    ids, text = spell("a", A, "1", B, "2", NM)
    probabilities = torch.full((len(ids),), float("nan"))
    probabilities[[1, 2, 3, 5, 6, 7, 9]] = torch.tensor([0.5, 0.5, 1.0, 1.0, 0.1, 0.5, 0.9])
    points = read_answer(torch.tensor(ids), metadata(), START, decode_ids, probabilities).points
    np.testing.assert_allclose(points.score, [0.25, 0.05])
    with pytest.raises(GroundingError, match="probability per id"):
        read_answer(ids, metadata(), START, decode_ids, probabilities[:4])
    with pytest.raises(TypeError, match="ids with selection_probabilities"):
        read_answer(text, metadata(), START, decode_ids, probabilities)


@pytest.mark.parametrize("ids", [[[1, 2], [3, 4]], [-1, 5], [1.5, 2.0], 7])
def test_what_is_not_one_row_of_ids_is_an_error(ids):
    with pytest.raises(GroundingError, match="ids of one answer"):
        read_answer(ids, metadata(), START, decode_ids)


def test_ids_need_their_text():
    with pytest.raises(TypeError, match="decode_ids"):
        read_answer([1, 2], metadata(), START)


selections = st.tuples(st.integers(0, P - 1), st.integers(0, K - 1), st.integers(0, 8))
anything = st.lists(
    st.one_of(
        st.sampled_from(["1", "x", '">a</point>', " "]).map(lambda s: list(map(ord, s))),
        st.integers(START, START + 25).map(lambda i: [i]),
    ),
    max_size=30,
).map(lambda parts: [i for part in parts for i in part])


@given(st.lists(selections, max_size=8))
def test_no_triple_is_ever_lost(triples):
    found, _, invalid, truncated = read(
        *(part for i, t in enumerate(triples) for part in (t, str(i + 1))), NM, '">a</point>'
    )
    assert len(found) + invalid == len(triples)
    assert not truncated


@given(anything)
def test_reading_never_fails_and_ids_agree_with_text(ids):
    text = "".join(chr(i) if i < START else f"<POINT_{i - START}>" for i in ids)
    from_ids, from_text = (
        read_answer(ids, metadata(), START, decode_ids),
        read_answer(text, metadata(), START),
    )
    assert from_ids.points == from_text.points
    assert (from_ids.invalid, from_ids.truncated_triple) == (from_text.invalid, from_text.truncated_triple)
    no_more = START + P
    complete = len(from_ids.points) * 3
    grounding = sum(i >= START and i != no_more for i in ids)
    assert complete <= grounding <= complete + 3 * from_ids.invalid + 2 * from_ids.truncated_triple
