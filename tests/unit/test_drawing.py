"""Markers and heatmaps on pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from molmopoint.drawing import colour_of, draw_heatmap, draw_points, marker_radius
from molmopoint.points import Point


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    """(height, width) bool, where pictures differ."""
    return (np.asarray(before.convert("RGB")).astype(int) != np.asarray(after)).any(axis=-1)


@pytest.mark.parametrize(
    "background", ["white", "black", (128, 128, 128), *(colour_of(i) for i in range(1, 13))]
)
def test_marker_stands_out_on_any_background(background):
    picture = Image.new("RGB", (200, 150), background)
    drawn = np.asarray(draw_points(picture, [Point(1, 0, 100.0, 75.0)])).astype(int)
    contrast = np.abs(drawn - np.asarray(picture).astype(int)).max(axis=-1)
    assert contrast.max() > 80
    rows, cols = np.nonzero(contrast > 10)
    assert abs(rows.mean() - 75) < 1.5 and abs(cols.mean() - 100) < 1.5  # centred on the point


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P"])
def test_original_is_untouched_and_result_is_rgb(mode):
    picture = Image.new("RGB", (60, 40), "teal").convert(mode)
    before = picture.tobytes()
    drawn = draw_points(picture, [Point(1, 0, 10, 10)])
    assert drawn.mode == "RGB" and drawn.size == (60, 40) and picture.tobytes() == before


def test_sizes_follow_the_picture():
    assert marker_radius((2000, 2000), 3) == pytest.approx(2 * marker_radius((1000, 1000), 3))
    assert marker_radius((1000, 1000), 500) < marker_radius((1000, 1000), 3)
    assert marker_radius((20, 20), 1) >= 4


def test_numbers_and_colours_tell_objects_apart():
    picture = Image.new("RGB", (200, 200), "gray")
    one, other = (draw_points(picture, [Point(i, 0, 100, 100)]) for i in (1, 2))
    assert changed(one, other).any()
    same_colour = [
        draw_points(picture, [Point(7, 0, 100, 100)], numbers=numbers) for numbers in (True, False)
    ]
    assert changed(*same_colour).any()
    assert len({colour_of(i) for i in range(1, 60)}) == 59


def test_white_digits_are_readable_on_every_colour():
    for i in range(-1, 200):
        red, green, blue = (channel / 255 for channel in colour_of(i))
        assert 0.3 * red + 0.59 * green + 0.11 * blue < 0.62


@given(
    st.integers(1, 80),
    st.integers(1, 80),
    st.lists(st.tuples(st.integers(0, 5000), st.floats(-20, 100), st.floats(-20, 100)), max_size=5),
)
@settings(max_examples=40)
def test_any_size_and_place_can_be_drawn(width, height, places):
    picture = Image.new("RGB", (width, height), "navy")
    assert draw_points(picture, [Point(i, 0, x, y) for i, x, y in places]).size == (width, height)


def test_heatmap_glows_where_the_heat_is():
    picture = Image.new("RGB", (80, 60), "white")
    heat = np.zeros((60, 80), dtype=np.float32)
    heat[20:30, 40:50] = 0.001
    difference = changed(picture, draw_heatmap(picture, heat))
    assert difference[20:30, 40:50].all() and not difference[:15].any() and not difference[:, :35].any()
    assert not changed(picture, draw_heatmap(picture, np.zeros_like(heat))).any()
