"""Documents, rows and recipes in which something is of another type, size or encoding: an error of the
library, or read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fuzzing import SECONDS, attack, odd_json, odd_texts, odd_values
from hypothesis import HealthCheck, given, settings
from PIL import Image

from molmopoint.data.checking import Report, check_records, parsed_rows
from molmopoint.data.preferences import parse_preferences, read_preferences
from molmopoint.data.records import parse_record, read_records
from molmopoint.errors import GroundingError, MolmoPointError, ProcessingError, RecipeError
from molmopoint.points import Points
from molmopoint.tracks import Tracks
from molmopoint.training.recipe_files import load_recipe, recipe_to_dict

POINT: dict[str, Any] = {
    "object_id": 1,
    "group": 0,
    "x": 2.0,
    "y": 4.0,
    "score": None,
    "triple": [1, 2, 3],
    "label": "cup",
}
POINTS: dict[str, Any] = {
    "schema_version": 1, "group_unit": "image", "coordinate_unit": "pixel", "image_sizes": [[10, 10]], "points": [POINT],
}  # fmt: skip
COLUMNS: dict[str, Any] = {
    "object_id": [1, 1],
    "time": [0.0, 0.5],
    "x": [1.0, 2.0],
    "y": [4.0, 5.0],
    "frame": [0, 5],
}
TRACKS = Tracks(**COLUMNS, size=(64, 48), fps=10, labels={1: "cup"}).to_dict()
COCO: dict[str, Any] = {
    "videos": [{"id": 1, "width": 64, "height": 48, "fps": 10}],
    "images": [{"id": 1, "video_id": 1, "frame_id": 5, "time": 0.5}, {"id": 2, "video_id": 1, "frame_id": 6}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "track_id": 1, "keypoints": [1, 2, 2], "score": 0.5},
        {"id": 2, "image_id": 2, "category_id": 1, "track_id": 1, "bbox": [1, 2, 3, 4]},
    ],
    "categories": [{"id": 1, "name": "cup", "supercategory": ""}],
}
CSV = "object_id,frame,time,x,y,visible,score,label\r\n1,5,0.5,1.5,2,1,0.5,cup\r\n2,5,0.5,3,4,0,,plate\r\n"
MOT = "1,1,10,20,4,6,0.9,1,1\n2,1,11,20,4,6,-1,-1,-1\n"
ROW: dict[str, Any] = {
    "image": "a.png", "label": "cup", "coords": "pixel", "weight": 1.5, "source": "x",
    "points": [{"x": 1, "y": 2, "object_id": 3, "image": 0, "label": "cup"}],
}  # fmt: skip
TALK: dict[str, Any] = {
    "images": ["a.png", "a.png"],
    "turns": [{"prompt": "Who?", "answer": "Me."}, {"label": "cup", "no_points": True}],
}
PREFERENCE: dict[str, Any] = {
    "image": "a.png", "prompt": "What?", "responses": ["A cat.", "A dog."], "rankings": [1, 2], "models": ["a", "b"], "id": 7,
}  # fmt: skip
CHOSEN: dict[str, Any] = {
    "prompt": [{"role": "user", "content": "What?"}],
    "chosen": "A.",
    "rejected": ["B.", "C."],
}

seconds = pytest.mark.parametrize("seconds", [0, pytest.param(SECONDS, marks=pytest.mark.slow)])


def checked(file: Path) -> Report:
    return check_records(parsed_rows(file), file.parent)


def whole(value: str) -> None:
    """Text that can be written."""
    value.encode()


@seconds
def test_points(seconds):
    def read(text: bytes) -> None:
        points = Points.from_json(text.decode("utf-8", "replace"))
        assert Points.from_json(points.to_json()) == points
        for label in points.labels or ():
            whole(label or "")

    attack(odd_json(POINTS), read, examples=60, seconds=seconds)


@seconds
@pytest.mark.parametrize("document", [TRACKS, COCO], ids=["json", "coco"])
def test_tracks_in_json(tmp_path, document, seconds):
    def read(text: bytes) -> None:
        (tmp_path / "a.json").write_bytes(text)
        tracks = Tracks.load(tmp_path / "a.json")
        for name in ("b.json", "b.csv"):
            tracks.save(tmp_path / name)
        assert Tracks.load(tmp_path / "b.json") == tracks

    attack(odd_json(document), read, examples=60, seconds=seconds)


@seconds
@pytest.mark.parametrize(("name", "text", "options"), [("a.csv", CSV, {}), ("a.txt", MOT, {"fps": 25})])
def test_tracks_in_tables(tmp_path, name, text, options, seconds):
    def read(content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        Tracks.load(tmp_path / name, **options).save(tmp_path / "b.json")

    attack(odd_texts(text), read, examples=60, seconds=seconds)


@seconds
@pytest.mark.parametrize(
    "row", [ROW, TALK, PREFERENCE, CHOSEN], ids=["points", "turns", "rankings", "chosen"]
)
def test_rows(tmp_path, row, seconds):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    good = json.dumps(
        {"image": "a.png", "label": "cup", "points": [{"x": 1, "y": 2}], "coords": "pixel"}
    ).encode()
    is_preference = "points" not in row and "turns" not in row

    def read(line: bytes) -> None:
        (tmp_path / "a.jsonl").write_bytes(line.replace(b"\n", b" ") + b"\n" + good + b"\n")
        if is_preference:
            read_preferences(tmp_path / "a.jsonl")
            return
        report = checked(tmp_path / "a.jsonl")
        assert report.rows >= 1 and all(finding.row != 2 for finding in report.faults)
        list(read_records(tmp_path / "a.jsonl"))

    attack(odd_json(row), read, examples=50, seconds=seconds)


@settings(
    derandomize=True,
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(odd_values())
def test_values_from_python(value):
    """Rows need not come from JSON, which refuses some of these."""
    for fields, parse in ((ROW, parse_record), (PREFERENCE, parse_preferences)):
        for name in fields:
            try:
                parse({**fields, name: value}, 1)
            except ProcessingError as error:
                assert "row 1" in str(error) and len(str(error)) < 1_000
    for name in (
        "object_id",
        "time",
        "x",
        "y",
        "visible",
        "score",
        "frame",
        "size",
        "fps",
        "moments",
        "labels",
    ):
        columns: dict[str, Any] = {"object_id": [1], "time": [0.0], "x": [1.0], "y": [2.0]}
        try:
            Tracks(**{**columns, name: value})
        except GroundingError:
            continue


CHANGED = [
    "groups",
    "groups.point",
    "groups.point.peak",
    "steps",
    "epochs",
    "z_loss",
    "lora.targets",
    "optimiser.betas",
    "data",
    "dtype",
    "seed",
    "",
]


@seconds
def test_changes_of_a_recipe(seconds):
    def change(text: bytes) -> None:
        value = text.decode("utf-8", "surrogateescape")
        for name in CHANGED:
            try:
                json.dumps(recipe_to_dict(load_recipe("lora", [f"{name}={value}"])), allow_nan=False)
            except MolmoPointError as error:
                assert len(str(error)) < 3_000

    attack(odd_texts('2e-4 ["a", 1, {b = 2}]'), change, examples=40, seconds=seconds)


@seconds
@pytest.mark.parametrize("name", ["a.json", "a.toml"])
def test_files_of_recipes(tmp_path, name, seconds):
    recipe = recipe_to_dict(load_recipe("lora"))
    toml = 'base = "lora"\nsteps = 5\n[groups.point]\npeak = 2e-4\nwarmup = 10\n[lora]\nrank = 8\ntargets = ["q_proj"]\n'

    def read(text: bytes) -> None:
        (tmp_path / name).write_bytes(text)
        load_recipe(tmp_path / name)

    attack(odd_json(recipe) if name == "a.json" else odd_texts(toml), read, examples=50, seconds=seconds)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        (["groups=[[1]]", "groups.point={}"], "groups"),
        (["groups.point=[]"], "groups.point"),
        (["z_loss=1" + "0" * 400], "z_loss"),
        (["z_loss=1" + "0" * 5000], "z_loss"),
        (["z_loss=nan"], "z_loss"),
        (["steps=1" + "0" * 30], "steps"),
        (["groups.vit.peak=inf"], "peak"),
        (["lora.targets=" + "[" * 5000], "lora.targets"),
        ([".".join(["groups"] * 3000) + "=1"], "groups"),
        (["x" * 5000 + "=1"], "xxx"),
        (["seed=1\nsteps = 3"], "seed"),
    ],
)
def test_changes_are_refused_by_place(changes, place):
    with pytest.raises(RecipeError) as raised:
        load_recipe("lora", changes)
    assert place in str(raised.value) and len(str(raised.value)) < 3_000


@pytest.mark.parametrize("name", ["x" * 300 + ".toml", "\0.toml", "\ud83d.toml", "x" * 300])
def test_names_of_recipes_that_no_disk_holds(name):
    with pytest.raises(RecipeError):
        load_recipe(name)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"object_id": 10**40}, "points[0].object_id"),
        ({"object_id": 1.5}, "points[0].object_id"),
        ({"object_id": float("inf")}, "points[0].object_id"),
        ({"x": 10**400}, "points[0].x"),
        ({"x": True}, "points[0].x"),
        ({"y": "4"}, "points[0].y"),
        ({"group": 10**30}, "points[0].group"),
        ({"group": 0.5}, "points[0].group"),
        ({"score": 10**400}, "points[0].score"),
        ({"score": "high"}, "points[0].score"),
        ({"triple": [10**40, 1, 1]}, "points[0].triple"),
        ({"triple": [1, 2]}, "points[0].triple"),
        ({"label": 3}, "points[0].label"),
        ({"label": "\ud83d"}, "points[0].label"),
    ],
)
def test_points_are_refused_by_place(changes, place):
    with pytest.raises(GroundingError) as raised:
        Points.from_json(json.dumps({**POINTS, "points": [{**POINT, **changes}]}))
    assert place in str(raised.value)


@pytest.mark.parametrize("sizes", [[[10, float("inf")]], [[10]], [10, 10], "10", {"a": 1}, [[10, 1.5]]])
def test_sizes_of_pictures_are_refused_by_place(sizes):
    with pytest.raises(GroundingError, match="image_sizes"):
        Points.from_json(json.dumps({**POINTS, "image_sizes": sizes}))


@pytest.mark.parametrize(
    "name", ["b" * 300 + ".png", "\ud83d.png", "a\0.png", "c/" * 3000 + "a.png", "é" * 200 + ".png"]
)
@pytest.mark.parametrize("column", ["image", "images", "video"])
def test_names_that_no_disk_holds_are_faults_of_their_rows(tmp_path, name, column):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    good: dict[str, Any] = {"image": "a.png", "label": "cup", "points": [{"x": 1, "y": 2}], "coords": "pixel"}
    bad = {"label": "cup", "no_points": True, column: [name] if column == "images" else name}
    rows = [bad, good, {**good, "points": [{"x": 99, "y": 2}]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert {finding.row for finding in checked(tmp_path / "a.jsonl").faults} == {1, 3}
    preference = {
        "prompt": "What?",
        "chosen": "A.",
        "rejected": "B.",
        column: [name] if column == "images" else name,
    }
    (tmp_path / "b.jsonl").write_text(json.dumps(preference) + "\n")
    with pytest.raises(ProcessingError, match="row 1"):
        read_preferences(tmp_path / "b.jsonl")


def test_a_number_of_5000_digits_is_a_fault_of_its_row(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    good = json.dumps({"image": "a.png", "label": "cup", "points": [{"x": 1, "y": 2}], "coords": "pixel"})
    rows = [
        good,
        good.replace('"x": 1', '"x": ' + "9" * 5000),
        good.replace('"x": 1', '"x": 99'),
        '{"a": ' + "[" * 100_000,
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(rows) + "\n")
    assert {finding.row for finding in checked(tmp_path / "a.jsonl").faults} == {2, 3, 4}


@pytest.mark.parametrize("name", ["a" * 300, "\0", "\ud83d", "a" * 300 + ".csv"])
def test_names_of_tracks_that_no_disk_holds(name):
    with pytest.raises(GroundingError):
        Tracks.load(Path(name).with_suffix(".json") if "." not in name else name)
