"""Scores of tracks: the frames that count, the pairing of objects with masks, and the reference's flaws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from molmopoint.metrics.run_lengths import MaskIndex
from molmopoint.metrics.tracking import (
    PredictedTracks,
    TrackScores,
    TrueFrame,
    TrueTracks,
    at_frames,
    is_on_grid,
    is_on_reference_grid,
    on_grid,
    track_scores,
)

LEFT = np.zeros((10, 20), dtype=bool)
LEFT[:, :10] = True
INDEX = MaskIndex.build([LEFT, ~LEFT])
A, B = (4.0, 5.0), (15.0, 5.0)
FPS = 6.0


def truth(
    frames: dict[int, list[str]], objects: tuple[str, ...] = ("a", "b"), num_frames: int | None = None
) -> TrueTracks:
    """The first object is on the left, the second one on the right."""
    made = {}
    for number, ids in frames.items():
        xy = np.array([(A, B)[objects.index(each)] for each in ids], dtype=float).reshape(-1, 2)
        made[number] = TrueFrame(
            tuple(ids), xy, {each: i if each in ids else -1 for i, each in enumerate(objects)}
        )
    return TrueTracks(INDEX, (20, 10), FPS, 1.0, made, num_frames)


def points(*rows: tuple[float, int, tuple[float, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of (seconds, id, place)."""
    return (
        np.array([place for _, _, place in rows], dtype=float).reshape(-1, 2),
        np.array([seconds for seconds, _, _ in rows], dtype=float),
        np.array([each for _, each, _ in rows], dtype=np.int64),
    )


def grid(true: TrueTracks, *rows: tuple[float, int, tuple[float, float]]) -> PredictedTracks:
    return on_grid(*points(*rows), true)


def strict(*rows: tuple[float, int, tuple[float, float]]) -> PredictedTracks:
    return at_frames(*points(*rows), FPS)


def f1_and_hota(found: TrackScores) -> tuple[float, float]:
    return found.points.f1, found.hota.score


ONE = truth({0: ["a"], 6: ["a"], 12: ["a"]}, ("a",))


def test_c18_points_between_the_moments_asked_for():
    given = ((0.0, 1, A), (0.5, 1, A), (1.0, 1, A))
    assert track_scores(ONE, strict(*given)).points.f1 == 0.5
    assert track_scores(ONE, grid(ONE, *given)).points.f1 == pytest.approx(2 / 3)


def test_a_model_that_answers_twice_as_often_is_not_punished():
    twice = tuple((half / 2, 1, A) for half in range(6))
    assert f1_and_hota(track_scores(ONE, grid(ONE, *twice))) == (1, 1)
    assert track_scores(ONE, strict(*twice)).points.f1 == 0.5


def test_nearest_time_wins_and_far_ones_are_left_out():
    kept = grid(ONE, (0.8, 1, B), (1.1, 1, A), (1.26, 2, B), (1.5, 1, B), (2.24, 1, A))
    assert kept.frame.tolist() == [6, 12] and kept.xy.tolist() == [list(A), list(A)]
    out_of_step = truth({2: ["a"], 8: ["a"]}, ("a",))
    assert grid(out_of_step, (1 / 3, 1, A), (1.0, 1, A), (4 / 3, 1, A)).frame.tolist() == [2, 8], (
        "no frame is at a whole second"
    )
    late = truth({6: ["a"], 9: ["a"]}, ("a",))
    assert grid(late, (0.5, 1, A), (1.0, 1, A), (1.5, 1, A)).frame.tolist() == [6], (
        "counted from the start of the clip"
    )
    assert grid(truth({0: ["a"]}, ("a",), num_frames=12), (2.0, 1, A)).frame.tolist() == [], (
        "the clip has no such frame"
    )
    assert grid(truth({}), (0.0, 1, A), (0.6, 1, A)).frame.tolist() == [0]


def test_frames_at_the_moments_asked_for():
    assert [frame for frame in range(13) if is_on_grid(frame, 6.0, 1.0)] == [0, 6, 12]
    assert [frame for frame in range(121) if is_on_grid(frame, 29.97, 1.0)] == [0, 30, 60, 90, 120]
    assert [frame for frame in range(121) if is_on_reference_grid(frame, 29.97, 1.0)] == [0, 29, 58, 87, 116]
    assert [frame for frame in range(3) if is_on_reference_grid(frame, 0.5, 1.0)] == [0, 1, 2], (
        "slower than the answers"
    )


def test_a_frame_without_objects_is_right_without_points():
    some = truth({0: ["a"], 6: []}, ("a",))
    for ref_compat in (False, True):
        right = track_scores(some, strict((0, 1, A)), ref_compat=ref_compat)
        wrong = track_scores(some, strict((0, 1, A), (1, 1, A)), ref_compat=ref_compat)
        assert right.points.f1 == right.hota.score == 1
        assert wrong.points.f1 == 0.5 and wrong.hota.detection == 0.5


def test_t18_recall_by_the_objects_that_are_there():
    gone = truth({0: ["a", "b"], 6: ["a"]})
    perfect = strict((0, 1, A), (0, 2, B), (1, 1, A))
    assert f1_and_hota(track_scores(gone, perfect)) == (1, 1)
    reference = track_scores(gone, perfect, ref_compat=True)
    assert reference.points.recall == 0.75 and reference.points.precision == 1 and reference.hota.score == 1


def test_t18_masks_by_place_are_those_of_others():
    first_gone = truth({0: ["b"]})
    given = strict((0, 2, B))
    assert track_scores(first_gone, given).points.f1 == 1
    assert track_scores(first_gone, given, ref_compat=True).points.f1 == 0, (
        "the mask of the first object is taken"
    )


def test_t18_masks_go_with_objects_as_listed():
    """The frame lists the right object first; the reference takes the first mask for it, which is that of the
    left one.
    """
    xy = np.array([B, A])
    listed = TrueFrame(("b", "a"), xy, {"a": 0, "b": 1})
    true = TrueTracks(INDEX, (20, 10), FPS, 1.0, {0: listed})
    perfect = strict((0, 1, A), (0, 2, B))
    assert f1_and_hota(track_scores(true, perfect)) == (1, 1)
    assert f1_and_hota(track_scores(true, perfect, ref_compat=True)) == (0, 1), (
        "HOTA goes by the order of the question"
    )


def test_t19_ids_are_numbers_in_the_order_of_the_question():
    both = truth({0: ["9", "10"], 6: ["9", "10"]}, ("9", "10"))
    given = strict((0, 1, A), (1, 1, A), (0, 2, B), (1, 2, B))
    assert track_scores(both, given, ref_compat=True).hota.score == 1, "9 comes before 10"
    only_ten = truth({0: ["9", "10"], 6: ["10"]}, ("9", "10"))
    perfect = strict((0, 1, A), (0, 2, B), (1, 2, B))
    assert track_scores(only_ten, perfect).hota.score == 1
    assert track_scores(only_ten, perfect, ref_compat=True).hota.score < 1, "alone, 10 takes the mask of 9"
    turned = TrueTracks(INDEX, (20, 10), FPS, 1.0, both.frames, objects=("10", "9"))
    assert track_scores(turned, given, ref_compat=True).hota.score == 1, (
        "a swap of all is no mistake of the tracks"
    )


@pytest.mark.parametrize("ref_compat", [False, True])
def test_nothing_there_or_nothing_said(ref_compat):
    def scores(true: TrueTracks, given: PredictedTracks) -> tuple[float, float]:
        return f1_and_hota(track_scores(true, given, ref_compat=ref_compat))

    assert scores(truth({}), strict()) == (1, 1)
    assert scores(truth({}), strict((0, 1, A))) == (0, 0)
    assert scores(ONE, strict()) == (0, 0)


def test_more_points_than_objects():
    found = track_scores(truth({0: ["a"]}), strict((0, 1, A), (0, 2, A)))
    assert found.points.precision == 0.5 and found.points.recall == 1 and found.hota.detection == 0.5


def test_one_point_per_object_and_frame():
    assert strict((0, 1, A), (0.01, 1, B), (0, 2, B)).xy.tolist() == [list(A), list(B)]


def test_points_without_ids():
    given = strict((0, -1, A), (1, -1, A), (2, -1, A))
    assert f1_and_hota(track_scores(ONE, given)) == (1, 1), "one object is followed without ids"
    assert len(strict((0, -1, A), (0, -1, A)).xy) == 2


def test_changed_ids_cost_association_only():
    found = track_scores(truth({0: ["a"], 6: ["a"]}, ("a",)), strict((0, 1, A), (1, 2, A)))
    assert found.points.f1 == 1 and found.hota.score == pytest.approx(math.sqrt(0.5))


def test_masks_of_another_size_and_masks_that_are_not_there():
    large = TrueTracks(INDEX, (40, 20), FPS, 1.0, ONE.frames)
    assert track_scores(
        large, strict((0, 1, (18, 10)), (1, 1, (18, 10)), (2, 1, (22, 10)))
    ).points.precision == pytest.approx(2 / 3)
    broken = TrueTracks(INDEX, (20, 10), FPS, 1.0, {0: TrueFrame(("a",), np.array([A]), {"a": -1})})
    assert f1_and_hota(track_scores(broken, strict((0, 1, A)))) == (0, 0)


def test_a_point_is_rounded_before_the_mask_is_resized():
    """A mask of 4 x 2 for a video of 8 x 4: its right column covers the video's columns 6 and 7."""
    mask = np.zeros((2, 4), dtype=bool)
    mask[:, 3] = True
    frame = TrueFrame(("a",), np.array([(7.0, 1.0)]), {"a": 0})
    true = TrueTracks(MaskIndex.build([mask]), (8, 4), FPS, 1.0, {0: frame})
    hits = {x: track_scores(true, strict((0, 1, (x, 1.0)))).points.f1 for x in (4.9, 5.4, 5.6, 7.4, 7.6)}
    assert hits == {4.9: 0, 5.4: 0, 5.6: 1, 7.4: 1, 7.6: 0}, "7.6 rounds to 8, which is outside"


def test_max_hit_is_free_of_swaps():
    # Both places are nearer to the other object's mark than to their own.
    wide = TrueFrame(("a", "b"), np.array([(0.0, 5.0), (10.0, 5.0)]), {"a": 0, "b": 1})
    true = TrueTracks(INDEX, (20, 10), FPS, 1.0, {0: wide})
    found = track_scores(true, strict((0, 1, (9.0, 5.0)), (0, 2, (19.0, 5.0))))
    assert found.max_hit.f1 == 1 and found.points.f1 == 1
    crossed = track_scores(true, strict((0, 1, (9.0, 0.0))))
    assert crossed.max_hit.f1 == pytest.approx(2 / 3) and crossed.points.f1 == 0
