"""Windows of a long clip: which frames each has, and one set of tracks out of them."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmopoint.errors import GroundingError, ProcessingError
from molmopoint.pipeline.windows import frames_per_answer, plan_windows, sampling_rate
from molmopoint.tracks import Tracks
from molmopoint.tracks.linking import link


def tracks_of(rows: Any, moments: Any = None) -> Tracks:
    ids, times, xs, ys = (np.array([row[i] for row in rows]) for i in range(4))
    return Tracks(ids, times, xs, ys, moments=moments)


@given(st.integers(1, 400), st.integers(8, 64), st.integers(1, 3))
def test_windows_cover_the_clip_and_share_moments(count, limit, step):
    if limit <= 4 * step:
        return
    parts = plan_windows(count, limit, step)
    assert parts[0].start == 0 and parts[-1].stop == count
    assert all(part.stop - part.start <= limit and part.start % step == 0 for part in parts)
    for one, other in pairwise(parts):
        assert one.start < other.start and one.stop < other.stop and one.stop - other.start >= 3 * step


def test_windows_need_room():
    with pytest.raises(ProcessingError, match="room for more than 3 frames"):
        plan_windows(10, 3, 1)


def test_the_model_sees_the_frames_it_is_asked_for():
    assert [sampling_rate(fps, 2.0) for fps in (None, 1, 2, 3, 5)] == [2.0, 2.0, 2.0, 3.0, 5.0]
    assert frames_per_answer(1, np.arange(9) / 2) == 2 and frames_per_answer(None, np.arange(9) / 2) == 1
    assert frames_per_answer(4, np.arange(9) / 2) == 1 and frames_per_answer(1, np.zeros(1)) == 1


@settings(max_examples=60)
@given(st.integers(1, 5), st.integers(12, 60), st.integers(6, 20), st.integers(0, 2**32 - 1))
def test_objects_keep_their_numbers(objects, count, limit, seed):
    """Objects that are far apart and always in sight come out of noisy windows, numbered anew in each, as
    they were.
    """
    rng = np.random.default_rng(seed)
    lanes = 100.0 * np.arange(objects)
    drift = rng.uniform(-8, 8, (objects, 2)) / count
    windows = []
    for part in plan_windows(count, limit, 1):
        names = rng.permutation(objects) + 1
        rows = [
            (
                names[i],
                frame / 2,
                *(np.array([lanes[i], lanes[i]]) + drift[i] * frame + rng.uniform(-3, 3, 2)),
            )
            for frame in range(part.start, part.stop)
            for i in range(objects)
        ]
        windows.append(tracks_of(rows))
    joined = link(windows, reach=40)
    assert len(joined) == objects and joined.moments.tolist() == [frame / 2 for frame in range(count)]
    assert joined.num_points == objects * count
    for track in joined:
        assert np.ptp(track.x) < 40 and len(track) == count
    assert all(joined.track(number).x[0] == windows[0].track(number).x[0] for number in windows[0].object_ids)


def test_what_cannot_be_linked_gets_a_new_number():
    one = tracks_of([(1, 0, 0, 0), (1, 1, 10, 0), (2, 0, 90, 0)], [0, 1])
    other = tracks_of([(1, 1, 50, 0), (1, 2, 60, 0), (2, 2, 20, 0)], [1, 2])
    joined = link(
        [one, other], reach=15
    )  # 40 pixels apart at second 1; object 2 of each is in no shared moment
    assert joined.object_ids == (1, 2, 3, 4) and joined.track(3).xy.tolist() == [[50, 0], [60, 0]]
    near = link([one, other], reach=45)
    assert near.object_ids == (1, 2, 3) and near.track(1).x.tolist() == [
        0,
        10,
        60,
    ]  # the earlier place of the shared moment


def test_a_far_pair_never_displaces_a_near_one():
    one = tracks_of([(1, 0, 0, 0), (2, 0, 100, 0)])
    other = tracks_of([(1, 0, 110, 0), (2, 0, 300, 0)])
    assert (
        link([one, other], reach=20).object_ids == (1, 2, 3)
        and link([one, other], reach=20).track(3).x[0] == 300
    )


def test_labels_and_empty_windows():
    named = replace(tracks_of([(1, 0.0, 5, 5)], [0.0, 1.0]), labels={1: "cat"})
    nothing = Tracks.empty(moments=[1.0, 2.0])
    joined = link([named, nothing, tracks_of([(1, 2, 5, 5)], [2.0, 3.0])], reach=10)
    assert (
        joined.labels == {1: "cat"}
        and joined.object_ids == (1, 2)
        and joined.moments.tolist() == [0, 1, 2, 3]
    )


@pytest.mark.parametrize("windows", [[], [tracks_of([(1, 0, 0, 0)]), tracks_of([(1, 1, 0, 0)])]])
def test_windows_that_are_none(windows):
    with pytest.raises(GroundingError, match="window"):
        link(windows, reach=math.inf)
