"""`molmopoint data screens` without a browser: wrong usage, and the rows that are written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_screens import element, files_screen, screen
from typer.testing import CliRunner

from molmopoint.cli import app
from molmopoint.data.records import parse_record, record_fields
from molmopoint.screens.browser import View
from molmopoint.screens.dataset import Drawn, element_fields, row_of, target_of
from molmopoint.screens.questions import draw_questions


def test_rows_are_in_the_format_of_the_library():
    queries = draw_questions(np.random.default_rng(0), files_screen(), 20, absent_names=["Print"])
    assert any(not query.targets for query in queries)
    for number, query in enumerate(queries, start=1):
        record = row_of(query, "images/a.png", number)
        assert parse_record(json.loads(json.dumps(record_fields(record))), number) == record
        target = target_of(query, "images/a.png", number)
        assert len(target["boxes"]) == len(record.points or ()) and record.no_points == (not query.targets)
        for point, boxes in zip(record.points or (), target["boxes"], strict=True):
            assert any(
                left <= point.x <= right and top <= point.y <= bottom for left, top, right, bottom in boxes
            )


def test_elements_are_told_without_what_they_lack():
    (told,) = map(element_fields, screen(element("button", 1, 2, name="Save", states=("disabled",))).elements)
    assert told == {"kind": "button", "name": "Save", "states": ["disabled"], "boxes": [[1, 2, 41, 22]]}


def test_reports_count_faults_by_kind():
    drawn = Drawn(faults=[("a", "slow", "x"), ("b", "slow", "y"), ("c", "crash", "z")])
    report = drawn.to_dict()
    assert report["faults_by_kind"] == {"crash": 1, "slow": 2} and report["faults"][2]["kind"] == "crash"
    assert json.loads(json.dumps(report)) == report


def test_views_have_names_for_files():
    assert str(View()) == "1280x800-light"
    assert str(View(390, 844, 2.0, "dark", 0.5)) == "390x844@2-dark-50"
    assert str(View(390, 844, 1.5)) == "390x844@1.5-light"


@pytest.mark.parametrize(
    "arguments",
    [
        ["http://example.com/"],
        ["nowhere.html"],
        [".", "--size", "big"],
        [".", "--size", "1x1"],
        [".", "--ratio", "9"],
        [".", "--theme", "blue"],
        [".", "--scroll", "2"],
        [".", "--steps", "nowhere.toml"],
        [".", "--questions", "0"],
    ],
)
def test_wrong_usage_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.html").write_text("<button>A</button>")
    done = CliRunner().invoke(app, ["data", "screens", *arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "expected" in done.output or "Invalid value" in done.output, done.output
    assert not (tmp_path / "out").exists()
