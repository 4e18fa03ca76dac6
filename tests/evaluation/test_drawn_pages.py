"""The benchmark of drawn pages: what is right, and lines that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_answers import points

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item
from molmopoint.eval.benchmarks.screens import NOTHING_THERE, TARGETS_FILE, Screens
from molmopoint.eval.runner.data import open_data

GOOD = {
    "row": 1,
    "image": "images/a.png",
    "prompt": "the links",
    "kind": "type",
    "mentions": [],
    "boxes": [[[0, 0, 10, 10]]],
}


def written(folder: Path, *rows: Any) -> Path:
    folder.joinpath(TARGETS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def only_item(folder: Path, **changes: Any) -> Item:
    items = Screens().read(written(folder, {**GOOD, **changes}))
    (item,) = items.found
    return item


def test_every_box_of_an_element_is_right_and_counts_once(tmp_path: Path):
    broken_link = [[0, 0, 10, 10], [0, 20, 10, 30]]
    item = only_item(tmp_path, boxes=[broken_link, [[50, 50, 60, 60]]])
    assert Screens().score(item, points((5, 25), (60, 60)), "box")["f1"] == 1
    twice = Screens().score(item, points((5, 5), (5, 25)), "box")
    assert (
        twice["recall"] == twice["precision"] == 0.5 and twice["exact_count"] == 1 and twice["asks_one"] == 0
    )


def test_a_click_is_the_first_point_of_questions_for_one_thing(tmp_path: Path):
    item = only_item(tmp_path)
    assert Screens().score(item, points((5, 5), (99, 99)), "box")["click"] == 1
    missed = Screens().score(item, points((99, 99), (5, 5)), "box")
    assert missed["click"] == 0 and missed["recall"] == 1
    assert Screens().score(item, points(), "box")["click"] == 0


def test_where_nothing_is_there_an_empty_answer_is_right(tmp_path: Path):
    item = only_item(tmp_path, boxes=[])
    assert item.categories["kind"] == NOTHING_THERE
    right, wrong = (Screens().score(item, answer, "box") for answer in (points(), points((1, 1))))
    assert (right["f1"], right["exact_count"], right["asks_one"]) == (1, 1, 0)
    assert (wrong["f1"], wrong["exact_count"]) == (0, 0)


def test_groups_names_and_views_are_told_where_they_are_known(tmp_path: Path):
    elements = {"image": "images/a.png", "view": "390x844", "elements": []}
    (tmp_path / "elements.jsonl").write_text(json.dumps(elements) + "\n")
    told = only_item(tmp_path, group="held-out kit", names="trained").categories
    assert told == {"kind": "type", "group": "held-out kit", "names": "trained", "view": "390x844"}
    assert only_item(tmp_path, image="images/b.png").categories == {"kind": "type"}


def test_lines_that_cannot_be_used_are_counted(tmp_path: Path):
    bad = [
        {**GOOD, "prompt": " "},
        {**GOOD, "image": "../../etc/passwd"},
        {**GOOD, "image": None},
        {**GOOD, "boxes": "all"},
        {**GOOD, "boxes": [[[0, 0, 10]]]},
        {**GOOD, "boxes": [[[0, 0, 10, float("nan")]]]},
        {**GOOD, "boxes": [[]]},
    ]
    items = Screens().read(written(tmp_path, GOOD, *bad))
    assert len(items.found) == 1
    reasons = [missing.reason for missing in items.missing]
    assert reasons == ["no question", *["no picture of this folder"] * 2, *["no usable boxes"] * 4]


@pytest.mark.parametrize("line", ["{", "[1]", '"text"'])
def test_lines_that_are_no_objects_are_refused_with_their_number(tmp_path: Path, line: str):
    (tmp_path / TARGETS_FILE).write_text(json.dumps(GOOD) + "\n" + line + "\n")
    with pytest.raises(EvaluationError, match="line 2"):
        Screens().read(tmp_path)


def test_folders_without_targets_are_refused_with_advice(tmp_path: Path):
    with pytest.raises(EvaluationError, match="molmopoint data screens"):
        Screens().read(tmp_path)


def test_made_items_have_one_several_and_no_targets(tmp_path: Path):
    data = open_data(Screens(), "fixture", tmp_path)
    counts = [len(item.truth.targets) for item in data.items.found]
    assert sorted(counts) == [0, 1, 1, 2, 3] and not data.items.missing
    for item in data.items.found:
        middles = [np.mean(np.reshape(boxes[0], (2, 2)), axis=0) for boxes in item.truth.targets]
        assert Screens().score(item, points(*map(tuple, middles)), "box")["f1"] == 1
        assert len(Screens().shown_truth(item).targets) == len(middles)
