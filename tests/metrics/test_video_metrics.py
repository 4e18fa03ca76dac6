"""HOTA against a published implementation, J and F against their definitions."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

from molmopoint.metrics.segmentation import outline_accuracy, outline_of, region_similarity
from molmopoint.metrics.tracking import TrackedFrame, hota


def frame(true: list, predicted: list, hits: list | np.ndarray) -> TrackedFrame:
    return TrackedFrame(true, predicted, np.asarray(hits, dtype=float).reshape(len(true), len(predicted)))


def test_c19_changed_id():
    found = hota([frame(["a"], [1], [1]), frame(["a"], [2], [1])])
    assert (found.detection, found.association, found.score) == pytest.approx((1, 0.5, math.sqrt(0.5)))


def test_c20_one_of_two_points():
    found = hota([frame(["a"], [1], [1]), frame(["a"], [1], [0])])
    assert (found.detection, found.association, found.score) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_c21_swapped_ids():
    found = hota([frame(["a", "b"], [1, 2], np.eye(2)), frame(["a", "b"], [2, 1], np.eye(2))])
    assert (found.detection, found.association, found.score) == pytest.approx((1, 1 / 3, math.sqrt(1 / 3)))


def test_nothing_to_track():
    assert hota([]).score == 1
    assert hota([frame([], [], [])]).score == 1
    assert hota([frame(["a"], [], [])]).score == 0
    assert hota([frame([], [3], [])]).score == 0


def test_ids_are_kept_apart_as_values():
    assert hota([frame(["10", "2"], [7, 8], np.eye(2)), frame(["2", "10"], [8, 7], np.eye(2))]).score == 1


def test_bad_frames():
    with pytest.raises(ValueError, match="once in a frame"):
        hota([frame(["a"], [1, 1], [1, 0])])
    with pytest.raises(ValueError, match="objects by points"):
        hota([TrackedFrame(["a"], [1], np.zeros((2, 2)))])


def random_sequence(rng: np.random.Generator) -> list[TrackedFrame]:
    frames = []
    for _ in range(int(rng.integers(1, 12))):
        true = rng.permutation(5)[: rng.integers(0, 6)].tolist()
        predicted = rng.permutation(6)[: rng.integers(0, 7)].tolist()
        frames.append(frame(true, predicted, rng.random((len(true), len(predicted))) < 0.35))
    return frames


def trackeval_scores(module, frames: list[TrackedFrame]) -> list[float]:
    """HOTA, DetA and AssA of TrackEval."""
    true, predicted = (
        sorted({i for f in frames for i in getattr(f, name)}) for name in ("true_ids", "predicted_ids")
    )
    data = {
        "num_gt_dets": sum(len(f.true_ids) for f in frames),
        "num_tracker_dets": sum(len(f.predicted_ids) for f in frames),
        "num_gt_ids": len(true),
        "num_tracker_ids": len(predicted),
        "gt_ids": [np.array([true.index(i) for i in f.true_ids], dtype=int) for f in frames],
        "tracker_ids": [np.array([predicted.index(i) for i in f.predicted_ids], dtype=int) for f in frames],
        "similarity_scores": [f.similarity for f in frames],
    }
    theirs = module.HOTA().eval_sequence(data)
    assert np.ptp(theirs["HOTA"]) == 0, "with 0/1 similarities every threshold is the same"
    return [float(theirs[name][9]) for name in ("HOTA", "DetA", "AssA")]


def test_hota_equals_stored_scores_of_trackeval():
    stored = json.loads((Path(__file__).parent / "hota_reference.json").read_text(encoding="utf-8"))[
        "sequences"
    ]
    assert len(stored) >= 30
    for sequence in stored:
        found = hota([frame(*each) for each in sequence["frames"]])
        assert (found.score, found.detection, found.association) == pytest.approx(sequence["expected"])


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_hota_equals_trackeval(seed):
    with contextlib.redirect_stdout(io.StringIO()):
        trackeval = pytest.importorskip(
            "trackeval.metrics.hota", reason="needs trackeval: pip install trackeval"
        )
        frames = random_sequence(np.random.default_rng(seed))
        if not sum(len(f.true_ids) for f in frames) or not sum(len(f.predicted_ids) for f in frames):
            return  # it has no rule for these
        theirs = trackeval_scores(trackeval, frames)
    ours = hota(frames)
    assert (ours.score, ours.detection, ours.association) == pytest.approx(theirs)


def test_c22_empty_masks():
    nothing, something = np.zeros((9, 9), dtype=bool), np.zeros((9, 9), dtype=bool)
    something[2:5, 2:5] = True
    for measure in (region_similarity, outline_accuracy):
        assert measure(nothing, nothing) == 1
        assert measure(nothing, something) == measure(something, nothing) == 0
        assert measure(something, something) == 1


def test_outline_by_hand():
    mask = np.zeros((6, 6), dtype=bool)
    mask[2:4, 2:4] = True
    assert np.argwhere(outline_of(mask)).tolist() == [
        [1, 1],
        [1, 2],
        [1, 3],
        [2, 1],
        [2, 3],
        [3, 1],
        [3, 2],
        [3, 3],
    ]


@given(st.integers(0, 2**32))
def test_outline_tolerance_equals_dilation_with_a_disk(seed):
    rng = np.random.default_rng(seed)
    predicted, true = (rng.random((24, 31)) < share for share in rng.uniform(0, 1, 2))
    tolerance = float(rng.choice([0.01, 0.05, 0.12]))
    radius = math.ceil(tolerance * math.hypot(24, 31))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x * x + y * y <= radius * radius
    outline, wanted = outline_of(predicted), outline_of(true)
    if not outline.any() or not wanted.any():
        return
    precision = (outline & binary_dilation(wanted, disk)).sum() / outline.sum()
    recall = (wanted & binary_dilation(outline, disk)).sum() / wanted.sum()
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert outline_accuracy(predicted, true, tolerance) == pytest.approx(expected)


def test_the_last_pixel_has_no_neighbour_and_so_no_outline():
    """It has neither a right nor a lower neighbour, whatever the mask says there."""
    mask = np.zeros((3, 4), dtype=bool)
    mask[2, 3] = True
    assert np.argwhere(outline_of(mask)).tolist() == [[1, 2], [1, 3], [2, 2]]
    assert np.argwhere(outline_of(~mask)).tolist() == [[1, 2], [1, 3], [2, 2]]
    assert not outline_of(np.ones((3, 4), dtype=bool)).any(), "a mask of everything has no outline"


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="one size"):
        region_similarity(np.zeros((2, 2), dtype=bool), np.zeros((3, 2), dtype=bool))
