"""The checker finds what was put in, and nothing in good data; the contact sheet draws it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from molmopoint.data.checking import check_records, parsed_rows
from molmopoint.data.contact_sheet import contact_sheet
from molmopoint.data.records import parse_record
from molmopoint.errors import ProcessingError


@pytest.fixture
def root(tmp_path):
    """Pictures of 300 x 200 pixels, all different, and one that is stored lying and shown upright."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d"):
        Image.fromarray(rng.integers(0, 255, (200, 300, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 255, (200, 300, 3), dtype=np.uint8)).save(
        tmp_path / "turned.jpg", exif=exif
    )
    return tmp_path


def row(image="a.png", points=((150, 100),), **columns):
    columns = {"label": "cup", "coords": "pixel", **columns}
    return {"image": image, "points": [{"x": x, "y": y} for x, y in points], **columns}


def check(root, *rows, **options):
    return check_records(parsed_rows(rows), root, **options)


def kinds(findings):
    return [(finding.kind, finding.row) for finding in findings]


def test_good_data(root):
    rows = [
        row("a.png", [(0, 0), (300, 200)]),
        row("b.png"),
        row("c.png"),
        row("d.png"),
        {"image": "a.png", "label": "dog", "no_points": True},
    ]
    report = check(
        root,
        *rows,
        row("d.png", [(50, 50)], coords="percent", label="dog"),
        count_tokens=lambda record: record.row,
    )
    assert report.ok and kinds(report.notes) == [("rare_label", None)]
    assert (report.rows, report.pictures, report.points, report.rows_without_points) == (6, 4, 6, 1)
    assert report.labels == {"cup": 4, "dog": 2} and report.token_summary() == {
        "min": 1,
        "median": 3.5,
        "p95": 5.75,
        "max": 6,
        "total": 21,
    }
    assert json.loads(json.dumps(report.to_dict()))["ok"]


def test_files(root):
    (root / "cut.png").write_bytes((root / "a.png").read_bytes()[:4000])
    (root / "text.jpg").write_text("no picture")
    (root / "copy.png").write_bytes((root / "a.png").read_bytes())
    rows = [row("gone.png"), row("gone.png"), row("cut.png"), row("text.jpg"), row("a.png"), row("copy.png")]
    clip = {"video": "gone.mp4", "label": "cup", "coords": "percent", "points": [{"x": 1, "y": 2, "t": 0.5}]}
    report = check(root, *rows, clip)
    assert kinds(report.faults) == [
        ("missing_file", 1),
        ("unreadable_picture", 3),
        ("unreadable_picture", 4),
        ("missing_file", 7),
    ]
    assert "gone.png" in report.faults[0].message and ("same_picture", None) in kinds(report.notes)
    assert ("unreadable_picture", 3) not in kinds(check(root, *rows, decode=False).faults)


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        (
            row(points=[(10, 10), (310, 20), (5, 201)]),
            "point_outside",
            "2 of 3 points lie outside 0..300, 0..200, the first at (310, 20)",
        ),
        (row(points=[(10, 10), (100, 290)]), "swapped_axes", "x and y exchanged"),
        (row("turned.jpg", [(290, 100)]), "exif_rotated", "as stored"),
        (row(points=[(50, 130)], coords="percent"), "point_outside", "'norm1000'"),
        (row(points=[(0.5, 1.5)], coords="norm1"), "point_outside", "'percent'"),
        (row(points=[(5, -1)], coords="norm1000"), "point_outside", "correct"),
        (row(points=[(5, 5), (9, 9), (5, 5)]), "duplicate_point", "(5, 5)"),
        ({"image": "a.png", "points": [{"x": 1, "y": 2}], "label": "cup"}, "malformed", "coords"),
        ({"image": "a.png", "point": [], "label": "cup"}, "malformed", "'point'"),
    ],
)
def test_faults(root, fields, kind, words):
    report = check(root, row("b.png"), fields)
    assert kinds(report.faults) == [(kind, 2)] and words in report.faults[0].message


def test_turned_pictures_are_measured_as_shown(root):
    report = check(root, row("turned.jpg", [(190, 290)]))
    assert report.ok and ("exif_rotated", 1) in kinds(report.notes)
    assert kinds(check(root, row("turned.jpg", [(250, 250)])).faults) == [("point_outside", 1)]


@pytest.mark.parametrize("coords", ["pixel", "percent", "norm1000"])
def test_points_that_are_shares(root, coords):
    rng = np.random.default_rng(1)
    report = check(root, *(row(name, rng.random((3, 2)), coords=coords) for name in ("a.png", "b.png")))
    assert kinds(report.faults) == [("wrong_space", None)] and "'norm1'" in report.faults[0].message


def test_points_that_look_like_percent(root):
    rng = np.random.default_rng(1)
    report = check(root, *(row(name, rng.random((12, 2)) * 100) for name in ("a.png", "b.png")))
    assert report.ok and ("wrong_space", None) in kinds(report.notes)
    spread = check(
        root,
        row("a.png", rng.random((30, 2)) * (300, 200)),
        row("b.png", rng.random((30, 2)) * 100, source="other"),
    )
    assert [
        finding.message
        for finding in spread.notes
        if finding.kind == "wrong_space" and "'other'" in finding.message
    ]


def test_rows_twice(root):
    report = check(
        root,
        row(),
        row("b.png"),
        row(),
        row(points=[(1, 2)]),
        {"prompt": "hi", "answer": "a"},
        {"prompt": "hi", "answer": "b"},
    )
    assert report.ok and kinds(report.notes)[:2] == [("duplicate_row", 3), ("two_answers", 4)]


def test_balance(root):
    rows = [row(points=[(i, 5)], prompt=f"cup {i}") for i in range(50)] + [row("b.png", label="dog")]
    found = {finding.kind: finding.message for finding in check(root, *rows).notes}
    assert (
        set(found) == {"rare_label", "dominant_label", "no_absent_targets"}
        and "98%" in found["dominant_label"]
    )


def test_the_line_of_a_broken_row(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("\n\n{broken\n" + json.dumps({"prompt": "hi", "answer": "a"}) + "\n[]\n")
    report = check_records(parsed_rows(path), tmp_path)
    assert kinds(report.faults) == [("malformed", 3), ("malformed", 5)] and report.rows == 3
    assert kinds(check_records([], tmp_path).faults) == [("empty", None)]


def records(*rows):
    return [parse_record(fields, i) for i, fields in enumerate(rows, start=1)]


def test_a_point_is_drawn_where_it_is(tmp_path):
    Image.new("RGB", (300, 200), (90, 90, 90)).save(tmp_path / "a.png")
    plain = np.asarray(
        contact_sheet(records({"image": "a.png", "label": "x", "no_points": True}), tmp_path), dtype=int
    )[60:340]
    marked = np.asarray(contact_sheet(records(row(points=[(75, 150)], label="x")), tmp_path), dtype=int)[
        60:340
    ]
    rows, cols = np.nonzero(np.abs(plain - marked).sum(axis=2) > 90)
    # The picture fills the cell of 360 x 300 in width, so it is drawn at 1.2 times its size, 30 below the
    # cell's top.
    assert (cols.mean(), rows.mean()) == pytest.approx((14 + 90, 34 + 30 + 180 - 60), abs=1.5)


def test_suspects_are_on_the_sheet(tmp_path):
    Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
    everything = records(*(row(label=f"cup {i}") for i in range(60)), row("gone.png"))
    sheets = [
        np.asarray(contact_sheet(everything, tmp_path, cells=4, suspects=suspects, seed=3))
        for suspects in ((), (61,))
    ]
    alarms = [int((np.abs(sheet.astype(int) - (214, 20, 50)).sum(axis=2) < 30).sum()) for sheet in sheets]
    assert alarms[0] == 0 and alarms[1] > 20


def test_sheets_of_anything(root):
    (root / "text.jpg").write_text("no picture")
    several = {
        "images": list("abc"),
        "label": "x",
        "coords": "norm1",
        "points": [{"x": 0.5, "y": 0.5, "image": 2}],
    }
    several["images"] = ["a.png", "b.png", "c.png"]
    rows = [row(), row(points=[(900, -5)]), row("gone.png"), row("text.jpg"), row("turned.jpg"), several]
    rows += [
        row(label="a very long label that goes on and on " * 9),
        {"image": "a.png", "caption": "something"},
        {"prompt": "a", "answer": "b"},
    ]
    sheet = contact_sheet(records(*rows * 5), root, cells=10, columns=3)
    assert sheet.mode == "RGB" and sheet.width == 3 * 374 + 14
    assert np.array_equal(
        np.asarray(sheet), np.asarray(contact_sheet(records(*rows * 5), root, cells=10, columns=3))
    )
    with pytest.raises(ProcessingError, match="pictures"):
        contact_sheet(records({"prompt": "a", "answer": "b"}), root)
