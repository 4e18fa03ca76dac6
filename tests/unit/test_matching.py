"""Points against masks: hand-made cases and what must hold for any answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.metrics import match_points


def box(left: int, top: int, right: int, bottom: int, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_nothing_there_and_nothing_said() -> None:
    scores = match_points(np.zeros((0, 2)), [])
    assert (scores.precision, scores.recall, scores.f1, scores.exact_count) == (1.0, 1.0, 1.0, True)


@pytest.mark.parametrize(("points", "masks"), [([[5, 5]], []), ([], [box(0, 0, 5, 5)])])
def test_one_side_empty_scores_nothing(points: list, masks: list) -> None:
    scores = match_points(points, masks)
    assert scores.f1 == scores.precision == scores.recall == 0.0 and not scores.exact_count


def test_assignment_is_optimal_where_first_come_first_served_is_not() -> None:
    wide, narrow = box(0, 0, 10, 10), box(0, 0, 3, 3)
    scores = match_points([[1, 1], [8, 8]], [wide, narrow])
    assert scores.matched == 2 and scores.f1 == 1.0


def test_two_points_in_one_object_count_once() -> None:
    scores = match_points([[2, 2], [3, 3]], [box(0, 0, 5, 5)])
    assert (scores.precision, scores.recall, scores.f1) == (0.5, 1.0, pytest.approx(2 / 3))
    assert not scores.exact_count


def test_x_is_the_column_and_the_right_edge_is_outside() -> None:
    mask = box(15, 0, 20, 5)
    assert match_points([[19.9, 4.9]], [mask]).matched == 1
    assert match_points([[4.9, 19.9]], [mask]).matched == 0
    assert match_points([[20.0, 1.0]], [mask]).matched == 0
    assert match_points([[-0.5, 1.0]], [box(0, 0, 5, 5)]).matched == 0
    assert match_points([[np.nan, 1.0]], [mask]).matched == 0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="num_points, 2"):
        match_points(np.zeros((2, 3)), [])
    with pytest.raises(ValueError, match="boolean masks"):
        match_points([[1, 1]], [np.ones((4, 4))])


corner = st.integers(0, 19)
boxes = st.lists(st.tuples(corner, corner), max_size=5).map(
    lambda ends: [box(x, y, min(x + 6, 20), min(y + 6, 20)) for x, y in ends]
)
points = st.lists(st.tuples(st.floats(-2, 22), st.floats(-2, 22)), max_size=6)


@given(points, boxes, st.randoms())
def test_order_never_matters_and_scores_are_shares(xy: list, masks: list, chance) -> None:
    scores = match_points(xy, masks)
    shuffled = list(xy), list(masks)
    for part in shuffled:
        chance.shuffle(part)
    assert match_points(*shuffled) == scores
    for share in (scores.precision, scores.recall, scores.f1):
        assert 0 <= share <= 1
    assert scores.matched <= min(len(xy), len(masks))
    if scores.precision + scores.recall:
        assert scores.f1 == pytest.approx(
            2 * scores.precision * scores.recall / (scores.precision + scores.recall)
        )


@given(boxes)
def test_a_point_in_every_object_is_perfect(masks: list) -> None:
    xy = [(np.argwhere(mask)[0] + 0.5)[::-1] for mask in masks]
    scores = match_points(np.array(xy).reshape(-1, 2), masks)
    assert scores.exact_count and (scores.f1 == 1.0 or not masks)
