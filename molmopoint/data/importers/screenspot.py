"""ScreenSpot-style files: an instruction and a box per screenshot (ScreenSpot, -v2, -Pro, OSWorld-G)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.importers.common import OnSkip, PathLike, corners, numbers, objects, read_json, required
from molmopoint.data.interior import polygon_interior
from molmopoint.errors import ProcessingError

BOXES = ("xyxy", "xywh")


def read_screenspot(
    source: PathLike, on_skip: OnSkip, box: str, images: PathLike | None = None, coords: str = "pixel"
) -> Iterator[dict[str, Any]]:
    """Rows with the instruction as prompt and the middle of the box as point; a refusal has no point.

    Args:
        source: a JSON file, or a folder of them such as `annotations` of ScreenSpot-Pro.
        on_skip: hears what is left out.
        box: "xyxy" for two corners (ScreenSpot-Pro), "xywh" for corner and size (ScreenSpot-v2, OSWorld-G). Both are four
            numbers, and a wrong choice often still lies in the picture, so it must be said.
        images: folder of the screenshots; by default `images` beside the file or folder.
        coords: space of the boxes.

    Raises:
        ProcessingError: no such file, or a box that cannot be of the given kind.
    """
    path = Path(source)
    if box not in BOXES:
        raise ProcessingError(f"expected the option box among {', '.join(BOXES)}, got {box!r}; see the data set's card")
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ProcessingError(f"expected JSON files in {path}, got none; pass the folder of the annotations")
    folder = path.parent / "images" if images is None else Path(images)
    for file in files:
        for number, item in enumerate(objects(read_json(file), file.name), start=1):
            where = f"{file.name}, item {item.get('id', number)}"
            row = _row(item, box, coords, where)
            if row is None:
                on_skip(f"{where}: left out, its polygon has no area")
            else:
                yield {"image": str(folder / _image_name(item, where)), **row}


def _row(item: Mapping[str, Any], box: str, coords: str, where: str) -> dict[str, Any] | None:
    """Columns of an item without its picture; None if it has no place."""
    prompt = required(item, "instruction", where)
    kind = item.get("box_type", "bbox")
    if kind == "refusal":
        return {"prompt": prompt, "no_points": True}
    values = item.get("bbox", item.get("box_coordinates"))
    if kind == "polygon":
        try:
            x, y = polygon_interior([corners(values, where)])
        except ProcessingError:
            return None
    else:
        x, y = _middle(values, box, where)
    return {"prompt": prompt, "points": [{"x": x, "y": y}], "coords": coords}


def _middle(values: Any, box: str, where: str) -> tuple[float, float]:
    left, top, third, fourth = (float(value) for value in numbers(values, where, 4))
    if box == "xywh":
        if third < 0 or fourth < 0:
            raise ProcessingError(f"{where}: expected a box x, y, width, height, got {values}; check the option box")
        return left + third / 2, top + fourth / 2
    if third < left or fourth < top:
        raise ProcessingError(f"{where}: expected a box x1, y1, x2, y2 in order, got {values}; the option box is perhaps 'xywh'")
    return (left + third) / 2, (top + fourth) / 2


def _image_name(item: Mapping[str, Any], where: str) -> str:
    for name in ("img_filename", "image_path", "image"):
        if isinstance(item.get(name), str):
            return str(item[name]).replace("\\", "/")  # files written on Windows
    raise ProcessingError(f"{where}: expected the picture's name as 'img_filename', got none; check that the format is the right one")
