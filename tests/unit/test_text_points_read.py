"""Reading points out of text: every form that models write, what is malformed or cut, and hostile text."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.errors import GroundingError
from molmopoint.points import Points
from molmopoint.processing.text_points import TextForm, read_text_answer

ONE = [(1000, 500)]
THREE = [(1000, 500), (200, 100), (10, 10)]


def rows(points: Points) -> list[tuple[int, float, float, float]]:
    return [(point.object_id, point.group, round(point.x, 6), round(point.y, 6)) for point in points]


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ('<points coords="1 1 100 300 2 500 200">boats</points>', TextForm.COORDS, [(1, 0, 100, 150), (2, 0, 500, 100)]),
        ('Counting the <points coords="1 1 000 1000">x</points> shows a total of 1.', TextForm.COORDS, [(1, 0, 0, 500)]),
        ('<points alt="a <b> c" coords="1 1 100 300"/> and', TextForm.COORDS, [(1, 0, 100, 150)]),
        ('<points coords="1 1 100 300">a</points> <points coords="1 1 200 400">b', TextForm.COORDS, [(1, 0, 100, 150), (1, 0, 200, 200)]),
        ('<point x="10.5" y="20.0" alt="dog">dog</point>', TextForm.ATTRIBUTES, [(1, 0, 105, 100)]),
        ('<point x="10" y="20">a</point> <point x="30" y="40">b</point>', TextForm.ATTRIBUTES, [(1, 0, 100, 100), (2, 0, 300, 200)]),
        ('<points x1="10.5" y1="20.0" x2="3" y2="4.0" alt="x=9">d</points>', TextForm.ATTRIBUTES, [(1, 0, 105, 100), (2, 0, 30, 20)]),
        ("I would Click(10.5, 20)", TextForm.CLICKS, [(1, 0, 105, 100)]),
        ("p=125, 400 and p=1000, 000", TextForm.TENTHS, [(1, 0, 125, 200), (2, 0, 1000, 0)]),
        ("at (1.5, 2.5) and (3.0, 4.0)", TextForm.PAIRS, [(1, 0, 15, 12.5), (2, 0, 30, 20)]),
        ("1 125 400 2 130 410.", TextForm.PLAIN_INTEGERS, [(1, 0, 125, 200), (2, 0, 130, 205)]),
        ("1 12.5 40.0 2 13.0 41.0", TextForm.PLAIN_DECIMALS, [(1, 0, 125, 200), (2, 0, 130, 205)]),
    ],
)  # fmt: skip
def test_forms_of_one_picture(text: str, form: TextForm, expected: list):
    answer = read_text_answer(text, ONE)
    assert (answer.form, answer.invalid, answer.truncated_triple) == (form, 0, False)
    assert rows(answer.points) == expected


@pytest.mark.parametrize("separator", [";", "\t", ":", ","])
def test_several_pictures(separator: str):
    answer = read_text_answer(
        f'<points coords="1 1 050 060 2 100 200{separator}3 3 010 1000">cats</points>', THREE
    )
    assert rows(answer.points) == [(1, 0, 50, 30), (2, 0, 100, 100), (3, 2, 0.1, 10)]
    assert (
        answer.labels == ("cats",)
        and answer.points.labels == ("cats",) * 3
        and answer.points.group.dtype.kind == "i"
    )


def test_clips():
    text = '<tracks coords="0.0 1 100 100 2 500 100;0.5 1 150 100;3 1 200 100">dog</tracks>'
    assert [row[1] for row in rows(read_text_answer(text, ONE, is_video=True).points)] == [0.0, 0.0, 0.5, 3.0]
    # written times are rounded: frames within half a step of the last decimal are meant
    assert [row[1] for row in rows(read_text_answer(text, ONE, [0, 0.46, 1]).points)] == [0.0, 0.0, 0.46, 3.0]
    older = "<points 0.5 1 10.0 20.0 2 30.0 40.0/> then <points 1.0 1 1.0 2.0 />"
    answer = read_text_answer(older, ONE, [0.0, 0.5, 1.0])
    assert answer.form is TextForm.BLOCKS and rows(answer.points) == [
        (1, 0.5, 100, 100),
        (2, 0.5, 300, 200),
        (1, 1.0, 10, 10),
    ]
    with pytest.raises(GroundingError, match="one"):
        read_text_answer(text, THREE, [0.0])


def test_an_older_form_does_not_say_which_picture_or_time():
    one = '<point x="10" y="20">a</point>'
    assert rows(read_text_answer(one, ONE, [2.5]).points) == [(1, 2.5, 100, 100)]
    for sizes, timestamps in ((THREE, None), (ONE, [0.0, 1.0])):
        answer = read_text_answer(one, sizes, timestamps)
        assert (len(answer.points), answer.invalid) == (0, 1)
    assert read_text_answer("<points 0.5 1 10.0 20.0/>", ONE).invalid == 1


@pytest.mark.parametrize(
    ("text", "points", "invalid"),
    [
        ('<points coords="1 1 100 x00 2 300 400">a</points>', 1, 1),
        ('<points coords="1 1 45 045">a</points>', 0, 1),  # fewer than three digits
        ('<points coords="1 1 100 1001">a</points>', 0, 1),  # outside
        ('<points coords="2 1 100 100 2 200 200">a</points>', 0, 2),  # a picture that is not there
        ('<points coords="0 1 100 100">a</points>', 0, 1),
        ('<points coords="0.5 1 100 100">a</points>', 0, 1),  # a time, but pictures
        ('<points coords="1 1 100 100 2 200">a</points>', 1, 1),
        ('<points coords="1">a</points>', 0, 1),
        ('<points coords="one 1 100 100">a</points>', 0, 1),
        ('<points coords="">a</points>', 0, 0),
        (f'<points coords="1 {"9" * 5000} 100 100">a</points>', 0, 1),
        ('<points coords="1 1 100 100</points> more', 1, 0),  # a missing quote
        ('<point x="10.5" y="200">a</point>', 0, 1),
        ('<point x="10.5">a</point>', 0, 1),
        ('<points x1="1" y1="two" x2="3" y2="4">a</points>', 1, 1),
        ("There are none.", 0, 0),
        ("There are 12 of them in 1 3 rows.", 0, 0),
        ("", 0, 0),
    ],
)
def test_malformed_answers_are_counted(text: str, points: int, invalid: int):
    answer = read_text_answer(text, ONE)
    assert (len(answer.points), answer.invalid, answer.truncated_triple) == (points, invalid, False)


def test_an_object_is_once_at_a_time_in_a_track():
    text = '<{0} coords="0.5 1 100 100 1 200 200;1.0 1 300 300">a</{0}>'
    tracks, points = (read_text_answer(text.format(tag), ONE, [0.5, 1.0]) for tag in ("tracks", "points"))
    assert [row[2] for row in rows(tracks.points)] == [100, 300] and tracks.invalid == 1
    assert len(points.points) == 3 and not points.invalid


def test_forms_are_not_mixed():
    text = '<points coords="1 1 100 100">a</points> also (1.0, 2.0) and <point x="1" y="2">b</point>'
    answer = read_text_answer(text, ONE)
    assert (
        answer.form is TextForm.COORDS
        and rows(answer.points) == [(1, 0, 100, 50)]
        and answer.labels == ("a",)
    )


WHOLE = '<points coords="1 1 100 300 2 500 200;2 3 1000 100 12 070 080">boats</points> there.'


def test_cut_anywhere_it_reads_what_is_whole():
    places = rows(read_text_answer(WHOLE, THREE).points)
    seen = 0
    for end in range(len(WHOLE) + 1):
        answer = read_text_answer(WHOLE[:end], THREE)
        found = rows(answer.points)
        assert answer.invalid == 0 and found == places[: len(found)] and len(found) >= seen
        seen = len(found)
    assert seen == 4


def test_a_number_that_may_go_on_is_cut():
    for text, points, cut in (
        ("1 1 200 100", 0, True),
        ("1 1 200 300", 1, False),
        ("1 1 200 1000", 1, False),
        ("1 1 200 100 ", 1, False),
    ):
        answer = read_text_answer(f'<points coords="{text}', ONE)
        assert (len(answer.points), answer.truncated_triple) == (points, cut)
    for text in ('<points x1="10.5" y1="20.0" x2="3" y2="4.', '<points x1="10.5" y1="20.0" x2="3'):
        answer = read_text_answer(text, ONE)
        assert (len(answer.points), answer.invalid, answer.truncated_triple) == (1, 0, True)
    for text in (
        "<points 0.5 1 10.0 20.0 2 30.0 4",
        "<points 0.5 1 10.0 20.0 2 30.",
        "<points 0.5 1 10.0 20.0 2",
    ):
        answer = read_text_answer(text, ONE, [0.5])
        assert (len(answer.points), answer.invalid, answer.truncated_triple) == (1, 0, True)


PIECES = st.sampled_from(
    [
        '<points coords="', "<tracks ", "<point ", 'x1="', 'y1="', ' coords="', '"', ">", "/>", "</points>", "1 ", "0.5 ", "100 ", "1000",
        ";", "\t", "Click(", "(", ")", ",", "p=", "=", "1.5", "<", "x", "y=", " ", "\n", "9" * 30, "alt", "\u0663",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=40).map("".join), st.booleans())
def test_nothing_a_model_writes_is_an_error(text: str, is_video: bool):
    answer = read_text_answer(text, ONE if is_video else THREE, [0.0, 0.5] if is_video else None)
    sizes = np.array(answer.points.image_sizes)[0 if is_video else answer.points.group]
    assert ((answer.points.xy >= 0) & (answer.points.xy <= sizes)).all() and answer.invalid >= 0


HOSTILE = [
    "<points ", "<points coords=", '<points coords="', '<points alt="', '"', "<point x", '<point x1="', "x1=", "x 1x 1", "Click( ", "( ",
    "p ", "p=1", "1 ", "100 ", "1.5 ", "9", " ", "\t", ";", "<", ">", "</points", '<points coords="1 1 100 100">',
    '<points coords="1 1 100 100;', "(1.5, ", "a", "coords ",
]  # fmt: skip


@pytest.mark.parametrize("start", ["", '<points coords="1 ', "<points ", '<points x1="'])
def test_hostile_text_takes_linear_time(start: str):
    for piece in HOSTILE:
        text = start + piece * (30_000 // len(piece))
        begun = time.process_time()
        read_text_answer(text, ONE)
        assert time.process_time() - begun < 1.0, piece  # quadratic time would be more than ten seconds


@pytest.mark.parametrize(
    ("written", "frames", "read"),
    [
        ("0.5", [0.0, 0.46, 1.0], 0.46),
        ("0.5", [0.0, 0.55, 1.0], 0.55),  # what rounds to the written tenth
        ("0.5", [0.0, 0.56, 1.0], 0.5),
        ("1.3", [0.0, 1.0, 1.5], 1.3),  # no frame was there: nobody moves the point by a fifth of a second
        ("0.4", [0.0, 0.5, 1.0], 0.4),
        ("7.0", [0.0, 0.5, 1.0], 7.0),
    ],
)
def test_a_written_time_becomes_a_frames_own_only_if_it_means_it(
    written: str, frames: list[float], read: float
):
    answer = read_text_answer(f'<points coords="{written} 1 100 100">a</points>', ONE, frames)
    assert answer.points.group.tolist() == [read]


def test_a_picture_without_points_among_several_is_no_fault():
    """The reference writes them, so models do too; a list of nothing but a key is one."""
    answer = read_text_answer('<points coords="1 1 100 200;2 ;3 2 300 400">a</points>', [*ONE] * 3)
    assert answer.points.group.tolist() == [0, 2] and not answer.invalid
    assert read_text_answer('<points coords="2 ">a</points>', [*ONE] * 3).invalid == 1
