"""Molmo2-VideoCount: reading the number, its layout, and ranges without items."""

from __future__ import annotations

import math

import numpy as np
import pytest

from molmopoint.eval.benchmark import Item, ParsedAnswer, score_items
from molmopoint.eval.benchmarks.molmo2_video_count import Molmo2VideoCount
from molmopoint.eval.datasets.rows import REPEATED
from molmopoint.eval.reports.summary import summarise
from molmopoint.eval.runner.data import open_data


def answer(text: str, points: int = 0) -> ParsedAnswer:
    return ParsedAnswer(np.zeros((points, 2)), np.zeros(points), np.full(points, -1), text=text)


def judge(
    count: int, given: ParsedAnswer, rule: str = "stated", *, ref_compat: bool = False
) -> tuple[float, float, float]:
    scores = Molmo2VideoCount().score(Item("x", "?", truth=count), given, rule, ref_compat=ref_compat)
    return scores["correct"], scores["close"], scores["valid"]


def test_c16_numbers_in_text():
    assert judge(7, answer("The clip shows a total of 7.")) == (1, 1, 1)
    assert judge(7, answer("7")) == (1, 1, 1)
    assert judge(7, answer("seven")) == (0, 0, 0)
    assert judge(0, answer("There are none.")) == (1, 1, 1)
    assert judge(0, answer("There are none."), ref_compat=True) == (0, 0, 0)


@pytest.mark.parametrize(("true", "margin"), [(19, 1), (20, 2), (39, 2), (40, 3)])
def test_c15_close(true, margin):
    assert (
        judge(true, answer(str(true + margin)))[1] == 1
        and judge(true, answer(str(true + margin + 1)))[1] == 0
    )
    assert (
        judge(true, answer(str(true - margin)))[1] == 1
        and judge(true, answer(str(true - margin - 1)))[1] == 0
    )


def test_points_instead_of_text():
    assert judge(3, answer("a total of 5", points=3), "points") == (1, 1, 1)
    assert judge(3, answer("a total of 5", points=3), "stated") == (0, 0, 1)
    assert judge(5, answer("a total of 5"), "points") == (1, 1, 1), "without points the text is read"
    assert judge(5, answer("many"), "points") == (0, 0, 0)


def test_layout_with_its_faults(tmp_path):
    Molmo2VideoCount().write_fixture(tmp_path, np.random.default_rng(0))
    items = open_data(Molmo2VideoCount(), tmp_path, tmp_path).items
    assert [each.truth for each in items.found] == [1, 2, 3, 0, 1]
    assert items.found[4].item_id == items.found[0].item_id + "#2" and items.warnings[REPEATED] == 1
    assert sorted(each.reason for each in items.missing) == [
        "a clip without length",
        "no question",
        "no true number",
    ]
    clip = items.found[3].clip
    assert clip is not None and (clip.start, clip.end) == (1, 3) and clip.path.is_file()


def test_t24_ranges_without_items_are_left_out(tmp_path):
    Molmo2VideoCount().write_fixture(tmp_path, np.random.default_rng(0))
    benchmark, items = Molmo2VideoCount(), open_data(Molmo2VideoCount(), tmp_path, tmp_path).items
    answers = {each.item_id: answer(str(each.truth)) for each in items.found}
    summary = summarise(
        benchmark, items, score_items(benchmark, items.found, answers, "stated"), answers, "stated"
    )
    assert summary.headline.value == 1 and all(math.isfinite(cell.value) for cell in summary.cells)
    groups = [cell.group for cell in summary.cells if cell.metric == "correct" and cell.view == ("bin",)]
    assert groups == [("0-4",), ()], "one range with items, and the mean"
