"""Points written as text: the layout, and that the parser gives them back within half a unit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.backends.molmo2 import TextWriter
from molmopoint.data.records import Record, RecordPoint
from molmopoint.errors import GroundingError, ProcessingError
from molmopoint.processing.text_points import read_text_answer, text_answer, text_points, text_tracks
from molmopoint.training.formatting import format_record
from molmopoint.training.rules import FormattingRules

SIZES = [(1000, 500), (200, 100)]


def test_the_published_layout():
    assert (
        text_points([0, 0], [(500, 100), (100, 150)], SIZES, "boats")
        == '<points coords="1 1 100 300 2 500 200">boats</points>'
    )
    several = text_points([1, 0, 0], [(2, 100), (100, 100), (50, 30)], SIZES, "cats")
    assert several == '<points coords="1 1 050 060 2 100 200;2 3 010 1000">cats</points>'
    tracks = text_tracks(
        [0.5, 0.0, 0.0], [(150, 50), (500, 50), (100, 50)], ["a", "b", "a"], SIZES[:1], "dog"
    )
    assert tracks == '<tracks coords="0.0 1 100 100 2 500 100;0.5 1 150 100">dog</tracks>'


def test_pictures_without_points_among_several_are_written():
    """Source: the reference writes every picture that was asked about; the key of an empty one is followed by
    a blank.
    """
    text = text_points([0, 2], [(500, 100), (100, 50)], [*SIZES, SIZES[0]], "cats", pictures=(0, 1, 2))
    assert text == '<points coords="1 1 500 200;2 ;3 2 100 100">cats</points>'
    answer = read_text_answer(text, [*SIZES, SIZES[0]])
    assert answer.points.group.tolist() == [0, 2] and not answer.invalid
    points = (RecordPoint(50, 20, image=0), RecordPoint(10, 10, image=2))
    record = Record(
        1, ("a", "b", "c"), prompt="Point to the cats", points=points, coords="percent", style="pointing"
    )
    conversation = format_record(record, TextWriter((*SIZES, SIZES[0])), rng())
    assert conversation.answer == ('<points coords="1 1 500 200;2 ;3 2 100 100">Point to the cats</points>',)


def test_percents_become_thousandths_without_a_way_over_pixels():
    """As the reference writes them: round(1000 * x / 100), halves to the even number, whatever the size of
    the picture.
    """
    percents = np.arange(0, 10001) / 100
    for size in ((640, 480), (1237, 911)):
        for start in range(0, len(percents), 60):
            part = percents[start : start + 60]
            points = tuple(RecordPoint(float(x), float(x)) for x in part)
            record = Record(1, ("a",), label="dots", points=points, coords="percent", style="pointing")
            (text,) = format_record(record, TextWriter((size,)), rng()).answer
            written = [int(word) for word in str(text).split('"')[1].split()[2::3]]
            assert written == sorted(round(1000 * float(x) / 100) for x in part)


def test_two_frames_with_one_written_time_stay_two():
    text = text_points([10.04, 10.0, 10.04], [(500, 250), (700, 250), (100, 250)], SIZES[:1], "dog")
    assert text == '<points coords="10.0 1 700 500;10.0 2 100 500 3 500 500">dog</points>'


def test_sentences_of_the_styles():
    one = '<points coords="1 1 000 1000">dog</points>'
    answers = [
        text_answer([0], [(0, 500)], SIZES, "dog", style)
        for style in ("pointing", "point_count", "count_then_point", "count")
    ]
    assert answers == [one, f"Counting the {one} shows a total of 1.", f"There are 1 {one}.", "1"]
    assert text_answer([], [], SIZES, "dog") == "There are none."
    with pytest.raises(ProcessingError, match="style"):
        text_answer([0], [(0, 0)], SIZES, "dog", "track")  # type: ignore[arg-type]


def test_what_cannot_be_written_is_refused():
    for group, xy in (
        ([], []),
        ([0], [(1, 2), (3, 4)]),
        ([2], [(1, 2)]),
        ([-0.1], [(1, 2)]),
        ([0], [(1001, 2)]),
        ([0], [(np.nan, 2)]),
    ):
        with pytest.raises(GroundingError, match="expected"):
            text_points(group, xy, SIZES, "dog")
    with pytest.raises(GroundingError, match="object"):
        text_tracks([0.0], [(1, 2)], [], SIZES[:1], "dog")


def test_an_object_is_written_once_at_a_time():
    text = text_tracks([0.51, 0.49, 0.5], [(300, 50), (200, 50), (100, 50)], [1, 1, 2], SIZES[:1], "dog")
    assert text == '<tracks coords="0.5 1 100 100 2 200 100">dog</tracks>'


SIDE = st.integers(1, 5000)
# A half may be rounded either way.
FRACTION = st.floats(0, 1).filter(lambda share: abs(1000 * share % 1 - 0.5) > 1e-6)
PLACES = st.lists(st.tuples(st.integers(0, 3), FRACTION, FRACTION), min_size=1)


@given(st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=4), PLACES, st.data())
def test_pictures_there_and_back(sizes: list, places: list, data: st.DataObject):
    group = np.array([picture % len(sizes) for picture, _, _ in places])
    wh = np.array(sizes, dtype=float)[group]
    xy = np.array([(x, y) for _, x, y in places]) * wh
    label = data.draw(st.text(st.characters(exclude_characters="<>"), max_size=20))
    answer = read_text_answer(text_answer(group, xy, sizes, label, "point_count"), sizes)
    assert not answer.invalid and not answer.truncated_triple and answer.labels == (label,)
    check_same(group, xy / wh, answer.points.group, answer.points.xy_normalized)
    assert answer.points.object_id.tolist() == list(range(1, len(places) + 1))


@given(
    st.tuples(SIDE, SIDE), st.sets(st.integers(0, 4000), min_size=1, max_size=8), st.integers(1, 5), st.data()
)
def test_tracks_there_and_back(size: tuple, ticks: set, objects: int, data: st.DataObject):
    # Frames of any phase, no two at one written time.
    times = np.array(sorted(ticks)) * 0.1 + data.draw(st.floats(0, 0.04))
    places = [
        (t, number, data.draw(FRACTION), data.draw(FRACTION)) for t in times for number in range(objects)
    ]
    xy = np.array([(x, y) for *_, x, y in places]) * size
    text = text_tracks([t for t, *_ in places], xy, [number for _, number, *_ in places], [size], "dogs")
    answer = read_text_answer(text, [size], times)
    assert not answer.invalid and len(answer.points) == len(places)
    check_same(np.array([t for t, *_ in places]), xy / size, answer.points.group, answer.points.xy / size)
    order = [(point.group, point.object_id) for point in answer.points]
    assert order == sorted(order) and set(answer.points.object_id) == set(range(1, objects + 1))


def check_same(group: np.ndarray, fractions: np.ndarray, read_group: np.ndarray, read: np.ndarray) -> None:
    """The same places in any order, each within half a thousandth."""
    wanted = sorted((g, *np.rint(1000 * xy)) for g, xy in zip(group.tolist(), fractions, strict=True))
    found = sorted((g, *np.rint(1000 * xy)) for g, xy in zip(read_group.tolist(), read, strict=True))
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    np.testing.assert_allclose(1000 * read, np.rint(1000 * read), atol=1e-6)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_records_become_text_with_the_same_requests():
    points = (RecordPoint(75, 50), RecordPoint(10, 90))
    record = Record(1, ("a",), label="Cats", points=points, coords="percent", style="point_count")
    conversation = format_record(record, TextWriter(((120, 70),)), rng())
    assert conversation.answer == (
        'Counting the <points coords="1 1 100 900 2 750 500">cats</points> shows a total of 2.',
    )
    assert (
        "cats" in conversation.prompt
        and conversation.weighting.factor == FormattingRules().weights["points"].factor
    )
    none = format_record(
        Record(1, ("a",), label="cats", points=(), no_points=True), TextWriter(((120, 70),)), rng()
    )
    assert none.answer == ("There are none.",)


def test_clips_move_to_the_frames():
    clip = TextWriter(((100, 100),), np.array([0.0, 0.52, 1.04]))
    points = (RecordPoint(10, 20, t=0.5, object_id=7), RecordPoint(30, 40, t=1.0, object_id=7))
    record = Record(1, video="a.mp4", label="dog", points=points, coords="pixel", style="pointing")
    assert format_record(record, clip, rng()).answer == (
        '<points coords="0.5 1 100 200;1.0 2 300 400">dog</points>',
    )
    track = Record(1, video="a.mp4", label="dog", points=points, coords="pixel", style="track")
    answer = format_record(track, clip, rng(), FormattingRules(track_tolerance=0.05)).answer
    assert answer == ('<tracks coords="0.5 1 100 200;1.0 1 300 400">dog</tracks>',)
    assert read_text_answer(str(answer[0]), ((100, 100),), clip.timestamps).points.group.tolist() == [
        0.52,
        1.04,
    ]


def test_a_clip_has_one_size_and_frames():
    for sizes, times in ((((1, 1), (2, 2)), [0.0]), (((1, 1),), [])):
        with pytest.raises(ProcessingError, match="clip"):
            TextWriter(sizes, np.array(times))
