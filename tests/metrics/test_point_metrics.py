"""Look-up rules, assignment and counts, with the hand-checkable conformance cases by number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.metrics.lookup import distance_to_box, in_box, in_mask, in_polygon
from molmopoint.metrics.matching import (
    assigned_scores,
    bin_of,
    close_in_image,
    close_in_video,
    macro_accuracy,
    max_hit_scores,
    stated_count,
)
from molmopoint.metrics.run_lengths import MaskIndex


def square(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[rows, columns] = True
    return mask


A = square(20, 20, slice(0, 5), slice(0, 5))
B = square(20, 20, slice(10, 15), slice(10, 15))


def scores(points: list, masks: list[np.ndarray], centres: list):
    hits = (
        np.stack([in_mask(points, mask, "round") for mask in masks], axis=1)
        if masks
        else np.zeros((len(points), 0), dtype=bool)
    )
    places = np.asarray(points, dtype=float).reshape(-1, 2)
    targets = np.asarray(centres, dtype=float).reshape(-1, 2)
    return assigned_scores(places, targets, hits), max_hit_scores(hits)


@pytest.mark.parametrize(
    "points, masks, centres, expected",
    [
        pytest.param([], [], [], (1, 1, 1), id="C1"),
        pytest.param([(1, 1)], [], [], (0, 0, 0), id="C2"),
        pytest.param([(2, 2)], [A, B], [(2, 2), (12, 12)], (1, 0.5, 2 / 3), id="C3"),
        pytest.param([(2, 2), (12, 12), (18, 2)], [A, B], [(2, 2), (12, 12)], (2 / 3, 1, 0.8), id="C4"),
        pytest.param([(1, 1), (3, 3)], [A, B], [(2, 2), (12, 12)], (0.5, 0.5, 0.5), id="C5"),
        pytest.param([], [A], [(2, 2)], (0, 0, 0), id="nothing found"),
    ],
)
def test_matched_scores(points, masks, centres, expected):
    for found in scores(points, masks, centres):
        assert found == pytest.approx(expected)


def test_c6_swapped_pair():
    first, second = square(8, 13, slice(0, 3), slice(0, 13)), square(8, 13, slice(5, 8), slice(0, 13))
    by_distance, by_hits = scores([(12, 1), (0, 6)], [first, second], [(0, 1), (12, 6)])
    assert by_distance == (0, 0, 0)
    assert by_hits == (1, 1, 1)


def test_c7_right_edge_is_outside():
    full = np.ones((10, 16), dtype=bool)
    for rounding in ("round", "truncate"):
        assert in_mask([(16.0, 5), (15.4, 5)], full, rounding).tolist() == [False, True]


def test_c8_rounding_rules():
    column = square(10, 10, slice(0, 10), slice(5, 6))
    assert in_mask([(4.6, 3)], column, "round").all()
    assert not in_mask([(4.6, 3)], column, "truncate").any()
    assert in_mask([(4.5, 3), (5.5, 3)], column, "round").tolist() == [False, False], (
        "ties go to the even pixel"
    )


def test_points_that_are_no_places():
    full = np.ones((4, 4), dtype=bool)
    strange = [(math.nan, 1), (math.inf, 1), (-math.inf, 1), (1e300, 1), (-0.6, 1)]
    assert not in_mask(strange, full, "round").any()
    assert not in_mask(strange, full, "truncate").any()
    assert in_mask([(-0.4, 1)], full, "round").all()
    assert not in_mask([(-0.4, 1)], full, "truncate").any()
    assert not in_mask([(0, 0)], np.zeros((0, 0), dtype=bool), "round").any()
    with pytest.raises(ValueError, match="boolean mask"):
        in_mask([(0, 0)], np.ones((4, 4)), "round")  # type: ignore[arg-type]


def test_c11_boxes_include_their_sides():
    assert in_box([(20, 20), (10, 10), (20.01, 20), (15, 9.99)], (10, 10, 20, 20)).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert distance_to_box([(15, 15), (23, 24), (15, 5)], (10, 10, 20, 20)).tolist() == [0, 5, 5]


def test_c13_polygons():
    triangle = [(0, 0), (10, 0), (0, 10)]
    assert in_polygon([(3, 3), (8, 8)], triangle).tolist() == [True, False]
    assert in_polygon([(3, 3), (8, 8)], triangle[::-1]).tolist() == [True, False], (
        "the sense of rotation does not matter"
    )
    notched = [(0, 0), (10, 0), (10, 10), (5, 2), (0, 10)]
    assert in_polygon([(5, 1), (5, 5), (1, 5), (9, 5)], notched).tolist() == [True, False, True, True]
    assert in_polygon([(50, 10), (1, 25)], [(0, 20), (0, 1e-305), (100, 0)]).tolist() == [False, False], (
        "edges that are all but level"
    )
    with pytest.raises(ValueError, match="three or more"):
        in_polygon([(0, 0)], [(0, 0), (1, 1)])


@given(st.data())
def test_polygons_agree_with_half_planes(data):
    corners = data.draw(
        st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=3, max_size=3, unique=True)
    )
    (ax, ay), (bx, by), (cx, cy) = corners
    if (bx - ax) * (cy - ay) == (by - ay) * (cx - ax):
        return
    # Halves never lie on an edge between whole corners often enough to matter; those that do are left out.
    x, y = data.draw(st.tuples(st.integers(0, 50), st.integers(0, 50)))
    point = (x + 0.37, y + 0.59)
    sides = [
        (qx - px) * (point[1] - py) - (qy - py) * (point[0] - px)
        for (px, py), (qx, qy) in zip(corners, corners[1:] + corners[:1], strict=True)
    ]
    if min(abs(side) for side in sides) < 1e-9:
        return
    assert in_polygon([point], corners)[0] == (
        all(side > 0 for side in sides) or all(side < 0 for side in sides)
    )


def test_c14_and_c15_close_counts():
    assert close_in_image(6, 5) and not close_in_image(7, 5)
    margins = {19: 1, 20: 2, 39: 2, 40: 3, 0: 1, 60: 4}
    for true, margin in margins.items():
        assert close_in_video(true + margin, true) and not close_in_video(true + margin + 1, true)


@pytest.mark.parametrize(
    "text, ours, theirs",
    [
        ("Counting the birds shows a total of 7.", 7, 7),
        ("There are none.", 0, None),
        ("There are no birds.", 0, None),
        ("7", 7, 7),
        (" 7. ", 7, 7),
        ("seven", None, None),
        ("the total number of birds is: 12", 12, 12),
        ("There are 5 birds.", 5, None),
        ("", None, None),
        ("-3", None, -3),
        ("a total of7", 7, 7),
        ('The total number of "3-wheelers" is: 5.', 5, 5),
        ('The total number of "Mr. T shirts" is: 5.', 5, 5),
        ("The total number of items: red, blue is: 6", 6, 6),
        ("The total number is 4", 4, None),
        ('There are 3 <points coords="1 1 100 100">cups</points> and a total of 4.', 4, 4),
        ("There are 3 of the 12 cups, a total of 3, and 9 more.", 3, 3),
        ("9" * 5000, None, None),
        ("a total of " + "9" * 5000, None, None),
        ("3 of 5", None, None),
    ],
)
def test_c16_stated_counts(text, ours, theirs):
    assert stated_count(text) == ours
    assert stated_count(text, ref_compat=True) == theirs


def test_c23_macro_accuracy():
    assert macro_accuracy([True, False, False, False], [2, 3, 3, 3]) == 0.5
    assert math.isnan(macro_accuracy([], []))
    assert bin_of(5, {"0-4": (0, 5), "5-9": (5, 10)}) == "5-9"
    assert bin_of(60, {"0-4": (0, 5)}) is None


@given(st.data())
def test_mask_index_equals_arrays(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shapes = data.draw(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=6))
    share = data.draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    masks = [rng.random(shape) < share for shape in shapes]
    index = MaskIndex.build(masks)
    numbers = rng.integers(len(masks), size=40)
    xy = rng.uniform(-2, 14, (40, 2))
    xy[0] = np.nan
    for rounding in ("round", "truncate"):
        expected = [in_mask(xy[i : i + 1], masks[n], rounding)[0] for i, n in enumerate(numbers)]
        assert index.contains(numbers, xy, rounding).tolist() == expected
    for number, mask in enumerate(masks):
        assert np.array_equal(index.mask(number), mask)
        assert index.area(number) == mask.sum()


def test_mask_index_on_disk(tmp_path):
    index = MaskIndex.build([A, B])
    index.save(tmp_path / "masks.npz")
    again = MaskIndex.load(tmp_path / "masks.npz")
    assert np.array_equal(again.mask(1), B) and len(again) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["masks.npz"]
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    with pytest.raises(ValueError, match="index of masks"):
        MaskIndex.load(tmp_path / "other.npz")
    assert len(MaskIndex.build([])) == 0
