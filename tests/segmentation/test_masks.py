"""Masks as results: columns, run-lengths, boxes, exports, drawing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as pycocotools
from tiny_sam2 import points

from molmopoint.errors import GroundingError, ProcessingError
from molmopoint.metrics.run_lengths import decode_mask, encode_mask
from molmopoint.segmentation import Mask, Masks
from molmopoint.segmentation.media import ClipFrames, PictureList, draw_masks


def square(left: int, upper: int, side: int, size: tuple[int, int] = (20, 10)) -> np.ndarray:
    mask = np.zeros(size[::-1], dtype=bool)
    mask[upper : upper + side, left : left + side] = True
    return mask


def is_mask(run_lengths: object, mask: np.ndarray) -> bool:
    """Whether run-lengths are those of a mask."""
    decoded = decode_mask(run_lengths)
    return decoded is not None and np.array_equal(decoded, mask)


def of_pictures() -> Masks:
    rows = [
        Mask(3, 0, square(2, 1, 4), 0.9),
        Mask(1, 1, square(0, 0, 3, (7, 9)), 0.5),
        Mask(2, 0, square(0, 0, 0), 0.1),
    ]
    source = PictureList([Image.new("RGB", (20, 10), "white"), Image.new("RGB", (7, 9), "white")], many=True)
    return Masks.collect(rows, video=False, image_sizes=[(20, 10), (7, 9)], source=source)


def of_clip() -> Masks:
    rows = [Mask(5, time, square(int(4 * time), 2, 3 if time else 0), 0.5) for time in (0.0, 0.5, 1.0)]
    source = ClipFrames(np.full((3, 10, 20, 3), 200, np.uint8), [0.0, 0.5, 1.0])
    return Masks.collect(rows, video=True, image_sizes=[(20, 10)], source=source)


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    share = draw(st.sampled_from([0.0, 0.03, 0.5, 1.0]))
    return np.random.default_rng(draw(st.integers(0, 1000))).random((height, width)) < share


@settings(max_examples=80)
@given(masks())
def test_run_lengths_are_those_of_pycocotools(mask):
    written = encode_mask(mask)
    assert written["counts"].encode() == pycocotools.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    assert written == json.loads(json.dumps(written)) and is_mask(written, mask)


@settings(max_examples=80)
@given(st.lists(masks(), min_size=1, max_size=4))
def test_boxes_and_areas_are_those_of_the_pixels(several):
    found = Masks.collect(
        [Mask(1, 0, mask, 1.0) for mask in several], video=False, image_sizes=[several[0].shape[::-1]]
    )
    for mask, box, area in zip(several, found.boxes, found.areas, strict=True):
        assert area == mask.sum()
        if not area:
            assert np.isnan(box).all()
            continue
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert all(np.array_equal(each.mask, mask) for each, mask in zip(found, several, strict=True))


def test_rows_slices_and_choices():
    found = of_pictures()
    assert found[0].object_id == 3 and found[-1].object_id == 2 and isinstance(found[1].group, int)
    assert (
        found[1:].object_id.tolist() == [1, 2]
        and found[[2, 0]].object_id.tolist() == [2, 3]
        and len(found[[]]) == 0
    )
    assert found[found.score > 0.4].object_id.tolist() == [3, 1]
    assert found.at(0).object_id.tolist() == [3, 2] and len(found.of_object(9)) == 0
    assert np.array_equal(found[[1, 0]][1].mask, square(2, 1, 4)), "a choice keeps masks and rows together"
    with pytest.raises(IndexError):
        found[3]
    assert (
        repr(found) == "Masks(3 of 3 objects in 2 pictures)"
        and repr(of_clip()) == "Masks(3 of 1 objects in 3 frames)"
    )


def test_masks_of_one_picture_unite():
    found = Masks.collect(
        [Mask(1, 0, square(0, 0, 3), 1), Mask(2, 0, square(9, 5, 2), 1)], video=False, image_sizes=[(20, 10)]
    )
    assert np.array_equal(found.union(), square(0, 0, 3) | square(9, 5, 2))
    with pytest.raises(GroundingError, match="one size"):
        of_pictures().union()
    with pytest.raises(GroundingError, match="`at`"):
        found[:0].union()


@pytest.mark.parametrize("made", [of_pictures, of_clip])
def test_there_and_back(made):
    before = made()
    after = Masks.from_dict(json.loads(before.to_json()))
    assert after.to_dict() == before.to_dict() and after.is_video == before.is_video
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(before, after, strict=True))
    with pytest.raises(ProcessingError, match="without"):
        after.draw()


@pytest.mark.parametrize(
    "change", [{"schema_version": 9}, {"masks": [{"object_id": 1}]}, {"masks": None}, {"group_unit": "hour"},
               {"masks": [{"object_id": 1, "group": 0, "score": 1, "mask": {"size": [2, 2], "counts": "x"}}]}],
)  # fmt: skip
def test_documents_of_another_kind(change):
    with pytest.raises(GroundingError):
        Masks.from_dict(of_pictures().to_dict() | change)
    with pytest.raises(GroundingError):
        Masks.from_dict(None)  # type: ignore[arg-type]


def test_coco():
    document = json.loads(json.dumps(of_pictures().to_coco("cup", ["a.png", "b.png"])))
    assert [image["file_name"] for image in document["images"]] == ["a.png", "b.png"] and document["images"][
        1
    ]["height"] == 9
    first, second = document["annotations"]
    assert (
        first["bbox"] == [2, 1, 4, 4]
        and first["area"] == 16
        and first["image_id"] == 1
        and second["image_id"] == 2
    )
    assert is_mask(first["segmentation"], square(2, 1, 4)), "an empty mask is no annotation"
    assert {first["track_id"], second["track_id"]} == {3, 1} and document["categories"] == [
        {"id": 1, "name": "cup"}
    ]
    clip = of_clip().to_coco()
    assert [image["time"] for image in clip["images"]] == [0, 0.5, 1] and [
        each["image_id"] for each in clip["annotations"]
    ] == [2, 3]
    with pytest.raises(ProcessingError, match="2 file names"):
        of_pictures().to_coco(file_names=["a.png"])


def test_drawing_tints_and_outlines():
    found = of_pictures()
    drawn = found.draw()
    assert isinstance(drawn, list) and [picture.size for picture in drawn] == [(20, 10), (7, 9)]
    pixels = np.asarray(drawn[0])
    assert (pixels[square(2, 1, 4)] < 255).any(axis=1).all(), "inside"
    assert (pixels[5:, 10:] == 255).all(), "far away"
    frames = of_clip().draw()
    assert isinstance(frames, list) and len(frames) == 3 and (np.asarray(frames[0]) == 200).all(), (
        "an empty mask draws nothing"
    )
    assert next(of_clip().drawn())[0] == 0.0
    marked = next(found.drawn(points=points((7, 0, 15, 5))))[1]
    assert not np.array_equal(np.asarray(marked), pixels), "the point too"
    for opacity in (-0.1, 1.1):
        with pytest.raises(ProcessingError, match="opacity"):
            found.draw(opacity=opacity)
    with pytest.raises(ProcessingError, match="its own picture"):
        draw_masks(Image.new("RGB", (3, 3)), [(1, square(0, 0, 1))])
