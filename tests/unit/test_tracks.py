"""Tracks: checks at birth, objects and moments on demand, filling gaps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmopoint.errors import GroundingError
from molmopoint.points import Points
from molmopoint.tracks import Track, TrackPoint, Tracks


def columns(*values: Any) -> Any:
    return tuple(map(np.asarray, values))


def two_cars(**changes):
    """Car 1 at 0, 0.5 and 2 s, looked for at 1 and 1.5 s and not found; car 4 at 0.5 and 1 s."""
    given: dict[str, Any] = {
        "object_id": [4, 1, 1, 4, 1],
        "time": [0.5, 0.0, 0.5, 1.0, 2.0],
        "x": [50.0, 0.0, 10.0, 60.0, 40.0],
        "y": [5.0, 1.0, 1.0, 5.0, 4.0],
        "score": [0.5, math.nan, 1.0, 0.25, 0.5],
        "size": (100, 10),
        "fps": 30,
        "moments": [0, 0.5, 1, 1.5, 2],
        "labels": {1: "the red car"},
    }
    return Tracks(**given | changes)


def test_a_sequence_of_objects():
    tracks = two_cars()
    assert len(tracks) == 2 and tracks.num_points == 5 and tracks.object_ids == (1, 4)
    car = tracks[0]
    assert (
        isinstance(car, Track)
        and car.label == "the red car"
        and len(car) == 3
        and (car.start, car.end) == (0.0, 2.0)
    )
    assert car.xy.tolist() == [[0, 1], [10, 1], [40, 4]]
    assert [point.time for point in car] == [0.0, 0.5, 2.0]
    assert next(iter(tracks.track(4))) == TrackPoint(4, 0.5, 50.0, 5.0, True, 0.5)
    assert [track.object_id for track in tracks] == [1, 4]
    assert tracks[-1].object_id == 4 and tracks[1:].object_ids == (4,) and tracks[[1, 0]].object_ids == (1, 4)
    assert (
        tracks[np.array([True, False])].labels == {1: "the red car"}
        and tracks[1:].labels is None
        and len(tracks[[]]) == 0
    )
    with pytest.raises(IndexError):
        tracks[2]
    with pytest.raises(GroundingError, match=r"out of \[1, 4\], got 2"):
        tracks.track(2)


def test_rows_are_in_the_order_of_time():
    tracks = two_cars()
    assert tracks.time.tolist() == [0.0, 0.5, 0.5, 1.0, 2.0] and tracks.object_id.tolist() == [1, 1, 4, 4, 1]
    assert tracks.visible.all() and tracks.frame is None and tracks.fps == 30.0


def test_moments_with_and_without_objects():
    moments = list(two_cars().by_moment())
    assert [(time, [point.object_id for point in points]) for time, points in moments] == [
        (0.0, [1]), (0.5, [1, 4]), (1.0, [4]), (1.5, []), (2.0, [1]),
    ]  # fmt: skip
    assert Tracks.empty(moments=[1.0]).moments.tolist() == [1.0] and len(two_cars(moments=None).moments) == 4


def test_parts():
    part = two_cars().between(0.5, 1.5)
    assert part.time.tolist() == [0.5, 0.5, 1.0] and part.moments.tolist() == [0.5, 1.0, 1.5]
    good = two_cars().where(two_cars().score >= 0.5)
    assert good.num_points == 3 and good.moments.tolist() == [0, 0.5, 1, 1.5, 2]
    assert two_cars().renumbered({1: 7}).labels == {7: "the red car"}
    with pytest.raises(GroundingError, match="one place per object"):
        two_cars().renumbered({1: 4})
    with pytest.raises(GroundingError, match="end is not before"):
        two_cars().between(2, 1)


def test_gaps_are_filled_and_marked():
    filled = two_cars().interpolated(4)
    car = filled.track(1)
    assert car.time.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    np.testing.assert_allclose(car.x, [0, 5, 10, 15, 20, 25, 30, 35, 40])
    # Nobody looked between 0 and 0.5 s; between 0.5 and 2 s somebody did, and saw nothing.
    assert car.visible.tolist() == [True, True, True, False, False, False, False, False, True]
    assert car.score[2] == 1.0 and np.isnan(car.score[[0, 1, 3, 4]]).all() and car.score[-1] == 0.5
    assert filled.track(4).time.tolist() == [0.5, 0.75, 1.0] and filled.track(4).visible.all()
    assert frames_of(car) == list(range(9)) and filled.fps == 4 and filled.labels == {1: "the red car"}


def test_wide_gaps_stay():
    assert two_cars().interpolated(4, max_gap=1.0).track(1).time.tolist() == [0, 0.25, 0.5, 2]
    assert two_cars().interpolated(4, max_gap=0).track(1).time.tolist() == [0, 0.5, 2]
    assert two_cars().interpolated(4, max_gap=1.5).track(1).time.size == 9


def test_places_at_a_time():
    tracks = two_cars()
    assert [(p.object_id, p.x, p.visible) for p in tracks.at(0.75)] == [
        (1, pytest.approx(15), False),
        (4, 55.0, True),
    ]
    assert [p.object_id for p in tracks.at(0.75, max_gap=1)] == [4]
    assert (
        [p.object_id for p in tracks.at(2.0)] == [1] and tracks.at(2.1) == () and tracks.at(0.0)[0].x == 0.0
    )
    for time in (-0.1, math.nan):
        with pytest.raises(GroundingError, match="0 or more seconds"):
            tracks.at(time)


def frames_of(track: Track) -> list[int]:
    return [] if track.frame is None else track.frame.tolist()


def test_an_odd_rate_loses_no_object():
    """A point between two multiples moves to the nearer one."""
    filled = Tracks(
        *columns([1, 2, 2], [0.5, 0.5, 1.0], [10, 20, 30], [1, 2, 3], [1, 1, 1], [0.5, 0.5, 0.5])
    ).interpolated(29.97)
    assert (
        frames_of(filled.track(1)) == [15]
        and filled.track(1).x.tolist() == [10]
        and filled.track(1).score.tolist() == [0.5]
    )
    assert frames_of(filled.track(2)) == list(range(15, 31))
    assert Tracks.empty(size=(4, 4)).interpolated(10) == Tracks.empty(size=(4, 4), fps=10)


clips = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 40), st.floats(0, 100), st.floats(0, 100)),
    max_size=12,
    unique_by=lambda r: (r[0], r[1]),
)


def tracks_of(rows, step=0.25):
    ids, steps, xs, ys = columns(*([row[i] for row in rows] for i in range(4)))
    return Tracks(ids, steps * step, xs, ys, size=(100, 100))


@settings(max_examples=50)
@given(clips, st.sampled_from([1, 4, 8, 12, 29.97]), st.sampled_from([None, 0, 0.5, 3]))
def test_filling_keeps_objects_and_adds_nothing_outside(rows, fps, max_gap):
    tracks = tracks_of(rows)
    filled = tracks.interpolated(fps, max_gap=max_gap)
    assert filled.object_ids == tracks.object_ids
    for track in tracks:
        new = filled.track(track.object_id)
        assert (
            abs(new.start - track.start) <= 0.5 / fps + 1e-6 and abs(new.end - track.end) <= 0.5 / fps + 1e-6
        )
        assert track.x.min() - 1e-9 <= new.x.min() and new.x.max() <= track.x.max() + 1e-9
        if fps in (4, 8, 12):  # all times are multiples
            assert set(track.time.tolist()) <= set(new.time.tolist())
            same = np.isin(new.time, track.time)
            assert new.xy[same].tolist() == track.xy.tolist() and new.visible[same].all()
            far = np.diff(new.time) > 1.01 / fps
            assert not far.any() or max_gap is not None


@settings(max_examples=20)
@given(clips)
def test_at_agrees_with_filling(rows):
    tracks = tracks_of(rows)
    filled = tracks.interpolated(8)
    for time, points in list(filled.by_moment())[::7]:
        assert [(p.object_id, p.visible) for p in tracks.at(time)] == [
            (p.object_id, p.visible) for p in points
        ]
        np.testing.assert_allclose([p.x for p in tracks.at(time)], [p.x for p in points])


@settings(max_examples=50)
@given(clips)
def test_points_there_and_back(rows):
    tracks = tracks_of(rows)
    assert Tracks.from_points(tracks.to_points()) == tracks


def test_from_points_of_an_answer():
    labels = ["cat", None, "cat", "cat"]
    points = Points(
        *columns([1, 2, 1, 1], [0.0, 0.0, 0.5, 0.5], [1, 2, 3, 4], [1, 2, 3, 4]),
        image_sizes=[(10, 10)],
        labels=labels,
    )
    tracks = Tracks.from_points(points, moments=[0.0, 1.0])
    # The first of two places is kept.
    assert tracks.x.tolist() == [1, 2, 3] and tracks.labels == {1: "cat"} and tracks.size == (10, 10)
    assert tracks.moments.tolist() == [0.0, 0.5, 1.0]
    large = Points(*columns([2**60, 2**60 + 1], [0.0, 0.0], [1, 2], [1, 2]))
    assert Tracks.from_points(large).object_ids == (2**60, 2**60 + 1)
    with pytest.raises(GroundingError, match="points of a clip"):
        Tracks.from_points(Points(*columns([1], [0], [1], [1])))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": [1.0]}, "5 values in column x"),
        ({"y": [math.nan] * 5}, "finite numbers in column y"),
        ({"time": [0.5, -1.0, 0.5, 1.0, 2.0]}, "times of 0 or more seconds"),
        ({"time": [0.5, 0.5, 0.5, 1.0, 2.0], "moments": None}, "several of object 1 at 0.5 s"),
        ({"score": [0, 0, 0, 0, 1.5]}, r"scores in 0\.\.1"),
        ({"object_id": [1.5] * 5}, "whole numbers"),
        ({"object_id": [1e300] * 5}, "whole numbers"),
        ({"visible": [2, 0, 0, 0, 0]}, "True or False"),
        ({"frame": [15, 0, 15, 30, -1]}, "frames from 0"),
        ({"frame": [15, 0, 16, 30, 60]}, "rise with time"),
        ({"size": (0, 10)}, "width, height"),
        ({"size": 7}, "width, height"),
        ({"fps": 0}, "fps above 0"),
        ({"moments": [0.0]}, "among the moments"),
        ({"moments": [-1, 0, 0.5, 1, 2]}, "moments of 0 or more"),
        ({"labels": {9: "cat"}}, "objects that have rows"),
        ({"labels": {1: 3}}, "phrases"),
    ],
)
def test_columns_are_checked_at_birth(changes, message):
    with pytest.raises(GroundingError, match=message):
        two_cars(**changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "both or neither"),
        ({"fps": 2, "times": [1.0]}, "both or neither"),
        ({"fps": 0}, "fps above 0"),
        ({"fps": math.inf}, "fps above 0"),
        ({"fps": True}, "fps above 0"),
        ({"times": [-1.0]}, "0 or more seconds"),
        ({"fps": 2, "max_gap": -0.5}, "max_gap"),
        ({"fps": 2, "max_gap": math.nan}, "max_gap"),
    ],
)
def test_wrong_requests_to_fill(arguments, message):
    with pytest.raises(GroundingError, match=message):
        two_cars().interpolated(**arguments)


def test_repr_is_short():
    assert repr(two_cars()) == "Tracks(2 objects: #1 'the red car', 3 points, 0..2 s; #4, 2 points, 0.5..1 s)"
    assert repr(Tracks.empty(moments=[0, 1])) == "Tracks(0 objects at 2 moments)"
    assert repr(tracks_of([(i, 0, 0, 0) for i in range(6)])).endswith("... 3 more)")
