"""Pascal VOC, Datumaro, VIA and ScreenSpot, as their tools write them."""

from __future__ import annotations

import copy

import pytest
from imports import imported, picture, write

from molmopoint.errors import ProcessingError


def voc(name="a.jpg", body="", size=(100, 80)):
    """As labelImg writes it."""
    return (
        f"<annotation>\n\t<folder>JPEGImages</folder>\n\t<filename>{name}</filename>\n\t<path>C:\\set\\{name}</path>\n"
        f"\t<source>\n\t\t<database>Unknown</database>\n\t</source>\n\t<size>\n\t\t<width>{size[0]}</width>\n\t\t<height>{size[1]}</height>\n"
        f"\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n{body}</annotation>\n"
    )


def voc_object(name, left, top, right, bottom, more=""):
    box = f"<bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox>"
    return f"\t<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>{box}{more}</object>\n"


def voc_set(root):
    """The folders of VOC, with one picture without objects and one below a folder."""
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        picture(root / "JPEGImages" / name)
    write(
        root / "Annotations" / "a.xml",
        voc("a.jpg", voc_object("cup", 10, 20, 30, 40) + voc_object("plate", 90, 0, 150, 10)),
    )
    write(root / "Annotations" / "b.xml", voc("b.jpg"))
    write(
        root / "Annotations" / "sub" / "c.xml",
        voc("c.jpg", voc_object("cup", 20, 20, 60, 60), size=(200, 160)),
    )
    write(root / "ImageSets" / "Main" / "train.txt", "a\nsub/c\n")
    write(root / "ImageSets" / "Main" / "cup_val.txt", "b -1\n")
    return root


def test_voc(tmp_path):
    result = imported("voc", voc_set(tmp_path), negatives=0.5)
    assert result.of("JPEGImages/a.jpg") == {"cup": [(20, 30)], "plate": [(95, 5)]}
    assert result.of("sub/c.jpg") == {"cup": [(20, 20)]} and "points were scaled: 1" in result.said
    assert (
        sorted(result.absent) == [("b.jpg", "cup"), ("b.jpg", "plate"), ("c.jpg", "plate")]
        and "without objects: 1" in result.said
    )
    assert imported("voc", tmp_path, split="train").files == ["a.jpg", "c.jpg"]
    assert imported("voc", tmp_path, split="cup_val", negatives=0.5).records == []
    with pytest.raises(ProcessingError, match=r"'test'.*cup_val, train"):
        imported("voc", tmp_path, split="test")
    assert imported("voc", tmp_path / "Annotations" / "a.xml").files == ["a.jpg"]


def test_voc_beside_the_picture(tmp_path):
    """Roboflow puts both into one folder; names that no longer hold, or of Windows, fall back to that of the
    XML file.
    """
    for stem, name in (("a", "a.png"), ("b", "C:\\me\\old.png"), ("c", "/home/me/c.png"), ("d", "old.png")):
        picture(tmp_path / "train" / f"{stem}.png")
        write(tmp_path / "train" / f"{stem}.xml", voc(name, voc_object("cup", 10, 20, 30, 40)))
    result = imported("voc", tmp_path / "train")
    assert result.files == ["a.png", "b.png", "c.png", "d.png"] and not result.journal.left_out


def test_voc_polygons_turned_boxes_and_parts(tmp_path):
    polygon = "<polygon><x1>10</x1><y1>10</y1><x2>30</x2><y2>10</y2><x3>30</x3><y3>30</y3><x4>10</x4><y4>30</y4></polygon>"
    turned = "<robndbox><cx>50</cx><cy>40</cy><w>20</w><h>10</h><angle>0.5</angle></robndbox>"
    part = "<part><name>handle</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    body = (
        voc_object("ring", 0, 0, 90, 70, polygon)
        + f"<object><name>boat</name>{turned}</object>"
        + voc_object("cup", 1, 1, 3, 3, part)
    )
    picture(tmp_path / "a.jpg")
    result = imported("voc", write(tmp_path / "a.xml", voc("a.jpg", body)))
    assert (
        result.of("a.jpg") == {"ring": [(20, 20)], "boat": [(50, 40)], "cup": [(2, 2)]}
        and "parts of objects: 1" in result.said
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<annotation>",
        "<annotations/>",
        "\x00",
        "<annotation><size><width>x</width></size></annotation>",
        "<!DOCTYPE a><a/>",
    ],
)
def test_one_broken_voc_file_ends_nothing(tmp_path, text):
    voc_set(tmp_path)
    write(tmp_path / "Annotations" / "0.xml", text)
    result = imported("voc", tmp_path)
    assert (
        result.files == ["a.jpg", "c.jpg"]
        and "0.xml: left out" in result.said
        and "files that cannot be read: 1" in result.said
    )
    with pytest.raises(ProcessingError):
        imported("voc", tmp_path / "Annotations" / "0.xml")


@pytest.mark.parametrize(
    "entry",
    [
        voc_object("cup", "x", 0, 9, 9),
        voc_object("cup", 9, 0, 1, 9),
        "<object><name>cup</name></object>",
        voc_object("cup", "nan", 0, 9, 9),
    ],
)
def test_one_broken_voc_object_ends_nothing(tmp_path, entry):
    picture(tmp_path / "a.jpg")
    result = imported(
        "voc", write(tmp_path / "a.xml", voc("a.jpg", entry + voc_object("plate", 1, 1, 3, 3))), negatives=0.9
    )
    assert (
        result.of("a.jpg") == {"plate": [(2, 2)]} and "a.xml, object 1" in result.said and not result.absent
    )


def test_voc_pictures_stay_inside(tmp_path):
    picture(tmp_path / "up.png")
    write(tmp_path / "set" / "a.xml", voc("../up.png", voc_object("cup", 1, 1, 3, 3)))
    write(tmp_path / "set" / "b.xml", voc("b.png", voc_object("cup", 1, 1, 3, 3)))
    result = imported("voc", tmp_path / "set")
    assert result.files == ["b.png"] and "a.xml: left out" in result.said


DATUMARO = {
    "dm_format_version": "1.0",
    "infos": {},
    "categories": {
        "label": {
            "labels": [{"name": "cup", "parent": "", "attributes": []}, {"name": "dog", "parent": "", "attributes": []},
                       {"name": "nose", "parent": "dog", "attributes": []}],
            "label_groups": [], "attributes": ["occluded"],
        },
        "points": {"items": [{"label_id": 1, "labels": ["left_ear", "tail"], "joints": [[1, 2]]}]},
    },
    "items": [
        {
            "id": "row/a",
            "annotations": [
                {"id": 0, "type": "bbox", "attributes": {"occluded": False, "rotation": 0.0}, "group": 0, "label_id": 0, "z_order": 0,
                 "bbox": [90.0, 10.0, 60.0, 20.0]},
                {"id": 1, "type": "bbox", "attributes": {"rotation": 30.0}, "group": 0, "label_id": 0, "bbox": [20.0, 20.0, 20.0, 10.0]},
                {"id": 2, "type": "polygon", "group": 4, "label_id": 0, "points": [1.0, 60.0, 11.0, 60.0, 11.0, 70.0, 1.0, 70.0]},
                {"id": 3, "type": "polygon", "group": 4, "label_id": 0, "points": [50.0, 50.0, 70.0, 50.0, 70.0, 70.0, 50.0, 70.0]},
                {"id": 4, "type": "bbox", "attributes": {}, "group": 4, "label_id": 0, "bbox": [1.0, 50.0, 69.0, 20.0]},
                {"id": 5, "type": "points", "group": 0, "label_id": 1, "points": [5.0, 6.0, 7.0, 8.0], "visibility": [2, 1]},
                {"id": 6, "type": "label", "attributes": {}, "group": 0, "label_id": 1},
                {"id": 7, "type": "skeleton", "attributes": {}, "group": 0, "label_id": 1, "elements": [
                    {"id": 0, "type": "points", "label_id": 2, "points": [9.0, 9.0], "visibility": [2]}]},
                {"id": 8, "type": "ellipse", "attributes": {}, "group": 0, "label_id": 0, "points": [70.0, 30.0, 80.0, 40.0]},
            ],
            "attr": {"frame": 0},
            "image": {"path": "row/a.png", "size": [80, 100]},
        },
        {"id": "b", "annotations": [], "attr": {}, "media": {"path": "b.png"}},
    ],
}  # fmt: skip


def datumaro(root, document=DATUMARO):
    picture(root / "images" / "default" / "row" / "a.png")
    picture(root / "images" / "default" / "b.png")
    return write(root / "annotations" / "default.json", document)


def test_datumaro(tmp_path):
    source = datumaro(tmp_path)
    result = imported("datumaro", source, negatives=0.5)
    found = result.of("default/row/a.png")
    assert found["cup"] == [(95, 20), (30, 25), (60, 60), (75, 35)]
    assert {label: places for label, places in found.items() if label != "cup"} == {
        "left ear of the dog": [(5, 6)],
        "nose of the dog": [(9, 9)],
    }
    assert {name for name, label in result.absent if label == "cup"} == {
        "b.png"
    } and "without objects: 1" in result.said
    assert "tail of the dog" in imported("datumaro", tmp_path, keypoints="labelled").of("a.png")
    assert len(imported("datumaro", source, ungroup=True).of("a.png")["cup"]) == 5


def test_datumaro_masks_and_crowds(tmp_path):
    document = copy.deepcopy(DATUMARO)
    mask = {
        "type": "mask",
        "label_id": 0,
        "group": 0,
        "rle": {"counts": [4 * 40 + 20, 10, 30, 10, 40 * 50 - 230], "size": [40, 50]},
    }
    document["items"][0]["annotations"] = [mask]
    ((x, y),) = imported("datumaro", datumaro(tmp_path, document)).of("a.png")["cup"]
    assert 8 <= x <= 12 and 40 <= y <= 60  # of half the size of its picture
    mask["attributes"] = {"is_crowd": True}
    result = imported("datumaro", datumaro(tmp_path, document))
    assert not result.records and "left out, crowds: 1" in result.said
    assert imported("datumaro", datumaro(tmp_path, document), crowd="object").of("a.png")


@pytest.mark.parametrize(
    "entry",
    [{"type": "bbox", "bbox": [1, 2, 3]}, {"type": "cuboid_3d", "position": [0] * 9}, {"type": "polyline"}, {}, {"type": []},
     {"type": "mask", "rle": {"counts": [4], "size": [200_000, 200_000]}}, {"type": "mask"}, {"type": "polygon", "points": {}}],
)  # fmt: skip
def test_one_broken_datumaro_object_ends_nothing(tmp_path, entry):
    document = copy.deepcopy(DATUMARO)
    document["items"][0]["annotations"] = [
        {"label_id": 0, **entry},
        {"label_id": 1, "type": "bbox", "bbox": [1, 1, 2, 2]},
    ]
    result = imported("datumaro", datumaro(tmp_path, document), negatives=0.9)
    assert (
        result.of("a.png") == {"dog": [(2, 2)]}
        and "item 1, annotation 1" in result.said
        and ("a.png", "cup") not in result.absent
    )


VIA = {
    "_via_settings": {
        "ui": {},
        "core": {"buffer_size": 18, "default_filepath": "pictures/"},
        "project": {"name": "kerb"},
    },
    "_via_img_metadata": {
        "a.png1234": {
            "filename": "a.png",
            "size": 1234,
            "regions": [
                {
                    "shape_attributes": {"name": "rect", "x": 90, "y": 10, "width": 60, "height": 20},
                    "region_attributes": {"kind": "cup"},
                },
                {
                    "shape_attributes": {"name": "circle", "cx": 30, "cy": 30, "r": 5.5},
                    "region_attributes": {"kind": "cup"},
                },
                {
                    "shape_attributes": {
                        "name": "ellipse",
                        "cx": 40,
                        "cy": 50,
                        "rx": 9,
                        "ry": 4,
                        "theta": 0.4,
                    },
                    "region_attributes": {"kind": "2"},
                },
                {
                    "shape_attributes": {
                        "name": "polygon",
                        "all_points_x": [10, 30, 30, 10],
                        "all_points_y": [10, 10, 30, 30],
                    },
                    "region_attributes": {"kind": "cup"},
                },
                {
                    "shape_attributes": {"name": "point", "cx": 3, "cy": 4},
                    "region_attributes": {"kind": "cup"},
                },
                {
                    "shape_attributes": {"name": "polyline", "all_points_x": [1, 2], "all_points_y": [1, 2]},
                    "region_attributes": {"kind": "line"},
                },
            ],
            "file_attributes": {"caption": "", "public_domain": "no"},
        },
        "https://x.org/b.png?v=2-1": {
            "filename": "https://x.org/b.png?v=2",
            "size": -1,
            "regions": [],
            "file_attributes": {},
        },
    },
    "_via_attributes": {
        "region": {
            "kind": {
                "type": "radio",
                "description": "",
                "options": {"cup": "with a handle", "2": "plate", "line": ""},
                "default_options": {},
            }
        },
        "file": {},
    },
    "_via_data_format_version": "2.0.10",
    "_via_image_id_list": ["a.png1234", "https://x.org/b.png?v=2-1"],
}


def test_via_project(tmp_path):
    picture(tmp_path / "pictures" / "a.png")
    picture(tmp_path / "b.png")
    result = imported("via", write(tmp_path / "via_project.json", VIA), negatives=0.6)
    assert result.of("pictures/a.png") == {"cup": [(95, 20), (30, 30), (20, 20), (3, 4)], "plate": [(40, 50)]}
    assert "polyline" in result.said and sorted(result.absent) == [("b.png", "cup"), ("b.png", "plate")]


def test_via_annotations_with_ticks(tmp_path):
    """Only the annotations, regions by number as VIA 1 has them, and boxes ticked; the attribute has to be
    chosen of two.
    """
    region = {
        "shape_attributes": {"name": "point", "cx": 3, "cy": 4},
        "region_attributes": {"kind": {"cup": True, "red": True, "plate": False}, "id": "7"},
    }
    document = {"a.png9": {"filename": "a.png", "size": 9, "regions": {"0": region}, "file_attributes": {}}}
    source = write(tmp_path / "via_region_data.json", document)
    with pytest.raises(ProcessingError, match=r"one region attribute.*kind, id.*option attribute"):
        imported("via", source)
    with pytest.raises(ProcessingError, match="'colour'"):
        imported("via", source, attribute="colour")
    assert imported("via", source, attribute="kind").of("a.png") == {"cup": [(3, 4)], "red": [(3, 4)]}


def test_via_broken_regions_and_other_versions(tmp_path):
    document = copy.deepcopy(VIA)
    regions = document["_via_img_metadata"]["a.png1234"]["regions"]
    regions[0]["shape_attributes"]["width"] = None
    regions[5] = {"shape_attributes": {"name": "point", "cx": 1, "cy": 1}, "region_attributes": {}}
    result = imported("via", write(tmp_path / "a.json", document), negatives=0.9)
    assert (
        set(result.of("a.png")) == {"plate"}
        and "picture 1, region 1" in result.said
        and "picture 1, region 6" in result.said
    )
    assert all(name == "b.png" for name, _ in result.absent)
    with pytest.raises(ProcessingError, match="VIA 3"):
        imported(
            "via", write(tmp_path / "three.json", {"project": {}, "config": {}, "view": {}, "metadata": {}})
        )


def test_one_broken_address_of_via_ends_nothing(tmp_path):
    region = {"shape_attributes": {"name": "point", "cx": 1, "cy": 2}, "region_attributes": {"kind": "cup"}}
    entries = {
        name: {"filename": name, "regions": [region]} for name in ("http://[x/a.png", "http://h/b.png")
    }
    result = imported("via", write(tmp_path / "v.json", entries))
    assert result.of("b.png") == {"cup": [(1, 2)]} and "http://[x/a.png" in result.said


def test_screenspot_sizes_boxes_and_names(tmp_path):
    picture(tmp_path / "shots" / "row" / "desk.png")
    items = [
        {
            "img_filename": "row\\desk.png",
            "img_size": [200, 160],
            "bbox": [20, 20, 60, 60],
            "instruction": "close",
        },
        {
            "image_path": "row/desk.png",
            "box_type": "polygon",
            "box_coordinates": [10, 20, 30, 60],
            "instruction": "open",
        },
        {"img_filename": "row/desk.png", "bbox": [90, 0, 130, 20], "instruction": "drag"},
        {"img_filename": "row/desk.png", "img_size": [300, 300], "bbox": [1, 1, 2, 2], "instruction": "fly"},
        {"img_filename": "../desk.png", "bbox": [1, 1, 2, 2], "instruction": "leave"},
        {"img_filename": "row/desk.png", "bbox": [1, 1, None, 2], "instruction": "break"},
        {"bbox": [1, 1, 2, 2], "instruction": "lose"},
        "no item",
    ]
    source = write(tmp_path / "clicks.json", items)
    result = imported("screenspot", source, box="xyxy", images=tmp_path / "shots")
    assert result.of("row/desk.png") == {"close": [(20, 20)], "open": [(20, 40)], "drag": [(95, 10)]}
    assert (
        all(f"item {i}" in result.said for i in (5, 6, 7))
        and "1 more broken objects" in result.said
        and "300 x 300" in result.said
    )
    assert result.journal.left_out.total() == 5
    shares = write(
        tmp_path / "shares.json",
        [{"img_filename": "row/desk.png", "bbox": [0.1, 0.2, 0.3, 0.6], "instruction": "close"}],
    )
    assert imported("screenspot", shares, box="xyxy", images=tmp_path / "shots", coords="norm1").of(
        "desk.png"
    ) == {"close": [(0.2, 0.4)]}


def test_rows_of_data_sets_are_left_out_one_by_one(tmp_path):
    picture(tmp_path / "aa.png")
    good = {"image_sha256": "aa", "label": "cups", "points": [{"x": 1.5, "y": 99.0}]}
    rows = [
        good,
        {**good, "points": [{"x": None, "y": 1}]},
        {**good, "label": ""},
        {**good, "points": 3},
        {**good, "image_sha256": ["aa"]},
        5,
        good,
    ]
    result = imported("pixmo_points", rows, images=tmp_path)
    assert (
        len(result.records) == 2
        and result.journal.left_out.total() == 5
        and "row 2 of the source" in result.said
    )
    lines = tmp_path / "rows.jsonl"
    lines.write_bytes(
        b'{"image_sha256": "aa", "label": "cups", "points": []}\n{"image\n\xff\xfe\n{"image_sha256": "aa", "label": "x", "points": []}\n'
    )
    result = imported("pixmo_points", lines, images=tmp_path)
    assert (
        [record.row for record in result.records] == [1, 2]
        and "row 2 of the source" in result.said
        and "row 3 of the source" in result.said
    )


def test_screens_stay_inside(tmp_path):
    element = {"x_center": 1, "y_center": 2, "name": "ok"}
    rows = [
        {"id": "../up", "image": None, "annotation": [element]},
        {"id": 7, "image": None, "annotation": [element, {"x_center": 1}, element]},
    ]
    rows += [
        {"id": "a", "image": {"path": "/etc/passwd"}, "annotation": [element]},
        {"id": "b", "annotation": {"x_center": [1], "y_center": []}},
    ]
    result = imported("guisyn", rows, images=tmp_path)
    assert len(result.records) == 2 and {record.images for record in result.records} == {
        (str(tmp_path / "7.png"),)
    }
    assert result.journal.left_out == {"rows": 3, "broken objects": 1}
