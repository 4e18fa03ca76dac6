"""`molmopoint data` from files to files, with exit codes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from molmopoint.cli import app
from molmopoint.cli.console import OK, SOME_FAILED, USAGE
from molmopoint.data import checking
from molmopoint.data.importers import FORMATS, format_options
from molmopoint.data.records import read_records


def run(*arguments):
    return CliRunner().invoke(app, ["data", *(str(argument) for argument in arguments)])


@pytest.fixture
def coco(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.new("RGB", (120, 90), (40 * i, 90, 200)).save(tmp_path / "pictures" / f"{i}.png")
    document = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(3)],
        "categories": [{"id": 0, "name": "cup"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 0, "bbox": [10, 10, 20, 30]} for i in range(3)
        ],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(document))
    return path


def test_import_then_check(coco, tmp_path):
    out, sheet = tmp_path / "deep" / "data.jsonl", tmp_path / "sheets" / "sheet.png"
    result = run("import", "coco", coco, "--images", tmp_path / "pictures", "--out", out)
    assert result.exit_code == OK and "3 rows" in result.stdout, result.output
    first = next(read_records(out))
    assert first.images == ("../pictures/0.png",) and [
        (point.x, point.y) for point in first.points or ()
    ] == [(20, 25)]
    result = run("check", out, "--sheet", sheet)
    assert result.exit_code == OK and "no faults" in result.stdout and "cup 3" in result.stdout, result.output
    with Image.open(sheet) as picture:
        assert picture.width > 1000


def test_options_and_what_is_left_out(tmp_path):
    items = [{"img_filename": "a.png", "bbox": [1, 2, 4, 8], "instruction": f"click {i}"} for i in range(2)]
    items += [
        {
            "img_filename": "a.png",
            "box_type": "polygon",
            "box_coordinates": [1, 1, 2, 2, 3, 3],
            "instruction": "x",
        }
    ] * 5
    path = tmp_path / "spot.json"
    path.write_text(json.dumps(items))
    result = run("import", "screenspot", path, "--option", "box=xywh", "--out", tmp_path / "out.jsonl")
    assert (
        result.exit_code == OK
        and "2 rows" in result.stdout
        and "and 2 more objects without a place" in result.stderr
    )
    assert [point.x for record in read_records(tmp_path / "out.jsonl") for point in record.points or ()] == [
        3,
        3,
    ]


def test_wrong_usage(coco, tmp_path):
    out = tmp_path / "out.jsonl"
    for arguments, word in [
        (("import", "voc", coco, "--out", out), "coco"),
        (("import", "coco", coco, "--out", out, "--option", "box"), "name=value"),
        (("import", "coco", coco, "--out", out, "--option", "box=1"), "target"),
        (("import", "screenspot", coco, "--out", out), "'box'"),
        (("import", "coco", tmp_path / "gone.json", "--out", out), "gone.json"),
        (("check", tmp_path / "gone.jsonl"), "gone.jsonl"),
        (("check", coco, "--sheet", tmp_path / "sheet.txt"), "sheet.txt"),
    ]:
        result = run(*arguments)
        assert result.exit_code == USAGE and word in result.stderr, arguments
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_an_import_without_rows(coco, tmp_path):
    coco.write_text(json.dumps({"images": [], "categories": [], "annotations": []}))
    assert run("import", "coco", coco, "--out", tmp_path / "out.jsonl").exit_code == SOME_FAILED


def test_faults_are_named_and_counted(tmp_path):
    Image.new("RGB", (120, 90)).save(tmp_path / "a.png")
    rows = [
        {"image": "a.png", "label": f"thing {i}", "coords": "pixel", "points": [{"x": 500 + i, "y": 5}]}
        for i in range(6)
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n{broken\n")
    result = run("check", path)
    assert (
        result.exit_code == SOME_FAILED
        and "row 1: 1 of 1 points lies outside" in result.stdout
        and "3 more" in result.stdout
    )
    assert "7 faults" in result.stdout and "row 7" in result.stdout
    assert "row 6: " in run("check", path, "--all").stdout
    result = run("check", path, "--json", "--sheet", tmp_path / "sheet.jpg")
    document = json.loads(result.stdout)
    assert (
        result.exit_code == SOME_FAILED and len(document["faults"]) == 7 and document["schema_version"] == 1
    )
    assert (tmp_path / "sheet.jpg").is_file()


def test_sizes_of_examples(tmp_path, toy_folder):
    Image.new("RGB", (120, 90)).save(tmp_path / "a.png")
    rows = [
        {"image": "a.png", "label": name, "coords": "pixel", "points": [{"x": 5, "y": 5}]} for name in "ab"
    ]
    rows.append({"prompt": "Why?", "answer": "No."})
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    result = run("check", path, "--model", toy_folder, "--json", "--max-tokens", 30)
    sizes = json.loads(result.stdout)["examples"]
    assert result.exit_code == OK and (sizes["examples"], sizes["measured"], sizes["over_limits"]) == (
        2,
        2,
        1,
    ), result.output
    assert (
        sizes["tokens"]["min"] < 30 < sizes["tokens"]["max"]
        and sizes["crops"]["min"] == 0 < sizes["crops"]["max"]
    )
    result = run("check", path, "--model", toy_folder, "--sample", 1)
    assert result.exit_code == OK and "1 of 2 examples" in result.stdout and "tokens min" in result.stdout
    result = run("check", path, "--model", "no-such-model")
    assert result.exit_code == USAGE and "no-such-model" in result.stderr


def test_examples_that_cannot_be_made_are_faults(tmp_path, toy_folder):
    (tmp_path / "a.mp4").write_bytes(b"no clip")
    path = tmp_path / "data.jsonl"
    path.write_text(
        json.dumps(
            {"video": "a.mp4", "label": "x", "coords": "percent", "points": [{"x": 5, "y": 5, "t": 0}]}
        )
    )
    result = run("check", path, "--model", toy_folder)
    assert result.exit_code == SOME_FAILED and "no_example" in result.stdout


def test_no_sheet_of_clips(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    points = [{"x": 5, "y": 5, "t": 1.5}]
    (tmp_path / "data.jsonl").write_text(
        json.dumps({"video": "a.mp4", "label": "cup", "coords": "pixel", "points": points})
    )
    result = run("check", tmp_path / "data.jsonl", "--sheet", tmp_path / "sheet.png")
    assert (
        result.exit_code == OK
        and "no contact sheet" in result.stderr
        and not (tmp_path / "sheet.png").exists()
    )


PAGE = Path(__file__).resolve().parents[2] / "docs" / "importing.md"


def test_the_page_says_what_is_there():
    """Its commands and options exist, and its tables name every format, option and kind of finding."""
    text = PAGE.read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("molmopoint data ")]
    assert {words[2] for words in commands} == {"import", "check"}
    for words in commands:
        help_text = run(words[2], "--help").stdout
        assert all(word in help_text for word in words if word.startswith("--"))
    for format in FORMATS:
        line = next(line for line in text.splitlines() if line.startswith(f"| `{format}`"))
        assert all(
            f"`{option}=" in line or f"`--{option}" in text
            for option in format_options(format)
            if option != "images"
        )
    source = Path(checking.__file__).read_text(encoding="utf-8")
    assert all(f"`{kind}`" in text for kind in re.findall(r'\.(?:fault|note)\(\s*"(\w+)"', source))


def test_help_names_the_formats():
    result = run("import", "--help")
    assert result.exit_code == OK and "label_studio" in result.stdout


def test_options_by_their_own_names(coco, tmp_path):
    """And what is left out, joined and written about absent classes is counted."""
    document = json.loads(coco.read_text())
    document["images"] += [
        {"id": 7, "file_name": "2.png", "width": 240, "height": 180},
        {"id": 8, "file_name": "1.png", "width": 9, "height": 90},
    ]
    document["categories"] += [{"id": 1, "name": "plate"}]
    document["annotations"][0]["iscrowd"] = 1
    coco.write_text(json.dumps(document))
    command = ("import", "coco", coco, "--images", tmp_path / "pictures", "--out", tmp_path / "out.jsonl")
    result = run(*command)
    assert (
        result.exit_code == OK
        and "left out, crowds: 1" in result.stderr
        and "--crowd object" in result.stderr
    )
    assert (
        "whose points were scaled: 1" in result.stderr
        and "left out, pictures of another size than recorded: 1" in result.stderr
    )
    assert sum(record.no_points for record in read_records(tmp_path / "out.jsonl")) == 1
    run(*command, "--crowd", "object", "--negatives", "0")
    records = list(read_records(tmp_path / "out.jsonl"))
    assert len(records) == 3 and all(record.points for record in records)
    for wrong in (
        ("--crowd", "all"),
        ("--negatives", "1"),
        ("--ungroup",),
        ("--keypoints", "all"),
        ("--option", "journal=x"),
        ("--option", "negatives=x"),
    ):
        result = run(*command, *wrong)
        assert result.exit_code == USAGE and result.stderr.startswith("error: expected"), wrong


def test_what_is_imported_with_empty_pictures_satisfies_the_check(coco, tmp_path):
    document = json.loads(coco.read_text())
    document["annotations"] = document["annotations"][:2]
    coco.write_text(json.dumps(document))
    assert (
        run(
            "import", "coco", coco, "--images", tmp_path / "pictures", "--out", tmp_path / "out.jsonl"
        ).exit_code
        == OK
    )
    assert "no_absent_targets" not in run("check", tmp_path / "out.jsonl").stdout
    run(
        "import",
        "coco",
        coco,
        "--images",
        tmp_path / "pictures",
        "--out",
        tmp_path / "out.jsonl",
        "--negatives",
        "0",
    )
    assert "no_absent_targets" in run("check", tmp_path / "out.jsonl").stdout
