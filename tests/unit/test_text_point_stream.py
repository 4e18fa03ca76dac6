"""Following coordinates while they are written: always the beginning of what the whole answer says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.points import Points
from molmopoint.processing.text_point_stream import CoordsScanner, WrittenPointReader
from molmopoint.processing.text_points import TextForm, read_text_answer, text_list

SIZES = [(1000, 500), (200, 100)]
PARTS = [
    '<points coords="', '<tracks coords="', '<points alt="a" coords="', "<points ", "<point", 'coords="', '">', "</points>", "1 ", "2 1 ",
    "1 100 200", " 3 1000 050", " 100", "5", " ", ";", "\t", ":", "0.5 1 300 300", "<", '"', ">", "x", "Click(1, 2)", '<point x="1" y="2">',
]  # fmt: skip


def rows(points: Points) -> list[tuple[int, float, float, float]]:
    return [(p.object_id, p.group, p.x, p.y) for p in points]


def follow(pieces: list[str], timestamps: list[float] | None = None) -> list[tuple[int, float, float, float]]:
    scanner, reader = CoordsScanner(), WrittenPointReader(SIZES[: 1 if timestamps else 2], timestamps)
    return [row for piece in pieces for written in scanner.push(piece) for row in rows(reader.read(written))]


@given(st.lists(st.sampled_from(PARTS), max_size=14), st.data(), st.sampled_from([None, [0.0, 0.46, 1.0]]))
def test_what_is_followed_begins_what_is_read(parts, data, timestamps):
    text = "".join(parts)
    pieces, rest = [], text
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        pieces, rest = [*pieces, rest[:cut]], rest[cut:]
    answer = read_text_answer(text, SIZES[: 1 if timestamps else 2], timestamps)
    found = follow(pieces, timestamps)
    assert found == follow([text], timestamps) == rows(answer.points)[: len(found)]
    assert not found or answer.form is TextForm.COORDS
    closed = follow([text, '"'], timestamps)
    assert (
        closed == rows(read_text_answer(text + '"', SIZES[: 1 if timestamps else 2], timestamps).points)
        or not closed
    )


def test_points_come_when_something_follows_them():
    scanner, complete = CoordsScanner(), []
    for character in '<points coords="1 1 100 300 2 500 200;2 3 100 100">boats</points>':
        if scanner.push(character):
            complete.append((character, scanner.count))
    assert complete == [(" ", 1), (";", 2), ('"', 3)] and not scanner.inside and scanner.lists == 1
    scanner.push('<points coords="2 7 1')
    assert scanner.inside and scanner.unfinished == ("7", "1")


FRACTION = st.floats(0, 1)


@given(st.lists(st.tuples(st.integers(0, 1), FRACTION, FRACTION), min_size=1, max_size=30), st.integers(1, 5))
def test_lists_there_and_back_in_pieces(places, width):
    group = np.array([picture for picture, _, _ in places])
    xy = np.array([(x, y) for _, x, y in places]) * np.array(SIZES, dtype=float)[group]
    points = Points(np.arange(1, len(group) + 1), group, xy[:, 0], xy[:, 1])
    text = text_list(points, SIZES, "cats", is_video=False)
    found = follow([text[i : i + width] for i in range(0, len(text), width)])
    assert found == rows(read_text_answer(text, SIZES).points) and len(found) == len(points)
    order = np.lexsort((xy[:, 1], xy[:, 0], group))
    back = np.array([(x, y) for _, _, x, y in found])
    matched = np.sort(np.array([row[1] for row in found])) == np.sort(group)
    assert matched.all()
    assert np.abs(np.sort(back[:, 0]) - np.sort(xy[order, 0])).max() <= 0.5 * SIZES[0][0] / 1000 + 1e-6


def test_object_ids_that_repeat_in_time_are_tracks():
    group, x, y = np.array([[0.0, 0.5, 0.5], [100.0, 200.0, 300.0], [50.0, 50.0, 60.0]])
    points = Points(np.array([4, 4, 9]), group, x, y)
    text = text_list(points, SIZES[:1], "dogs", is_video=True)
    assert text == '<tracks coords="0.0 1 100 100;0.5 1 200 100 2 300 120">dogs</tracks>'
    answer = read_text_answer(text, SIZES[:1], [0.0, 0.5])
    assert follow([text], [0.0, 0.5]) == rows(answer.points) and answer.points.x == pytest.approx(
        [100, 200, 300]
    )
