"""PixMo-Points (allenai/pixmo-points): a label and points in percent per row, pictures by address."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.importers.common import PathLike, label_text, listed, number, one_of, read_rows, required, short, whole_text
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import BROKEN
from molmopoint.data.records import FULL_SCALE
from molmopoint.errors import ProcessingError


def read_pixmo_points(
    source: PathLike | Iterable[Mapping[str, Any]], journal: Journal, images: PathLike, coords: str = "percent"
) -> Iterator[dict[str, Any]]:
    """Rows of PixMo-Points; a row without points says that there is nothing to point at, and no other does.

    Args:
        source: JSONL or JSON file, or the loaded data set.
        journal: hears which rows are left out because their picture is not there; many addresses are dead by now.
        images: folder of the downloaded pictures, named by `image_sha256`, with any ending or none.
        coords: space of the points. The data set's card says pixels, but its values and the published training are percent.

    Raises:
        ProcessingError: a file of another kind, or no folder.
    """
    one_of(coords, ("pixel", *FULL_SCALE), "coords")
    folder = Path(images)
    if not folder.is_dir():
        raise ProcessingError(f"expected a folder of pictures named by image_sha256, got none at {folder}; download them first")
    files = {file.stem: file for file in sorted(folder.iterdir()) if file.is_file()}
    for position, row in read_rows(source, "image_sha256, label and points", journal):
        where = f"row {position} of the source"
        try:
            name = whole_text(required(row, "image_sha256", where), f"{where}, image_sha256")
            if name not in files:
                journal.skip("rows whose picture is not there", f"{where}: left out, there is no picture {short(name)} in {folder}")
                continue
            label = label_text(required(row, "label", where), f"{where}, label")
            points = [_point(point, where) for point in listed(row.get("points"), f"{where}, points")]
        except ProcessingError as error:
            journal.skip(BROKEN, f"left out: {error}")
            continue
        answer = {"points": points, "coords": coords} if points else {"no_points": True}
        yield {"image": str(files[name]), "label": label, **answer}


def _point(point: Any, where: str) -> dict[str, float]:
    return {axis: number(required(point, axis, where), f"{where}, {axis}") for axis in ("x", "y")}
