"""Point-Bench: its layout with all its traps, and its three rules."""

from __future__ import annotations

import csv
import io
import json
import stat
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item, ParsedAnswer
from molmopoint.eval.benchmarks.point_bench import ALONE, PointBench, _Truth
from molmopoint.eval.datasets import archives
from molmopoint.eval.runner.data import open_data
from molmopoint.metrics.run_lengths import MaskIndex


def answer(*xy: tuple[float, float]) -> ParsedAnswer:
    return ParsedAnswer(np.array(xy, dtype=float).reshape(-1, 2), np.zeros(len(xy)), np.full(len(xy), -1))


def item(count: int, category: str, mask: np.ndarray) -> Item:
    return Item("x", "?", categories={"category": category}, truth=_Truth(MaskIndex.build([mask]), 0, count))


def correct(made: Item, given: ParsedAnswer) -> dict[str, bool]:
    return {rule: bool(PointBench().score(made, given, rule)["correct"]) for rule in PointBench.rules}


WHOLE = np.ones((10, 10), dtype=bool)


def test_c9_two_points_outside_of_counting():
    assert correct(item(1, "spatial", WHOLE), answer((1, 1), (2, 2))) == {
        "ai2": True,
        "official": True,
        "paper": False,
    }


def test_c10_counting():
    assert correct(item(3, "counting", WHOLE), answer((1, 1), (2, 2))) == {
        "ai2": True,
        "official": False,
        "paper": False,
    }
    assert correct(item(2, "counting", WHOLE), answer((1, 1), (2, 2))) == {
        "ai2": True,
        "official": True,
        "paper": True,
    }


def test_only_the_official_rule_forgives_a_second_point_outside():
    made = item(2, "spatial", np.pad(np.ones((5, 5), dtype=bool), (0, 5)))
    assert correct(made, answer((1, 1), (8, 8))) == {"ai2": False, "official": True, "paper": False}
    assert correct(made, answer((8, 8), (1, 1))) == {"ai2": False, "official": False, "paper": False}
    assert PointBench().score(made, answer((8, 8), (1, 1)), "ai2")["soft"] == 0.5


def test_every_target_needs_its_point_by_the_paper():
    mask = np.zeros((10, 10), dtype=bool)
    mask[0:3, 0:3] = mask[6:9, 6:9] = True
    both, twice = answer((1, 1), (7, 7)), answer((1, 1), (2, 2))
    assert (
        correct(item(2, "counting", mask), both)["paper"]
        and not correct(item(2, "counting", mask), twice)["paper"]
    )
    assert correct(item(2, "counting", mask), twice)["official"], "the scripts do not look at single targets"


def test_a_point_right_of_the_picture_is_outside_of_a_larger_mask():
    made, given = item(1, "reasoning", WHOLE), answer((7.5, 1))
    assert correct(made, given)["ai2"], "nobody knows the size"
    assert not correct(made, replace(given, image_sizes=((7, 10),)))["ai2"]
    assert correct(made, replace(given, image_sizes=((8, 10),)))["ai2"]


def test_rows_without_a_count_have_one_target_and_bad_rows_are_missing(tmp_path):
    PointBench().write_fixture(tmp_path, np.random.default_rng(0))
    rows = json.loads((tmp_path / "data.json").read_text(encoding="utf-8"))[:5]
    del rows[0]["count"]
    rows[1]["count"], rows[2]["user_input"] = -1, ""
    rows[3]["image_filename"], rows[4]["image_filename"] = "x" * 300 + ".png", "../../outside.png"
    rows.append({**rows[0], "user_input": "half \ud800 of a character"})
    rows.append({**rows[0], "image_filename": "\ud800.png"})
    (tmp_path / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    items = open_data(PointBench(), tmp_path, tmp_path).items
    assert [each.truth.count for each in items.found] == [1]
    assert sorted(each.reason for each in items.missing) == [
        "file name that leads out of the data's folder, or is none",
        "half of a character in its text or file name",
        "half of a character in its text or file name",
        "no picture file",
        "no question",
        "no usable count",
    ]
    (tmp_path / "data.json").write_text("[" * 100000)
    with pytest.raises(EvaluationError, match="JSON"):
        PointBench().read(tmp_path)


def with_existing_points(folder) -> None:
    """The steerable question of the made items refers to (50, 25) and (10, 12.5) percent."""
    points = json.dumps([{"x": 50.0, "y": 25.0}, {"x": 10.0, "y": 12.5}])
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerows(
        [("image_filename", "points"), ("0003.png", points), ("0000.png", points), ("0004.png", "[]")]
    )
    (folder / "pixmo_metadata.csv").write_text(table.getvalue(), encoding="utf-8")


def asked(folder, rule: str = "ai2", steerable=None):
    settings = replace(PointBench.generation, steerable=steerable)
    return open_data(PointBench(), folder, folder, settings=settings, rule=rule)


def test_the_official_rule_tells_the_point_a_question_refers_to(tmp_path):
    """Source: the authors' scripts; Ai2's evaluation sends the question alone."""
    PointBench().write_fixture(tmp_path, np.random.default_rng(0))
    alone = asked(tmp_path)
    without_file = asked(tmp_path, "official")
    assert without_file.digest == alone.digest and without_file.items.warnings == {ALONE: 1}, (
        "says that it could not"
    )
    with_existing_points(tmp_path)
    assert (
        asked(tmp_path).digest
        == asked(tmp_path, "paper").digest
        == asked(tmp_path, "official", "none").digest
        == alone.digest
    )
    told = asked(tmp_path, "official")
    assert told.digest == asked(tmp_path, "ai2", "text").digest != alone.digest and not told.items.warnings
    changed = [
        (a, b) for a, b in zip(alone.items.found, told.items.found, strict=True) if a.prompt != b.prompt
    ]
    ((before, after),) = changed
    with Image.open(before.images[0]) as picture:
        width, height = picture.size
    first, second = f"[{width / 2:.1f}, {height / 4:.1f}]", f"[{width / 10:.1f}, {height / 8:.1f}]"
    assert after.prompt == (
        f"{before.prompt}\nThe image contains an existing original point at pixel coordinates: {first}, "
        f"{second}."
        "\nThe query refers to this existing point."
    )


def test_the_point_can_be_drawn(tmp_path):
    PointBench().write_fixture(tmp_path, np.random.default_rng(0))
    with pytest.raises(EvaluationError, match="--steerable none"):
        asked(tmp_path, steerable="drawn")
    with_existing_points(tmp_path)
    before = {each.item_id: each.images[0] for each in asked(tmp_path).items.found}
    drawn = [
        each
        for each in asked(tmp_path, steerable="drawn").items.found
        if each.images[0] != before[each.item_id]
    ]
    (made,) = drawn
    assert made.categories["category"] == "steerable"
    with Image.open(made.images[0]) as picture, Image.open(before[made.item_id]) as original:
        assert picture.size == original.size and picture.getpixel(
            (picture.width // 2, picture.height // 4)
        ) == (0, 0, 255)
        changed = np.argwhere((np.asarray(picture) != np.asarray(original.convert("RGB"))).any(axis=-1))
    assert 0 < len(changed) < 0.01 * picture.width * picture.height, "two dots"


@pytest.mark.parametrize(
    "table",
    ["a,b\n1,2\n", 'image_filename,points\na.png,"[1]"\n', "image_filename,points\na.png,[[[\n", "\xff"],
)
def test_another_table_of_points_is_refused(tmp_path, table):
    PointBench().write_fixture(tmp_path, np.random.default_rng(0))
    (tmp_path / "pixmo_metadata.csv").write_text(table, encoding="latin-1")
    with pytest.raises(EvaluationError, match=r"pixmo_metadata\.csv"):
        PointBench().read(tmp_path)


def test_nothing_and_outside():
    made = item(1, "reasoning", WHOLE)
    assert not any(correct(made, answer()).values())
    assert not any(correct(made, answer((10, 5))).values()), "x = width is outside"
    assert correct(made, answer((9.99, 5)))["ai2"], "the integer part decides"


def test_layout_with_its_traps(tmp_path):
    PointBench().write_fixture(tmp_path, np.random.default_rng(0))
    items = PointBench().read(tmp_path)
    assert [each.categories["category"] for each in items.found] == [
        "affordable",
        "spatial",
        "reasoning",
        "steerable",
        "counting",
    ]
    assert sorted((each.reason, each.detail) for each in items.missing) == [
        ("no mask file", "gone.png"),
        ("unreadable mask", "broken.png"),
    ]
    assert all(each.images[0].is_file() for each in items.found), "the accented name is found"
    for each in items.found:
        mask = each.truth.index.mask(each.truth.mask)
        rows, columns = np.nonzero(mask)
        with Image.open(each.images[0]) as picture:
            size = picture.size
        assert mask.any() and not mask.all()
        assert (mask.shape[::-1] == size) == (each.categories["category"] != "reasoning")
        assert PointBench().score(each, answer((columns[0], rows[0])), "ai2")["correct"]
    again = PointBench().read(tmp_path)
    assert [each.item_id for each in again.found] == [each.item_id for each in items.found], (
        "from the kept index"
    )
    assert np.array_equal(again.found[0].truth.index.starts, items.found[0].truth.index.starts)


def test_ids_do_not_depend_on_the_order_of_rows(tmp_path):
    PointBench().write_fixture(tmp_path, np.random.default_rng(0))
    before = {each.item_id for each in PointBench().read(tmp_path).found}
    rows = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(json.dumps(rows[::-1]))
    assert {each.item_id for each in PointBench().read(tmp_path).found} == before


def test_missing_pictures_are_missing_items_unless_answers_are_stored(tmp_path):
    PointBench().write_fixture(tmp_path, np.random.default_rng(0))
    with zipfile.ZipFile(tmp_path / "selected_images.zip", "w"):
        pass
    asked = open_data(PointBench(), tmp_path, tmp_path)
    stored = open_data(PointBench(), tmp_path, tmp_path, with_media=False)
    assert not asked.items.found and len(asked.items.missing) == 7
    assert len(stored.items.found) == 5 and asked.digest == stored.digest


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"data\.json"):
        PointBench().read(tmp_path)
    PointBench().write_fixture(tmp_path, np.random.default_rng(0))
    (tmp_path / "selected_masks.zip").write_bytes(b"PK")
    with pytest.raises(EvaluationError, match="download it again"):
        PointBench().read(tmp_path)


def test_archives_stay_in_their_folder(tmp_path):
    PointBench().write_fixture(tmp_path, np.random.default_rng(0))
    with zipfile.ZipFile(tmp_path / "selected_images.zip", "w") as archive:
        archive.writestr("../outside.png", b"x")
    with pytest.raises(EvaluationError, match="inside the archive's folder"):
        PointBench().read(tmp_path)
    assert not (tmp_path.parent / "outside.png").exists()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


HOSTILE_NAMES = [
    "../outside.png", "a/../../outside.png", "/outside.png", "//outside/x.png", "\\\\outside\\x.png", "\\outside.png", "..\\outside.png",
    "C:/outside.png", "C:\\outside.png", "c:outside.png", "a/..", "..", "a\0b.png", "../", "//x/",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_members_that_lead_out_are_refused_and_nothing_stays(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    PointBench().write_fixture(folder, np.random.default_rng(0))
    before = sorted(tmp_path.rglob("*"))
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    with zipfile.ZipFile(folder / "selected_images.zip", "a") as archive:
        archive.writestr(info, b"" if name.endswith("/") else b"x")
    with pytest.raises(EvaluationError, match="inside the archive's folder"):
        PointBench().read(folder)
    assert sorted(tmp_path.rglob("*")) == before and not Path("/outside").exists()


def test_a_name_that_is_no_utf8_is_refused(tmp_path):
    PointBench().write_fixture(tmp_path, np.random.default_rng(0))
    file = tmp_path / "selected_images.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("\xe9\xe9.png", b"x")  # marked as UTF-8
    file.write_bytes(file.read_bytes().replace("\xe9\xe9".encode(), b"\xff\xff\xff\xff"))
    with pytest.raises(EvaluationError, match="expected a whole zip file"):
        PointBench().read(tmp_path)


def test_links_special_files_and_locked_members_are_refused(tmp_path):
    def refused(change, match: str) -> None:
        PointBench().write_fixture(tmp_path, np.random.default_rng(0))
        with zipfile.ZipFile(tmp_path / "selected_images.zip", "a") as archive:
            change(archive)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(EvaluationError, match=match):
            PointBench().read(tmp_path)
        assert sorted(tmp_path.rglob("*")) == before

    def locked(archive: zipfile.ZipFile) -> None:
        archive.writestr("selected_images/spatial/b.txt", "x")
        archive.filelist[-1].flag_bits |= 1

    def pipe(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("pipe")
        info.external_attr = (stat.S_IFIFO | 0o644) << 16
        archive.writestr(info, b"")

    def twice(archive: zipfile.ZipFile) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr("a/b", "x")
            archive.writestr("a//b", "y")

    refused(lambda archive: archive.writestr(link("selected_images/out"), "/etc"), "a link")
    refused(pipe, "a special file")
    refused(locked, "without a password")
    refused(twice, "twice")
    refused(lambda archive: [archive.writestr("a", "x"), archive.writestr("a/b", "x")], "by hand")
    refused(lambda archive: archive.writestr("x" * 300, "x"), "by hand")


def test_archives_that_grow_beyond_measure_are_refused(tmp_path, monkeypatch):
    PointBench().write_fixture(tmp_path, np.random.default_rng(0))
    with zipfile.ZipFile(tmp_path / "selected_images.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1 << 20))
    monkeypatch.setattr(archives, "_SMALL", 1 << 10)
    monkeypatch.setattr(archives, "MAX_RATIO", 2)
    with pytest.raises(EvaluationError, match="do not trust this file"):
        PointBench().read(tmp_path)
    monkeypatch.setattr(archives, "MAX_RATIO", 1 << 20)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    with pytest.raises(EvaluationError, match="at most 1 members"):
        PointBench().read(tmp_path)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 100)
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 10)
    with pytest.raises(EvaluationError, match="at most 1,024 bytes"):
        PointBench().read(tmp_path)
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 30)
    assert len(PointBench().read(tmp_path).found) == 5


def test_a_member_with_other_bytes_than_it_states_is_refused(tmp_path):
    PointBench().write_fixture(tmp_path, np.random.default_rng(0))
    file = tmp_path / "selected_masks.zip"
    content = bytearray(file.read_bytes())
    content[60] ^= 0xFF
    file.write_bytes(bytes(content))
    with pytest.raises(EvaluationError, match="download it again"):
        PointBench().read(tmp_path)
    assert not (tmp_path / "selected_masks").exists()
