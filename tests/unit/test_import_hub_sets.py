"""Importers of the data sets of the Molmo, Molmo2 and MolmoWeb reports, on made rows in their layouts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets_of_the_hub import HUB_SETS, hub_folder

from molmopoint.data.importers import Journal, format_options, import_records
from molmopoint.data.records import Record, read_records, write_records
from molmopoint.errors import ProcessingError


def imported(
    format: str, rows: Any, folder: Path, **options: Any
) -> tuple[list[Record], Counter[str], list[str]]:
    """Records, what was left out by kind, and the sentences about it."""
    said: list[str] = []
    journal = Journal(said.append)
    records = list(import_records(format, rows, journal=journal, images=folder, **options))
    return records, journal.left_out, said


def places(record: Record) -> list[tuple[float, ...]]:
    return [(point.x, point.y) for point in record.points or ()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return hub_folder(tmp_path / "media")


@pytest.mark.parametrize("format", HUB_SETS)
def test_rows_in_memory_by_line_and_as_a_data_set_are_the_same(folder, tmp_path, format):
    datasets = pytest.importorskip("datasets")
    rows = HUB_SETS[format]
    records, left_out, _ = imported(format, rows, folder)
    assert records and not left_out
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert imported(format, path, folder)[0] == records
    assert imported(format, datasets.Dataset.from_list(rows), folder)[0] == records
    write_records(tmp_path / "data.jsonl", records)
    assert len(list(read_records(tmp_path / "data.jsonl"))) == len(records)
    assert next(iter(format_options(format))) == "images"


def test_pixmo_count(folder):
    (cups, dogs), _, _ = imported("pixmo_count", HUB_SETS["pixmo_count"], folder)
    assert places(cups) == [(10.0, 20.0), (30.0, 5.5)] and cups.coords == "pixel"
    assert cups.style == "point_count" and dogs.no_points and dogs.label == "dogs"
    rows = [
        {"image_sha256": "aa", "label": "cups", "count": 3, "points": {"x": [1], "y": [2]}},
        {"image_sha256": "aa", "label": "cups", "count": 7},
        {"image_sha256": "aa", "label": "cups", "count": 2, "points": {"x": [1, 2], "y": [2]}},
        {"image_sha256": "gone", "label": "cups", "count": 0, "points": []},
    ]
    records, left_out, said = imported("pixmo_count", rows, folder)
    assert not records and left_out == {"broken objects": 3, "rows whose picture is not there": 1}
    assert "row 1 of the source: expected as many points as its count, got 1 and 3" in said[0]
    assert "columns of one length" in said[2] and "no file 'gone'" in said[3]


def test_cosyn_point(folder):
    (first, second), _, _ = imported("cosyn_point", HUB_SETS["cosyn_point"], folder)
    assert first.prompt == "Which bar is highest?" and first.label == "highest bar"
    assert places(first) == [(12.5, 80.0)] and first.coords == "percent" and second.no_points
    assert first.images == (str(folder / "chart-1.png"),)
    rows = [
        {"id": "../up", "questions": ["a"], "answer_points": [[]], "names": ["b"]},
        {"id": "c", "questions": ["a", "b"], "answer_points": [[]], "names": []},
        {"id": "c", "questions": ["a", 5], "answer_points": [[{"x": "1", "y": None}], []], "names": []},
    ]
    records, left_out, said = imported("cosyn_point", rows, folder)
    assert not records and left_out == {"rows": 2, "broken objects": 2}
    assert "leads out of it" in said[0] and "question 1: expected text, got 5" in said[3]


def test_pixmo_cap(folder):
    (caption,), _, _ = imported("pixmo_cap", HUB_SETS["pixmo_cap"], folder)
    assert caption.caption == "A cup on a table." and caption.style == "long_caption"
    texts, _, _ = imported("pixmo_cap", HUB_SETS["pixmo_cap"], folder, transcripts="true")
    assert [(text.caption, text.style) for text in texts[1:]] == [
        ("so there is a cup", "transcript"),
        ("a table with a cup", "transcript"),
    ]
    by_hash = [{"image_sha256": "aa", "caption": "Grey."}, {"image_url": "http://x/b", "caption": "No file."}]
    records, left_out, _ = imported("pixmo_cap", by_hash, folder)
    assert [record.caption for record in records] == ["Grey."]
    assert left_out == {"rows whose picture is not there": 1}


def test_multi_image_point(folder):
    (cups, none), _, _ = imported("multi_image_point", HUB_SETS["multi_image_point"], folder)
    assert cups.label == "cups" and len(cups.images) == 2 and none.no_points
    assert [(point.image, point.x) for point in cups.points or ()] == [(0, 10.0), (1, 20.0), (1, 30.0)]
    good = HUB_SETS["multi_image_point"][0]
    rows = [
        {**good, "labels": ["cups", "dogs"]},
        {**good, "points": good["points"][:1]},
        {**good, "counts": [1, 1]},
        {**good, "image_sha256s": ["aa", "gone"]},
        {**good, "labels": ["cups", "dogs"], "normalized_labels": ["mugs", "mugs"]},
    ]
    records, left_out, said = imported("multi_image_point", rows, folder)
    assert [record.label for record in records] == ["mugs"]
    assert left_out == {"broken objects": 3, "rows whose picture is not there": 1}
    assert "one label for all pictures, got ['cups', 'dogs']" in said[0]
    assert "picture 1: expected as many points as its count, got 2 and 1" in said[2]


def test_video_point(folder):
    (cyclists, question), _, _ = imported("video_point", HUB_SETS["video_point"], folder)
    assert cyclists.video == str(folder / "abc.mp4") and cyclists.coords == "percent"
    assert [(point.t, point.x) for point in cyclists.points or ()] == [(0.5, 20.0), (3.0, 64.0), (3.0, 8.0)]
    assert question.prompt == "Where does the dog jump?" and question.no_points
    good = HUB_SETS["video_point"][0]
    rows = [
        {**good, "annotator_unsure": True},
        {**good, "clip_start": 4.0},
        {**good, "clip_end": 5.0, "video_duration": 60.0},
        {**good, "video_id": "gone"},
        {**good, "two_fps_timestamps": [0.5]},
        {**good, "count": 9},
    ]
    records, left_out, said = imported("video_point", rows, folder)
    assert not records and left_out == {
        "rows of which the annotator was not sure": 1,
        "rows whose video is not there": 1,
        "broken objects": 4,
    }
    assert "the part from 4 s" in said[1]
    assert len(imported("video_point", rows[:1], folder, unsure=True)[0]) == 1


def test_video_track(folder):
    (ducks,), _, _ = imported("video_track", HUB_SETS["video_track"], folder)
    assert ducks.label == "the ducks" and ducks.style == "track" and ducks.coords == "pixel"
    assert [(point.t, point.object_id, point.x) for point in ducks.points or ()] == [
        (0.0, 0, 10.0),
        (0.5, 0, 12.0),
        (0.5, 1, 52.0),
        (1.0, 1, 54.0),
    ]
    every, _, _ = imported("video_track", HUB_SETS["video_track"], folder, rate="4")
    assert len(every[0].points or ()) == 6
    good = HUB_SETS["video_track"][0]
    rows = [
        {**good, "fps": 0},
        {**good, "points": [{"object_id": "7", "points": [[1, 2, 3]]}]},
        {**good, "clip": "../gone"},
        {**good, "segments": [{"object_id": "7", "segments": [[1]]}]},
        {**good, "points": []},
    ]
    records, left_out, said = imported("video_track", rows, folder)
    assert len(records) == 1 and records[0].no_points
    assert left_out == {"broken objects": 3, "rows whose video is not there": 1}
    assert "expected 2 numbers, got [1, 2, 3]" in said[1]
    with pytest.raises(ProcessingError, match="option rate"):
        imported("video_track", [], folder, rate=0)


def test_molmoweb_ground(folder):
    (click,), _, _ = imported("molmoweb_ground", HUB_SETS["molmoweb_ground"], folder)
    assert click.prompt == "Open the cart" and places(click) == [(71.1, 3.1)] and click.coords == "percent"
    scroll = json.dumps({"action": {"name": "scroll", "delta_x": 0, "delta_y": 50}})
    rows = [
        {"image": {"bytes": None, "path": "1.png"}, "messages": [{"question": "Scroll", "answer": scroll}]},
        {"image": None, "messages": [{"question": "Go", "answer": "{"}, {"question": "Go", "answer": "[1]"}]},
        {"image": "../../etc/passwd", "messages": []},
        {"messages": 5},
    ]
    records, left_out, said = imported("molmoweb_ground", rows, folder)
    assert not records and left_out == {"rows": 2, "broken objects": 3}
    assert "message 0, answer: expected a click" in said[0] and "expected JSON" in said[1]


@pytest.mark.parametrize(
    "format", ["pixmo_count", "pixmo_cap", "multi_image_point", "video_point", "video_track"]
)
def test_a_folder_that_is_not_there_is_named(tmp_path, format):
    with pytest.raises(ProcessingError, match="expected a folder of files named by"):
        imported(format, [], tmp_path / "gone")


def test_an_address_names_its_picture(folder):
    assert (folder / (hashlib.sha256(b"http://x/a.jpg").hexdigest() + ".jpg")).exists()
