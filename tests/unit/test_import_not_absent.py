"""What an annotation file says of a picture in other ways than by an object with a place is not called absent
there.
"""

from __future__ import annotations

import pytest
from imports import imported, picture, write

MOST = 0.99
"""Share of rows without points with which all that may be called absent is."""


def denied(result, name):
    """Classes that a picture is said not to have."""
    return {label for file, label in result.absent if file == name}


def test_keypoints_that_nobody_marked(tmp_path):
    """A person with a box alone has eyes."""
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    person = {"id": 1, "name": "person", "keypoints": ["left_eye"]}
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}]
    pictures = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    source = write(tmp_path / "i.json", {"images": pictures, "annotations": boxes, "categories": [person]})
    assert imported("coco", source, target="keypoints", negatives=MOST).absent == []
    boxes[0]["keypoints"] = [5, 6, 2]
    source = write(tmp_path / "i.json", {"images": pictures, "annotations": boxes, "categories": [person]})
    result = imported("coco", source, target="keypoints", negatives=MOST)
    assert result.absent == [("b.png", "left eye of the person")] and "without objects: 1" in result.said


def test_tags_of_cvat(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "images" / name)
    images = '<image name="a.png"><tag label="cow"/></image><image name="b.png"/>'
    images += '<image name="c.png"><box label="cow" xtl="1" ytl="1" xbr="5" ybr="5"/></image>'
    labels = "<meta><task><labels><label><name>cow</name></label></labels></task></meta>"
    result = imported(
        "cvat",
        write(tmp_path / "annotations.xml", f"<annotations>{labels}{images}</annotations>"),
        negatives=MOST,
    )
    assert result.absent == [("b.png", "cow")] and "without objects: 2" in result.said


def test_parts_of_voc(tmp_path):
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    entries = {
        "a": f"<name>person</name>{box}<part><name>head</name>{box}</part>",
        "b": f"<name>head</name>{box}",
    }
    for stem, entry in entries.items():
        picture(tmp_path / f"{stem}.png")
        write(
            tmp_path / f"{stem}.xml",
            f"<annotation><filename>{stem}.png</filename><object>{entry}</object></annotation>",
        )
    assert imported("voc", tmp_path, negatives=MOST).absent == [("b.png", "person")]


def test_choices_of_label_studio(tmp_path):
    box = {
        "type": "rectanglelabels",
        "value": {"x": 1, "y": 1, "width": 5, "height": 5, "rectanglelabels": ["cat"]},
    }
    results = {
        "a.png": {"type": "choices", "value": {"choices": ["Cat"]}},
        "b.png": {"type": "choices", "value": {"choices": ["dog"]}},
        "c.png": box,
    }
    for name in results:
        picture(tmp_path / name)
    tasks = [
        {"id": i, "data": {"image": name}, "annotations": [{"result": [entry]}]}
        for i, (name, entry) in enumerate(results.items())
    ]
    result = imported("label_studio", write(tmp_path / "e.json", tasks), negatives=MOST)
    assert result.absent == [("b.png", "cat")] and "without objects: 2" in result.said


def test_flags_of_labelme(tmp_path):
    box = {"label": "cat", "shape_type": "rectangle", "points": [[1, 1], [9, 9]]}
    for stem, flags, shapes in (("a", {"cat": True}, []), ("b", {"cat": False}, []), ("c", {}, [box])):
        picture(tmp_path / f"{stem}.png")
        write(tmp_path / f"{stem}.json", {"imagePath": f"{stem}.png", "flags": flags, "shapes": shapes})
    assert imported("labelme", tmp_path, negatives=MOST).absent == [("b.png", "cat")]


def test_labels_keypoints_and_elements_of_datumaro(tmp_path):
    """Labels of whole pictures; the keypoints of a person with a box; elements of skeletons, which are labels
    of their own.
    """
    labels = [{"name": "person"}, {"name": "nose", "parent": "man"}, {"name": "man"}, {"name": "cup"}]
    categories = {"label": {"labels": labels}, "points": {"items": [{"label_id": 0, "labels": ["left_eye"]}]}}
    element = {"type": "points", "label_id": 1, "points": [5, 6]}
    annotations = {
        "a": {"type": "label", "label_id": 3},
        "b": {"type": "bbox", "label_id": 0, "bbox": [1, 1, 5, 5]},
        "c": {"type": "points", "label_id": 0, "points": [5, 6]},
        "d": {"type": "skeleton", "label_id": 2, "elements": [element]},
        "e": {"type": "bbox", "label_id": 3, "bbox": [1, 1, 5, 5]},
    }
    for stem in annotations:
        picture(tmp_path / "images" / f"{stem}.png")
    items = [
        {"id": stem, "annotations": [entry], "image": {"path": f"{stem}.png"}}
        for stem, entry in annotations.items()
    ]
    source = write(tmp_path / "annotations" / "default.json", {"categories": categories, "items": items})
    result = imported("datumaro", source, negatives=MOST)
    assert denied(result, "a.png") == {"person", "left eye of the person"}
    assert denied(result, "b.png") == {"cup"}
    assert denied(result, "c.png") == {"cup"}
    assert denied(result, "d.png") == {"person", "left eye of the person", "cup"}
    assert denied(result, "e.png") == {"person", "left eye of the person"}


@pytest.mark.parametrize(("begins", "absent"), [((0,), ["bus"]), ((10,), []), ((10, 0), ["bus"])])
def test_clips_whose_beginning_nobody_looked_at(tmp_path, begins, absent):
    """Of several tasks of a clip one may show its beginning."""
    tasks = "".join(
        f"<task><id>{i}</id><start_frame>{first}</start_frame><source>a.mp4</source></task>"
        for i, first in enumerate(begins)
    )
    labels = "<labels><label><name>cow</name></label><label><name>bus</name></label></labels>"
    box = '<box frame="12" outside="0" occluded="0" keyframe="1" xtl="0" ytl="0" xbr="9" ybr="9"/>'
    meta = f"<meta><project><tasks>{tasks}</tasks>{labels}</project></meta>"
    text = f'<annotations>{meta}<track id="0" label="cow" task_id="0">{box}</track></annotations>'
    result = imported("cvat", write(tmp_path / "annotations.xml", text), fps=10, negatives=0.5)
    assert [label for _, label in result.absent] == absent and ("shows a later part only" in result.said) == (
        not absent
    )


def test_labels_that_differ_in_capitals_and_accents(tmp_path):
    names = ["Caf\u00e9", "cafe\u0301"]
    for stem in "ab":
        picture(tmp_path / f"{stem}.png")
    pictures = [{"id": i, "file_name": f"{stem}.png"} for i, stem in enumerate("ab")]
    boxes = [{"id": i, "image_id": i, "category_id": i, "bbox": [1, 1, 9, 9]} for i in range(2)]
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    source = write(tmp_path / "i.json", {"images": pictures, "annotations": boxes, "categories": categories})
    assert imported("coco", source, negatives=MOST).absent == []
