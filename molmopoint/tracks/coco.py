"""Tracks as COCO writes annotations, with videos: one image per moment, one annotation per object and moment.

    {"videos": [{"id": 1, "width": 640, "height": 360, "fps": 30.0}],
     "images": [{"id": 1, "video_id": 1, "frame_id": 15, "time": 0.5, "file_name": "000015.jpg", ...}],
     "annotations": [{"id": 1, "image_id": 1, "video_id": 1, "category_id": 1, "track_id": 7,
                      "keypoints": [x, y, v], "num_keypoints": 1, "bbox": [x, y, 0, 0], "score": 0.9, ...}],
     "categories": [{"id": 1, "name": "the red car", "keypoints": ["point"], "skeleton": []}]}

A point is an object with a single keypoint: v is 2 in sight and 1 where it is only inferred. `time` (seconds), `track_id` and `score`
are beside the standard, as video data sets have them. Nothing is lost: reading gives the tracks that were written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from molmopoint.errors import GroundingError
from molmopoint.tracks.columns import box_size, document_of, number, rate
from molmopoint.tracks.resampling import SAME_TIME

_HIDDEN, _VISIBLE = 1, 2
_UNNAMED = "unnamed"
"""Supercategory that marks the category of objects without a label."""


def is_coco(document: Any) -> bool:
    """Whether a JSON document has the parts of COCO."""
    return isinstance(document, Mapping) and "annotations" in document and "images" in document


def write_coco(document: Mapping[str, Any], box: Any = (0, 0)) -> dict[str, Any]:
    """COCO from tracks in their plain form.

    Args:
        document: of the tracks.
        box: (width, height) in pixels of the bounding box around each point.

    Raises:
        GroundingError: the box is none.
    """
    sides = box_size(box)
    labels = {each["object_id"]: each["label"] for each in document["objects"]}
    names = list(dict.fromkeys(labels.values()))
    size: dict[str, int] = {} if document["size"] is None else {"width": document["size"][0], "height": document["size"][1]}
    rate = {} if document["fps"] is None else {"fps": document["fps"]}
    images = _images(document, size)
    image_of = {image["time"]: image["id"] for image in images}
    annotations = [
        {
            "id": i,
            "image_id": image_of[row["time"]],
            "video_id": 1,
            "category_id": 1 + names.index(labels[row["object_id"]]),
            "track_id": row["object_id"],
            "keypoints": [row["x"], row["y"], _VISIBLE if row["visible"] else _HIDDEN],
            "num_keypoints": 1,
            "bbox": [row["x"] - sides[0] / 2, row["y"] - sides[1] / 2, *sides],
            "area": sides[0] * sides[1],
            "iscrowd": 0,
        }
        | ({} if row["score"] is None else {"score": row["score"]})
        for i, row in enumerate(document["points"], 1)
    ]
    categories = [_category(i, name) for i, name in enumerate(names, 1)]
    videos = [{"id": 1, **size, **rate}]
    return {"videos": videos, "images": images, "annotations": annotations, "categories": categories}


def read_coco(document: Any) -> dict[str, Any]:
    """The plain form of what `write_coco` or another tool wrote.

    Annotations without a keypoint are read as the middle of their box. Numbers of tracks may be in `track_id` or `instance_id`; times in
    `time`, or counted from `frame_id` and the `fps` of the video.

    Raises:
        GroundingError: parts are missing or malformed, or there is more than one video.
    """
    if not is_coco(document):
        raise GroundingError("expected COCO with images and annotations, got another document; check the format")
    try:
        videos = document.get("videos") or [{}]
        if len(videos) > 1:
            raise GroundingError(f"expected COCO of one video, got {len(videos)}; split it by video_id first")
        images = {image["id"]: image for image in document["images"]}
        times = {key: _time(image, videos[0].get("fps")) for key, image in images.items()}
        rows = [_row(each, times[each["image_id"]], images[each["image_id"]]) for each in document["annotations"]]
        categories = document.get("categories", ())
        names = {each["id"]: None if each.get("supercategory") == _UNNAMED else each["name"] for each in categories}
        labels = {row["object_id"]: names.get(each.get("category_id")) for row, each in zip(rows, document["annotations"], strict=True)}
        sized = next((part for part in (videos[0], *images.values()) if "width" in part and "height" in part), None)
        size = None if sized is None else [sized["width"], sized["height"]]
        return document_of(_with_all_frames(rows), labels, fps=videos[0].get("fps"), size=size, moments=sorted(times.values()))
    except GroundingError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise GroundingError(f"expected COCO with videos, images, annotations and categories, got one without a proper {error}") from error


def _category(number_of_category: int, label: str | None) -> dict[str, Any]:
    named = {"name": "object", "supercategory": _UNNAMED} if label is None else {"name": label, "supercategory": ""}
    return {"id": number_of_category, **named, "keypoints": ["point"], "skeleton": []}


def _images(document: Mapping[str, Any], size: Mapping[str, int]) -> list[dict[str, Any]]:
    """One image per moment; its frame is that of its rows, or counted, or left out."""
    frames = {row["time"]: row["frame"] for row in document["points"] if "frame" in row}
    rate = document["fps"] if frames or not document["points"] else None
    images = []
    for i, moment in enumerate(document["moments"], 1):
        image = {"id": i, "video_id": 1, "time": moment, **size}
        number_of_frame = frames.get(moment, None if rate is None else math.floor((moment + SAME_TIME) * rate))
        if number_of_frame is not None:
            image |= {"frame_id": number_of_frame}
        images.append(image | {"file_name": f"{i - 1 if number_of_frame is None else number_of_frame:06d}.jpg"})
    return images


def _time(image: Mapping[str, Any], fps: float | None) -> float:
    where = f"image {image['id']}"
    if "time" in image:
        return number(image["time"], f"{where}, time")
    if fps is None:
        raise GroundingError(f"expected the time of {where}, or fps of its video, got neither; add one of them")
    return number(image["frame_id"], f"{where}, frame_id", whole=True) / rate(fps, "to count the time of frames")


def _row(annotation: Mapping[str, Any], time: float, image: Mapping[str, Any]) -> dict[str, Any]:
    where = f"annotation {annotation['id']}"
    keypoints = annotation.get("keypoints")
    if keypoints:
        if len(keypoints) != 3:
            raise GroundingError(f"expected one keypoint in {where}, got {len(keypoints) / 3:g}; choose the one to track")
        x, y, visible = keypoints[0], keypoints[1], keypoints[2] != _HIDDEN
    else:
        left, top, width, height = (number(value, f"{where}, bbox") for value in annotation["bbox"])
        x, y, visible = left + width / 2, top + height / 2, True
    identity = annotation["track_id"] if "track_id" in annotation else annotation["instance_id"]
    row = {
        "object_id": number(identity, f"{where}, track_id", whole=True),
        "time": time,
        "x": number(x, f"{where}, x"),
        "y": number(y, f"{where}, y"),
        "visible": visible,
        "score": annotation.get("score"),
    }
    return row | ({"frame": image["frame_id"]} if "frame_id" in image else {})


def _with_all_frames(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with frames only if all have one."""
    if all("frame" in row for row in rows):
        return rows
    return [{name: value for name, value in row.items() if name != "frame"} for row in rows]
