"""LabelMe files as LabelMe 5 writes them, and as tools with its format do."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from molmopoint.data.importers import import_records
from molmopoint.errors import ProcessingError


def shape(label, points, kind="polygon", group=None, **more):
    common = {
        "label": label,
        "points": points,
        "group_id": group,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    }
    return {**common, **more}


def square(x, y, side):
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def saved(path, *shapes, image="a.png", size=(200, 100), **more):
    document = {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": image,
        "imageData": None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({**document, "imageHeight": size[1], "imageWidth": size[0], **more}, indent=2),
        encoding="utf-8",
    )
    return path


def picture(path, size=(200, 100), **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, **save)
    return path


def png(mask):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def imported(path, **options):
    """Rows as (file, label) -> places, or "none" where a class is absent, and what was left out."""
    skipped = []
    rows = {}
    for record in import_records("labelme", path, on_skip=skipped.append, **{"negatives": 0, **options}):
        places = [(round(point.x, 3), round(point.y, 3)) for point in record.points or ()]
        rows[record.media[0], record.label] = "none" if record.no_points else places
    return rows, skipped


def places(path, **options):
    rows, skipped = imported(path, **options)
    assert not skipped
    return {label: found for (_, label), found in rows.items()}


def test_every_shape(tmp_path):
    mask = np.zeros((9, 7), dtype=np.uint8)
    mask[2:7, 1:6] = 255
    path = saved(
        tmp_path / "a.json",
        shape("polygon", square(10, 10, 20)),
        shape("rectangle", [[40, 60], [20, 20]], "rectangle"),
        shape("rectangle", square(180, 0, 60), "rectangle"),
        shape("turned", [[50, 10], [70, 30], [60, 40], [40, 20]], "oriented_rectangle"),
        shape("turned", [[50, 10], [70, 30], [60, 40], [40, 20]], "rotation", direction=0.78),
        shape("quadrilateral", square(100, 10, 20), "quadrilateral"),
        shape("circle", [[70, 50], [73, 54]], "circle"),
        shape("circle", [[-3, 50], [7, 50]], "circle"),
        shape("point", [[1.5, 2.5]], "point"),
        shape("point", [[3, 4], [5, 6]], "points"),
        shape("mask", [[50, 40], [56, 48]], "mask", mask=png(mask)),
        shape(3, [[8, 9]], "point"),
        {"label": "old", "points": square(0, 0, 4)},
    )
    (_, (x, y)) = (found := places(path)).pop("circle")
    assert found == {
        "polygon": [(20, 20)],
        "rectangle": [(30, 40), (190, 30)],
        "turned": [(55, 25), (55, 25)],
        "quadrilateral": [(110, 20)],
        "point": [(1.5, 2.5), (3, 4), (5, 6)],
        "mask": [(53.5, 44.5)],
        "3": [(8, 9)],
        "old": [(2, 2)],
    }
    assert 0 < x < 7 and abs(y - 50) < 1


@pytest.mark.parametrize("kind", ["line", "linestrip", "cuboid", "lasso", 5])
def test_shapes_without_an_inside_are_named(tmp_path, kind):
    rows, skipped = imported(
        saved(tmp_path / "a.json", shape("crack", [[1, 1], [9, 9]], kind), shape("cup", [[1, 2]], "point"))
    )
    assert [label for _, label in rows] == ["cup"]
    assert (
        len(skipped) == 1
        and str(kind) in skipped[0]
        and "crack" in skipped[0]
        and "a.json, shape 1" in skipped[0]
    )


def test_groups(tmp_path):
    shapes = [
        shape("bus", square(10, 10, 12), group=0),
        shape("bus", square(40, 10, 40), group=0),
        shape("bus", square(100, 10, 20), group=1),
        shape("bus", square(130, 10, 20)),
        shape("bus", square(160, 10, 20)),
        shape("wheel", square(10, 60, 10), group=0),
        shape("lamp", [[5, 5]], "point", group=7),
        shape("lamp", [[9, 9], [19, 19]], "rectangle", group=7),
    ]
    path = saved(tmp_path / "a.json", *shapes)
    rest = [(110, 20), (140, 20), (170, 20)]
    assert places(path) == {"bus": [(60, 30), *rest], "wheel": [(15, 65)], "lamp": [(14, 14)]}
    assert places(path, ungroup=True)["bus"] == [(16, 16), (60, 30), *rest]


def test_recorded_sizes(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "a.png")
    picture(tmp_path / "phone.jpg", (400, 300), exif=exif)
    saved(tmp_path / "a.json", shape("cup", [[400, 100]], "point"), size=(800, 400))
    saved(tmp_path / "b.json", shape("cup", [[150, 250]], "point"), image="phone.jpg", size=(300, 400))
    saved(tmp_path / "c.json", shape("plate", [[250, 150]], "point"), image="phone.jpg", size=(400, 300))
    saved(tmp_path / "d.json", shape("fork", [[250, 150]], "point"), image="phone.jpg", size=(500, 500))
    rows, skipped = imported(tmp_path)
    assert {label: found for (_, label), found in rows.items() if label == "plate"} == {"plate": [(150, 250)]}
    assert rows[str(tmp_path / "a.png"), "cup"] == [(100, 25)] and rows[
        str(tmp_path / "phone.jpg"), "cup"
    ] == [(150, 250)]
    assert len(skipped) == 1 and "500 x 500" in skipped[0]


def test_a_mask_of_a_scaled_picture(tmp_path):
    picture(tmp_path / "a.png")
    mask = np.full((40, 80), 255, dtype=np.uint8)
    path = saved(
        tmp_path / "a.json", shape("cup", [[100, 60], [179, 99]], "mask", mask=png(mask)), size=(400, 200)
    )
    ((x, y),) = places(path)["cup"]
    assert abs(x - 70) < 11 and abs(y - 40) < 1


def test_a_mask_of_another_size_than_its_box_is_not_decoded(tmp_path, monkeypatch):
    """A few bytes of it may stand for hundreds of megabytes."""
    picture(tmp_path / "a.png")
    big = png(np.zeros((300, 400), dtype=np.uint8))
    path = saved(
        tmp_path / "a.json",
        shape("cup", [[10, 20], [89, 59]], "mask", mask=big),
        shape("plate", [[1, 2]], "point"),
    )
    monkeypatch.setattr(Image.Image, "convert", None)
    rows, skipped = imported(path)
    assert len(rows) == 1 and "expected a mask of 80 x 40 pixels, got 400 x 300" in skipped[0]


@pytest.mark.parametrize(
    ("name", "there", "expected"),
    [
        ("a.png", "set/a.png", "set/a.png"),
        ("..\\pictures\\a.png", "pictures/a.png", "set/../pictures/a.png"),
        ("C:\\data\\a.png", "set/a.png", "set/a.png"),
        ("/home/ann/a.png", "set/a.png", "set/a.png"),
        ("../../a.png", "set/a.png", "set/a.png"),
        ("gone/a.png", "set/a.png", "set/a.png"),
        ("gone/a.png", "other.png", "set/gone/a.png"),
    ],
)
def test_where_pictures_are(tmp_path, name, there, expected):
    picture(tmp_path / there)
    ((file, _),) = imported(saved(tmp_path / "set" / "a.json", shape("cup", [[1, 2]], "point"), image=name))[
        0
    ]
    assert file == str(tmp_path / expected)


def test_pictures_in_a_folder_of_their_own(tmp_path):
    picture(tmp_path / "media" / "sub" / "a.png")
    picture(tmp_path / "media" / "b.png")
    saved(tmp_path / "set" / "a.json", shape("cup", [[1, 2]], "point"), image="sub\\a.png")
    saved(tmp_path / "set" / "b.json", shape("cup", [[1, 2]], "point"), image="../b.png")
    rows, skipped = imported(tmp_path / "set", images=tmp_path / "media")
    assert not skipped and [file for file, _ in rows] == [
        str(tmp_path / "media" / "sub" / "a.png"),
        str(tmp_path / "media" / "b.png"),
    ]


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "", None, 5, "a\0b.png", "\ud800.png"]
)
def test_pictures_elsewhere_are_left_out(tmp_path, name):
    saved(tmp_path / "set" / "a.json", shape("cup", [[1, 2]], "point"), image=name)
    saved(tmp_path / "set" / "b.json", shape("cup", [[1, 2]], "point"), image="b.png")
    rows, skipped = imported(tmp_path / "set")
    assert [file for file, _ in rows] == [str(tmp_path / "set" / "b.png")]
    assert len(skipped) == 1 and "a.json" in skipped[0]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claiming(width, height):
    """A PNG file of some hundred bytes that says how large it is."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (shape("cup", [[0, 0], [49999, 49999]], "mask", mask=claiming(50000, 50000)), "expected at most"),
        (shape("cup", [[0, 0], [9, 9]], "mask", mask=claiming(5000, 5000)), "expected a mask"),
        (shape("cup", [[0, 0], [9, 9]], "mask", mask="%%%"), "base64"),
        (shape("cup", [[0, 0], [9, 9]], "mask", mask=base64.b64encode(b"%!PS-Adobe").decode()), "base64"),
        (
            shape("cup", [[0, 0], [9, 9]], "mask", mask=png(np.full((4, 4), 255, np.uint8))),
            "expected a mask of 10 x 10",
        ),
        (shape("cup", [[0, 0], [3, 3]], "mask", mask=png(np.zeros((4, 4), np.uint8))), "empty"),
        (shape("cup", [[0, 0], [9, 9]], "mask"), "mask"),
        (shape("cup", [[1, 2, 3]], "point"), "pairs"),
        (shape("cup", [], "polygon"), "points"),
        (shape("cup", [["a", "b"]], "point"), "numbers"),
        (shape("cup", [[float("nan"), 1]], "point"), "numbers"),
        (shape("cup", [[1, 1], [2, 2]], "polygon"), "area"),
        (shape("cup", [[1, 1]], "rectangle"), "points of a rectangle"),
        (shape("cup", [[1, 1]], "circle"), "points of a circle"),
        (shape("cup", [[1, 1]], "point", group=[1]), "id"),
        (shape(None, [[1, 1]], "point"), "label"),
        (shape(["cup"], [[1, 1]], "point"), "text"),
        ("cup", "shape"),
        (None, "shape"),
    ],
)
def test_a_broken_shape_ends_nothing(tmp_path, broken, said):
    saved(tmp_path / "a.json", broken, shape("plate", [[30, 40]], "point"))
    saved(tmp_path / "b.json", shape("cup", [[30, 40]], "point"), image="b.png")
    rows, skipped = imported(tmp_path)
    assert [(file.rpartition("/")[2], label) for file, label in rows] == [
        ("a.png", "plate"),
        ("b.png", "cup"),
    ]
    assert len(skipped) == 1 and "a.json, shape 1" in skipped[0] and said in skipped[0]


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"shapes": []}', '{"imagePath": "a.png", "shapes": 5}', "\xff", "null"]
)
def test_other_files_in_the_folder_are_named(tmp_path, content):
    (tmp_path / "package.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ProcessingError, match="expected"):
        imported(tmp_path)
    saved(tmp_path / "a.json", shape("cup", [[30, 40]], "point"))
    rows, skipped = imported(tmp_path)
    assert len(rows) == 1 and len(skipped) == 1 and "package.json" in skipped[0]
    with pytest.raises(ProcessingError, match="expected"):
        imported(tmp_path / "package.json")


def test_negatives(tmp_path):
    for n in range(20):
        saved(
            tmp_path / f"{n:02}.json",
            *[shape(("cup", "plate")[n % 2], [[1, 2]], "point")] * (n < 10),
            image=f"{n:02}.png",
        )
    absent = [
        (int(file[-6:-4]), label)
        for (file, label), found in imported(tmp_path, negatives=0.5)[0].items()
        if found == "none"
    ]
    assert len(absent) == 10 and {label for _, label in absent} == {"cup", "plate"}
    assert all(n >= 10 or label == ("plate", "cup")[n % 2] for n, label in absent)
