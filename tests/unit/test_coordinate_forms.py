"""Forms in which other models write coordinates: what is written is read again, and no text is an error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.processing.coordinate_forms import (
    FORMS,
    florence_points,
    moondream_points,
    paligemma_points,
    plain_points,
    qwen_points,
)

SIZE = (640, 480)
SEEN = (644, 476)

pixels = st.lists(st.tuples(st.integers(0, 640), st.integers(0, 470)), min_size=1, max_size=8)
fractions = st.lists(
    st.tuples(st.floats(0, 1, allow_nan=False), st.floats(0, 1, allow_nan=False)), min_size=1, max_size=8
)
words = st.text(alphabet="abc <>[]{}(),:\"'0123456789.-locpoint_2dxy=\n`", max_size=80)


@given(pixels)
def test_what_qwen_writes_is_read(places):
    expected = [(float(x), float(y)) for x, y in places]
    objects = [{"point_2d": [x, y], "label": "a cup"} for x, y in places]
    assert qwen_points(json.dumps(objects)) == expected
    assert qwen_points(f"Here they are:\n```json\n{json.dumps(objects, indent=1)}\n```") == expected
    numbered = " ".join(f'x{i}="{x}" y{i}="{y}"' for i, (x, y) in enumerate(places, 1))
    assert qwen_points(f'<points {numbered} alt="cups">cups</points>') == expected
    assert qwen_points(", ".join(f"({x}, {y})" for x, y in places)) == expected
    boxes = [{"bbox_2d": [x - 2, y - 4, x + 2, y + 4]} for x, y in places]
    assert qwen_points(json.dumps(boxes)) == expected


@given(pixels)
def test_numbers_of_qwen_count_the_picture_as_seen_or_thousandths(places):
    text = json.dumps([{"point_2d": list(place)} for place in places])
    points, outside = FORMS["qwen2.5-vl"].points(text, SIZE, SEEN)
    assert outside == 0
    for (x, y), point in zip(places, points, strict=True):
        assert point == pytest.approx((x / 644 * 640, y / 476 * 480))
    points, _ = FORMS["qwen3-vl"].points(text, SIZE, SEEN)
    for (x, y), point in zip(places, points, strict=True):
        assert point == pytest.approx((x / 1000 * 640, y / 1000 * 480))


@given(fractions)
def test_what_moondream_writes_is_read(places):
    text = json.dumps({"points": [{"x": x, "y": y} for x, y in places]})
    assert moondream_points(text) == places
    points, outside = FORMS["moondream"].points(text, SIZE, SEEN)
    assert outside == 0 and points == [pytest.approx((x * 640, y * 480)) for x, y in places]


bins = st.lists(st.tuples(*[st.integers(0, 999)] * 4), min_size=1, max_size=5)


@given(bins)
def test_what_florence_writes_is_read(boxes):
    expected = [((left + right + 1) / 2000, (top + bottom + 1) / 2000) for left, top, right, bottom in boxes]
    apart = "</s>".join("cup" + "".join(f"<loc_{number}>" for number in box) for box in boxes)
    joined = "cup" + "".join(f"<loc_{number}>" for box in boxes for number in box)
    assert florence_points(apart) == [pytest.approx(place) for place in expected]
    assert florence_points(joined) == [pytest.approx(place) for place in expected]


@given(bins)
def test_what_paligemma_writes_is_read(boxes):
    text = " ; ".join("".join(f"<loc{number:04d}>" for number in box) + " cup" for box in boxes)
    expected = [((left + right) / 2048, (top + bottom) / 2048) for top, left, bottom, right in boxes]
    assert paligemma_points(text) == [pytest.approx(place) for place in expected]


def test_odd_answers():
    assert florence_points("cup<loc_10><loc_20>") == [pytest.approx((0.0105, 0.0205))]
    assert florence_points("cup<loc_10>") == []
    outline = "<loc_0><loc_0><loc_100><loc_0><loc_100><loc_200>"
    assert florence_points(outline) == [pytest.approx((0.0505, 0.1005))]
    assert paligemma_points("<loc0001><loc0002><loc0003>") == []
    assert FORMS["paligemma"].points("<loc9999><loc9999><loc9999><loc9999>", SIZE, SIZE) == ([], 1)
    assert FORMS["qwen3-vl"].points("(-1, 5) (10, 1001)", SIZE, SIZE) == ([], 2)


@given(words)
def test_no_text_is_an_error(text):
    for read in (qwen_points, moondream_points, florence_points, paligemma_points, plain_points):
        for x, y in read(text):
            assert x == x and y == y
    for form in FORMS.values():
        points, outside = form.points(text, SIZE, SEEN)
        assert outside >= 0
        assert all(0 <= x <= 640 and 0 <= y <= 480 for x, y in points)
