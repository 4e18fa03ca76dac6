"""Predictions on disk: nothing is lost, repeated or mixed."""

from __future__ import annotations

import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import ScoredPass
from molmopoint.eval.benchmarks import find_benchmark
from molmopoint.eval.predictions.records import (
    PredictedPoint,
    Prediction,
    PredictionWriter,
    from_fields,
    merge,
    read_predictions,
    to_line,
)
from molmopoint.eval.runner.data import open_data
from molmopoint.eval.runner.run_folder import claim, read


def prediction(name: str, **fields) -> Prediction:
    return Prediction(name, "toy", 1, "Point to the cups.", **fields)


POINTS = (PredictedPoint(1, 0, 10.25, 20.5, 0.75), PredictedPoint(None, 0, 1 / 3, 2.0))
numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(
    st.lists(
        st.tuples(st.none() | st.integers(-5, 10**9), numbers, numbers, numbers, st.none() | numbers),
        max_size=4,
    ),
    st.text(),
)
def test_lines_there_and_back(places, text):
    import json

    made = prediction(
        "é",
        points=tuple(PredictedPoint(*place) for place in places),
        text=text,
        raw_text=text,
        image_sizes=((3, 4),),
    )
    line = to_line(made)
    assert line.count("\n") == 1 and line.endswith("\n")
    assert from_fields(json.loads(line)) == made


def test_nan_points_are_counted_not_judged(tmp_path):
    with PredictionWriter(tmp_path / "p.jsonl") as writer:
        writer.write(
            [
                prediction(
                    "a",
                    points=(*POINTS, PredictedPoint(2, 0, math.nan, 1.0)),
                    invalid=1,
                    finish_reason="length",
                )
            ]
        )
    (stored,) = read_predictions(tmp_path / "p.jsonl")
    answer = stored.answer()
    assert answer.xy.tolist() == [[10.25, 20.5], [1 / 3, 2.0]] and answer.object_id.tolist() == [1, -1]
    assert answer.invalid == 2 and answer.truncated


@pytest.mark.parametrize("cut", [1, 30, 10_000])
def test_cut_last_line_is_dropped(tmp_path, cut):
    path = tmp_path / "p.jsonl"
    with PredictionWriter(path) as writer:
        writer.write([prediction("a"), prediction("b")])
    content = path.read_bytes()
    path.write_bytes(content[: max(len(content) - cut, content.index(b"\n") + 1)])
    assert [each.item_id for each in read_predictions(path)] == ["a"]
    with PredictionWriter(path) as writer:
        writer.write([prediction("b"), prediction("c")])
    assert [each.item_id for each in read_predictions(path)] == ["a", "b", "c"]


def test_merge_sorts_and_replaces_failures():
    merged = merge(
        [
            prediction("b", rank=1),
            prediction("a", error="no file", finish_reason="error"),
            prediction("a", points=POINTS),
        ]
    )
    assert list(merged) == ["a", "b"] and merged["a"].points == POINTS
    assert merge([prediction("a", points=POINTS), prediction("a", error="x")])["a"].error is None
    assert len(merge([prediction("a"), prediction("a", rank=1)])) == 1, "the same answer twice is one answer"
    with pytest.raises(EvaluationError, match="two different ones"):
        merge([prediction("a"), prediction("a", points=POINTS)])


def scored(score: float | None, *passes: float) -> Prediction:
    more = (ScoredPass((0, 1), passes),) if passes else ()
    return prediction(
        "a",
        points=(PredictedPoint(1, 0, 10.25, 20.5, score), PredictedPoint(2, 0, math.nan, 1.0, score)),
        passes=more,
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0.75,), (0.75 + 5e-6,)),
        ((None,), (None,)),
        ((0.0,), (5e-6,)),
        ((0.5, 12.0, -3.0), (0.5, 12.0001, -3.00002)),
    ],
)
def test_last_digits_of_scores_make_no_other_answer(first, second):
    """They depend on what else was in the batch of a process."""
    assert merge([scored(*first), scored(*second)])["a"] == scored(*first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0.75,), (0.7501,)),
        ((0.75,), (None,)),
        ((0.5, 12.0, -3.0), (0.5, 12.001, -3.0)),
        ((0.5, 1.0, 2.0), (0.5, 1.0, 2.0, 3.0)),
    ],
)
def test_other_scores_are_another_answer(first, second):
    with pytest.raises(EvaluationError, match="two different ones"):
        merge([scored(*first), scored(*second)])


def test_places_are_compared_exactly():
    moved = prediction("a", points=(PredictedPoint(1, 0, 10.25 + 1e-9, 20.5, 0.5),))
    with pytest.raises(EvaluationError, match="two different ones"):
        merge([prediction("a", points=(PredictedPoint(1, 0, 10.25, 20.5, 0.5),)), moved])


@pytest.mark.parametrize("content", ["", '{"settings": {"mo', "[]", "{}", "{" * 50_000])
def test_half_written_manifests(tmp_path, content):
    settings = {"model": "nano"}
    (tmp_path / "manifest.json").write_text(content)
    claim(tmp_path, settings, {})
    assert read(tmp_path)["settings"] == settings
    (tmp_path / "manifest.json").write_text(content)
    (tmp_path / "predictions.jsonl").write_text(to_line(prediction("a")))
    with pytest.raises(EvaluationError, match=r"manifest\.json"):
        claim(tmp_path, settings, {})


def test_made_items_of_killed_processes_are_removed(tmp_path):
    for name in (".synthetic.999999999", ".synthetic.00000000-1-00000000.partial"):
        (tmp_path / "fixture" / name).mkdir(parents=True)
        os.utime(tmp_path / "fixture" / name, (0, 0))
    data = open_data(find_benchmark("synthetic"), "fixture", tmp_path)
    assert data.folder == tmp_path / "fixture" / "synthetic"
    assert [path.name for path in (tmp_path / "fixture").iterdir()] == ["synthetic"]


def test_lines_of_others_are_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": 3, "response": "<point>"}\n')
    with pytest.raises(EvaluationError, match="--form"):
        list(read_predictions(path))
    path.write_text("nonsense\n")
    with pytest.raises(EvaluationError, match="line 1"):
        list(read_predictions(path))


def test_manifest_refuses_other_settings(tmp_path):
    settings = {"model": "nano", "crops": 24, "sizes": (1, 2)}
    claim(tmp_path / "run", settings, {"started": "today"})
    claim(tmp_path / "run", settings, {"started": "tomorrow"})
    assert read(tmp_path / "run")["started"] == "today"
    with pytest.raises(EvaluationError, match="crops: 24 there, 48 now"):
        claim(tmp_path / "run", {**settings, "crops": 48}, {})
    with pytest.raises(EvaluationError, match="folder that `eval` wrote"):
        read(tmp_path)
