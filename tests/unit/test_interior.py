"""Interior points: always inside, and as deep as can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from molmopoint.data.interior import mask_interior, polygon_interior, signed_distance
from molmopoint.errors import ProcessingError


def circle(radius, corners=48, centre=(0.0, 0.0)):
    angles = np.arange(corners) * 2 * math.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius + centre


@settings(max_examples=60)
@given(arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24))))
def test_masks_hold_their_point(mask):
    if not mask.any():
        with pytest.raises(ProcessingError, match="pixel inside"):
            mask_interior(mask)
        return
    x, y = mask_interior(mask)
    assert mask[int(y), int(x)] and x % 1 == 0.5 and y % 1 == 0.5


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=3, max_size=12),
    st.sampled_from([1e-3, 1.0, 20.0]),
)
def test_polygons_hold_their_point(corners, scale):
    """Any polygon, crossing itself or not, in pixels or from 0 to 1: inside by a rule written a second time."""
    ring = np.array(corners) * scale
    try:
        x, y = polygon_interior([ring])
    except ProcessingError:
        # Nothing to stand on: no thicker than rounding.
        assert abs(_area(ring)) <= 1e-5 * max(np.ptp(ring, axis=0).max() ** 2, 1e-300) or len(
            np.unique(ring, axis=0)
        ) < len(ring)
        return
    assert _crossings(ring, x, y) % 2 == 1
    assert signed_distance(np.array([[x, y]]), ring)[0] > 0


def _area(ring):
    (x, y), (u, v) = ring.T, np.roll(ring, -1, axis=0).T
    return float((x * v - u * y).sum() / 2)


def _crossings(ring, x, y):
    count = 0
    for (ax, ay), (bx, by) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if (ay > y) != (by > y) and x < ax + (y - ay) / (by - ay) * (bx - ax):
            count += 1
    return count


def test_shapes_whose_centroid_lies_outside():
    horseshoe = np.array(
        [(0, 0), (100, 0), (100, 20), (20, 20), (20, 80), (100, 80), (100, 100), (0, 100)], dtype=float
    )
    x, y = polygon_interior([horseshoe])
    assert signed_distance(np.array([[x, y]]), horseshoe)[0] == pytest.approx(
        20 / (1 + math.sqrt(0.5)), rel=0.03
    )
    rows, cols = np.mgrid[:81, :81]
    distance = np.hypot(rows - 40, cols - 40)
    ring = (distance < 35) & (distance > 20)
    x, y = mask_interior(ring)
    assert ring[int(y), int(x)] and 26 <= math.hypot(x - 40.5, y - 40.5) <= 29


def test_the_largest_part_wins_and_middles_stay_middles():
    assert polygon_interior([circle(3.0), circle(10.0, centre=(50.0, 60.0))]) == pytest.approx(
        (50, 60), abs=0.3
    )
    bar = np.array([(0, 0), (200, 0), (200, 10), (0, 10)], dtype=float)
    assert polygon_interior([bar]) == pytest.approx((100, 5))
    mask = np.zeros((20, 60), dtype=bool)
    mask[5:10, 3:50] = True
    assert mask_interior(mask) == (26.5, 7.5)
    assert mask_interior(np.ones((4, 4), dtype=np.uint8))[0] in (1.5, 2.5)


def test_slivers_and_thousands_of_corners():
    sliver = np.array([(0, 0), (1000, 999), (1000, 999.01)])
    x, y = polygon_interior([sliver])
    assert signed_distance(np.array([[x, y]]), sliver)[0] > 0
    star = circle(1.0, 2000) * np.where(np.arange(2000) % 2, 0.6, 1.0)[:, None]
    # The mean of the heights 500 and the number before it is one of them, so no line runs between.
    flat = np.array([(0.0, 0.0), (0.0, 500.0), (0.1, np.nextafter(500.0, 0.0))])
    assert signed_distance(np.array([polygon_interior([flat])]), flat)[0] > 0
    assert polygon_interior([star]) == pytest.approx((0, 0), abs=0.03)


@pytest.mark.parametrize(
    "ring", [[(0, 0), (5, 5)], [(0, 0), (5, 5), (9, 9)], [(0, 0), (float("nan"), 1), (2, 2)], []]
)
def test_without_an_area(ring):
    with pytest.raises(ProcessingError, match="area"):
        polygon_interior([np.array(ring, dtype=float)])
