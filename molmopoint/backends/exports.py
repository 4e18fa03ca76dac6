"""Results in the forms of other tools: tables, pictures on one page, and what annotation tools read.

Every export is one function of a result, and one method of `PointingResult` that calls it; packages that it
needs are imported when it is called. A clip is exported frame by frame, where the other tool knows frames.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from PIL import Image

from molmopoint import sheets
from molmopoint.backends.media import DisplayedMedia
from molmopoint.drawing import picture_endings, write_picture
from molmopoint.errors import ProcessingError
from molmopoint.files import write_text_whole
from molmopoint.points import Point, Points
from molmopoint.safe_text import table_cell
from molmopoint.sheets import PAPER, Caption
from molmopoint.tracks import Tracks
from molmopoint.tracks.coco import write_coco
from molmopoint.video import open_video

CSV_COLUMNS = ("object_id", "group", "x", "y", "score", "label")

_PAGE_SIDE = 1600
"""Longer side of a page at most, in pixels: larger pictures make notebooks slow, and are shown scaled anyway."""

_SMALL_SIDE = 320
"""Pictures whose longer side is no longer than half of it are enlarged: of an icon nobody sees anything else."""

_CELL_SIDE = 480
"""Longer side of each of several pictures on a page."""

_COLUMNS = 4

_KEYPOINT_WIDTH = 0.5
"""Size at which Label Studio shows a point, in percent of the width."""


PictureNames: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A name for one picture, or one for each of several."""


class Exported(Protocol):
    """What an export reads of a result; `PointingResult` says what it means."""

    @property
    def points(self) -> Points:
        """Where."""
        ...

    @property
    def prompt(self) -> str:
        """The request as it was sent."""
        ...

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of every displayed picture; one entry for a clip."""
        ...

    @property
    def displayed(self) -> DisplayedMedia:
        """The pictures or the clip."""
        ...

    @property
    def draw(self) -> Callable[..., Image.Image | list[Image.Image]]:
        """The pictures with a marker per point."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels."""
        ...


def to_csv(result: Exported) -> str:
    """A table with a header and a line per point; places have two decimals, what is unknown is empty."""
    paper = io.StringIO()
    table = csv.writer(paper, lineterminator="\n")
    table.writerow(CSV_COLUMNS)
    for point in result.points.rounded():
        score = "" if math.isnan(point.score) else point.score
        label = table_cell(point.label or "")
        table.writerow([point.object_id, point.group, point.x, point.y, score, label])
    return paper.getvalue()


def to_pandas(result: Exported) -> Any:
    """A `pandas.DataFrame` with a row per point and the columns of `CSV_COLUMNS`, unrounded."""
    pandas = _package("pandas")
    points = result.points
    labels = points.labels or [None] * len(points)
    columns = {name: getattr(points, name) for name in CSV_COLUMNS if name != "label"}
    return pandas.DataFrame({**columns, "label": pandas.Series(list(labels), dtype=object)})


def to_supervision(result: Exported) -> Any:
    """`supervision.KeyPoints` of every picture; each point is an object with a single keypoint.

    `class_id` is 0; `data` has "object_id", "score", "label" and "group".
    """
    supervision = _package("supervision")
    every = [_key_points(supervision, points) for _, points in by_picture(result)]
    return every if result.displayed.many else every[0]


def _key_points(supervision: Any, points: Points) -> Any:
    count = len(points)
    labels = np.array([point.label or "" for point in points], dtype=object)
    known = np.nan_to_num(points.score, nan=1.0)  # supervision has no unknown confidence
    return supervision.KeyPoints(
        xy=points.xy.astype(np.float32)[:, None],  # (n, 1, 2)
        class_id=np.zeros(count, dtype=int),
        data={"object_id": points.object_id, "score": points.score, "label": labels, "group": points.group},
        **{_confidence_name(supervision): known.astype(np.float32)[:, None]},  # (n, 1)
    )


def _confidence_name(supervision: Any) -> str:
    """What the installed supervision calls the confidence of keypoints."""
    fields = supervision.KeyPoints.__dataclass_fields__
    return "keypoint_confidence" if "keypoint_confidence" in fields else "confidence"


def to_fiftyone(result: Exported, label: str | None = None, frame_rate: float | None = None) -> Any:
    """`fiftyone.Keypoints` of a picture, a list of them for a list of pictures, and for a clip a table by
    frame number, from 1.

    Args:
        result: with pictures or a clip.
        label: of points without a phrase; by default the prompt.
        frame_rate: frames per second of the video, where its file does not say.
    """
    fiftyone = _package("fiftyone")
    if result.displayed.clip is not None:
        numbers = _frame_numbers(result, frame_rate)
        return {
            numbers[group]: _keypoints(fiftyone, result, points, label)
            for group, points in by_picture(result)
        }
    every = [_keypoints(fiftyone, result, points, label) for _, points in by_picture(result)]
    return every if result.displayed.many else every[0]


def _keypoints(fiftyone: Any, result: Exported, points: Points, label: str | None) -> Any:
    marks = []
    for point, place in zip(points, points.xy_normalized.tolist(), strict=True):
        confidence = None if math.isnan(point.score) else [point.score]
        name = _label_of(result, point, label)
        marks.append(
            fiftyone.Keypoint(label=name, points=[tuple(place)], confidence=confidence, index=point.object_id)
        )
    return fiftyone.Keypoints(keypoints=marks)


def _frame_numbers(result: Exported, frame_rate: float | None) -> dict[float, int]:
    """Number of the frame, from 1, at each time of a point: of the video, or of the frames that were given."""
    displayed = result.displayed
    times = np.unique(result.points.group)
    if isinstance(displayed.clip, str | Path):
        rate = frame_rate or open_video(displayed.clip).frame_rate
        numbers = np.floor((times + displayed.start) * rate + 1e-6).astype(int) + 1
    else:
        assert displayed.timestamps is not None, "a clip has times"
        numbers = np.searchsorted(displayed.timestamps, times) + 1
    return dict(zip(times.tolist(), numbers.tolist(), strict=True))


def to_label_studio(
    result: Exported,
    images: PictureNames,
    *,
    label: str | None = None,
    from_name: str = "label",
    to_name: str = "image",
    field: str = "image",
    model_version: str = "molmopoint",
) -> list[dict[str, Any]]:
    """Tasks with pre-annotations, a task per picture, as Label Studio imports them from a JSON file.

    The labelling interface has `<Image name="image" value="$image"/>` and `<KeyPointLabels name="label"
    toName="image">`.

    Args:
        result: about pictures.
        images: address of each picture for Label Studio, such as "/data/local-files/?d=shapes.png".
        label: of points without a phrase; by default the prompt.
        from_name: name of the `KeyPointLabels` tag.
        to_name: name of the `Image` tag.
        field: entry of the task's data that holds the address.
        model_version: shown with the pre-annotations.

    Raises:
        ProcessingError: a clip, or more or fewer addresses than pictures.
    """
    names = _names(result, images, "Label Studio")
    tasks = []
    for name, (group, points) in zip(names, by_picture(result), strict=True):
        width, height = result.image_sizes[int(group)]
        regions = []
        for i, (point, place) in enumerate(zip(points, points.xy_normalized.tolist(), strict=True)):
            value = {"x": 100 * place[0], "y": 100 * place[1], "width": _KEYPOINT_WIDTH}
            region: dict[str, Any] = {
                "id": f"point-{int(group)}-{i}",
                "type": "keypointlabels",
                "from_name": from_name,
                "to_name": to_name,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {**value, "keypointlabels": [_label_of(result, point, label)]},
            }
            if not math.isnan(point.score):
                region["score"] = point.score
            regions.append(region)
        prediction: dict[str, Any] = {"model_version": model_version, "result": regions}
        scores = points.score[~np.isnan(points.score)]
        if len(scores):
            prediction["score"] = float(scores.mean())
        tasks.append({"data": {field: name}, "predictions": [prediction]})
    return tasks


def to_coco(result: Exported, images: PictureNames = (), *, label: str | None = None) -> dict[str, Any]:
    """A COCO document in which every point is an object with a single keypoint; of a clip as `Tracks` write
    it, with times.

    Args:
        result: with pictures or a clip.
        images: `file_name` of each picture; not for a clip.
        label: category of points without a phrase; by default the prompt.

    Raises:
        ProcessingError: more or fewer names than pictures.
    """
    if result.displayed.clip is not None:
        named = Points(
            *(getattr(result.points, column) for column in ("object_id", "group", "x", "y", "score")),
            labels=[_label_of(result, point, label) for point in result.points],
            image_sizes=result.image_sizes,
        )
        return write_coco(Tracks.from_points(named).to_dict())
    names = _names(result, images, "COCO")
    sizes = zip(names, result.image_sizes, strict=True)
    pictures = [
        {"id": i, "file_name": name, "width": size[0], "height": size[1]}
        for i, (name, size) in enumerate(sizes, 1)
    ]
    categories: dict[str, int] = {}
    annotations = []
    for i, point in enumerate(result.points.rounded(), 1):
        category = categories.setdefault(_label_of(result, point, label), len(categories) + 1)
        annotation: dict[str, Any] = {
            "id": i,
            "image_id": int(point.group) + 1,
            "category_id": category,
            "keypoints": [point.x, point.y, 2],  # 2: labelled and in sight
            "num_keypoints": 1,
            "bbox": [point.x, point.y, 0, 0],
            "area": 0,
            "iscrowd": 0,
        }
        if not math.isnan(point.score):
            annotation["score"] = point.score
        annotations.append(annotation)
    named_categories = [
        {"id": i, "name": name, "keypoints": ["point"], "skeleton": []} for name, i in categories.items()
    ]
    return {"images": pictures, "annotations": annotations, "categories": named_categories}


def save(result: Exported, path: str | Path, **drawing: Any) -> list[Path]:
    """Writes a result in the form that the ending says: .json, .csv, or a drawn picture.

    Several pictures are numbered: points-1.png, points-2.png.

    Args:
        result: any.
        path: of the file.
        **drawing: of `PointingResult.draw`, for pictures.

    Returns:
        The files that were written.

    Raises:
        ProcessingError: another ending, drawing options for a table, or nothing to draw on.
    """
    target = target_of(path)
    ending = target.suffix.lower()
    if ending in (".json", ".csv"):
        if drawing:
            raise ProcessingError(
                f"expected {', '.join(drawing)} with a picture, got the file {target.name!r}; leave it out"
            )
        text = (
            to_csv(result)
            if ending == ".csv"
            else json.dumps(result.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(target, text)
        return [target]
    check_ending(target)
    drawn = result.draw(**drawing)
    return write_pictures(drawn, target)


def target_of(path: Any) -> Path:
    """The file that a path means.

    Raises:
        ProcessingError: it is none.
    """
    try:
        target = Path(path)
    except TypeError as error:
        raise ProcessingError(
            f"expected the path of a file, got {type(path).__name__}; pass a text or a Path"
        ) from error
    if "\0" in str(target):
        raise ProcessingError(f"expected the path of a file, got {str(target)!r}, which no disk can hold")
    return target


def check_ending(path: Path) -> None:
    """Refuses a file that a result is not written to.

    Raises:
        ProcessingError: its ending is none of a picture, nor .json or .csv.
    """
    if path.suffix.lower() not in {*picture_endings(), ".json", ".csv"}:
        raise ProcessingError(
            "expected a file that ends in .png, .jpg or another picture format, .json or .csv, got "
            f"{path.name!r}"
        )


def write_pictures(drawn: Image.Image | Sequence[Image.Image], path: Path) -> list[Path]:
    """Writes one picture to a file, or several to files that are numbered from 1; returns them.

    Raises:
        ProcessingError: the ending is that of no picture.
    """
    if path.suffix.lower() not in picture_endings():
        raise ProcessingError(
            f"expected a file that ends in .png, .jpg or another picture format, got {path.name!r}"
        )
    if isinstance(drawn, Image.Image):
        write_picture(drawn, path)
        return [path]
    written = []
    for number, picture in enumerate(drawn, 1):
        numbered = path.with_stem(f"{path.stem}-{number}")
        write_picture(picture, numbered)
        written.append(numbered)
    return written


def page_of(result: Exported, **drawing: Any) -> Image.Image:
    """The drawn picture at a size for screens, small ones enlarged; several pictures, or frames of a clip, side
    by side.
    """
    sides = [max(size) for size in result.image_sizes]
    scale = max(1, _SMALL_SIDE // max(sides, default=_SMALL_SIDE))
    drawn = result.draw(**{"scale": scale, **drawing})
    if isinstance(drawn, Image.Image):
        drawn.thumbnail((_PAGE_SIDE, _PAGE_SIDE), Image.Resampling.LANCZOS)
        return drawn
    groups = [group for group, _ in by_picture(result)]
    cells = []
    for picture in drawn:
        picture.thumbnail((_CELL_SIDE, _CELL_SIDE), Image.Resampling.LANCZOS)
        cells.append(picture)
    if not cells:  # a clip without points
        cells, groups = [Image.new("RGB", (_CELL_SIDE, _CELL_SIDE // 4), PAPER)], [0]
    width = max(cell.width for cell in cells)
    height = max(cell.height for cell in cells)
    even = []
    for cell in cells:
        page = Image.new("RGB", (width, height), PAPER)
        page.paste(cell, (0, 0))
        even.append(page)
    unit = "{:.2f} s" if result.displayed.clip is not None else "picture {}"
    captions = [[Caption(unit.format(group))] for group in groups]
    return sheets.draw_sheet(even, captions, result.prompt, columns=_COLUMNS)


def by_picture(result: Exported) -> Iterator[tuple[int | float, Points]]:
    """Group and points of every picture, or of the frames of a clip that have points.

    Raises:
        ProcessingError: the request had no picture.
    """
    if not result.image_sizes:
        raise ProcessingError("expected a request with a picture, got one of text alone")
    points = result.points
    groups = (
        np.unique(points.group).tolist()
        if result.displayed.clip is not None
        else range(len(result.image_sizes))
    )
    for group in groups:
        yield group, points[points.group == group]


def _label_of(result: Exported, point: Point, label: str | None) -> str:
    """What a point shows, in words."""
    return point.label or label or result.prompt


def _names(result: Exported, images: PictureNames, tool: str) -> list[str]:
    """One name per picture.

    Raises:
        ProcessingError: a clip, or more or fewer names than pictures.
    """
    if result.displayed.clip is not None:
        raise ProcessingError(
            f"expected a result about pictures for {tool}, got one about a clip; `track` gives tracks, "
            "which have files"
        )
    is_single = isinstance(images, (str, os.PathLike))
    if not is_single and not isinstance(images, Sequence):
        raise ProcessingError(
            f"expected the names of the pictures as texts, got {type(images).__name__}; pass images=[...]"
        )
    names = [os.fspath(images)] if is_single else [str(name) for name in images]
    if len(names) != len(result.image_sizes):
        raise ProcessingError(
            f"expected a name for each of {len(result.image_sizes)} pictures, got {len(names)}; pass "
            "images=[...]"
        )
    return names


def _package(name: str) -> Any:
    """A package that only an export needs.

    Raises:
        ProcessingError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ProcessingError(
            f"expected the package {name} for this export, got: {error}; run `pip install {name}`"
        ) from error
