"""Names whose accents are written in two ways, with other endings, and with spaces."""

from __future__ import annotations

import unicodedata

import pytest
from imports import imported, picture, write

FORMS = [("NFC", "NFD"), ("NFD", "NFC")]
BOX = [10, 20, 20, 40]


def spelt(form, text="Café/Œuvré.png"):
    return unicodedata.normalize(form, text)


@pytest.mark.parametrize(("said", "kept"), FORMS)
def test_accents_of_the_file_and_of_the_disk(tmp_path, said, kept):
    """A Mac takes letters and accents apart, others do not: the rows have the name that is on the disk."""
    file = picture(tmp_path / spelt(kept))
    pictures = [{"id": 1, "file_name": spelt(said)}, {"id": 2, "file_name": spelt(said, "né.png")}]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": BOX} for i in (1, 2)]
    source = write(
        tmp_path / "i.json",
        {"images": pictures, "annotations": boxes, "categories": [{"id": 1, "name": "cup"}]},
    )
    result = imported("coco", source)
    assert result.of(file) == {"cup": [(20, 40)]} and result.of(tmp_path / spelt(said, "né.png")) == {
        "cup": [(20, 40)]
    }
    task = {"id": 1, "data": {"image": f"s3://b/{spelt(said)}"}, "annotations": [{"result": []}]}
    box = {
        "id": "a",
        "type": "rectanglelabels",
        "value": {"x": 1, "y": 1, "width": 2, "height": 2, "rectanglelabels": ["cup"]},
    }
    task["annotations"][0]["result"].append(box)
    assert imported("label_studio", write(tmp_path / "e.json", [task])).of(file)


@pytest.mark.parametrize(("said", "kept"), FORMS)
def test_accents_of_label_files_and_lists(tmp_path, said, kept):
    file = picture(tmp_path / spelt(kept, "images/é.png"))
    write(tmp_path / spelt(said, "labels/é.txt"), "0 0.5 0.5 0.1 0.1\n")
    write(tmp_path / "train.txt", spelt(said, "images/é.png"))
    for entry in ("images", "train.txt"):
        write(tmp_path / "data.yaml", f"train: {entry}\nnames: [cup]\n")
        assert imported("yolo", tmp_path).of(file) == {"cup": [(0.5, 0.5)]}


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "b.1.webp"])
def test_items_of_datumaro_without_a_path(tmp_path, name):
    """Exported without pictures."""
    file = picture(tmp_path / "images" / "sub" / name)
    item = {
        "id": f"sub/{file.stem}",
        "annotations": [{"type": "bbox", "label_id": 0, "bbox": BOX}],
        "image": {"path": ""},
    }
    categories = {"label": {"labels": [{"name": "cup"}]}}
    result = imported(
        "datumaro",
        write(tmp_path / "annotations" / "default.json", {"categories": categories, "items": [item]}),
    )
    assert result.of(file) == {"cup": [(20, 40)]}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("0 1\n", ["0 1.png"]),
        ("0 1 -1\n", ["0 1.png"]),
        ("0 1\nb 1\n", ["0 1.png", "b.png"]),
        ("0\n", ["0.png"]),
    ],
)
def test_lists_of_voc_with_spaces_in_names(tmp_path, lines, expected):
    """Behind the name may be numbers, and a name may end in one."""
    for stem in ("0 1", "0", "b"):
        picture(tmp_path / f"{stem}.png")
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        entry = (
            f"<annotation><filename>{stem}.png</filename><object><name>cup</name>{box}</object></annotation>"
        )
        write(tmp_path / "Annotations" / f"{stem}.xml", entry)
        picture(tmp_path / "JPEGImages" / f"{stem}.png")
    write(tmp_path / "ImageSets" / "Main" / "train.txt", lines)
    assert imported("voc", tmp_path, split="train").files == expected
