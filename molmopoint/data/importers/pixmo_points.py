"""PixMo-Points (allenai/pixmo-points): a label and points in percent per row, pictures by address."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.importers.common import PathLike, read_rows, required
from molmopoint.data.importers.journal import Journal
from molmopoint.errors import ProcessingError


def read_pixmo_points(
    source: PathLike | Iterable[Mapping[str, Any]], journal: Journal, images: PathLike, coords: str = "percent"
) -> Iterator[dict[str, Any]]:
    """Rows of PixMo-Points; a row without points says that there is nothing to point at.

    Args:
        source: JSONL or JSON file, or the loaded data set.
        journal: hears which rows are left out because their picture is not there; many addresses are dead by now.
        images: folder of the downloaded pictures, named by `image_sha256`, with any ending or none.
        coords: space of the points. The data set's card says pixels, but its values and the published training are percent.

    Raises:
        ProcessingError: rows of another kind, or no folder.
    """
    folder = Path(images)
    if not folder.is_dir():
        raise ProcessingError(f"expected a folder of pictures named by image_sha256, got none at {folder}; download them first")
    files = {file.stem: file for file in sorted(folder.iterdir()) if file.is_file()}
    for number, row in enumerate(read_rows(source, "image_sha256, label and points"), start=1):
        where = f"row {number} of the source"
        name = str(required(row, "image_sha256", where))
        if name not in files:
            journal.skip("rows", f"{where}: left out, there is no picture {name} in {folder}")
            continue
        columns: dict[str, Any] = {"image": str(files[name]), "label": required(row, "label", where)}
        points = row.get("points") or []
        if points:
            places = [{"x": required(point, "x", where), "y": required(point, "y", where)} for point in points]
            yield {**columns, "points": places, "coords": coords}
        else:
            yield {**columns, "no_points": True}
