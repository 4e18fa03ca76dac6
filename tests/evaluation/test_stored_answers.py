"""Stored answers of any model become predictions of ours; their space is stated, never guessed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item, VideoSegment
from molmopoint.eval.benchmarks.synthetic import Synthetic
from molmopoint.eval.predictions.readers import read_stored
from molmopoint.eval.predictions.records import PredictedPoint, Prediction, to_line
from molmopoint.processing.coordinate_forms import json_points, plain_points


@pytest.fixture
def item(tmp_path) -> Item:
    Image.new("RGB", (400, 200)).save(tmp_path / "a.png")
    return Item("a", "Point to the cups.", (tmp_path / "a.png",))


def read(tmp_path, items, lines: list[dict], **options):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_stored(path, items, Synthetic(), **options)


def xy(prediction: Prediction) -> list[tuple[float, float]]:
    return [(point.x, point.y) for point in prediction.points]


@pytest.mark.parametrize(
    ("form", "coords", "text"),
    [
        ("molmo", None, '<point x="25.0" y="50.0" alt="cup">cup</point>'),
        ("molmo2", None, '<points coords="1 1 250 500">cup</points>'),
        ("qwen", "pixel", '```json\n[{"point_2d": [100, 100], "label": "cup"}]\n```'),
        ("qwen", "norm1000", '{"bbox_2d": [200, 400, 300, 600]}'),
        (
            "qwen",
            "norm1",
            '{"name": "computer_use", "arguments": {"action": "left_click", "coordinate": [0.25, 0.5]}}',
        ),
        ("plain", "percent", "The cup is at (25, 50)."),
        ("plain", "norm1", "[0.25, 0.5]"),
        ("plain", "pixel", "100 100"),
        ("plain", "pixel", "box [90, 80, 110, 120]"),
    ],
)
def test_forms_mean_the_same_pixel(tmp_path, item, form, coords, text):
    found = read(tmp_path, [item], [{"item_id": "a", "text": text}], form=form, coords=coords)
    assert xy(found["a"]) == [(100.0, 100.0)]
    assert found["a"].image_sizes == ((400, 200),) and found["a"].prompt == item.prompt


def test_sizes_may_come_with_the_answer(tmp_path, item):
    gone = replace(item, images=(tmp_path / "gone.png",))
    line = {"item_id": "a", "text": "(0.5, 0.5)", "image_sizes": [[100, 50]], "truncated": True}
    found = read(tmp_path, [gone], [line], form="plain", coords="norm1")["a"]
    assert xy(found) == [(50, 25)] and found.finish_reason == "length"
    with pytest.raises(EvaluationError, match="image_sizes"):
        read(tmp_path, [gone], [{"item_id": "a", "text": "(0.5, 0.5)"}], form="plain", coords="norm1")


def test_answers_that_cannot_be_placed_are_counted(tmp_path, item):
    clip = Item("c", "?", clip=VideoSegment(tmp_path / "c.mp4"), image_sizes=((400, 200),))
    both = Item("b", "?", item.images * 2)
    found = read(
        tmp_path,
        [clip, both],
        [{"item_id": key, "text": "(1, 2)"} for key in "bc"],
        form="plain",
        coords="pixel",
    )
    assert [found[key].invalid for key in "bc"] == [1, 1] and not found["b"].points
    timed = read(
        tmp_path,
        [clip],
        [{"item_id": "c", "text": '<points coords="1.5 1 250 500">x</points>'}],
        form="molmo2",
    )
    assert timed["c"].points[0].group == 1.5


def test_space_and_form_are_never_guessed(tmp_path, item):
    line = [{"item_id": "a", "text": "(1, 2)"}]
    with pytest.raises(EvaluationError, match="--coords"):
        read(tmp_path, [item], line, form="qwen")
    with pytest.raises(EvaluationError, match="--form"):
        read(tmp_path, [item], line, form="claude")
    with pytest.raises(EvaluationError, match="found nothing"):
        read_stored(tmp_path / "gone.jsonl", [item], Synthetic())


def test_ids_of_nobody_and_bad_lines(tmp_path, item):
    with pytest.raises(EvaluationError, match="1 others, such as 'z'"):
        read(tmp_path, [item], [{"item_id": "z", "text": ""}], form="molmo")
    with pytest.raises(EvaluationError, match="line 1"):
        read(tmp_path, [item], [{"item_id": "a"}], form="molmo")
    with pytest.raises(EvaluationError, match="got none"):
        read(tmp_path, [item], [], form="molmo")


def test_our_own_files_and_their_task(tmp_path, item):
    made = Prediction("a", "synthetic", 1, "?", points=(PredictedPoint(1, 0, 3, 4),))
    path = tmp_path / "predictions.jsonl"
    path.write_text(to_line(made))
    assert read_stored(path, [item], Synthetic())["a"] == made
    assert read_stored(tmp_path, [item], Synthetic())["a"] == made
    path.write_text(to_line(replace(made, task="point_bench")))
    with pytest.raises(EvaluationError, match="some to point_bench"):
        read_stored(path, [item], Synthetic())


def test_json_that_is_cut_or_odd():
    assert json_points('[{"point_2d": [1, 2]}, {"point_2d": [3, 4]}, {"point_2d": [5') == [(1, 2), (3, 4)]
    assert json_points('{"x": 1.5, "y": 2}') == [(1.5, 2)]
    assert json_points("[[1, 2], [3, 4]]") == [(1, 2), (3, 4)]
    assert json_points('{"point_2d": [true, 2]} [null, 3] {"point_2d": "here"}') == []
    assert json_points("no JSON at all [") == []


def test_plain_numbers():
    assert plain_points("first (1.5, 2), then [3, -4]") == [(1.5, 2), (3, -4)]
    assert plain_points("x is 10, 20") == [(10, 20)]
    assert plain_points("version 3.14.15 of 2024") == []
