"""The Points container: checks at birth, rows and slices, fractions, JSON there and back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.errors import GroundingError
from molmopoint.points import Point, Points


def three(**changes):
    columns = {
        "object_id": [1, 2, 3],
        "group": [0, 0, 1],
        "x": [10.0, 20.0, 30.0],
        "y": [1.0, 2.0, 3.0],
        "score": [0.5, math.nan, 1.0],
        "triples": [[4, 0, 0], [4, 1, 8], [9, 3, 4]],
        "image_sizes": [(100, 10), (60, 6)],
        "labels": ["cat", "cat", None],
    }
    return Points(**columns | changes)


def test_a_sequence_of_points():
    points = three()
    assert len(points) == 3
    assert next(iter(points)) == points[0] == Point(1, 0, 10.0, 1.0, 0.5, "cat")
    assert points[-1] == Point(3, 1, 30.0, 3.0, 1.0, None)
    assert isinstance(points[0].group, int)
    with pytest.raises(IndexError):
        points[3]


@pytest.mark.parametrize("chosen", [slice(1, None), [1, 2], np.array([False, True, True]), np.array([1, 2])])
def test_slices_masks_and_lists_keep_every_column(chosen):
    points = three()[chosen]
    assert points.object_id.tolist() == [2, 3]
    assert points.triples.tolist() == [[4, 1, 8], [9, 3, 4]]
    assert points.labels == ("cat", None)
    assert points.image_sizes == ((100, 10), (60, 6))


def test_order_is_kept_and_nothing_may_be_chosen():
    assert three()[[2, 0]].object_id.tolist() == [3, 1]
    assert len(three()[[]]) == 0
    assert len(three()[:0]) == 0


def test_fractions_need_sizes():
    np.testing.assert_allclose(three().xy_normalized, [[0.1, 0.1], [0.2, 0.2], [0.5, 0.5]])
    np.testing.assert_allclose(
        three(group=[0.0, 0.5, 1.0], image_sizes=[(100, 10)]).xy_normalized[:, 0], [0.1, 0.2, 0.3]
    )
    with pytest.raises(GroundingError, match="image_sizes"):
        _ = three(image_sizes=None).xy_normalized


def test_json_is_strict_and_says_its_version():
    document = json.loads(three().to_json(), parse_constant=pytest.fail)
    assert document["schema_version"] == 1
    assert document["group_unit"] == "image"
    assert document["points"][1] == {
        "object_id": 2, "group": 0, "x": 20.0, "y": 2.0, "score": None, "triple": [4, 1, 8], "label": "cat",
    }  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.integers(0, 99), st.floats(0, 100), st.floats(0, 100), st.one_of(st.none(), st.floats(0, 1))
        ),
        max_size=5,
    ),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_json_there_and_back(rows, video, with_triples, with_labels):
    ids, xs, ys, scores = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    points = Points(
        object_id=np.array(ids, dtype=np.int64),
        group=np.zeros(len(rows), dtype=float if video else int),
        x=np.array(xs),
        y=np.array(ys),
        score=np.array([math.nan if s is None else s for s in scores]),
        triples=np.zeros((len(rows), 3), dtype=int) if with_triples else None,
        image_sizes=[(100, 100)],
        labels=["ä"] * len(rows) if with_labels else None,
    )
    again = Points.from_json(points.to_json())
    assert again == points
    assert again.is_video == video
    if rows:
        assert (again.triples is not None, again.labels is not None) == (with_triples, with_labels)


def test_equal_points_are_equal():
    assert three() == three()
    assert three() != three(x=[10.0, 20.0, 31.0])
    assert three() != "points"


def test_empty_points_keep_their_kind():
    assert len(Points.empty()) == 0
    assert not Points.empty().is_video
    assert Points.empty(video=True).is_video
    assert Points.empty().xy.shape == (0, 2)
    assert repr(Points.empty()) == "Points(0)"


def test_repr_is_short():
    assert repr(three()) == "Points(3: #1 (10.0, 1.0) at 0, #2 (20.0, 2.0) at 0, #3 (30.0, 3.0) at 1)"
    many = Points(np.arange(9), np.arange(9) / 2, np.arange(9), np.arange(9))
    assert repr(many).endswith("at 1.0s, ... 6 more)")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": [1.0, 2.0]}, "column x"),
        ({"x": [[1.0], [2.0], [3.0]]}, "column x"),
        ({"y": [1.0, math.nan, 2.0]}, "finite numbers in column y"),
        ({"score": [0.1, 0.2, 1.5]}, "scores in 0..1"),
        ({"group": [0, 0, 2]}, "groups below 2"),
        ({"group": [0, 0, -1]}, "index of a picture from 0"),
        ({"triples": [[1, 2, 3]]}, "triples of shape"),
        ({"labels": ["cat"]}, "3 labels"),
    ],
)
def test_columns_are_checked_at_birth(changes, message):
    with pytest.raises(GroundingError, match=message):
        three(**changes)


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"schema_version": 2},
        {"schema_version": 1},
        {"schema_version": 1, "points": [{}], "group_unit": "image", "image_sizes": None},
    ],
)
def test_other_documents_are_refused(document):
    with pytest.raises(GroundingError, match="expected"):
        Points.from_dict(document)


@pytest.mark.parametrize(
    "text", ["{", "", '{"schema_version": 1, "group_unit": "image", "points": [{"object_id": "a"}]}']
)
def test_other_text_is_refused(text):
    with pytest.raises(GroundingError, match="expected"):
        Points.from_json(text)


def test_words_where_numbers_belong():
    document = Points(np.array([1]), np.array([0]), np.array([2.0]), np.array([3.0])).to_dict()
    document["points"][0]["object_id"] = "one"
    with pytest.raises(GroundingError, match=r"whole number of 64 bits in points\[0\]\.object_id, got str"):
        Points.from_dict(document)
