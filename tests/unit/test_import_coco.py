"""COCO files of several tools: sizes, masks, crowds, keypoints, LVIS, and broken entries."""

from __future__ import annotations

import json

import numpy as np
import pytest
from imports import imported, picture, write
from PIL import Image

from molmopoint.errors import ProcessingError

CUP = {"id": 1, "name": "cup", "supercategory": ""}


def coco(tmp_path, images, annotations, categories=(CUP,)):
    """A COCO file; images are (name, width, height), with ids from 1, annotations fields beside the defaults."""
    entries = [
        {"id": i, "file_name": name, "width": w, "height": h}
        for i, (name, w, h) in enumerate(images, start=1)
    ]
    filled = [
        {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, **entry}
        for i, entry in enumerate(annotations, start=4711)
    ]
    return write(
        tmp_path / "instances.json",
        {"images": entries, "annotations": filled, "categories": list(categories)},
    )


def runs(width, height, left, top, right, bottom):
    """COCO's run lengths of a filled box."""
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    return {"size": [height, width], "counts": np.diff([0, *edges.tolist(), flat.size]).tolist()}


def test_recorded_sizes(tmp_path):
    """Scaled pictures are scaled, unturned ones turned, others left out; a picture that is not there keeps
    what is recorded.
    """
    picture(tmp_path / "small.png", (100, 75))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "phone.jpg", (400, 300), exif=exif)
    picture(tmp_path / "odd.png", (400, 100))
    images = [("small.png", 400, 300), ("phone.jpg", 400, 300), ("odd.png", 300, 300), ("gone.png", 400, 300)]
    boxes = [{"image_id": i, "bbox": [240, 140, 20, 20]} for i in range(1, 5)]
    result = imported("coco", coco(tmp_path, images, boxes))
    assert result.of("small.png") == {"cup": [(62.5, 37.5)]}
    assert result.of("phone.jpg") == {"cup": [(150, 250)]}
    assert result.of("gone.png") == {"cup": [(250, 150)]}
    assert (
        not result.of("odd.png")
        and "odd.png: left out: expected a picture of the recorded size 300 x 300" in result.said
    )
    assert "points were scaled: 1" in result.said and "points were turned: 1" in result.said


def test_masks_of_another_size_are_scaled(tmp_path):
    picture(tmp_path / "a.png")
    masks = [
        {"segmentation": runs(200, 160, 20, 40, 60, 80)},
        {"segmentation": runs(90, 90, 1, 1, 9, 9), "category_id": 2},
    ]
    result = imported("coco", coco(tmp_path, [("a.png", 100, 80)], masks, [CUP, {"id": 2, "name": "plate"}]))
    ((x, y),) = result.of("a.png")["cup"]
    assert 10 < x < 30 and 20 < y < 40
    assert "plate" not in result.of("a.png") and "annotation 4712" in result.said and "90 x 90" in result.said


def test_a_mask_that_claims_a_size_is_left_out(tmp_path):
    """Before it is allocated: of 40 billion pixels."""
    bomb = {"size": [200_000, 200_000], "counts": [40_000_000_000]}
    result = imported("coco", coco(tmp_path, [("a.png", None, None)], [{"segmentation": bomb}]))
    assert not result.records and "at most 268,435,456 pixels, got 200,000 x 200,000" in result.said


def test_boxes_over_the_border(tmp_path):
    """Without a picture the recorded size says where the border is."""
    result = imported(
        "coco",
        coco(tmp_path, [("a.png", 100, 80)], [{"bbox": [90, 10, 60, 20]}, {"bbox": [-10, -10, 20, 20]}]),
    )
    assert result.of("a.png") == {"cup": [(95, 20), (5, 5)]}


BROKEN = [
    {"bbox": [1, 2, None, 4]}, {"bbox": [1, 2, 3]}, {"bbox": "1234"}, {"bbox": [1, 2, -3, 4]}, {"bbox": [10**400, 0, 4, 4]}, {},
    {"segmentation": 2}, {"segmentation": [[1, 2, 3]]}, {"segmentation": [["x"] * 6]}, {"segmentation": {"size": [4, 5]}},
    {"segmentation": {"size": [4, 5], "counts": [3]}}, {"segmentation": {"size": [4, 5], "counts": 1.5}},
    {"segmentation": {"size": "big", "counts": [3]}}, {"segmentation": [[1, 1, 5, 5, 9, 9]]}, {"bbox": [float("nan")] * 4},
]  # fmt: skip


@pytest.mark.parametrize("entry", BROKEN)
def test_one_broken_object_ends_nothing(tmp_path, entry):
    """Its label is left out on its picture, with the name of both; the other picture is imported."""
    source = coco(
        tmp_path,
        [("one.png", 100, 80), ("two.png", 100, 80)],
        [entry, {"bbox": [0, 0, 2, 2]}, {"image_id": 2, "bbox": [10, 10, 20, 20]}],
    )
    result = imported("coco", source, negatives=0.9)
    assert result.of("two.png") == {"cup": [(20, 20)]} and not result.of("one.png")
    assert "one.png" in result.said and "annotation 4711" in result.said
    assert "left out because another object of their label and picture is: 1" in result.said
    assert not result.absent  # the cup of the first picture is not absent


@pytest.mark.parametrize(
    "change",
    [
        {"id": [1]}, {"id": None}, {"file_name": 1.5}, {"file_name": "../../up.png"}, {"file_name": "/etc/passwd"},
        {"file_name": "\ud83d.png"}, {"width": -5}, {"width": "wide"}, {"height": 10**400},
    ],
)  # fmt: skip
def test_one_broken_picture_ends_nothing(tmp_path, change):
    source = coco(
        tmp_path,
        [("one.png", 100, 80), ("two.png", 100, 80)],
        [{"bbox": [0, 0, 2, 2]}, {"image_id": 2, "bbox": [10, 10, 20, 20]}],
    )
    document = json.loads(source.read_text())
    document["images"][0].update(change)
    result = imported("coco", write(source, document), negatives=0.9)
    assert [record.media[0].rpartition("/")[2] for record in result.records] == ["two.png"]
    assert "picture 1" in result.said and "pictures whose entry cannot be read: 1" in result.said


def test_annotations_without_a_place_to_be_are_counted(tmp_path):
    annotations = [
        {"image_id": 9, "bbox": [1, 1, 1, 1]},
        {"image_id": [1], "bbox": [1, 1, 1, 1]},
        {"category_id": 5, "bbox": [1, 1, 1, 1]},
    ]
    annotations += [{"category_id": [], "bbox": [1, 1, 1, 1]}, {"bbox": [4, 4, 2, 2]}]
    result = imported("coco", coco(tmp_path, [("a.png", 100, 80)], annotations), negatives=0.9)
    assert result.of("a.png") == {"cup": [(5, 5)]} and not result.absent
    assert (
        "there is no picture 9" in result.said
        and "broken objects: 3" in result.said
        and "got id 5" in result.said
    )


def test_crowds(tmp_path):
    """Brush tools write every mask with iscrowd = 1."""
    picture(tmp_path / "a.png")
    source = coco(
        tmp_path, [("a.png", 100, 80)], [{"iscrowd": 1, "segmentation": runs(100, 80, 20, 20, 60, 60)}]
    )
    result = imported("coco", source, negatives=0.9)
    assert (
        not result.records
        and "iscrowd is 1" in result.said
        and "--crowd object" in result.said
        and "left out, crowds: 1" in result.said
    )
    ((x, y),) = imported("coco", source, crowd="object").of("a.png")["cup"]
    assert 30 < x < 50 and 30 < y < 50
    with pytest.raises(ProcessingError, match="option crowd among skip, object"):
        imported("coco", source, crowd="both")


def test_keypoints(tmp_path):
    person = {"id": 1, "name": "person", "keypoints": ["head", "left_hand", "foot"]}
    annotations = [
        {"keypoints": [10, 10, 2, 20, 20, 1, 0, 0, 0]},
        {"keypoints": [30, 10, 2, 40, 20, 2, 0, 0, 0]},
    ]
    source = coco(tmp_path, [("a.png", 100, 80), ("b.png", 100, 80)], annotations, [person])
    seen = imported("coco", source, target="keypoints", negatives=0.9)
    assert seen.of("a.png") == {
        "head of the person": [(10, 10), (30, 10)],
        "left hand of the person": [(40, 20)],
    }
    assert "hidden keypoints left out (--keypoints labelled takes them): 1" in seen.said
    assert {name for name, _ in seen.absent} == {
        "b.png"
    }  # on a.png a hand is hidden and a foot perhaps, none is absent
    labelled = imported("coco", source, target="keypoints", keypoints="labelled")
    assert labelled.of("a.png")["left hand of the person"] == [(20, 20), (40, 20)]
    crowd = coco(
        tmp_path, [("a.png", 100, 80)], [annotations[0], {"iscrowd": 1, "keypoints": [0] * 9}], [person]
    )
    assert not imported("coco", crowd, target="keypoints").records


def test_a_part_without_the_list_around_it(tmp_path):
    result = imported(
        "coco", coco(tmp_path, [("a.png", 100, 80)], [{"segmentation": [10, 10, 30, 10, 30, 30, 10, 30]}])
    )
    assert result.of("a.png") == {"cup": [(20, 20)]}


def test_names_of_several_classes(tmp_path):
    """Roboflow lists the name of the set as a class of its own, above all others; where a cup is, it is not
    absent.
    """
    categories = [
        {"id": 0, "name": "kitchen", "supercategory": "none"},
        {"id": 1, "name": "cup", "supercategory": "kitchen"},
    ]
    result = imported(
        "coco",
        coco(tmp_path, [("a.png", 9, 9), ("b.png", 9, 9)], [{"bbox": [1, 1, 2, 2]}], categories),
        negatives=0.9,
    )
    assert result.absent == [("b.png", "cup")]


def test_lvis(tmp_path):
    """Only what was looked for in vain is absent, and lists that are not exhaustive are left out."""
    source = coco(
        tmp_path,
        [("a.png", 100, 80), ("b.png", 100, 80)],
        [
            {"bbox": [1, 1, 2, 2]},
            {"category_id": 2, "bbox": [1, 1, 2, 2]},
            {"image_id": 2, "category_id": 3, "bbox": [1, 1, 2, 2]},
        ],
        [{"id": i, "name": name} for i, name in enumerate(("cup", "plate", "fork", "spoon"), start=1)],
    )
    document = json.loads(source.read_text())
    document["images"][0] |= {"neg_category_ids": [4], "not_exhaustive_category_ids": [2]}
    document["images"][1] |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    result = imported("coco", write(source, document), negatives=0.9)
    assert result.of("a.png") == {"cup": [(2, 2)]} and result.absent == [("a.png", "spoon")]
    assert "not marked exhaustively on a picture: 1" in result.said


def test_windows_names_and_byte_order_marks(tmp_path):
    source = coco(tmp_path, [("images\\shelf.png", 100, 80)], [{"bbox": [1, 1, 2, 2]}])
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    assert imported("coco", source).records[0].images == (str(tmp_path / "images" / "shelf.png"),)


def test_one_id_twice(tmp_path):
    """The second picture has lost its annotations to the first; nothing is absent from it."""
    source = coco(tmp_path, [("a.png", 100, 80), ("b.png", 100, 80)], [{"bbox": [1, 1, 2, 2]}])
    source.write_text(source.read_text().replace('"id": 2', '"id": 1'))
    result = imported("coco", source, negatives=0.9)
    assert len(result.records) == 1 and "an id of its own, got 1 a second time" in result.said


def test_what_only_pictures_left_out_show_is_not_denied(tmp_path):
    """Else every row about it would say that it is not there."""
    picture(tmp_path / "odd.png", (400, 100))
    annotations = [{"category_id": 2, "bbox": [1, 1, 2, 2]}, {"image_id": 2, "bbox": [1, 1, 2, 2]}]
    categories = [CUP, {"id": 2, "name": "plate"}, {"id": 3, "name": "fork"}]
    result = imported(
        "coco",
        coco(tmp_path, [("odd.png", 300, 300), ("b.png", 100, 80)], annotations, categories),
        negatives=0.9,
    )
    assert result.absent == [("b.png", "fork")]
