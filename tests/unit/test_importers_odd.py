"""Importers on files in which anything is of another type, size or encoding: read, left out, or refused by an
error of the library.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets_of_the_hub import HUB_SETS
from fuzzing import SECONDS, attack, odd_bytes, odd_documents, odd_json, odd_texts
from hypothesis import strategies as st
from PIL import Image

from molmopoint.data.importers import Journal, import_records
from molmopoint.data.records import write_records

slowly_too = pytest.mark.parametrize("seconds", [0, pytest.param(SECONDS, marks=pytest.mark.slow)])
EXAMPLES = 40

COCO: dict[str, Any] = {
    "images": [
        {
            "id": 1,
            "file_name": "a.png",
            "width": 40,
            "height": 30,
            "neg_category_ids": [2],
            "not_exhaustive_category_ids": [2],
        },
        {"id": 2, "file_name": "b.png"},
    ],
    "categories": [
        {"id": 1, "name": "cup", "supercategory": "thing", "keypoints": ["rim", "ear"], "skeleton": [[1, 2]]},
        {"id": 2, "name": "plate", "supercategory": "thing"},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [1, 2, 10, 8],
            "iscrowd": 0,
            "keypoints": [5, 6, 2, 7, 8, 1],
            "area": 80,
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 1,
            "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]],
            "bbox": [1, 1, 8, 8],
        },
        {
            "id": 3,
            "image_id": 2,
            "category_id": 2,
            "segmentation": {"size": [4, 5], "counts": [3, 5, 12]},
            "iscrowd": 0,
        },
        {
            "id": 4,
            "image_id": 2,
            "category_id": 1,
            "segmentation": {"size": [3, 3], "counts": "333"},
            "iscrowd": 1,
        },
    ],
}

DATUMARO: dict[str, Any] = {
    "info": {},
    "categories": {
        "label": {
            "labels": [
                {"name": "cup", "parent": ""},
                {"name": "dog", "parent": ""},
                {"name": "nose", "parent": "dog"},
            ]
        },
        "points": {"items": [{"label_id": 1, "labels": ["nose", "tail"], "joints": []}]},
    },
    "items": [
        {
            "id": "a",
            "image": {"path": "a.png", "size": [30, 40]},
            "annotations": [
                {
                    "id": 1,
                    "type": "bbox",
                    "attributes": {"rotation": 0.0, "is_crowd": False},
                    "group": 0,
                    "label_id": 0,
                    "bbox": [1, 2, 9, 9],
                },
                {"id": 2, "type": "polygon", "group": 3, "label_id": 0, "points": [1, 1, 9, 1, 9, 9]},
                {
                    "id": 3,
                    "type": "mask",
                    "group": 3,
                    "label_id": 0,
                    "rle": {"counts": "333", "size": [3, 3]},
                },
                {"id": 4, "type": "ellipse", "label_id": 0, "points": [1, 1, 9, 9]},
                {"id": 5, "type": "points", "label_id": 1, "points": [1, 1, 9, 9], "visibility": [2, 1]},
                {
                    "id": 6,
                    "type": "skeleton",
                    "label_id": 1,
                    "elements": [{"type": "points", "label_id": 2, "points": [3, 3]}],
                },
                {"id": 7, "type": "label", "label_id": 1},
            ],
        },
        {"id": "b", "annotations": [], "media": {"path": "b.png"}},
    ],
}

VIA: dict[str, Any] = {
    "_via_settings": {"core": {"default_filepath": ""}},
    "_via_img_metadata": {
        "a.png12": {
            "filename": "a.png",
            "size": 12,
            "regions": [
                {
                    "shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 9, "height": 9},
                    "region_attributes": {"kind": "1"},
                },
                {
                    "shape_attributes": {"name": "circle", "cx": 4, "cy": 5, "r": 2},
                    "region_attributes": {"kind": {"1": True}},
                },
                {
                    "shape_attributes": {
                        "name": "polygon",
                        "all_points_x": [1, 9, 9],
                        "all_points_y": [1, 1, 9],
                    },
                    "region_attributes": {"kind": "cup"},
                },
                {"shape_attributes": {"name": "polyline"}, "region_attributes": {"kind": "line"}},
            ],
        },
        "b.png7": {
            "filename": "b.png",
            "regions": {
                "0": {"shape_attributes": {"name": "point", "cx": 1, "cy": 1}, "region_attributes": {}}
            },
        },
    },
    "_via_attributes": {"region": {"kind": {"type": "dropdown", "options": {"1": "cup", "2": "plate"}}}},
}

SCREENSPOT: list[dict[str, Any]] = [
    {"img_filename": "a.png", "img_size": [40, 30], "bbox": [1, 2, 9, 9], "instruction": "close"},
    {"image": "b.png", "box_type": "polygon", "box_coordinates": [1, 1, 9, 1, 9, 9], "instruction": "open"},
    {"image": "b.png", "box_type": "refusal", "box_coordinates": [-1, -1, -1, -1], "instruction": "fly"},
]

PIXMO: list[dict[str, Any]] = [
    {"image_sha256": "a", "label": "cups", "points": [{"x": 1.5, "y": 99.0}], "count": 1},
    {"image_sha256": "b", "label": "dogs", "points": []},
]

GUISYN: list[dict[str, Any]] = [
    {
        "id": "a",
        "image": None,
        "annotation": [{"x_center": 3, "y_center": 4, "name": "ok", "intent": ["agree", "go on"]}],
    },
    {"id": "b", "image": {"path": "b.png"}, "annotation": '[{"x_center": 3, "y_center": 4, "name": "no"}]'},
    {"id": "c", "image": "b.png", "annotation": {"x_center": [3, 4], "y_center": [4, 5], "name": ["a", "b"]}},
]

VOC = """<?xml version="1.0"?>
<annotation><folder>x</folder><filename>a.png</filename><size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>cup</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>12</ymax></bndbox></object>
<object><name>dish</name><polygon><x1>1</x1><y1>1</y1><x2>9</x2><y2>1</y2><x3>9</x3><y3>9</y3></polygon></object>
<object><name>boat</name><robndbox><cx>7</cx><cy>8</cy><w>4</w><h>2</h><angle>0.3</angle></robndbox><part><name>sail</name></part></object>
</annotation>
"""

DATA_YAML = (
    "path: .\ntrain: images\nval: [images, list.txt]\nkpt_shape: [2, 3]\n"
    "kpt_names:\n  0: [rim, ear]\nnames:\n  0: cup\n  1: plate\n"
)
LABELS = "0 0.5 0.25 0.1 0.1 0.4 0.4 2 0.6 0.6 1\n1 0.1 0.1 0.3 0.1 0.3 0.3 0 0 0 0\n"
OBJ_DATA = (
    "classes = 2\ntrain = data/train.txt\nvalid = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the pictures that the documents name."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
        Image.new("RGB", (40, 30)).save(tmp_path / "images" / name)
    return tmp_path


def imported(format: str, source: Any, out: Path, **options: Any) -> None:
    """Imports and writes the rows, as the command line does."""
    journal = Journal()
    write_records(out / "out.rows", import_records(format, source, journal=journal, **options))
    assert all(isinstance(line, str) for line in journal.lines())


JSON_FORMATS: list[tuple[str, Any, dict[str, Any]]] = [
    ("coco", COCO, {"crowd": "object"}),
    ("coco", COCO, {"target": "keypoints", "keypoints": "labelled"}),
    ("datumaro", DATUMARO, {"keypoints": "labelled"}),
    ("via", VIA, {}),
    ("via", VIA["_via_img_metadata"], {"attribute": "kind"}),
    ("screenspot", SCREENSPOT, {"box": "xyxy"}),
    ("screenspot", SCREENSPOT, {"box": "xywh", "coords": "norm1000"}),
    ("pixmo_points", PIXMO, {}),
    ("guisyn", GUISYN, {}),
]


@slowly_too
@pytest.mark.parametrize(("format", "document", "options"), JSON_FORMATS)
def test_documents(folder, format, document, options, seconds):
    def read(data: bytes) -> None:
        (folder / "document.json").write_bytes(data)
        imported(format, folder / "document.json", folder, images=folder, **options)

    counts = attack(odd_json(document), read, examples=EXAMPLES, seconds=seconds)
    assert counts["read"] > 5 and counts["refused"] > 1


@slowly_too
@pytest.mark.parametrize(("format", "rows"), [("pixmo_points", PIXMO), ("guisyn", GUISYN), *HUB_SETS.items()])
def test_rows_in_memory_and_by_line(folder, format, rows, seconds):
    def read(changed: list[Any]) -> None:
        imported(format, changed if isinstance(changed, list) else [changed], folder, images=folder)

    def read_lines(lines: bytes) -> None:
        (folder / "rows.jsonl").write_bytes(lines)
        imported(format, folder / "rows.jsonl", folder, images=folder)

    # Readers of the hub's sets share their checks, so a few inputs are enough for each.
    examples = EXAMPLES // 8 if format in HUB_SETS else EXAMPLES
    attack(odd_documents(rows), read, examples=examples, seconds=seconds / 2)
    text = "\n".join(json.dumps(row) for row in rows)
    attack(odd_texts(text) | odd_bytes(text.encode()), read_lines, examples=examples, seconds=seconds / 2)


def odd_files(text: str) -> st.SearchStrategy[bytes]:
    return odd_texts(text) | odd_texts(text) | odd_bytes(text.encode())


@slowly_too
def test_voc(folder, seconds):
    (folder / "b.xml").write_text(VOC.replace("a.png", "b.png"))

    def read(data: bytes) -> None:
        (folder / "a.xml").write_bytes(data)
        imported("voc", folder, folder)

    counts = attack(odd_files(VOC), read, examples=EXAMPLES, seconds=seconds)
    assert not counts["refused"]  # one broken file never ends an import


@slowly_too
@pytest.mark.parametrize("target", ["object", "keypoints"])
def test_yolo_labels(folder, target, seconds):
    (folder / "data.yaml").write_text(DATA_YAML)
    (folder / "images" / "b.txt").write_text(LABELS)

    def read(data: bytes) -> None:
        (folder / "images" / "a.txt").write_bytes(data)
        imported("yolo", folder, folder, target=target)

    counts = attack(odd_files(LABELS), read, examples=EXAMPLES, seconds=seconds)
    assert not counts["refused"]


@slowly_too
@pytest.mark.parametrize("split", ["train", "val"])
def test_yolo_settings_and_lists(folder, split, seconds):
    (folder / "images" / "a.txt").write_text(LABELS)

    def read(data: tuple[bytes, bytes]) -> None:
        (folder / "data.yaml").write_bytes(data[0])
        (folder / "list.txt").write_bytes(data[1])
        imported("yolo", folder, folder, split=split, target="keypoints")

    names = "images/a.png\n./images/b.png\nimages/c.png\n"
    attack(st.tuples(odd_files(DATA_YAML), odd_files(names)), read, examples=EXAMPLES, seconds=seconds)
    attack(st.tuples(st.just(DATA_YAML.encode()), odd_files(names)), read, examples=EXAMPLES, seconds=0)


@slowly_too
def test_darknet(folder, seconds):
    (folder / "images" / "a.txt").write_text("0 0.5 0.25 0.1 0.1\n")
    (folder / "images" / "b.txt").write_text("")

    def read(data: tuple[bytes, bytes, bytes]) -> None:
        for name, content in zip(("obj.data", "obj.names", "train.txt"), data, strict=True):
            (folder / name).write_bytes(content)
        imported("darknet", folder, folder)

    names = "data/images/a.png\ndata/images/b.png\n"
    files = [(OBJ_DATA, True), ("cup\nplate\n", False), (names, False)]
    for changed in range(3):
        parts = [
            odd_files(text) if i == changed else st.just(text.encode()) for i, (text, _) in enumerate(files)
        ]
        attack(st.tuples(*parts), read, examples=EXAMPLES // 2, seconds=seconds / 3)


def test_entities_are_refused(folder):
    """Neither expanded nor fetched: a few lines may stand for gigabytes, or for another file."""
    declared = (
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname"><!ENTITY y "yyyy"><!ENTITY z "&y;&y;&y;">]>'
    )
    for entity in ("&x;", "&z;"):
        text = VOC.replace('<?xml version="1.0"?>', declared).replace("cup", entity)
        (folder / "a.xml").write_text(text)
        with pytest.raises(Exception, match="entities of its own") as caught:
            imported("voc", folder / "a.xml", folder)
        assert type(caught.value).__name__ == "ProcessingError"


def test_nesting(folder):
    (folder / "a.xml").write_text("<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>")
    with pytest.raises(ValueError, match="levels"):
        imported("voc", folder / "a.xml", folder)
