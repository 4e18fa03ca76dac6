"""Published numbers: complete entries, known benchmarks, rules and columns, and a few values read again from
their sources.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from molmopoint.eval.benchmark import Item, Items, ParsedAnswer, score_items
from molmopoint.eval.benchmarks import find_benchmark
from molmopoint.eval.benchmarks.molmo2_track import FIELDS
from molmopoint.eval.benchmarks.molmo2_video_count import BINS
from molmopoint.eval.benchmarks.point_bench import PointBench, _Truth
from molmopoint.eval.reports.published import note_about, published_for, published_rules, published_table
from molmopoint.eval.reports.summary import Summary, summarise
from molmopoint.metrics.run_lengths import MaskIndex

FILE = Path(__file__).resolve().parents[2] / "eval" / "reports" / "published.json"
CONTENT = json.loads(FILE.read_text(encoding="utf-8"))
ENTRY = {
    "type": "object",
    "required": ["task", "rule", "model", "values", "source"],
    "additionalProperties": False,
    "properties": {
        **{key: {"type": "string", "minLength": 1} for key in ("task", "rule", "model", "source", "note")},
        "values": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"type": "number", "minimum": 0, "maximum": 100},
        },
        "approximate": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    },
}
TASKS = sorted({entry["task"] for entry in CONTENT["numbers"]})
OTHER_COLUMNS = {"headline", "J&F"}
"""The headline whatever it is, and what takes a model that segments."""
CROSSED = {"molmo2_track": {f"{name} {field}" for name in ("f1", "hota", "J&F") for field in FIELDS.values()}}


@pytest.mark.parametrize("entry", CONTENT["numbers"], ids=lambda entry: f"{entry['task']}-{entry['model']}")
def test_every_entry_is_complete(entry):
    jsonschema.validate(entry, ENTRY)
    assert set(entry.get("approximate", ())) <= set(entry["values"])


def columns_of(task: str) -> set[str]:
    """What a table of the benchmark can show."""
    benchmark = find_benchmark(task)
    groups = {name for view in benchmark.views for name in view.order}
    means = {f"mean over {' and '.join(view.category)}" for view in benchmark.views if view.macro}
    return (
        {metric.name for metric in benchmark.metrics}
        | groups
        | means
        | CROSSED.get(task, set())
        | OTHER_COLUMNS
    )


@pytest.mark.parametrize("task", TASKS)
def test_every_rule_and_column_is_one_of_the_benchmark(task):
    assert set(published_rules(task)) <= set(find_benchmark(task).rules)
    entries = [entry for rule in published_rules(task) for entry in published_for(task, rule)]
    assert {column for entry in entries for column in entry.values} <= columns_of(task)
    assert len({(entry.rule, entry.model) for entry in entries}) == len(entries)


def test_notes_are_about_benchmarks_with_numbers():
    assert set(CONTENT["notes"]) <= set(TASKS)
    assert "noise" in note_about("molmo2_video_point") and note_about("synthetic") == ""


@pytest.mark.parametrize(
    ("task", "rule", "model", "column", "text"),
    [
        ("point_bench", "ai2", "MolmoPoint-8B", "headline", "70.7"),
        ("point_bench", "ai2", "Molmo2-8B", "steerable", "44.5"),
        ("pixmo_points", "matched", "MolmoPoint-8B", "f1", "89.2"),
        ("pixmo_points", "matched", "Qwen3-VL-8B", "f1", "~53.0"),
        ("countbench_qa", "points", "Molmo2-O-7B", "correct", "95.1"),
        ("pixmo_count", "points", "Gemini 3 Pro", "correct", "90.0"),
        ("screenspot_v2", "official", "MolmoPoint-GUI-8B, 64 crops", "correct", "~93.0"),
        ("screenspot_pro", "official", "MolmoPoint-GUI-8B, 64 crops", "correct", "61.1"),
        ("screenspot_pro", "official", "UI-TARS-1.5-7B", "correct", "49.6"),
        ("screenspot_v2", "official", "Claude 3.7", "correct", "87.6"),
        ("screenspot_v2", "official", "GUI-Actor-7B (Qwen2.5-VL)", "correct", "92.1"),
        ("screenspot_pro", "official", "GUI-Actor-7B (Qwen2-VL)", "correct", "40.7"),
        ("screenspot_pro", "official", "GUI-Actor-7B (Qwen2.5-VL), verifier", "correct", "47.7"),
        ("screenspot_pro", "official", "GroundNext-7B", "correct", "52.9"),
        ("osworld_g_refined", "official", "UI-TARS-1.5-7B", "correct", "64.2"),
        ("screenspot_pro", "official", "Qwen3.5-27B", "correct", "70.3"),
        ("screenspot_pro", "official", "Holo2-235B, zoom-in", "correct", "~81.5"),
        ("point_bench", "ai2", "MolmoPoint-8B, independent run in nf4", "headline", "70.7"),
        ("osworld_g", "official", "Jedi-7B", "refusal", "7.4"),
        ("osworld_g_refined", "official", "GTA1-32B", "correct", "72.2"),
        ("molmo2_video_point", "exact", "Molmo2-4B", "recall", "42.7"),
        ("molmo2_video_count", "stated", "Molmo2-8B", "mean over bin", "27.4"),
        ("ref_davis17", "strict", "MolmoPoint-8B", "f1", "84.1"),
        ("reasonvos", "strict", "MolmoPoint-8B", "hota", "~67.0"),
        ("molmo2_track", "strict", "MolmoPoint-8B", "J&F", "62.5"),
        ("molmo2_track", "strict", "MolmoPoint-8B", "hota Sports", "~57.0"),
    ],
)
def test_values(task, rule, model, column, text):
    entry = next(entry for entry in published_for(task, rule) if entry.model == model)
    assert entry.text(column) == text
    assert entry.text("no such column") == ""


def test_where_a_paper_prints_otherwise_a_note_says_so():
    for task, model, printed_there in [
        ("screenspot_pro", "UI-TARS-1.5-7B", "61.6"),
        ("screenspot_v2", "GUI-Actor-7B (Qwen2.5-VL)", "90.9"),
        ("screenspot_pro", "GUI-Actor-7B (Qwen2-VL)", "41.8"),
        ("screenspot_pro", "GroundNext-7B", "50.2"),
        ("osworld_g_refined", "UI-TARS-1.5-7B", "64"),
    ]:
        entry = next(entry for entry in published_for(task, "official") if entry.model == model)
        assert f"prints {printed_there}" in entry.note or f"prints about {printed_there}" in entry.note


def test_rows_of_the_authors_say_their_crops():
    for task in ("point_bench", "pixmo_points", "screenspot_v2", "screenspot_pro", "osworld_g"):
        rows = [entry for rule in published_rules(task) for entry in published_for(task, rule)]
        own = [
            entry for entry in rows if entry.model.startswith("MolmoPoint-") and "2603.28069" in entry.source
        ]
        assert own and all("crops" in entry.model + entry.note for entry in own)


def test_the_means_are_those_of_their_cells():
    """Tables that print cells and their mean must agree, which finds slips of the hand."""
    for entry in published_for("point_bench", "ai2"):
        if len(entry.values) == 6:
            cells = [value for column, value in entry.values.items() if column != "headline"]
            assert np.mean(cells) == pytest.approx(entry.values["headline"], abs=0.11)
    for entry in published_for("molmo2_video_count", "stated"):
        for mean, columns in (
            ("mean over category", ("object", "animal", "action/event")),
            ("mean over bin", tuple(BINS)),
        ):
            if mean in entry.values and all(column in entry.values for column in columns):
                assert np.mean([entry.values[column] for column in columns]) == pytest.approx(
                    entry.values[mean], abs=0.11
                )


def point_bench_summary(rule: str) -> Summary:
    truth = _Truth(MaskIndex.build([np.ones((10, 10), dtype=bool)]), 0, 1)
    item = Item("a", "?", categories={"category": "spatial"}, truth=truth)
    answers = {"a": ParsedAnswer(np.array([[1.0, 1.0]]), np.zeros(1), np.full(1, -1))}
    return summarise(
        PointBench(), Items((item,)), score_items(PointBench(), [item], answers, rule), answers, rule
    )


def printed(summary: Summary, *, one_line: bool = True) -> str:
    console = Console(width=300)
    with console.capture() as capture:
        console.print(published_table(summary))
    return " ".join(capture.get().split()) if one_line else capture.get()


def test_our_run_stands_in_the_same_columns():
    table = printed(point_bench_summary("ai2"), one_line=False)
    ours = next(line for line in table.splitlines() if "this run" in line)
    assert [cell.strip() for cell in ours.strip(" │").split("│")] == [
        "this run",
        "",
        "100.0",
        "",
        "",
        "",
        "100.0",
        "1 of 1 items",
    ]
    assert "Early versions" in table


def test_numbers_by_another_rule_are_not_shown_but_named():
    table = printed(point_bench_summary("official"))
    assert "70.7" not in table and "there are some by --rule ai2" in table
    assert "No published numbers are known by this rule." in printed(
        replace(point_bench_summary("official"), task="synthetic")
    )
