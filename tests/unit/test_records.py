"""Rows: what is read, what is refused and how it is said, and that nothing is lost on the way to a file and
back.
"""

from __future__ import annotations

import dataclasses
import json
import re
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.data.records import (
    COLUMNS,
    FULL_SCALE,
    POINT_COLUMNS,
    Record,
    RecordPoint,
    iterate_rows,
    parse_record,
    read_records,
    record_fields,
    resolve_media,
    to_pixels,
    write_records,
)
from molmopoint.data.schemas import SCHEMAS, published_schema
from molmopoint.errors import ProcessingError

SCHEMA = json.loads(files("molmopoint.data").joinpath("record.schema.json").read_text(encoding="utf-8"))
POINT = {"x": 1, "y": 2}
ROW = {"image": "a.png", "label": "dogs", "points": [POINT], "coords": "pixel"}
CLIP = {"video": "a.mp4", "label": "dogs", "points": [{"x": 1, "y": 2, "t": 0.5}], "coords": "percent"}

GOOD = [
    ROW,
    CLIP,
    {**ROW, "prompt": "Which one barks?", "style": "pointing", "source": "kennel", "weight": 0.5},
    {"image": "a.png", "points": [{**POINT, "label": "dog"}, {**POINT, "label": "cat"}], "coords": "norm1"},
    {"image": "a.png", "label": "dogs", "no_points": True},
    {"image": "a.png", "label": "dogs", "no_points": True, "points": [], "coords": None},
    {"images": ["a.png", "b.png"], "label": "dogs", "points": [{**POINT, "image": 1}], "coords": "norm1000"},
    {**CLIP, "style": "track", "points": [{"x": 1, "y": 2, "t": 0, "id": 3}]},
    {"prompt": "What is 2 + 2?", "answer": "4"},
    {
        "image": "a.png",
        "prompt": "What is it?",
        "answer": "A dog.",
        "style": "vqa",
        "points": [],
        "no_points": None,
    },
    {"video": "a.mp4", "caption": "A dog runs.", "points": None},
    {
        "image": "a.png",
        "prompts": ["Pet the dog", "Stroke it"],
        "label": "dog",
        "points": [POINT],
        "coords": "pixel",
    },
    {**CLIP, "style": "track_from_point", "points": [{"x": 1, "y": 2, "t": 0, "id": 3}]},
    {
        "image": "a.png",
        "turns": [
            {"label": "dogs", "points": [POINT], "coords": "pixel"},
            {"prompt": "Why?", "answer": "No."},
        ],
    },
    {
        **CLIP,
        "label": None,
        "points": [],
        "coords": None,
        "turns": [{name: CLIP[name] for name in ("label", "points", "coords")}],
    },
    {
        "turns": [{"prompt": "Hello", "answer": "Hi."}, {"prompts": ["And?", "So?"], "answer": "Bye."}],
        "weight": 2,
        "source": "chat",
    },
]

BAD = [  # a row, and the text about it
    (
        {**ROW, "coords": None},
        "row 7, coords: expected one of pixel, percent, norm1, norm1000, got nothing; say in which space x "
        "and y are; it is never guessed",
    ),
    (
        {**ROW, "coords": "pixels"},
        "row 7, coords: expected one of pixel, percent, norm1, norm1000, got 'pixels'; say in which space x "
        "and y are; it is never guessed",
    ),
    (
        {**ROW, "bbox": [1, 2, 3, 4]},
        "row 7, bbox: expected one of the columns image, images, video, prompt, prompts, label, points, "
        "coords, no_points, "
        "answer, caption, style, source, weight, turns, got 'bbox'; rename or remove it",
    ),
    (
        {**ROW, "points": [{**POINT, "z": 1}]},
        "row 7, points[0].z: expected one of the columns x, y, image, t, object_id, id, label, got 'z'; "
        "rename or remove it",
    ),
    (
        {**ROW, "points": [POINT, {"x": 1}]},
        "row 7, points[1].y: expected a number, got nothing; every point has x and y",
    ),
    (
        {**ROW, "points": [{"x": float("nan"), "y": 2}]},
        "row 7, points[0].x: expected a finite number, got nan; write a plain number such as 12.5",
    ),
    (
        {**ROW, "points": [{"x": True, "y": 2}]},
        "row 7, points[0].x: expected a finite number, got True; write a plain number such as 12.5",
    ),
    (
        {**ROW, "points": [{"x": "1", "y": 2}]},
        "row 7, points[0].x: expected a finite number, got '1'; write a plain number such as 12.5",
    ),
    (
        {**ROW, "points": [[1, 2]]},
        """row 7, points[0]: expected an object like {"x": 10, "y": 20}, got [1, 2]; name the coordinates""",
    ),
    (
        {**ROW, "points": {"x": [1], "y": [2]}},
        """row 7, points: expected a list like [{"x": 10, "y": 20}], got {'x': [1], 'y': [2]}; write one object per point""",
    ),
    (
        {**ROW, "points": []},
        "row 7, points: expected one or more points, got an empty list; write no_points: true if there is "
        "nothing to point at",
    ),
    (
        {**ROW, "no_points": True},
        "row 7, no_points: expected false in a row with points, got true; drop no_points or the points",
    ),
    (
        {**ROW, "no_points": "yes"},
        "row 7, no_points: expected true or false, got 'yes'; write true where there is nothing to point at",
    ),
    (
        {**ROW, "points": [{**POINT, "image": 1}]},
        "row 7, points[0].image: expected the index of a picture, 0..0, got 1; pictures are counted from 0",
    ),
    (
        {**CLIP, "points": [{**POINT, "t": 0, "image": 1}]},
        "row 7, points[0].image: expected no picture index in a row without pictures, got 1; pictures are "
        "counted from 0",
    ),
    (
        {**ROW, "points": [{**POINT, "t": 1}]},
        "row 7, points[0].t: expected no time in a row without a clip, got 1; points of a clip have t, "
        "points of pictures have not",
    ),
    (
        {**CLIP, "points": [POINT]},
        "row 7, points[0].t: expected seconds, got nothing; points of a clip have t, points of pictures "
        "have not",
    ),
    (
        {**CLIP, "points": [{**POINT, "t": -1}]},
        "row 7, points[0].t: expected seconds from the beginning of the clip, got -1; count from 0",
    ),
    (
        {**ROW, "points": [{**POINT, "id": 1, "object_id": 1}]},
        "row 7, points[0].id: expected id or object_id, got both; they mean the same; keep object_id",
    ),
    (
        {**ROW, "points": [{**POINT, "id": "a"}]},
        "row 7, points[0].id: expected a number of the object, from 0, got 'a'; write a whole number",
    ),
    (
        {**ROW, "label": None},
        "row 7, label: expected prompt, label, or a label on every point, got nothing; say what is pointed "
        "at",
    ),
    (
        {**ROW, "label": "\ud83d"},
        "row 7, label: expected whole characters, got '\\ud83d'; write emoji as UTF-8, not as half a "
        "surrogate pair",
    ),
    ({**ROW, "label": " "}, "row 7, label: expected text, got ' '; leave the column out where there is none"),
    (
        {**ROW, "video": "a.mp4"},
        "row 7, video: expected one of image, images and video, got image and video; write two rows, or use "
        "images",
    ),
    (
        {**ROW, "image": None},
        "row 7, image: expected image, images or video in a row with points, got nothing; name the file",
    ),
    (
        {**ROW, "image": b"\x89PNG"},
        "row 7, image: expected the path of a file, got bytes; save the picture or clip and write its path",
    ),
    (
        {**ROW, "image": None, "images": []},
        "row 7, images: expected a list of one or more files, got []; write one picture as image",
    ),
    (
        {**ROW, "answer": "two"},
        "row 7: expected one of points (or no_points), answer and caption, got answer and points; write one "
        "row per target",
    ),
    (
        {"image": "a.png"},
        "row 7: expected one of points (or no_points), answer and caption, got none of them; write one row "
        "per target",
    ),
    (
        {"image": "a.png", "answer": "2"},
        "row 7, prompt: expected the question of the answer, got nothing; write what the user asks as prompt",
    ),
    (
        {"caption": "A dog."},
        "row 7, image: expected image, images or video in a row with caption, got nothing; name the file",
    ),
    (
        {"image": "a.png", "caption": "A dog.", "label": "dog"},
        "row 7, label: expected no label in a row with caption, got 'dog'; write it as prompt",
    ),
    (
        {**ROW, "style": "boxes"},
        "row 7, style: expected one of pointing, point_count, count_then_point, count, track, "
        "track_start_end, track_from_point, "
        "got 'boxes'; leave it out to have it drawn",
    ),
    (
        {**ROW, "style": "track"},
        "row 7, style: expected a clip in a row of style 'track', got pictures; use video, or another style",
    ),
    (
        {**CLIP, "style": "track"},
        "row 7, points: expected an object_id on every point of a track, got a point without; number the "
        "objects",
    ),
    (
        {**ROW, "prompts": "Where?"},
        "row 7, prompts: expected a list of requests, got 'Where?'; write a single one as prompt",
    ),
    (
        {**ROW, "prompt": "A?", "prompts": ["B?"]},
        "row 7, prompts: expected prompt or prompts, got both; put all wordings into prompts",
    ),
    (
        {
            **CLIP,
            "label": None,
            "prompt": "Track it",
            "style": "track_from_point",
            "points": [{"x": 1, "y": 2, "t": 0, "id": 3}],
        },
        "row 7, label: expected a label in a row of style 'track_from_point', got none; the request is made "
        "of it and a first point",
    ),
    (
        {**ROW, "turns": [{"prompt": "Why?", "answer": "No."}]},
        "row 7, label: expected no request beside turns, got 'dogs'; move it into a turn",
    ),
    (
        {"turns": ["Why?"]},
        "row 7, turns[0]: expected an object like a row without pictures, got 'Why?'; name its columns",
    ),
    (
        {"turns": [{"prompt": "Why?"}]},
        "row 7, turns[0]: expected one of points (or no_points), answer and caption, got none of them; "
        "write one row per target",
    ),
    (
        {"turns": [{"label": "dogs", "no_points": True}]},
        "row 7, turns[0], image: expected image, images or video in a row with points, got nothing; name "
        "the file",
    ),
    (
        {"image": "a.png", "turns": [{"points": [{**POINT, "label": "dog"}], "coords": "pixel"}]},
        "row 7, turns[0].label: expected a prompt or label in a turn, got labels of points; write one turn "
        "per label",
    ),
    (
        {
            "video": "a.mp4",
            "turns": [
                {
                    **{name: CLIP[name] for name in ("label", "coords")},
                    "style": "track",
                    "points": [{"x": 1, "y": 2, "t": 0, "id": 3}],
                }
            ],
        },
        "row 7, turns[0].style: expected points or text in a turn, got 'track'; write tracks as rows of "
        "their own",
    ),
    (
        {**ROW, "weight": 0},
        "row 7, weight: expected a factor above 0, got 0; leave rows out that should not count",
    ),
    (
        {**ROW, "weight": 10**400},
        f"row 7, weight: expected a finite number, got 1{'0' * 199} ...; write a plain number such as 12.5",
    ),
    (["a.png"], "row 7: expected an object with columns, got ['a.png']; write one JSON object per line"),
]


@pytest.mark.parametrize("columns", GOOD)
def test_rows_come_back_from_their_columns(columns):
    record = parse_record(columns, 7)
    assert parse_record(record_fields(record), 7) == record
    assert json.loads(json.dumps(record_fields(record))) == record_fields(record)


@pytest.mark.parametrize(("columns", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_faulty_rows_are_refused_with_row_field_and_remedy(columns, message):
    with pytest.raises(ProcessingError) as caught:
        parse_record(columns, 7)
    assert str(caught.value) == message


def test_id_is_another_name_and_files_may_be_paths_or_undecoded_pictures():
    assert parse_record({**ROW, "points": [{**POINT, "id": 4}]}, 1).points == (
        RecordPoint(1.0, 2.0, object_id=4),
    )
    assert parse_record({**ROW, "image": Path("a.png")}, 1).images == ("a.png",)
    assert parse_record({**ROW, "image": {"path": "a.png", "bytes": None}}, 1).images == ("a.png",)
    assert parse_record({**ROW, "points": [{"x": np.float32(1), "y": np.int64(2)}]}, 1).points == (
        RecordPoint(1.0, 2.0),
    )


numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(
    lambda text: text if text.strip() else text + "x"
)
optional = {name: st.none() | texts for name in ("prompt", "source")}


@st.composite
def records(draw):
    kind = draw(st.sampled_from(["pictures", "clip", "none", "answer", "caption", "turns"]))
    common = {name: draw(values) for name, values in optional.items()} | {
        "weight": draw(st.none() | st.floats(1e-6, 1e6))
    }
    if kind == "answer":
        return Record(1, answer=draw(texts), **(common | {"prompt": draw(texts)}))
    if kind == "turns":
        turn = st.builds(
            Record, row=st.just(1), prompts=st.lists(texts, min_size=1, max_size=3).map(tuple), answer=texts
        )
        turns = tuple(draw(st.lists(turn, min_size=1, max_size=3)))
        return Record(1, turns=turns, **{name: value for name, value in common.items() if name != "prompt"})
    images = tuple(draw(st.lists(texts, min_size=1, max_size=4)))
    if kind == "caption":
        return Record(1, images, caption=draw(texts), **common)
    common["label"] = draw(texts)
    if kind == "none":
        return Record(1, images, no_points=True, **common)
    if kind == "clip":
        times = {"t": st.floats(0, 1e5), "object_id": st.integers(0, 99)}
        point, visual = (
            st.builds(RecordPoint, x=numbers, y=numbers, **times),
            {"video": draw(texts), "style": draw(st.none() | st.just("track"))},
        )
    else:
        point = st.builds(
            RecordPoint, x=numbers, y=numbers, image=st.integers(0, len(images) - 1), label=st.none() | texts
        )
        visual = {"images": images}
    points = tuple(draw(st.lists(point, min_size=1, max_size=5)))
    return Record(1, points=points, coords=draw(st.sampled_from(["pixel", *FULL_SCALE])), **visual, **common)


def numbered(record, row):
    return dataclasses.replace(
        record, row=row, turns=tuple(dataclasses.replace(turn, row=row) for turn in record.turns)
    )


@given(st.lists(records(), min_size=1, max_size=4))
def test_files_keep_every_record(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("rows") / "data.jsonl"
    assert write_records(path, written) == len(written)
    assert list(read_records(path)) == [numbered(record, i) for i, record in enumerate(written, start=1)]
    assert [parse_record(columns, row) for row, columns in iterate_rows(map(record_fields, written))] == list(
        read_records(path)
    )


def test_a_crash_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "data.jsonl"
    write_records(path, [parse_record(ROW, 1)])

    def broken():
        yield parse_record(ROW, 1)
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="disk"):
        write_records(path, broken())
    assert len(list(read_records(path))) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_lines_are_counted_as_an_editor_does(tmp_path):
    path = tmp_path / "data.jsonl"
    good = json.dumps(ROW).encode()
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\n\n" + good + b"\r\n{oops\n" + b'{"label": "\xff"}\n')
    rows = list(iterate_rows(path))
    assert [row for row, _ in rows] == [1, 3, 4, 5]
    assert all(isinstance(fault, ProcessingError) for _, fault in rows[2:])
    with pytest.raises(
        ProcessingError,
        match=r"^row 4: expected one JSON object per line, got .* at column 2; write every row on a line",
    ):
        list(read_records(path))


def test_empty_and_missing_files_are_named(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ProcessingError, match=r"expected one or more rows, got none in .*empty\.jsonl"):
        list(read_records(tmp_path / "empty.jsonl"))
    with pytest.raises(ProcessingError, match="got none in the data set"):
        list(read_records([]))
    with pytest.raises(ProcessingError, match=r"got no file .*gone\.jsonl"):
        list(read_records(tmp_path / "gone.jsonl"))


@pytest.mark.parametrize("coords", ["pixel", *FULL_SCALE])
@given(
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)), size=st.tuples(st.integers(1, 9000), st.integers(1, 9000))
)
def test_every_space_means_the_same_pixel(coords, at, size):
    wh = np.array(size) if coords == "pixel" else np.full(2, FULL_SCALE[coords])
    x, y = np.minimum(np.array(at) * wh, wh)
    group, xy = to_pixels(
        Record(1, ("a.png",), label="dog", points=(RecordPoint(x, y),), coords=coords), [size]
    )
    assert group.tolist() == [0]
    np.testing.assert_allclose(xy, [np.array(at) * size], rtol=1e-9, atol=1e-9)


def test_points_outside_are_refused_or_moved_to_the_edge():
    record = parse_record({**ROW, "points": [POINT, {"x": 320, "y": -3}], "coords": "norm1"}, 7)
    with pytest.raises(ProcessingError) as caught:
        to_pixels(record, [(200, 100)])
    assert str(caught.value) == (
        "row 7, points[0]: expected x in 0..1 and y in 0..1 for coords 'norm1', got (1, 2); "
        "correct the point, or coords if it names the wrong space, or drop the point"
    )
    assert to_pixels(record, [(200, 100)], clip=True)[1].tolist() == [[200, 100], [200, 0]]
    with pytest.raises(ProcessingError, match="row 7: expected the size of 1 pictures or clips, got 2"):
        to_pixels(record, [(200, 100), (1, 1)])


def test_groups_are_pictures_or_seconds():
    several = parse_record(
        {"images": ["a", "b"], "label": "x", "points": [{**POINT, "image": 1}, POINT], "coords": "percent"}, 1
    )
    group, xy = to_pixels(several, [(100, 100), (1000, 50)])
    assert group.tolist() == [1, 0] and group.dtype == np.int64
    assert xy.tolist() == [[10, 1], [1, 2]]
    assert to_pixels(parse_record(CLIP, 1), [(100, 100)])[0].tolist() == [0.5]
    assert to_pixels(parse_record(GOOD[4], 1), [(9, 9)])[1].shape == (0, 2)


def test_relative_files_start_at_the_folder_of_the_rows(tmp_path):
    record = parse_record({**ROW, "image": None, "images": ["a.png", "/b.png"]}, 1)
    assert resolve_media(record, tmp_path) == ((tmp_path / "a.png", Path("/b.png")), None)
    assert resolve_media(parse_record(CLIP, 1), tmp_path) == ((), tmp_path / "a.mp4")


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_installed_schemas_are_those_of_the_models(name):
    text = files("molmopoint.data").joinpath(name).read_text(encoding="utf-8")
    assert json.loads(text) == json.loads(published_schema(SCHEMAS[name])), (
        "run python -m molmopoint.data.schemas"
    )


def test_misspelt_columns_come_first_with_the_nearest_name():
    with pytest.raises(
        ProcessingError, match=r"^row 7, lable: .* got 'lable', which is like 'label'; rename or remove it$"
    ):
        parse_record({**ROW, "label": 5, "points": [{"x": 1, "Y": 2}], "lable": "dogs"}, 7)
    with pytest.raises(
        ProcessingError,
        match=r"^row 7, turns\[0\]\.points\[0\]\.lable: .* got 'lable', which is like 'label'",
    ):
        parse_record(
            {
                "image": "a.png",
                "turns": [{"label": "a", "points": [{**POINT, "lable": "b"}], "coords": "pixel"}],
            },
            7,
        )
    odd_names: list[Any] = [5, "\ud83d", b"label"]
    for name in odd_names:
        with pytest.raises(ProcessingError, match="expected one of the columns image"):
            parse_record({**ROW, name: "dogs"}, 7)


def test_rows_may_be_of_other_types_than_those_of_json():
    point = MappingProxyType({"x": np.float32(1), "y": np.int64(2), "object_id": np.uint8(3)})
    row = MappingProxyType({**ROW, "points": (point,), "weight": np.float64(2), "prompts": ("a", "b")})
    assert parse_record(row, 1) == parse_record(
        {**ROW, "points": [{**POINT, "object_id": 3}], "weight": 2, "prompts": ["a", "b"]}, 1
    )


def test_the_schema_names_the_same_columns():
    assert set(SCHEMA["properties"]) == set(COLUMNS)
    assert set(SCHEMA["$defs"]["PointColumns"]["properties"]) == set(POINT_COLUMNS)
    assert {field.name for field in dataclasses.fields(RecordPoint)} == set(POINT_COLUMNS) - {"id"}


BEYOND_A_SCHEMA = re.compile(
    r"points\[0\]\.(image|x): expected (the index|no picture index|a finite number, got nan)|weight: .* got 1000|whole characters"
)


def test_the_schema_accepts_and_refuses_the_same_rows():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    for columns in GOOD:
        validator.validate(columns)
    for columns, message in BAD:
        assert BEYOND_A_SCHEMA.search(message) or not validator.is_valid(columns), message
