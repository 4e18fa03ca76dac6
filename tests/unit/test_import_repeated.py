"""A picture that is listed several times has one row per label, with the objects of all entries."""

from __future__ import annotations

import pytest
from imports import imported, picture, write

JOINED = "pictures listed several times, whose objects were joined: 1"


def rows(result):
    """Name and label of the rows with points, each once if all is right."""
    return sorted(
        (record.media[0].rpartition("/")[2], record.label) for record in result.records if record.points
    )


def test_coco_files_that_were_merged(tmp_path):
    """Entries with one file name and several ids; an object of both is one. Of another size, each entry is
    scaled by itself.
    """
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    entries = [(1, "a.png", 100, 80), (2, "b.png", 100, 80), (3, "./a.png", 200, 160), (4, "a.png", 100, 80)]
    pictures = [{"id": i, "file_name": name, "width": w, "height": h} for i, name, w, h in entries]
    boxes = [
        (1, 1, [0, 0, 10, 10]),
        (2, 1, [2, 2, 10, 10]),
        (3, 1, [0, 0, 20, 20]),
        (3, 1, [40, 40, 20, 20]),
        (4, 2, [0, 0, 4, 4]),
    ]
    annotations = [
        {"id": i, "image_id": image, "category_id": kind, "bbox": box}
        for i, (image, kind, box) in enumerate(boxes)
    ]
    annotations.append({"id": 9, "image_id": 4, "category_id": 3, "bbox": "none"})
    annotations.append({"id": 10, "image_id": 1, "category_id": 3, "bbox": [0, 0, 2, 2]})
    categories = [{"id": i, "name": name} for i, name in enumerate(("cup", "plate", "fork"), start=1)]
    source = write(
        tmp_path / "i.json", {"images": pictures, "annotations": annotations, "categories": categories}
    )
    result = imported("coco", source, negatives=0.99)
    assert result.of("a.png") == {"cup": [(5, 5), (25, 25)], "plate": [(2, 2)]}, (
        "the fork is broken in one of the entries"
    )
    assert rows(result) == [("a.png", "cup"), ("a.png", "plate"), ("b.png", "cup")]
    assert result.absent == [("b.png", "plate")] and JOINED in result.said and "pictures: 2" in result.said


def test_cvat_jobs_that_share_a_picture(tmp_path):
    picture(tmp_path / "images" / "a.png")
    box = '<image name="a.png"><box label="cow" xtl="{0}" ytl="0" xbr="{1}" ybr="10"/></image>'
    source = write(
        tmp_path / "annotations.xml", f"<annotations>{box.format(0, 10)}{box.format(20, 40)}</annotations>"
    )
    result = imported("cvat", source)
    assert (
        rows(result) == [("a.png", "cow")]
        and result.of("a.png") == {"cow": [(5, 5), (30, 5)]}
        and JOINED in result.said
    )


def test_label_studio_tasks_that_were_loaded_twice(tmp_path):
    picture(tmp_path / "a.png")
    value = {"y": 0, "width": 10, "height": 10, "rectanglelabels": ["cat"]}
    tasks = [
        {
            "id": x,
            "data": {"image": "a.png"},
            "annotations": [{"result": [{"id": "r", "type": "rectanglelabels", "value": {"x": x, **value}}]}],
        }
        for x in (10, 50)
    ]
    result = imported("label_studio", write(tmp_path / "e.json", tasks))
    assert (
        rows(result) == [("a.png", "cat")]
        and result.of("a.png") == {"cat": [(15, 5), (55, 5)]}
        and JOINED in result.said
    )


def test_via_keeps_a_picture_for_each_size_of_a_file(tmp_path):
    picture(tmp_path / "a.png")
    entries = {
        f"a.png{x}": {
            "filename": "a.png",
            "regions": [
                {
                    "shape_attributes": {"name": "point", "cx": x, "cy": 1},
                    "region_attributes": {"kind": "cup"},
                }
            ],
        }
        for x in (5, 9)
    }
    result = imported("via", write(tmp_path / "v.json", entries))
    assert (
        rows(result) == [("a.png", "cup")]
        and result.of("a.png") == {"cup": [(5, 1), (9, 1)]}
        and JOINED in result.said
    )


def test_datumaro_subsets_that_share_a_picture(tmp_path):
    picture(tmp_path / "images" / "a.png")
    for subset, left in (("train", 0), ("val", 20)):
        item = {
            "id": "a",
            "annotations": [{"type": "bbox", "label_id": 0, "bbox": [left, 0, 10, 10]}],
            "image": {"path": "a.png"},
        }
        categories = {"label": {"labels": [{"name": "cup"}]}}
        write(tmp_path / "annotations" / f"{subset}.json", {"categories": categories, "items": [item]})
    result = imported("datumaro", tmp_path)
    assert (
        rows(result) == [("a.png", "cup")]
        and result.of("a.png") == {"cup": [(5, 5), (25, 5)]}
        and JOINED in result.said
    )


def test_lists_that_name_a_picture_again(tmp_path):
    picture(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.1 0.1\n")
    write(tmp_path / "data.yaml", "train: [train.txt, images]\nnames: [cup]\n")
    write(tmp_path / "train.txt", "./images/a.png\nimages/a.png\n")
    assert rows(imported("yolo", tmp_path)) == [("a.png", "cup")]
    write(tmp_path / "obj.data", "train = train.txt\nnames = obj.names\n")
    write(tmp_path / "obj.names", "cup\n")
    assert rows(imported("darknet", tmp_path)) == [("a.png", "cup")]


def tracks(result):
    """Seconds, place across in percent and number of the object of all points, by label; each label has one
    row if all is right.
    """
    assert len({record.label for record in result.records}) == len(result.records)
    return {
        record.label: [(point.t, point.x, point.object_id) for point in record.points or ()]
        for record in result.records
    }


def test_clips_of_several_tasks_in_label_studio(tmp_path):
    box = {"y": 0, "width": 10, "height": 10, "frame": 1, "enabled": False}
    tasks = []
    for x in (10, 50):
        value = {"framesCount": 50, "duration": 2, "labels": ["car"], "sequence": [{"x": x, **box}]}
        results = [{"id": "r", "type": "videorectangle", "value": value}]
        tasks.append({"id": x, "data": {"video": "a.mp4"}, "annotations": [{"result": results}]})
    result = imported("label_studio", write(tmp_path / "e.json", tasks))
    assert tracks(result) == {"car": [(0, 15, 0), (0, 55, 1)]}


def test_clips_of_several_tasks_in_cvat(tmp_path):
    """Groups are numbered anew in every task."""
    size = "<original_size><width>100</width><height>50</height></original_size>"
    tasks = "".join(f"<task><id>{number}</id>{size}<source>a.mp4</source></task>" for number in (1, 2))
    boxes = "".join(
        f'<track id="{number}" label="cow" task_id="{number}" group_id="1"><box frame="{frame}" outside="0" occluded="0" keyframe="1" '
        f'xtl="{10 * frame}" ytl="0" xbr="{10 * frame + 10}" ybr="10"/></track>'
        for number, frame in ((1, 1), (2, 5))
    )
    text = f"<annotations><meta><project><tasks>{tasks}</tasks></project></meta>{boxes}</annotations>"
    result = imported("cvat", write(tmp_path / "annotations.xml", text), fps=10)
    assert tracks(result) == {"cow": [(0.1, 15, 1), (0.5, 55, 2)]} and "taken for one clip: 2" in result.said


@pytest.mark.parametrize("format", ["labelme", "voc"])
def test_folders_of_annotations_and_of_pictures(tmp_path, format):
    """Two pictures of one name are told apart by their folders; where that cannot be, it is said."""
    box = "<bndbox><xmin>{0}</xmin><ymin>0</ymin><xmax>{1}</xmax><ymax>10</ymax></bndbox>"
    for folder, left in (("cam1", 0), ("cam2", 20)):
        picture(tmp_path / "pictures" / folder / "1.png")
        shape = {"label": "cup", "shape_type": "rectangle", "points": [[left, 0], [left + 10, 10]]}
        write(tmp_path / "said" / folder / "1.json", {"imagePath": "1.png", "shapes": [shape]})
        entry = f"<object><name>cup</name>{box.format(left, left + 10)}</object>"
        write(
            tmp_path / "said" / folder / "1.xml",
            f"<annotation><filename>1.png</filename>{entry}</annotation>",
        )
    result = imported(format, tmp_path / "said", images=tmp_path / "pictures")
    assert result.of("cam1/1.png") == {"cup": [(5, 5)]} and result.of("cam2/1.png") == {"cup": [(25, 5)]}
    assert "of one name" not in result.said
    picture(tmp_path / "flat" / "1.png")
    assert (
        "of one name, keep their folders apart: 1"
        in imported(format, tmp_path / "said", images=tmp_path / "flat").said
    )
