"""Markers and heatmaps on pictures."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from molmopoint.drawing import (
    STYLES,
    colour_of,
    draw_heatmap,
    draw_points,
    draw_title,
    enlarged,
    largest_radius,
    marker_radius,
)
from molmopoint.drawing.labels import Label
from molmopoint.drawing.markers import Marker, size_markers, smallest_letters
from molmopoint.drawing.placing import place_labels
from molmopoint.drawing.words import in_lines, one_line, own_font
from molmopoint.errors import ProcessingError
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


# Markers and labels that share a picture


def grid_of(rows: int, columns: int, step: float, left: float, top: float) -> list[Point]:
    """Points in rows, numbered along them."""
    places = [(left + step * column, top + step * row) for row in range(rows) for column in range(columns)]
    return [Point(number, 0, x, y, 0.5, "red circles") for number, (x, y) in enumerate(places, 1)]


def laid_out(size, points, style="marker"):
    """Markers, boxes of labels (n, 4) with NaN where there is none, and which labels are away from their point."""
    numbers = [str(point.object_id) for point in points]
    smallest = smallest_letters(size)
    xy = np.array([point.xy for point in points])
    largest = min(marker_radius(size, len(points)), largest_radius(size))
    sized = size_markers(size, xy, numbers, style, largest, smallest)
    markers = [
        Marker(point.x, point.y, radius, colour_of(1), number, style)
        for point, (radius, number) in zip(points, sized, strict=True)
    ]
    labels = [
        Label.of(point.xy, colour_of(1), f"{point.object_id}  0.50", smallest, size[0] / 2, None)
        for point in points
    ]
    placed = place_labels(
        size,
        points=xy,
        reach=np.array([marker.reach for marker in markers]),
        markers=np.array([marker.box for marker in markers]),
        sizes=np.array([label.size for label in labels], dtype=float),
        line=smallest,
    )
    return markers, placed.boxes, placed.moved


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, m) bool, whether boxes (n, 4) and (m, 4) share an area."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray((high > low).all(axis=-1))


def check_layout(size, points, style):
    markers, boxes, _ = laid_out(size, points, style)
    placed = boxes[~np.isnan(boxes[:, 0])]
    assert not overlaps(placed, np.array([marker.box for marker in markers])).any(), "labels cover no marker"
    assert not np.triu(overlaps(placed, placed), 1).any(), "nor each other"
    assert (placed[:, :2] >= 0).all() and (placed[:, 2:] <= size).all(), "all are in the picture"
    return markers, placed


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("size", "points"),
    [
        ((800, 600), grid_of(10, 10, 6, 370, 270)),
        (
            (640, 480),
            [Point(i, 0, x, y) for i, (x, y) in enumerate([(0, 0), (640, 0), (0, 480), (640, 480)], 1)],
        ),
        ((7680, 4320), grid_of(3, 4, 900, 1500, 700)),
        ((1600, 300), grid_of(2, 15, 100, 100, 100)),
        ((300, 300), [Point(i, 0, 150, 150) for i in range(1, 6)]),
        ((90, 60), grid_of(2, 2, 30, 20, 15)),
    ],
)
def test_labels_cover_neither_markers_nor_each_other(size, points, style):
    _, placed = check_layout(size, points, style)
    if size != (90, 60):
        assert len(placed) == len(points), "there is room for all"


@given(
    st.tuples(st.integers(8, 900), st.integers(8, 900)),
    st.lists(st.tuples(st.floats(-5, 905), st.floats(-5, 905)), min_size=1, max_size=25),
    st.sampled_from(STYLES),
)
@settings(max_examples=40, deadline=None)
def test_layouts_of_any_points(size, places, style):
    check_layout(size, [Point(i, 0, x, y) for i, (x, y) in enumerate(places, 1)], style)


def test_markers_of_neighbours_do_not_touch():
    markers, _, moved = laid_out((800, 600), grid_of(20, 20, 6, 340, 240))
    boxes = np.array([marker.box for marker in markers])
    assert not np.triu(overlaps(boxes, boxes), 1).any()
    assert {marker.number for marker in markers} == {""}, "no number fits into so small a marker"
    assert moved.sum() > 300, "and most labels are linked by a line"


def test_numbers_stand_in_markers_where_there_is_room():
    points = [Point(1, 0, 50, 50), Point(12, 0, 150, 60), Point(345, 0, 100, 120), Point(4, 0, 199, 10)]
    markers, _, _ = laid_out((200, 160), points)
    assert [marker.number for marker in markers] == ["1", "12", "", ""], (
        "not in small ones, nor in one that is cut off"
    )
    assert {marker.number for marker in laid_out((200, 160), points, "dot")[0]} == {""}


@pytest.mark.parametrize(("x", "y"), [(0, 0), (199, 0), (0, 159), (199, 159), (100, 0), (0, 80)])
def test_numbers_at_corners_and_edges_can_be_read(x, y):
    picture = Image.new("RGB", (200, 160), "gray")
    points = [Point(i, 0, x, y) for i in (1, 2)]
    one, other = (draw_points(picture, [replace(point, object_id=i + 10)]) for i, point in enumerate(points))
    letters = [(np.asarray(drawn) > 190).all(axis=-1).sum() for drawn in (one, other)]
    assert min(letters) > 15, "white digits are there"


def test_sizes_on_tiny_and_huge_pictures():
    tiny, _, _ = laid_out((32, 32), [Point(1, 0, 5, 5), Point(2, 0, 20, 12), Point(3, 0, 28, 29)])
    assert max(marker.radius for marker in tiny) < 3
    huge, boxes, _ = laid_out((7680, 4320), [Point(1, 0, 400, 400), Point(2, 0, 4000, 2000)])
    assert min(marker.radius for marker in huge) > 80 and huge[0].number == "1"
    assert (boxes[:, 3] - boxes[:, 1]).min() > 50, "letters can be read at the size of a screen"


@pytest.mark.parametrize("style", STYLES)
def test_equal_points_give_equal_bytes(style):
    picture = Image.new("RGB", (320, 240), "teal")
    points = grid_of(5, 8, 14, 60, 60)
    first, again = (
        draw_points(picture, points, labels=True, scores=True, style=style).tobytes() for _ in range(2)
    )
    assert first == again


@pytest.mark.parametrize("background", ["white", "black", colour_of(1)])
@pytest.mark.parametrize("style", STYLES)
def test_every_style_stands_out(style, background):
    picture = Image.new("RGB", (300, 200), background)
    drawn = np.asarray(draw_points(picture, [Point(1, 0, 150.0, 100.0)], style=style, numbers=False)).astype(
        int
    )
    contrast = np.abs(drawn - np.asarray(picture).astype(int)).max(axis=-1)
    assert contrast.max() > 80
    rows, columns = np.nonzero(contrast > 20)
    assert abs(rows.mean() + 0.5 - 100) < 0.6 and abs(columns.mean() + 0.5 - 150) < 0.6


def test_two_hundred_points_are_quick():
    places = np.random.default_rng(1).uniform([0, 0], [1280, 800], (200, 2)).tolist()
    points = [Point(i, 0, x, y, 0.5) for i, (x, y) in enumerate(places, 1)]
    begun = time.process_time()
    draw_points(Image.new("RGB", (1280, 800)), points, scores=True)
    assert time.process_time() - begun < 3  # 0.4 s on one core


def test_own_labels():
    picture = Image.new("RGB", (300, 200), "gray")
    points = [Point(1, 0, 60, 60), Point(2, 0, 60, 140)]
    plain = draw_points(picture, points)
    assert draw_points(picture, points, labels=[None, ""]).tobytes() == plain.tobytes()
    labelled = changed(plain, draw_points(picture, points, labels=["cup", None]))
    assert labelled[:100].any() and not labelled[110:].any()
    for labels, message in ((["cup"], "2 points"), ("cup", "got str"), ([1, 2], "as text")):
        with pytest.raises(ProcessingError, match=message):
            draw_points(picture, points, labels=labels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "label",
    [
        "a" * 5000,
        "word " * 900,
        "tab\tline\nend\x1b[31m\u202e",
        "красные круги",
        "红色的圆圈" * 40,
        "🎉",
        "\ud800",
    ],
)
def test_odd_labels(label):
    picture = Image.new("RGB", (300, 200), "gray")
    drawn = draw_points(picture, [Point(1, 0, 150, 100, 0.5, label)], labels=True, scores=True)
    assert changed(picture, drawn)[:, 30:-30].any()
    assert draw_title(picture, label).width == 300


def test_long_words_are_broken_and_cut():
    font = own_font(12)
    lines = in_lines(
        one_line("the red circles beside the Donaudampfschifffahrtsgesellschaft " * 3), font, 90, 3
    )
    assert (
        len(lines) == 3 and lines[-1].endswith("\u2026") and all(font.getlength(line) <= 90 for line in lines)
    )
    assert in_lines("the red circles", font, 500, 3) == ["the red circles"]


def test_options_that_cannot_be():
    picture = Image.new("RGB", (60, 40))
    with pytest.raises(ProcessingError, match="did you mean crosshair"):
        draw_points(picture, [], style="crosshairs")
    with pytest.raises(ProcessingError, match="choose one"):
        draw_points(picture, [], style=None)  # type: ignore[arg-type]
    with pytest.raises(ProcessingError, match="font"):
        draw_points(picture, [], font=__file__)
    for scale in (0, -1, 1.5, True, 10_000):
        with pytest.raises(ProcessingError):
            enlarged(picture, [], scale)  # type: ignore[arg-type]


def test_enlarged_pictures_have_their_points_in_the_same_place():
    picture, (point,) = enlarged(Image.new("RGB", (6, 4)), [Point(1, 0, 1.5, 3.0)], 10)
    assert picture.size == (60, 40) and point.xy == (15.0, 30.0)
