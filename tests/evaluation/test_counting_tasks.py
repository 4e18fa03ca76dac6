"""PixMo-Count and CountBenchQA: their layouts, and both ways to count."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from made_answers import points

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item, Items, score_items
from molmopoint.eval.benchmarks.countbench_qa import QUESTIONS, CountbenchQA
from molmopoint.eval.benchmarks.pixmo_count import PixmoCount, PixmoCountValidation
from molmopoint.eval.datasets.files import DIFFERS
from molmopoint.eval.datasets.rows import REPEATED, displayed_size, whole_number, write_parquet
from molmopoint.eval.reports.summary import summarise
from molmopoint.eval.runner.data import open_data

FIVE = Item("x", "cups", truth=5, categories={"count": "5"})


def judged(answer, rule="points", made=FIVE) -> dict[str, float]:
    return PixmoCount().score(made, answer, rule)


@pytest.mark.parametrize(
    ("number", "correct", "close"), [(5, 1, 1), (6, 0, 1), (4, 0, 1), (7, 0, 0), (0, 0, 0)]
)
def test_c14_close_is_off_by_one(number, correct, close):
    scores = judged(points(*[(1, 1)] * number))
    assert (scores["correct"], scores["close"]) == (correct, close)


def test_t8_a_number_without_points_counts_only_where_stated():
    said = points(text="There are 5.")
    assert judged(said)["correct"] == 0 and judged(said, "stated")["correct"] == 1
    assert judged(said)["disagrees"] == 1 and judged(said)["states"] == 1


def test_a_number_that_is_not_stated_is_wrong_and_disagrees_with_nothing():
    scores = judged(points(*[(1, 1)] * 5, text="these cups"), "stated")
    assert scores == {"correct": 0, "close": 0, "states": 0, "disagrees": 0}


def test_c16_forms_of_stated_numbers():
    for text, number in [
        ("Counting the cups shows a total of 7.", 7),
        ("There are none.", 0),
        ("7", 7),
        ("seven", None),
    ]:
        made = Item("x", "cups", truth=number if number is not None else 7, categories={"count": "7"})
        assert judged(points(text=text), "stated", made)["correct"] == (number is not None)


def test_t9_c23_mean_over_items_and_mean_over_counts():
    made = tuple(
        Item(f"{i}", "cups", truth=count, categories={"count": str(count)}, cluster=str(i))
        for i, count in enumerate((2, 3, 3, 3))
    )
    answers = {
        each.item_id: points((1, 1), (2, 2), text=f"a total of {2 + (each.item_id == '3')}.") for each in made
    }
    benchmark = PixmoCount()
    summary = summarise(
        benchmark, Items(made), score_items(benchmark, made, answers, "points"), answers, "points"
    )
    cells = {(cell.metric, cell.view, cell.group): (cell.value, cell.n) for cell in summary.cells}
    assert summary.headline.value == 0.25 and cells["correct", ("count",), ()] == (0.5, 4)
    assert cells["correct", ("count",), ("2",)] == (1, 1) and cells["correct", ("count",), ("3",)] == (0, 3)
    assert cells["disagrees", (), ()] == (0.25, 4), "one says 3 and points twice"


def test_pixmo_count_layout(tmp_path):
    PixmoCount().write_fixture(tmp_path, np.random.default_rng(0))
    stored = open_data(PixmoCount(), tmp_path, tmp_path, with_media=False).items
    asked = open_data(PixmoCount(), tmp_path, tmp_path).items
    assert [each.truth for each in stored.found] == [2, 3, 2, 2] and len(asked.found) == 3
    assert stored.warnings == {DIFFERS: 1, REPEATED: 1}
    assert [each.reason for each in asked.missing] == ["no picture file"]
    assert stored.found[3].item_id == f"{stored.found[0].item_id}#2"
    assert stored.found[0].cluster == stored.found[3].cluster, "the same picture"
    with pytest.raises(EvaluationError, match="validation"):
        PixmoCountValidation().read(tmp_path)


def test_pixmo_count_validation_is_another_split(tmp_path):
    PixmoCountValidation().write_fixture(tmp_path, np.random.default_rng(0))
    assert len(PixmoCountValidation().read(tmp_path).found) == 4
    assert PixmoCountValidation.generation.template == "How many {} are there?"


def test_rows_without_label_or_count_are_missing(tmp_path):
    row = {"image_url": "https://a.b/c.png", "image_sha256": "00", "label": "cups", "count": 2}
    rows = [row, {**row, "label": None}, {**row, "count": None}, {**row, "count": -1}]
    types = {name: pa.string() for name in ("image_url", "image_sha256", "label")} | {"count": pa.int64()}
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", rows, types)
    items = PixmoCount().read(tmp_path)
    assert len(items.found) == 1 and [each.reason for each in items.missing] == [
        "no label",
        "no count",
        "no count",
    ]
    assert [whole_number(value) for value in (2, 2.0, 2.5, True, "2", float("inf"), float("nan"))] == [
        2,
        2,
        *[None] * 5,
    ]


def test_countbench_layout(tmp_path):
    CountbenchQA().write_fixture(tmp_path, np.random.default_rng(0))
    asked = open_data(CountbenchQA(), tmp_path, tmp_path).items
    stored = open_data(CountbenchQA(), tmp_path, tmp_path, with_media=False).items
    assert [each.truth for each in stored.found] == [2, 3, 2, 2]
    assert len(asked.found) == 3 and [each.reason for each in asked.missing] == ["no picture file"]
    assert all(each.prompt.startswith("How many") for each in stored.found)
    assert all(displayed_size(each.images[0]) for each in asked.found), "unpacked, the grey one too"


def test_questions_and_rows_belong_together(tmp_path):
    CountbenchQA().write_fixture(tmp_path, np.random.default_rng(0))
    questions = json.loads((tmp_path / QUESTIONS).read_text())
    questions[0]["question"] = ""
    (tmp_path / QUESTIONS).write_text(json.dumps(questions))
    assert [each.reason for each in CountbenchQA().read(tmp_path).missing] == ["no question"]
    (tmp_path / QUESTIONS).write_text(json.dumps(questions[1:]))
    with pytest.raises(EvaluationError, match="a question for each of the 4 rows, got 3"):
        CountbenchQA().read(tmp_path)
    (tmp_path / QUESTIONS).unlink()
    with pytest.raises(EvaluationError, match="big_vision"):
        CountbenchQA().read(tmp_path)
