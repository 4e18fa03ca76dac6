"""Intervals, summaries, tables and comparisons, on a small made-up benchmark."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import (
    Benchmark,
    DatasetSource,
    GenerationSettings,
    Item,
    Items,
    Metric,
    Missing,
    ParsedAnswer,
    View,
)
from molmopoint.eval.reports.comparison import ScoredRun, compare
from molmopoint.eval.reports.intervals import bootstrap_difference, bootstrap_mean, mcnemar, wilson
from molmopoint.eval.reports.summary import summarise
from molmopoint.eval.reports.tables import csv_text, markdown, metrics_dict


class Toy(Benchmark):
    name, title = "toy", "Toy (nobody, 2026)"
    source, generation = DatasetSource(None), GenerationSettings(16)
    rules, headline = ("strict",), ("correct", "kind")
    metrics = (Metric("correct", "binary"), Metric("f1", "mean", given="answered"))
    views = (View(("kind",), macro=True, order=("icon", "text")), View(("kind", "side")))
    expects_one, flaws = True, ("reads boxes as polygons",)

    def read(self, folder: Path) -> Items:
        raise NotImplementedError

    def score(
        self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False
    ) -> dict[str, float]:
        raise NotImplementedError


def item(number: int, kind: str, cluster: str = "") -> Item:
    return Item(
        f"i{number}",
        "?",
        categories={"kind": kind, "side": ("left", "right") if number == 0 else "left"},
        cluster=cluster,
    )


def answer(points: int, **fields) -> ParsedAnswer:
    return ParsedAnswer(np.zeros((points, 2)), np.zeros(points), np.full(points, -1), **fields)


FOUND = (item(0, "text"), item(1, "text"), item(2, "text"), item(3, "icon"), item(4, "text"))
SCORES = {
    "i0": {"correct": 1, "f1": 0.5, "answered": 1},
    "i1": {"correct": 0, "f1": 0.9, "answered": 0},
    "i2": {"correct": 1, "f1": 1.0, "answered": 1},
    "i3": {"correct": 0, "answered": 1},
}
ANSWERS = {"i0": answer(1), "i1": answer(0, truncated=True), "i2": answer(2, invalid=1)}
ITEMS = Items(
    FOUND, (Missing("i9", "no mask file"), Missing("i8", "no mask file")), {"mask of another size": 2}
)


def toy_summary(**options):
    return summarise(Toy(), ITEMS, SCORES, ANSWERS, "strict", **options)


def test_summary_by_hand():
    summary = toy_summary()
    cells = {(cell.metric, cell.view, cell.group): cell for cell in summary.cells}
    assert cells["correct", (), ()].value == 0.5 and cells["correct", (), ()].n == 4
    assert cells["correct", ("kind",), ("text",)].value == pytest.approx(2 / 3)
    assert cells["correct", ("kind",), ("icon",)].value == 0
    assert summary.headline.value == pytest.approx(1 / 3), "macro over the two kinds"
    assert cells["f1", (), ()].value == 0.75 and cells["f1", (), ()].n == 2, (
        "only answered items that have the metric"
    )
    assert math.isnan(cells["f1", ("kind",), ("icon",)].value)
    assert cells["correct", ("kind", "side"), ("text", "right")].n == 1, "an item may be in several groups"
    assert summary.missing_is_wrong == pytest.approx(1 / 3 * 4 / 6)
    assert summary.coverage.total == 7 and summary.coverage.missing == {"no mask file": 2, "not asked": 1}
    assert str(summary.coverage) == "4 of 7 (2 no mask file, 1 not asked)"
    assert summary.rates == {
        "without_points": 0.5,
        "several_points": 0.25,
        "truncated": 0.25,
        "with_invalid_points": 0.25,
    }
    assert summary.flaws == () and toy_summary(ref_compat=True).flaws == Toy.flaws


def test_tables():
    text = markdown(toy_summary(ref_compat=True, failed=1))
    assert (
        "rule `strict`" in text
        and "4 of 7 items" in text
        and "1 failed" in text
        and "reads boxes as polygons" in text
    )
    assert text.index("| icon |") < text.index("| text |") < text.index("| mean over kind |")
    lines = csv_text(toy_summary()).splitlines()
    assert lines[0] == "task,rule,view,group,metric,value,low,high,n"
    assert len(lines) == 1 + len(toy_summary().cells)
    content = json.loads(json.dumps(metrics_dict(toy_summary()), allow_nan=False))
    assert content["headline"]["n"] == 4 and content["schema_version"] == 1


def test_empty_summary():
    summary = summarise(Toy(), Items(()), {}, {}, "strict")
    assert math.isnan(summary.headline.value) and summary.coverage.total == 0 and summary.rates == {}
    assert "| all | 0 | - | - |" in markdown(summary)


def test_wilson_by_hand():
    interval = wilson(50, 100)
    assert (interval.low, interval.high) == pytest.approx((0.40383, 0.59617), abs=1e-5)
    assert wilson(0, 10).low == 0 and wilson(10, 10).high == 1
    assert math.isnan(wilson(0, 0).low)


@given(st.integers(0, 2**32))
def test_intervals_hold_their_mean_and_repeat(seed):
    rng = np.random.default_rng(seed)
    values, clusters = rng.random(30).tolist(), rng.integers(0, 8, 30).tolist()
    interval = bootstrap_mean(values, clusters)
    assert interval.low <= np.mean(values) <= interval.high
    assert interval == bootstrap_mean(values, clusters)


def test_clusters_widen_intervals():
    values = [0.0, 1.0] * 40
    alone = bootstrap_mean(values, range(80))
    together = bootstrap_mean(sorted(values), [i // 20 for i in range(80)])
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert (alone.high - alone.low) == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(80), rel=0.1)


def test_strata_keep_their_shares():
    # Each stratum is constant: nothing is left to vary.
    interval = bootstrap_mean([1.0] * 5 + [0.0] * 50, range(55), ["a"] * 5 + ["b"] * 50)
    assert interval.low == interval.high == 0.5


def run(name: str, scores: dict, **changed) -> ScoredRun:
    return replace(ScoredRun(name, "toy", 1, "strict", (), scores, {}), **changed)


def test_comparison():
    first = run("a", {f"i{k}": {"correct": float(k % 2)} for k in range(40)})
    second = run("b", {f"i{k}": {"correct": 1.0} for k in range(1, 50)})
    (difference,) = compare(first, second)
    assert difference.n == 39 and difference.second == 1 and difference.is_sure
    assert len(difference.only_second) == 19 and not difference.only_first
    assert difference.p_value == pytest.approx(2 * 0.5**19)
    (same,) = compare(first, first)
    assert same.interval.low == same.interval.high == 0 and not same.is_sure and same.p_value == 1


def test_paired_interval_is_narrower():
    rng = np.random.default_rng(0)
    ones = rng.random(200)
    others = ones + 0.05 + 0.01 * rng.standard_normal(200)
    paired = bootstrap_difference(ones.tolist(), others.tolist(), range(200))
    assert 0.04 < paired.low < paired.high < 0.06


@pytest.mark.parametrize("changed", [{"rule": "loose"}, {"task": "other"}, {"version": 2}, {"flaws": ("x",)}])
def test_runs_that_cannot_be_compared(changed):
    scores = {"i0": {"correct": 1.0}}
    with pytest.raises(EvaluationError, match=next(iter(changed))):
        compare(run("a", scores), run("b", scores, **changed))
    with pytest.raises(EvaluationError, match="none"):
        compare(run("a", scores), run("b", {"i1": {"correct": 1.0}}))


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
