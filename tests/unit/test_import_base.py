"""What all importers build on: recorded sizes, masks, lists of points, and rows about what is absent."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from molmopoint.data.importers.collector import Collector
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.placement import PictureSize, Placement, fitted, picture_size, placement_of
from molmopoint.data.importers.point_lists import MAX_CORNERS, PointLists
from molmopoint.data.importers.reading import decoded_text, loaded_json, picture_path, read_xml
from molmopoint.data.importers.shapes import (
    MAX_MASK_PIXELS,
    decode_counts,
    decoded_runs,
    mask_place,
    turned_box_ring,
)
from molmopoint.errors import ProcessingError


def marked(path, size, place, orientation=1, **save):
    """A picture with a white block of 3 x 3 around a place (in stored pixels)."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[place[1] - 1 : place[1] + 2, place[0] - 1 : place[0] + 2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **save)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".png", ".tif", ".webp"])
def test_points_of_unturned_pictures_lie_on_what_they_marked(tmp_path, orientation, ending):
    """An annotation in stored pixels finds its block again in the picture as Pillow shows it."""
    path = marked(
        tmp_path / f"a{ending}",
        (40, 20),
        (31, 6),
        orientation,
        **({"lossless": True} if ending == ".webp" else {}),
    )
    placement = placement_of(path, (40.0, 20.0))
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)))[..., 0]
    assert picture_size(path) is not None and placement.displayed == (shown.shape[1], shown.shape[0])
    if orientation in (1, 5, 6, 7, 8):  # the others change nothing about the size, so that nobody can tell
        x, y = placement.moved(np.array([[31.5, 6.5]]))[0]
        assert shown[int(y), int(x)] == 255 and placement.orientation == orientation


@pytest.mark.parametrize(
    ("recorded", "stored", "orientation", "place", "expected"),
    [
        ((100, 75), (100, 75), 1, (50, 40), (50, 40)),
        ((400, 300), (100, 75), 1, (50, 40), (12.5, 10)),
        ((100, 75), (400, 300), 1, (50, 40), (200, 160)),
        ((400, 300), (400, 300), 6, (250, 150), (150, 250)),
        ((300, 400), (400, 300), 6, (150, 250), (150, 250)),
        ((400, 300), (800, 600), 8, (250, 150), (300, 300)),
        ((400, 300), (400, 300), 3, (10, 10), (10, 10)),
        ((641, 427), (320, 213), 1, (641, 427), (320, 213)),
        ((1920, 1080), (1280, 720), 1, (960, 540), (640, 360)),
    ],
)
def test_recorded_sizes(recorded, stored, orientation, place, expected):
    placement = fitted(
        (float(recorded[0]), float(recorded[1])),
        PictureSize((float(stored[0]), float(stored[1])), orientation),
    )
    assert np.allclose(placement.moved(np.array([place], dtype=float)), [expected])


@pytest.mark.parametrize(
    ("recorded", "stored"),
    [
        ((300, 300), (400, 100)),
        ((640, 480), (640, 512)),
        ((1920, 1088), (1920, 1080)),
        ((2e5, 2e5), (100, 80)),
    ],
)
def test_sizes_that_fit_nothing_are_refused(recorded, stored):
    with pytest.raises(
        ProcessingError,
        match=rf"recorded size {recorded[0]:g} x {recorded[1]:g}.*got {stored[0]} x {stored[1]}",
    ):
        fitted(recorded, PictureSize(stored))


@settings(derandomize=True)
@given(st.integers(1, 4000), st.integers(1, 4000), st.floats(0.1, 1.0))
def test_a_picture_scaled_down_always_fits(width, height, scale):
    small = (float(max(1, round(width * scale))), float(max(1, round(height * scale))))
    if min(small) > 2:
        placement = fitted((float(width), float(height)), PictureSize(small))
        assert np.allclose(placement.moved(np.array([[width, height]], dtype=float)), [small])


def test_runs_are_limited_before_memory_is_asked_for():
    for width, height in ((200_000, 200_000), (2**15, 2**13 + 1)):
        with pytest.raises(ProcessingError, match="at most 268,435,456 pixels"):
            decoded_runs([width * height], width, height)
    assert decoded_runs([0, 3, 1, 2], 3, 2).tolist() == [[True, True, True], [False, True, True]]
    faulty: list[Any] = [[5], [7], [8, -2], [5.5, 0.5], [2**63, 2**63, 6], [[6]]]
    for wrong in faulty:
        with pytest.raises(ProcessingError, match="expected runs over 3 x 2 pixels"):
            decoded_runs(wrong, 3, 2)
    with pytest.raises(ProcessingError, match="whole pixels"):
        decoded_runs([1], 0.5, 2)
    assert MAX_MASK_PIXELS > 12_000 * 9_000


@pytest.mark.parametrize("text", ["o" * 100_000, "0 1", "\xff", "\x7f" * 30, "a\ud83d"])
def test_text_that_is_no_run_lengths(text):
    with pytest.raises(ProcessingError):
        decode_counts(text, 3, 3)


@settings(derandomize=True, max_examples=40)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_a_place_in_a_mask_is_in_it(width, height, seed):
    generator = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    left, top = int(generator.integers(width)), int(generator.integers(height))
    mask[
        top : top + int(generator.integers(1, height + 1)),
        left : left + int(generator.integers(1, width + 1)),
    ] = True
    mask &= generator.random(mask.shape) < 0.9 if mask.sum() < 100 else True
    if mask.any():
        x, y, inside = mask_place(mask)
        assert mask[int(y), int(x)] and inside == mask.sum() and x % 1 == y % 1 == 0.5


def test_thin_lines_in_large_masks_are_found():
    mask = np.zeros((4001, 4001), bool)
    mask[1, 1:3999] = mask[1:3999, 1] = mask[3999, 3999] = True
    x, y, inside = mask_place(mask)
    assert mask[int(y), int(x)] and inside == 2 * 3998 - 1 + 1


def lists(size=(100.0, 80.0), **options):
    journal = Journal()
    return PointLists("a.png", journal, placement=Placement(size), **options), journal


def points_of(found):
    return {row["label"]: [(point["x"], point["y"]) for point in row["points"]] for row in found.rows()}


def test_only_what_can_be_seen_counts():
    found, journal = lists()
    found.add_box("cup", 90, 10, 150, 30)
    found.add_box("cup", -20, -20, 10, 10)
    found.add_polygon("cup", [np.array([[60.0, 60], [140, 60], [140, 100], [60, 100]])])
    mask = np.zeros((40, 40), bool)
    mask[:, 10:] = True
    found.add_mask("cup", mask, left=80, top=0)
    found.add("cup", 100.4, 80.0)
    places = points_of(found)["cup"]
    assert places[:3] == [(95, 20), (5, 5), (80, 70)] and places[4] == (100, 80)
    assert 90 < places[3][0] < 100 and 0 < places[3][1] < 40
    assert not journal.left_out


def test_objects_beyond_the_border_are_left_out_and_told():
    found, journal = lists()
    found.add_box("cup", 10, 10, 20, 20)
    found.add_box("cup", 120, 10, 150, 30)
    found.add_polygon("cup", [np.array([[200.0, 0], [210, 0], [210, 10]])])
    found.add("cup", 130, 20)
    assert (
        points_of(found) == {"cup": [(15, 15)]} and journal.left_out["objects outside of their picture"] == 3
    )
    found.add("cup", 2e9, 3)
    assert not points_of(found) and journal.left_out["broken objects"] == 1


@settings(derandomize=True, max_examples=60)
@given(st.lists(st.tuples(st.integers(-50, 150), st.integers(-50, 130)), min_size=3, max_size=7))
def test_polygons_over_the_border_have_their_place_in_the_picture(corners):
    """Against pixels: the place is in the picture, and in the polygon by the rule of odd windings."""
    from molmopoint.data.interior import signed_distance

    ring = np.array(corners, dtype=float)
    found, _ = lists()
    found.add_polygon("cup", [ring])
    for x, y in points_of(found).get("cup", []):
        assert 0 <= x <= 100 and 0 <= y <= 80 and signed_distance(np.array([[x, y]]), ring)[0] > -1e-6


def test_groups_are_one_object_in_its_largest_part():
    def fill(found):
        found.add_box("bus", 0, 0, 10, 10, group=1)
        found.add_box("bus", 50, 0, 90, 40, group=1)
        found.add_polygon("bus", [np.array([[0.0, 60], [20, 60], [20, 80], [0, 80]])], group=1)
        found.add_box("car", 0, 0, 2, 2, group=1)
        found.add("bus", 30, 30, group=2)
        found.add("bus", 31, 31, group=0)
        found.add("bus", 32, 32)

    found, journal = lists()
    fill(found)
    assert points_of(found) == {"bus": [(70, 20), (30, 30), (31, 31), (32, 32)], "car": [(1, 1)]}
    said = " ".join(journal.lines())
    assert "--ungroup keeps them apart): 3" in said and "objects joined from such shapes: 1" in said
    apart, journal = lists(ungroup=True)
    fill(apart)
    assert len(points_of(apart)["bus"]) == 6 and "ungroup" not in " ".join(journal.lines())


def test_a_broken_object_spoils_its_label_only():
    found, journal = lists()
    found.add("cup", 1, 1)
    found.add("cup", 2, 2)
    found.add("plate", 3, 3)
    with found.object("cup", "object 7"):
        raise ProcessingError("expected a number, got 'x'")
    with found.object(None, "object 8"):
        raise ProcessingError("object 8: expected a label, got none")
    found.add_polygon("dish", [np.zeros((MAX_CORNERS + 1, 2))])
    assert points_of(found) == {"plate": [(3, 3)]}
    said = journal.lines()
    assert (
        sum("object 7: expected a number" in line and "a.png" in line and "'cup'" in line for line in said)
        == 1
    )
    assert sum("object 8: expected a label" in line for line in said) == 1
    assert "points left out because another object of their label and picture is: 2" in said
    assert journal.left_out["broken objects"] == 3


def collected(tmp_path, pictures, negatives=0.2, classes=("cup", "plate", "fork")):
    """Rows of pictures with the labels given: each label one object, "!x" a broken one, "?" one without a
    label.
    """
    journal = Journal()
    collector = Collector(journal, classes=classes, negatives=negatives)
    rows = []
    for name, labels in pictures.items():
        found = collector.picture(tmp_path / name, (100.0, 80.0))
        assert found is not None
        for label in labels:
            if label == "?":
                found.spoil(None, "no label")
            elif label.startswith("!"):
                found.spoil(label[1:], "broken")
            else:
                found.add(label, 5, 5)
        rows += collector.rows(found)
    return rows + list(collector.last_rows()), journal


def absent(rows):
    return [(row["image"].rpartition("/")[2], row["label"]) for row in rows if row.get("no_points")]


def test_negatives_are_a_share_of_the_rows(tmp_path):
    pictures = {f"{i}.png": ["cup", "plate"] if i % 3 else [] for i in range(300)}
    rows, journal = collected(tmp_path, pictures)
    chosen = absent(rows)
    assert len(rows) == 500 and len(chosen) == 100 and len(set(chosen)) == 100
    assert all(label not in pictures[name] for name, label in chosen)
    # One in three pictures is empty, and so is about one in three of those asked about.
    assert 20 < sum(not pictures[name] for name, _ in chosen) < 50
    assert collected(tmp_path, pictures)[0] == rows
    assert "pictures: 300" in journal.lines() and "pictures without objects: 100" in journal.lines()
    assert len(absent(collected(tmp_path, pictures, negatives=0.5)[0])) == 400
    assert not absent(collected(tmp_path, pictures, negatives=0)[0])


def test_classes_are_denied_as_often_as_they_are_pointed_at(tmp_path):
    pictures = {f"{i}.png": ["cup"] if i % 10 else ["plate"] for i in range(1000)} | {
        f"e{i}.png": [] for i in range(1000)
    }
    counts = Counter(label for _, label in absent(collected(tmp_path, pictures)[0]) if label != "fork")
    assert counts.total() >= 245 and counts["cup"] > counts["plate"] > 10


def test_what_may_be_there_is_not_absent(tmp_path):
    rows, _ = collected(
        tmp_path, {"a.png": ["!cup", "plate"], "b.png": ["?", "plate"], "c.png": ["Fork"]}, negatives=0.9
    )
    # c has no cup, but every cup of the set was left out: it would only ever be denied. "Fork" is the fork.
    assert absent(rows) == [("c.png", "plate"), ("a.png", "fork")] or set(absent(rows)) == {
        ("a.png", "fork"),
        ("c.png", "plate"),
    }
    rows, _ = collected(tmp_path, {"a.png": [], "b.png": ["cup"]}, negatives=0.9, classes=None)
    assert absent(rows) == [("a.png", "cup")]


def test_a_picture_named_twice_has_what_either_entry_has(tmp_path):
    journal = Journal()
    collector = Collector(journal, classes=["cup", "plate"], negatives=0.9)
    for label in ("cup", "plate"):
        found = collector.picture(tmp_path / "a.png")
        assert found is not None
        found.add(label, 1, 1)
        list(collector.rows(found))
    assert not list(collector.last_rows()) and "pictures: 1" in journal.lines()


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan"), True, "0.2"])
def test_shares_that_are_none(share):
    with pytest.raises(ProcessingError, match="option negatives"):
        Collector(Journal(), negatives=share)


def test_pictures_of_another_size_are_named(tmp_path):
    Image.new("RGB", (100, 80)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    journal = Journal()
    collector = Collector(journal)
    assert collector.picture(tmp_path / "a.png", (300.0, 300.0)) is None
    assert collector.picture(tmp_path / "a.png", (200.0, 160.0)) is not None
    assert collector.picture(tmp_path / "b.png", (200.0, 160.0)) is not None
    assert collector.picture(tmp_path / "c.png", (200.0, 160.0)) is not None
    said = "\n".join(journal.lines())
    assert "a.png: left out: expected a picture of the recorded size 300 x 300" in said
    assert "whose points were scaled: 1" in said and "recorded 200 x 160, found 100 x 80" in said
    assert "not there or cannot be opened, their size not compared: 2" in said


def test_names_stay_in_their_folder(tmp_path):
    folder = tmp_path / "set" / "images"
    assert picture_path(folder, "row\\a.png", "x") == folder / "row" / "a.png"
    assert picture_path(folder, str(folder / "a.png"), "x") == folder / "a.png"
    assert picture_path(folder, "../other/a.png", "x", beside=True) == folder / ".." / "other" / "a.png"
    for name in (
        "../a.png",
        "/etc/passwd",
        "//etc/passwd",
        "a/../../b.png",
        "..\\a.png",
        "",
        " ",
        "\0",
        "\ud83d.png",
        1,
        None,
        ["a"],
    ):
        with pytest.raises(ProcessingError):
            picture_path(folder, name, "x")
    with pytest.raises(ProcessingError):
        picture_path(folder, "../../a.png", "x", beside=True)
    (tmp_path / "elsewhere").mkdir()
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    assert picture_path(folder, "link/a.png", "x") == folder / "link" / "a.png"


def test_texts_in_other_encodings(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert decoded_text("0 0.5 tasse à café".encode(encoding), "x") == "0 0.5 tasse à café"
    assert decoded_text("0 é".encode("latin-1"), "x", otherwise="latin-1") == "0 é"
    for data in ("é".encode("latin-1"), "a".encode("utf-16-le"), b"\xff\xfe\x00"):
        with pytest.raises(ProcessingError):
            decoded_text(data, "x")


def test_numbers_of_many_digits_spoil_their_object_only():
    assert loaded_json(json.dumps({"a": 1})[:-1] + ', "b": ' + "9" * 5000 + "}") == {
        "a": 1,
        "b": float("inf"),
    }


def test_xml_keeps_text_and_attributes(tmp_path):
    (tmp_path / "a.xml").write_bytes(
        '<?xml version="1.0" encoding="utf-16"?><a b="&lt;é"><c>x &amp; y</c> z</a>'.encode("utf-16")
    )
    root = read_xml(tmp_path / "a.xml")
    assert root.get("b") == "<é" and root.findtext("c") == "x & y" and root[0].tail == " z"


@pytest.mark.parametrize("angle", [30.0, 390.0, -330.0])
def test_whole_turns_change_nothing(angle):
    ring = turned_box_ring((10, 20), (4, 2), angle)
    assert ring == pytest.approx(turned_box_ring((10, 20), (4, 2), 30.0))


def test_angles_that_have_no_radians_are_angles_all_the_same():
    assert np.isfinite(turned_box_ring((10, 20), (4, 2), 1.7e308)).all()
