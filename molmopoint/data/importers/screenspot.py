"""ScreenSpot-style files: an instruction and a box per screenshot (ScreenSpot, -v2, -Pro, OSWorld-G)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.importers.collector import Collector
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import BROKEN, PointLists
from molmopoint.data.importers.reading import PathLike, picture_path, read_json
from molmopoint.data.importers.values import (
    corners,
    numbers,
    one_of,
    recorded_size,
    required,
    short,
    whole_text,
)
from molmopoint.data.records import FULL_SCALE
from molmopoint.errors import MolmoPointError, ProcessingError

BOXES = ("xyxy", "xywh")
COORDS = ("pixel", *FULL_SCALE)


def read_screenspot(
    source: PathLike, journal: Journal, box: str, images: PathLike | None = None, coords: str = "pixel"
) -> Iterator[dict[str, Any]]:
    """Rows with the instruction as prompt and the middle of the box as point; a refusal has no point.

    Nothing but a refusal says that something is absent: a screen may well hold what was asked of another one.

    Args:
        source: a JSON file, or a folder of them such as `annotations` of ScreenSpot-Pro.
        journal: hears what is left out.
        box: "xyxy" for two corners (ScreenSpot-Pro), "xywh" for corner and size (ScreenSpot-v2, OSWorld-G).
            Both are four numbers, and a wrong choice often still lies in the picture, so it must be said.
        images: folder of the screenshots; by default `images` beside the file or folder.
        coords: space of the boxes.

    Raises:
        ProcessingError: no such file, or options that are none.
    """
    path = Path(source)
    one_of(box, BOXES, "box")
    one_of(coords, COORDS, "coords")
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ProcessingError(f"expected JSON files in {path}, got none; pass the folder of the annotations")
    folder = path.parent / "images" if images is None else Path(images)
    collector = Collector(journal, negatives=0)
    for file in files:
        for position, item in enumerate(_items(read_json(file), file.name), start=1):
            where = f"{file.name}, item {position}"
            try:
                row = _row(item, box, coords, folder, collector, where)
            except MolmoPointError as error:
                journal.skip(BROKEN, f"left out: {error}")
                continue
            if row is not None:
                yield row


def _items(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or (value and not any(isinstance(item, Mapping) for item in value)):
        raise ProcessingError(
            f"{where}: expected a list of objects, got {short(value)}; check that the format is the right one"
        )
    return value


def _row(
    item: Any, box: str, coords: str, folder: Path, collector: Collector, where: str
) -> dict[str, Any] | None:
    """Columns of an item; None if it is left out, which has been said."""
    if not isinstance(item, Mapping):
        raise ProcessingError(f"{where}: expected an object, got {short(item)}; export it again")
    prompt = whole_text(required(item, "instruction", where), where)
    image = picture_path(folder, _image_name(item, where), where)
    kind = item.get("box_type", "bbox")
    if kind == "refusal":
        return {"image": str(image), "prompt": prompt, "no_points": True}
    size: Any = (FULL_SCALE[coords],) * 2 if coords in FULL_SCALE else _size(item, where)
    lists = collector.picture(image, size, coords=coords)
    if lists is None:
        return None
    with lists.object(prompt, where):
        _add(lists, prompt, item.get("bbox", item.get("box_coordinates")), str(kind), box, where)
    found = list(lists.rows())
    return (
        {"image": str(image), "prompt": prompt, "points": found[0]["points"], "coords": coords}
        if found
        else None
    )


def _add(lists: PointLists, prompt: str, values: Any, kind: str, box: str, where: str) -> None:
    """The place of a box or polygon."""
    places = numbers(values, where)
    if kind == "polygon" and len(places) != 4:  # four numbers under this name are two corners of a box
        lists.add_polygon(prompt, [corners(places, where)])
        return
    left, top, third, fourth = numbers(values, where, 4).tolist()
    if box == "xywh" and kind != "polygon":
        if third < 0 or fourth < 0:
            raise ProcessingError(
                f"{where}: expected a box x, y, width, height, got {short(values)}; check the option box"
            )
        third, fourth = left + third, top + fourth
    if third < left or fourth < top:
        hint = "the option box is perhaps 'xywh'"
        raise ProcessingError(f"{where}: expected a box x1, y1, x2, y2 in order, got {short(values)}; {hint}")
    lists.add_box(prompt, left, top, third, fourth)


def _size(item: Mapping[str, Any], where: str) -> tuple[float, float] | None:
    """Width and height of the screenshot, where the item has them."""
    given = item.get("img_size", item.get("image_size"))
    if given is None:
        return None
    width, height = numbers(given, f"{where}, size", 2).tolist()
    return recorded_size(width, height, where)


def _image_name(item: Mapping[str, Any], where: str) -> str:
    for name in ("img_filename", "image_path", "image"):
        if isinstance(item.get(name), str):
            return str(item[name]).replace("\\", "/")  # files written on Windows
    raise ProcessingError(
        f"{where}: expected the picture's name as 'img_filename', got none; check that the format is the "
        "right one"
    )
