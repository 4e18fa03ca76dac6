"""Tracks as COCO writes annotations, with videos: one image per moment, one annotation per object and moment.

    {"videos": [{"id": 1, "width": 640, "height": 360, "fps": 30.0}],
     "images": [{"id": 1, "video_id": 1, "frame_id": 15, "time": 0.5, "file_name": "000015.jpg", ...}],
     "annotations": [{"id": 1, "image_id": 1, "video_id": 1, "category_id": 1, "track_id": 7,
                      "keypoints": [x, y, v], "num_keypoints": 1, "bbox": [x, y, 0, 0], "score": 0.9, ...}],
     "categories": [{"id": 1, "name": "the red car", "keypoints": ["point"], "skeleton": []}]}

A point is an object with a single keypoint: v is 2 in sight and 1 where it is only inferred. `time`
(seconds), `track_id` and `score`
are beside the standard, as video data sets have them. Nothing is lost: reading gives the tracks that were
written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from molmopoint.errors import GroundingError
from molmopoint.tracks.columns import checked_rate
from molmopoint.tracks.document import frame_on_screen, make_document, parse_box, parse_number

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
    width, height = parse_box(box)
    labels = {entry["object_id"]: entry["label"] for entry in document["objects"]}
    names = list(dict.fromkeys(labels.values()))
    categories = [_category(i, name) for i, name in enumerate(names, 1)]

    size: dict[str, int] = {}
    if document["size"] is not None:
        size = {"width": document["size"][0], "height": document["size"][1]}
    video: dict[str, Any] = {"id": 1, **size}
    if document["fps"] is not None:
        video["fps"] = document["fps"]
    images = _images(document, size)
    image_of_time = {image["time"]: image["id"] for image in images}

    annotations = []
    for i, row in enumerate(document["points"], 1):
        annotation = {
            "id": i,
            "image_id": image_of_time[row["time"]],
            "video_id": 1,
            "category_id": 1 + names.index(labels[row["object_id"]]),
            "track_id": row["object_id"],
            "keypoints": [row["x"], row["y"], _VISIBLE if row["visible"] else _HIDDEN],
            "num_keypoints": 1,
            "bbox": [row["x"] - width / 2, row["y"] - height / 2, width, height],
            "area": width * height,
            "iscrowd": 0,
        }
        if row["score"] is not None:
            annotation["score"] = row["score"]
        annotations.append(annotation)
    return {"videos": [video], "images": images, "annotations": annotations, "categories": categories}


def read_coco(document: Any) -> dict[str, Any]:
    """The plain form of what `write_coco` or another tool wrote.

    Annotations without a keypoint are read as the middle of their box. Numbers of tracks may be in `track_id`
    or `instance_id`; times in `time`, or counted from `frame_id` and the `fps` of the video.

    Raises:
        GroundingError: parts are missing or malformed, or there is more than one video.
    """
    if not is_coco(document):
        raise GroundingError(
            "expected COCO with images and annotations, got another document; check the format"
        )
    try:
        return _document_of_coco(document)
    except GroundingError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise GroundingError(
            f"expected COCO with videos, images, annotations and categories, got one without a proper {error}"
        ) from error


def _document_of_coco(coco: Mapping[str, Any]) -> dict[str, Any]:
    videos = coco.get("videos") or [{}]
    if len(videos) > 1:
        raise GroundingError(f"expected COCO of one video, got {len(videos)}; split it by video_id first")
    video = videos[0]
    fps = video.get("fps")
    images = {image["id"]: image for image in coco["images"]}
    times = {key: _time(image, fps) for key, image in images.items()}

    rows = []
    for annotation in coco["annotations"]:
        image_id = annotation["image_id"]
        rows.append(_row(annotation, times[image_id], images[image_id]))
    names: dict[Any, str | None] = {}
    for category in coco.get("categories", ()):
        is_unnamed = category.get("supercategory") == _UNNAMED
        names[category["id"]] = None if is_unnamed else category["name"]
    labels = {}
    for row, annotation in zip(rows, coco["annotations"], strict=True):
        labels[row["object_id"]] = names.get(annotation.get("category_id"))

    size = _size([video, *images.values()])
    return make_document(_with_all_frames(rows), labels, fps=fps, size=size, moments=sorted(times.values()))


def _size(parts: Sequence[Mapping[str, Any]]) -> list[Any] | None:
    """Width and height of the first part that tells them."""
    for part in parts:
        if "width" in part and "height" in part:
            return [part["width"], part["height"]]
    return None


def _category(number: int, label: str | None) -> dict[str, Any]:
    named = {"name": label, "supercategory": ""}
    if label is None:
        named = {"name": "object", "supercategory": _UNNAMED}
    return {"id": number, **named, "keypoints": ["point"], "skeleton": []}


def _images(document: Mapping[str, Any], size: Mapping[str, int]) -> list[dict[str, Any]]:
    """One image per moment; its frame is that of its rows, or counted, or left out."""
    frames = {row["time"]: row["frame"] for row in document["points"] if "frame" in row}
    fps = document["fps"]
    if document["points"] and not frames:
        fps = None  # rows without frames stay so when they are read again
    images = []
    for i, moment in enumerate(document["moments"]):
        image = {"id": i + 1, "video_id": 1, "time": moment, **size}
        frame = frames.get(moment)
        if frame is None and fps is not None:
            frame = frame_on_screen(moment, fps)
        if frame is not None:
            image["frame_id"] = frame
        number_in_name = i if frame is None else frame
        image["file_name"] = f"{number_in_name:06d}.jpg"
        images.append(image)
    return images


def _time(image: Mapping[str, Any], fps: float | None) -> float:
    where = f"image {image['id']}"
    if "time" in image:
        return parse_number(image["time"], f"{where}, time")
    if fps is None:
        raise GroundingError(
            f"expected the time of {where}, or fps of its video, got neither; add one of them"
        )
    frame = parse_number(image["frame_id"], f"{where}, frame_id", whole=True)
    return frame / checked_rate(fps, "to count the time of frames")


def _row(annotation: Mapping[str, Any], time: float, image: Mapping[str, Any]) -> dict[str, Any]:
    where = f"annotation {annotation['id']}"
    x, y, visible = _place(annotation, where)
    identity = annotation["track_id"] if "track_id" in annotation else annotation["instance_id"]
    row = {
        "object_id": parse_number(identity, f"{where}, track_id", whole=True),
        "time": time,
        "x": parse_number(x, f"{where}, x"),
        "y": parse_number(y, f"{where}, y"),
        "visible": visible,
        "score": annotation.get("score"),
    }
    if "frame_id" in image:
        row["frame"] = image["frame_id"]
    return row


def _place(annotation: Mapping[str, Any], where: str) -> tuple[Any, Any, bool]:
    """x, y and whether it is in sight: of the one keypoint, or else of the middle of the box."""
    keypoints = annotation.get("keypoints")
    if not keypoints:
        left, top, width, height = (parse_number(value, f"{where}, bbox") for value in annotation["bbox"])
        return left + width / 2, top + height / 2, True
    if len(keypoints) != 3:
        raise GroundingError(
            f"expected one keypoint in {where}, got {len(keypoints) / 3:g}; choose the one to track"
        )
    x, y, visibility = keypoints
    return x, y, visibility != _HIDDEN


def _with_all_frames(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with frames only if all have one."""
    if all("frame" in row for row in rows):
        return rows
    for row in rows:
        row.pop("frame", None)
    return rows
