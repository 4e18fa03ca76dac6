"""Tracks in files: there and back in every form, files of other tools, and files that are none."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmopoint.errors import GroundingError
from molmopoint.tracks import Tracks
from molmopoint.tracks.files import FORMATS

FPS = 10.0
letters = st.one_of(st.characters(exclude_categories=("Cs",)), st.sampled_from("'=+-@\t\r\n"))
names = st.text(letters, min_size=1, max_size=6)


@st.composite
def all_tracks(draw):
    """Tracks with everything a file may have to keep."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 2**62), st.integers(0, 50), st.floats(-1e3, 1e4), st.floats(-1e3, 1e4), st.booleans(),
                st.one_of(st.just(math.nan), st.floats(0, 1)),
            ),
            max_size=8,
            unique_by=lambda row: (row[0], row[1]),
        )
    )  # fmt: skip
    ids, frames, xs, ys, visible, scores = (
        (list(column) for column in zip(*rows, strict=True)) if rows else ([] for _ in range(6))
    )
    named = draw(st.dictionaries(st.sampled_from(ids), names)) if rows else {}
    more = draw(st.lists(st.integers(0, 60), max_size=3))
    return Tracks(
        np.array(ids, dtype=np.int64),
        np.array(frames) / FPS,
        np.array(xs),
        np.array(ys),
        np.array(visible, dtype=bool),
        np.array(scores, dtype=float),
        np.array(frames) if draw(st.booleans()) and rows else None,
        draw(st.sampled_from([None, (640, 360)])),
        draw(st.sampled_from([None, FPS])),
        np.array([*frames, *more], dtype=float) / FPS,
        named,
    )


@settings(max_examples=50)
@given(all_tracks())
def test_plain_form_there_and_back(tracks):
    assert Tracks.from_json(tracks.to_json()) == tracks
    json.loads(tracks.to_json(), parse_constant=pytest.fail)


@settings(max_examples=50)
@given(all_tracks(), st.sampled_from([("json", {}), ("coco", {}), ("coco", {"box": (8, 5.5)})]))
def test_json_and_coco_keep_everything(tmp_path_factory, tracks, form):
    path = tmp_path_factory.mktemp("tracks") / "tracks.json"
    tracks.save(path, form[0], **form[1])
    assert Tracks.load(path) == tracks
    assert Tracks.load(path, form[0]) == tracks


def _rounded(values: np.ndarray) -> np.ndarray:
    """To two decimals as Python rounds, which numpy does differently half way."""
    return np.array([round(value, 2) for value in values.tolist()], dtype=np.float64)


@settings(max_examples=50)
@given(all_tracks())
def test_csv_keeps_every_row(tmp_path_factory, tracks):
    path = tmp_path_factory.mktemp("tracks") / "tracks.csv"
    tracks.save(path)
    with_rows = replace(tracks, moments=np.unique(tracks.time), x=_rounded(tracks.x), y=_rounded(tracks.y))
    assert Tracks.load(path, size=tracks.size, fps=tracks.fps) == with_rows


@settings(max_examples=50)
@given(all_tracks(), st.sampled_from([(0, 0), (6, 3)]))
def test_mot_keeps_frames_and_places(tmp_path_factory, tracks, box):
    path = tmp_path_factory.mktemp("tracks") / "tracks.txt"
    tracks.save(path, fps=FPS, box=box)
    again = Tracks.load(path, fps=FPS, size=tracks.size)
    assert (
        again.object_id.tolist() == tracks.object_id.tolist()
        and again.visible.tolist() == tracks.visible.tolist()
    )
    np.testing.assert_allclose(again.xy, tracks.xy, atol=1e-9)
    np.testing.assert_array_equal(again.score, tracks.score)
    assert again.frame is None or again.frame.tolist() == np.rint(tracks.time * FPS).tolist()
    np.testing.assert_allclose(again.time, tracks.time)
    if tracks.frame is not None:
        tracks.save(path, box=box)
        assert [point.frame for track in Tracks.load(path, fps=FPS) for point in track] == [
            p.frame for t in tracks for p in t
        ]


def small(**changes):
    given: dict[str, Any] = {
        "object_id": [1, 2],
        "time": [0.0, 0.5],
        "x": [5.0, 8.0],
        "y": [1.0, 2.0],
        "fps": 30,
        "labels": {1: "cat"},
    }
    return Tracks(**given | changes)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reads_the_places_that_it_writes(tmp_path, name):
    """A new format is tried as soon as it is in the table."""
    columns = [
        np.array(values) for values in ([7, 3, 7], [0.0, 0.5, 0.5], [10.25, 20.0, 30.5], [1.0, 2.0, 3.5])
    ]
    tracks = Tracks(*columns, visible=np.array([True, False, True]), fps=FPS, size=(64, 36))
    path = tmp_path / "tracks"
    tracks.save(path, name)
    options = {"fps": FPS} if "fps" in FORMATS[name].read_options else {}
    back = Tracks.load(path, name, **options)
    assert back.object_id.tolist() == [7, 3, 7] and back.time.tolist() == [0.0, 0.5, 0.5]
    assert back.xy.tolist() == tracks.xy.tolist() and back.visible.tolist() == [True, False, True]


def test_what_the_lines_look_like(tmp_path):
    small(score=[0.25, math.nan]).save(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == (
        "object_id,frame,time,x,y,visible,score,label\n1,,0.0,5.0,1.0,1,0.25,cat\n2,,0.5,8.0,2.0,1,,\n"
    )
    small(score=[0.25, math.nan], visible=[True, False]).save(tmp_path / "a.txt", box=(4, 2))
    assert (tmp_path / "a.txt").read_text() == "1,1,3.0,0.0,4.0,2.0,0.25,1,1\n16,2,6.0,1.0,4.0,2.0,-1,1,0\n"
    small(size=(64, 36)).save(tmp_path / "a.json", "coco")
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["videos"] == [{"id": 1, "width": 64, "height": 36, "fps": 30.0}]
    assert (
        document["annotations"][0]["keypoints"] == [5.0, 1.0, 2]
        and document["annotations"][0]["track_id"] == 1
    )
    assert [category["name"] for category in document["categories"]] == ["cat", "object"]


def test_a_spreadsheet_computes_no_label(tmp_path):
    labels = {1: '=HYPERLINK("http://example.invalid")', 2: "-2+3"}
    tracks = small(labels=labels, x=[-3.5, 10 / 3])
    tracks.save(tmp_path / "a.csv")
    first, second = (tmp_path / "a.csv").read_text().splitlines()[1:]
    assert first == """1,,0.0,-3.5,1.0,1,,"'=HYPERLINK(""http://example.invalid"")\""""
    assert second == "2,,0.5,3.33,2.0,1,,'-2+3"
    assert Tracks.load(tmp_path / "a.csv").labels == labels


def test_two_times_in_one_frame(tmp_path):
    """The last moment of a clip may lie in the frame of the moment before; MOTChallenge has room for one of
    them.
    """
    small(object_id=[1, 1], time=[1.0, 1.01], y=[0, 0]).save(tmp_path / "a.txt", fps=30)
    assert (tmp_path / "a.txt").read_text().splitlines() == ["31,1,5.0,0.0,0.0,0.0,-1,1,1"]


def test_files_of_other_tools(tmp_path):
    (tmp_path / "tracker.txt").write_text(
        "1, 3, 794.27, 247.59, 71.245, 174.88, 4.56, -1, -1, -1\n\n2 3 10 20 4 6\n"
    )
    tracks = Tracks.load(tmp_path / "tracker.txt", fps=25, label="person")
    assert (
        tracks.time.tolist() == [0, 0.04]
        and tracks.visible.all()
        and np.isnan(tracks.score).all()
        and tracks.labels == {3: "person"}
    )
    np.testing.assert_allclose(tracks.xy, [[794.27 + 71.245 / 2, 247.59 + 174.88 / 2], [12, 23]])
    (tmp_path / "sheet.csv").write_text(
        "\ufefftime, object_id,x,y,note\r\n0.5,2,1,3,hello\r\n", encoding="utf-8"
    )
    tracks = Tracks.load(tmp_path / "sheet.csv")
    assert tracks.xy.tolist() == [[1, 3]] and tracks.object_ids == (2,)
    videos = {
        "videos": [{"id": 9, "fps": 5}],
        "images": [{"id": 4, "video_id": 9, "frame_id": 10, "width": 8, "height": 6}],
        "annotations": [{"id": 1, "image_id": 4, "category_id": 2, "instance_id": 5, "bbox": [1, 2, 4, 2]}],
        "categories": [{"id": 2, "name": "dog"}],
    }
    (tmp_path / "vid.json").write_text(json.dumps(videos))
    tracks = Tracks.load(tmp_path / "vid.json")
    assert tracks == small(
        object_id=[5], time=[2.0], x=[3.0], y=[3.0], frame=[10], size=(8, 6), fps=5, labels={5: "dog"}
    )


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("a.csv", "", {}, "header with object_id"),
        ("a.csv", "object_id,time,x\n", {}, "add y"),
        ("a.csv", "object_id,time,x,y\n1,0,zero,1\n", {}, "line 2, x"),
        ("a.csv", "object_id,time,x,y\n1,0,1\n", {}, "line 2, y"),
        ("a.csv", "object_id,time,x,y\n1.5,0,1,1\n", {}, "whole number of 64 bits in line 2"),
        ("a.csv", "object_id,time,x,y\n1,-2,1,1\n", {}, "0 or more seconds"),
        ("a.csv", "object_id,time,x,y\n1,nan,1,1\n", {}, "line 2, time"),
        ("a.csv", "object_id,time,x,y,visible\n1,0,1,1,maybe\n", {}, "visible"),
        ("a.csv", "object_id,time,x,y,frame\n1,0,1,1,3\n1,1,1,1,\n", {}, "every row or of none"),
        ("a.csv", "object_id,time,x,y\n99999999999999999999,0,1,1\n", {}, "line 2, object_id"),
        ("a.txt", "1,1,0,0,0,0", {}, "fps above 0"),
        ("a.txt", "1,1,0,0,0,0", {"fps": 0}, "fps above 0"),
        ("a.txt", "1,1,0", {"fps": 5}, "line 1"),
        ("a.txt", "0,1,0,0,0,0", {"fps": 5}, "count from 1"),
        ("a.txt", "1,1,0,0,0,0\n1,1,0,0,0,0", {"fps": 5}, "several of object 1"),
        ("a.json", "{", {}, "JSON"),
        ("a.json", "[]", {}, "schema version"),
        ("a.json", "{}", {"fps": 3}, "no options"),
        ("a.json", '{"images": [], "annotations": [{}]}', {}, "proper"),
        ("a.json", '{"videos": [{}, {}], "images": [], "annotations": []}', {}, "one video"),
        ("a.json", '{"images": [{"id": 1}], "annotations": []}', {}, "time of image 1"),
        ("a.xyz", "", {}, "format out of json, csv, mot, coco"),
        ("a.txt", "", {"size": (1, 1), "rate": 3}, "fps, label, size"),
    ],
)
def test_files_that_are_none(tmp_path, name, text, options, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(GroundingError, match=message):
        Tracks.load(tmp_path / name, **options)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(GroundingError, match=r"gone\.csv"):
        Tracks.load(tmp_path / "gone.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(GroundingError, match="text file"):
        Tracks.load(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.avi", None, {}), "got the ending '.avi'"),
        (("a.json", "yolo", {}), "got 'yolo'"),
        (("a.txt", "mot", {"box": 3}), "box as"),
        (("a.txt", "mot", {"box": (-1, 3)}), "box as"),
        (("a.txt", "mot", {"fps": -1}), "fps above 0"),
        (("a.csv", None, {"box": (1, 1)}), "no options"),
    ],
)
def test_files_that_cannot_be_written(tmp_path, arguments, message):
    path, form, options = arguments
    with pytest.raises(GroundingError, match=message):
        small().save(tmp_path / path, form, **options)
    with pytest.raises(GroundingError, match="number the frames"):
        small(fps=None).save(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "document", [{}, [], {"schema_version": 2}, {"schema_version": 1}, {"schema_version": 1, "points": [{}]}]
)
def test_other_documents_are_refused(document):
    with pytest.raises(GroundingError, match="expected"):
        Tracks.from_dict(document)
    with pytest.raises(GroundingError, match="JSON"):
        Tracks.from_json("{")
