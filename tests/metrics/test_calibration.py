"""Maps from scores to chances: fitted where the truth is known, stored, and refused where they cannot be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from molmopoint.errors import CheckpointError, EvaluationError, MolmoPointError
from molmopoint.metrics import Calibration, fit_calibration, reliability_curve, right_points

GOOD = {"version": 1, "scores": [0.1, 0.5, 0.9], "chances": [0.4, 0.7, 0.7]}


def underconfident(seed: int, number: int = 4000):
    """Scores whose points are right with the square root of the score as chance."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, number)
    return scores, rng.uniform(0, 1, number) < np.sqrt(scores)


def test_the_true_chances_are_found():
    calibration = fit_calibration(*underconfident(0))
    places = np.linspace(0.05, 0.95, 19)
    assert np.abs(calibration(places) - np.sqrt(places)).max() < 0.07
    scores, hits = underconfident(1)
    before, after = (reliability_curve(said, hits).error for said in (scores, calibration(scores)))
    assert before > 0.15 and after < 0.025, "on points that it was not fitted on"
    assert calibration.points == 4000 and len(calibration.scores) <= 20


def test_knots_are_those_of_isotonic_regression():
    scores, hits = underconfident(2, 200)
    calibration = fit_calibration(scores, hits, max_knots=10)
    order = np.argsort(scores)
    shares = hits[order].reshape(10, 20).mean(axis=1)
    assert calibration.scores == pytest.approx(scores[order].reshape(10, 20).mean(axis=1), abs=1e-6)
    assert calibration.chances == pytest.approx(isotonic_regression(shares).x, abs=1e-4)


def test_the_error_by_hand():
    curve = reliability_curve([0.1, 0.1, 0.9, 0.9], [False, True, True, True], bins=2)
    assert curve.score == pytest.approx([0.1, 0.9]) and curve.right == pytest.approx([0.5, 1.0])
    assert curve.error == pytest.approx((0.4 + 0.1) / 2)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=50, max_size=120), st.integers(2, 40))
@settings(max_examples=40, deadline=None)
def test_any_map_is_monotone_and_in_range(points, knots):
    scores, hits = zip(*points, strict=True)
    try:
        calibration = fit_calibration(scores, hits, max_knots=knots)
    except EvaluationError as error:
        assert "nearly all have the same" in str(error)
        return
    chances = calibration(np.linspace(0, 1, 101))
    assert (np.diff(chances) >= 0).all() and chances.min() >= 0 and chances.max() <= 1
    assert len(calibration.scores) <= knots


def test_unknown_scores_stay_unknown():
    chances = Calibration(scores=(0.0, 1.0), chances=(0.5, 1.0))([0.5, np.nan])
    assert chances[0] == 0.75 and np.isnan(chances[1])
    assert Calibration(scores=(0.0, 1.0), chances=(0.5, 1.0))([]).shape == (0,)


def test_saved_maps_are_read_back(tmp_path):
    calibration = fit_calibration(*underconfident(3), about="made up")
    assert calibration.save(tmp_path).name == "calibration.json"
    assert Calibration.load(tmp_path) == calibration == Calibration.load(tmp_path / "calibration.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(GOOD | {"chances": [0.4, 0.7, 0.6]}), "not monotone"),
        (json.dumps(GOOD | {"scores": [0.1, 0.1, 0.9]}), "rise from knot to knot"),
        (json.dumps(GOOD | {"scores": [0.9, 0.5, 0.1]}), "rise from knot to knot"),
        (json.dumps(GOOD | {"chances": [0.4, 0.7]}), "as many chances"),
        (json.dumps(GOOD | {"chances": [0.4, 0.7, 1.5]}), "chances.2"),
        (json.dumps(GOOD | {"chances": [-0.1, 0.7, 0.8]}), "chances.0"),
        (json.dumps(GOOD | {"chances": [0.4, float("nan"), 0.8]}), "chances.1"),
        (json.dumps(GOOD | {"scores": [0.1, 0.5, float("inf")]}), "scores.2"),
        (json.dumps(GOOD | {"scores": ["0.1", 0.5, 0.9]}), "scores.0"),
        (json.dumps(GOOD | {"scores": [True, 0.5, 0.9]}), "scores.0"),
        (json.dumps(GOOD | {"scores": [0.5], "chances": [0.5]}), "scores"),
        (json.dumps(GOOD | {"scores": list(np.linspace(0, 1, 300)), "chances": [0.5] * 300}), "scores"),
        (json.dumps(GOOD | {"version": 2}), "version"),
        (json.dumps(GOOD | {"code": "import os"}), "code"),
        (json.dumps(GOOD | {"points": -1}), "points"),
        (json.dumps(GOOD | {"about": "a" * 3000}), "about"),
        (json.dumps([1, 2]), "got"),
        ("[" * 60_000, "got"),
        (" " * 70_000, "longer file"),
        ("", "got"),
        ('{"scores": ' + "9" * 5000 + "}", "got"),
    ],
)
def test_hostile_files_are_refused(tmp_path, text, message):
    (tmp_path / "calibration.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        Calibration.load(tmp_path)


def test_files_that_are_not_there_or_no_text(tmp_path):
    with pytest.raises(CheckpointError, match="fit one with"):
        Calibration.load(tmp_path)
    (tmp_path / "calibration.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="calibration"):
        Calibration.load(tmp_path)


@pytest.mark.parametrize(
    ("scores", "hits", "options", "message"),
    [
        ([0.5] * 10, [True] * 10, {}, "at least 50 points"),
        ([0.5] * 60, [True] * 60, {}, "scores that differ"),
        ([0.5] * 60, [True] * 59, {}, "hit per score"),
        ([1.5] * 60, [True] * 60, {}, "in 0..1"),
        ([float("nan")] * 60, [True] * 60, {}, "got 0"),
        (np.linspace(0, 1, 60), [0.5] * 60, {}, "True or False"),
        (np.linspace(0, 1, 60), [1] * 60, {"max_knots": 1}, "max_knots"),
        (np.linspace(0, 1, 60), [1] * 60, {"max_knots": 10_000}, "max_knots"),
    ],
)
def test_what_cannot_be_fitted(scores, hits, options, message):
    with pytest.raises(EvaluationError, match=message):
        fit_calibration(scores, hits, **options)


def test_no_curve_without_points():
    with pytest.raises(MolmoPointError, match="got none"):
        reliability_curve([], [])


def test_right_points_have_a_mask_of_their_own():
    mask = np.zeros((10, 10), dtype=bool)
    mask[:5] = True
    assert right_points([(2, 2), (3, 3), (2, 8)], [mask]).tolist() in (
        [True, False, False],
        [False, True, False],
    )
    assert right_points([], [mask]).shape == (0,) and not right_points([(2, 2)], []).any()
