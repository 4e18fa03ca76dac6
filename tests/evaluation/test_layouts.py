"""What several benchmarks read in the same way: boxes, sizes, pictures by address, parquet files, the account
of rows.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from made_answers import points
from PIL import Image
from pyarrow.parquet import write_table

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item, Items, Missing, VideoSegment
from molmopoint.eval.datasets.files import DIFFERS, NOWHERE, UNKNOWN, FileFinder, UrlPictures, place_of
from molmopoint.eval.datasets.preference_rows import Media
from molmopoint.eval.datasets.rows import (
    REPEATED,
    ItemCollector,
    displayed_size,
    find_parquet,
    in_size,
    json_rows,
    keep_picture,
    read_masks,
    read_rows,
    stated_size,
)
from molmopoint.eval.datasets.videos import VideoFinder
from molmopoint.eval.protocols.clicks import REACHES_OUT, TURNED, TargetReader
from molmopoint.eval.runner.data import without_missing_media, without_unusable_names


def reader(form) -> TargetReader:
    return TargetReader(form, Counter())


def listed(array: np.ndarray | None) -> list:
    return [] if array is None else array.tolist()


def test_t12_both_forms_become_corners():
    assert listed(reader("xywh").box([10, 20, 30, 40], (100, 100))) == [10, 20, 40, 60]
    assert listed(reader("xyxy").box([10, 20, 30, 40], (100, 100))) == [10, 20, 30, 40]


def test_boxes_that_are_not_in_order_are_put_in_order():
    targets = reader("xyxy")
    assert listed(targets.box([30, 20, 10, 40], None)) == [10, 20, 30, 40]
    assert listed(reader("xywh").box([30, 20, -20, 20], None)) == [10, 20, 30, 40]
    assert targets.warnings == {TURNED: 1}


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ([90, 90, 100.5, 101], 0),  # within the tolerance of a pixel
        ([90, 90, 120, 95], 1),  # partly outside
        ([-30, 10, -5, 20], 1),  # fully: nobody can hit it, as in the published scripts
    ],
)
def test_boxes_that_reach_out_stay_and_are_counted(values, warned):
    targets = reader("xyxy")
    assert listed(targets.box(values, (100, 100))) == values
    assert targets.warnings[REACHES_OUT] == warned
    assert listed(targets.box(values, None)) == values, "nothing to check against"


@pytest.mark.parametrize(
    "values", [None, [1, 2, 3], [1, 2, 3, float("nan")], "1, 2, 3, 4", [[1, 2], [3]], {"x": 1}]
)
def test_what_is_no_box(values):
    assert reader("xyxy").box(values, None) is None


def test_polygons():
    targets = reader("xywh")
    assert listed(targets.polygon([0, 0, 10, 0, 0, 10], (20, 20))) == [[0, 0], [10, 0], [0, 10]]
    assert (
        targets.polygon([0, 0, 10, 0], (20, 20)) is None
        and targets.polygon([0, 0, 10, 0, 5, 5, 1], None) is None
    )
    assert targets.polygon([30, 30, 40, 30, 30, 40], (20, 20)) is not None
    assert targets.warnings[REACHES_OUT] == 1


def test_a_file_in_the_other_form_is_refused():
    """Corners that are read as corner and size soon leave the picture."""
    corners = [[60 + i, 50, 90, 80] for i in range(12)]
    right, wrong = reader("xyxy"), reader("xywh")
    for values in corners:
        right.box(values, (100, 100))
        wrong.box(values, (100, 100))
    right.check("toy")
    with pytest.raises(EvaluationError, match="x, y, width, height"):
        wrong.check("toy")


def test_sizes_of_displayed_pictures(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert displayed_size(tmp_path / "turned.jpg") == (20, 30)
    assert displayed_size(tmp_path / "broken.png") is None and displayed_size(tmp_path / "gone.png") is None
    assert stated_size([1920, 1080]) == (1920, 1080)
    assert [stated_size(bad) for bad in (None, [1], [0, 5], ["a", "b"], "12")] == [None] * 5


def test_points_are_brought_to_the_size_of_the_truth():
    xy, rescaled = in_size(points((10, 10), image_sizes=((100, 50),)), (200, 100))
    assert xy.tolist() == [[20, 20]] and rescaled
    for size, sizes in [((100, 50), ((100, 50),)), (None, ((100, 50),)), ((100, 50), ())]:
        assert in_size(points((10, 10), image_sizes=sizes), size)[1] is False


def test_pictures_by_address(tmp_path):
    folder = tmp_path / "images" / "part"
    folder.mkdir(parents=True)
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("one", "two", "three", "four")}
    (folder / f"{digests['one']}.jpg").write_bytes(b"one")
    (folder / "café.jpg").write_bytes(b"two")
    (tmp_path / "images" / "café.jpg").write_bytes(b"another of that name")
    (folder / "3.jpg").write_bytes(b"a placeholder")
    pictures = UrlPictures(tmp_path)
    assert pictures.expect("https://a.b/x.jpg", digests["one"].upper()).read_bytes() == b"one"
    assert pictures.expect("https://a.b/caf%C3%A9.jpg?w=1", digests["two"]).read_bytes() == b"two", (
        "the bytes decide"
    )
    assert not pictures.warnings
    assert not pictures.expect("https://a.b/3.jpg", digests["three"]).exists() and pictures.warnings == {
        DIFFERS: 1
    }
    assert not pictures.expect("https://a.b/4.jpg", digests["four"]).exists() and pictures.warnings == {
        DIFFERS: 1
    }
    assert pictures.expect("https://a.b/3.jpg", None).read_bytes() == b"a placeholder"
    assert pictures.warnings == {DIFFERS: 1, UNKNOWN: 1}
    assert not UrlPictures(tmp_path / "elsewhere").expect(None, None).exists()


MASKS = pa.list_(pa.list_(pa.list_(pa.bool_())))


def test_masks_in_parquet_files(tmp_path):
    rng = np.random.default_rng(0)
    masks = [[rng.random((h, w)) < 0.5 for h, w in shapes] for shapes in ([(3, 4), (3, 4)], [], [(5, 2)])] * 7
    rows = [[mask.tolist() for mask in row] for row in masks]
    rows += [None, [[[True], [True, False]], [[False, True]]], [[[True, None]]], [[], [[]]], [None]]
    write_table(pa.table({"masks": pa.array(rows, MASKS)}), tmp_path / "test-00000-of-00001.parquet")
    read = list(read_masks(find_parquet(tmp_path, "test")))
    assert len(read) == len(rows)
    for found, made in zip(read, masks, strict=False):
        assert list(map(listed, found)) == list(map(listed, made))
    no_masks, uneven, unknown, empty, null = read[len(masks) :]
    assert no_masks == [] and uneven[0] is None and listed(uneven[1]) == [[False, True]]
    assert unknown == [None] and empty == [None, None] and null == [None]


def test_parquet_files_that_are_not_whole_or_not_these(tmp_path):
    with pytest.raises(EvaluationError, match=r"test-\*\.parquet"):
        find_parquet(tmp_path, "test")
    path = tmp_path / "data" / "test-00000-of-00001.parquet"
    path.parent.mkdir()
    write_table(pa.table({"label": ["a"]}), path)
    assert list(read_rows(find_parquet(tmp_path, "test"), ["label"])) == [{"label": "a"}]
    with pytest.raises(EvaluationError, match="columns count"):
        list(read_rows([path], ["label", "count"]))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(EvaluationError, match="download it again"):
        list(read_rows([path], ["label"]))


def test_pictures_in_parquet_files_are_unpacked_once(tmp_path):
    out = io.BytesIO()
    Image.new("RGB", (4, 3)).save(out, "PNG")
    cell = {"bytes": out.getvalue(), "path": "x.png"}
    file = keep_picture(cell, tmp_path)
    assert file is not None
    before = file.stat().st_mtime_ns
    assert keep_picture(cell, tmp_path) == file and file.stat().st_mtime_ns == before
    assert displayed_size(file) == (4, 3)
    assert (
        keep_picture(None, tmp_path) is None and keep_picture({"bytes": None, "path": "x"}, tmp_path) is None
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="can be written"):
        keep_picture(cell, tmp_path / "file")


def test_the_account_of_rows(tmp_path):
    collected = ItemCollector()
    assert [collected.name(key) for key in ("a", "b", "a", "a")] == ["a", "b", "a#2", "a#3"]
    collected.warnings["never happened"] += 0
    assert collected.items().warnings == {REPEATED: 2}
    (tmp_path / "rows.json").write_text('[{"a": 1}, 2]')
    for name, message in [("gone.json", "fetch it"), ("rows.json", "list of objects")]:
        with pytest.raises(EvaluationError, match=message):
            json_rows(tmp_path / name, "fetch it")
    (tmp_path / "rows.json").write_text("{")
    with pytest.raises(EvaluationError, match="download it again"):
        json_rows(tmp_path / "rows.json", "fetch it")


NO_NAMES = ["../secret.png", "a/../../secret.png", "/etc/passwd", "..\\secret.png", "", " ", "\0", "\ud800"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_of_a_table_never_leads_out_of_its_folder(tmp_path, name):
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    assert place_of(folder, name) == FileFinder(folder).expect(name) == folder / NOWHERE
    videos = VideoFinder(folder)
    assert not videos.expect(name).exists() and videos.expect(name).is_relative_to(folder)
    media = Media(folder)
    assert all(picture.name == NOWHERE for picture in media.pictures(name or "../x"))
    clip = media.clip(name)
    assert clip is None or clip.path == folder / NOWHERE
    found = UrlPictures(folder).expect(f"https://host/{name}", f"../../{name}")
    assert found.is_relative_to(folder) and not found.exists()


def test_a_name_of_300_letters_is_a_missing_item(tmp_path):
    long = "x" * 300
    clip = VideoSegment(VideoFinder(tmp_path).expect(long))
    items = Items(
        (Item("a", "?", (FileFinder(tmp_path).expect(long),)), Item("b", "?", clip=clip), Item("c", "?", ()))
    )
    left = without_missing_media(without_unusable_names(items))
    assert [each.item_id for each in left.found] == ["c"]
    assert [(each.item_id, each.reason) for each in left.missing] == [
        ("a", "no picture file"),
        ("b", "no video file"),
    ]


def test_items_with_half_of_a_character_are_missing_and_can_be_written():
    half = "\ud800"
    items = Items(
        (
            Item(half, "?"),
            Item("a", half),
            Item("b", "?", categories={"skill": ("x", half)}),
            Item("c", "?", responses=(half,)),
            Item("d", "ü"),
        ),
        (Missing(half, "no mask", half),),
    )
    left = without_unusable_names(items)
    assert [each.item_id for each in left.found] == ["d"] and len(left.missing) == 5
    json.dumps([[each.item_id, each.detail] for each in left.missing], ensure_ascii=False).encode("utf-8")


def test_absolute_names_inside_the_folder_are_fine(tmp_path):
    file = tmp_path / "pictures" / "a.png"
    file.parent.mkdir()
    file.write_bytes(b"x")
    assert Media(tmp_path).pictures(str(file)) == (file,)


@pytest.mark.skipif(os.name != "posix", reason="links of Unix")
def test_files_of_the_hub_are_links_out_of_their_folder(tmp_path):
    """The cache of the hub keeps contents by hash, and a snapshot is a folder of links to them."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0a1b"
    blobs.mkdir()
    (snapshot / "images").mkdir(parents=True)
    (blobs / "4f3a").write_bytes(b"picture")
    (snapshot / "images" / "a.png").symlink_to("../../../blobs/4f3a")
    assert place_of(snapshot, "images/a.png").read_bytes() == b"picture"
    assert FileFinder(snapshot).expect("images\\a.png").read_bytes() == b"picture"
    for name in ("../../blobs/4f3a", "images/../../../blobs/4f3a", str(blobs / "4f3a")):
        assert place_of(snapshot, name) == snapshot / NOWHERE
