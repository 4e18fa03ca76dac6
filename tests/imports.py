"""Importing in tests: what came of it, by picture and label."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from molmopoint.data.importers import Journal, import_records
from molmopoint.data.records import Record

Places = list[tuple[float, float]]


@dataclass
class Imported:
    """What an import gave.

    Attributes:
        records: all rows.
        journal: what was said.
    """

    records: list[Record]
    journal: Journal

    @property
    def said(self) -> str:
        """Everything that was said, as one text."""
        return "\n".join(self.journal.lines())

    def of(self, image: Path | str) -> dict[str, Places]:
        """Label or prompt -> points of a picture, named by its path or its end."""
        found: dict[str, Places] = {}
        for record in self.records:
            if record.media[0].endswith(str(image)) and record.points:
                places = [(round(point.x, 3), round(point.y, 3)) for point in record.points]
                found.setdefault(record.prompt or record.label or "", []).extend(places)
        return found

    @property
    def absent(self) -> list[tuple[str, str]]:
        """Name of the picture and label of the rows that say that there is nothing."""
        return [
            (Path(record.media[0]).name, record.prompt or record.label or "")
            for record in self.records
            if record.no_points
        ]

    @property
    def files(self) -> list[str]:
        """Names of the pictures with points, in order."""
        return sorted({Path(record.media[0]).name for record in self.records if record.points})


def imported(format: str, source: Any, **options: Any) -> Imported:
    """Imports all rows; without those about absent classes unless `negatives` is given."""
    from molmopoint.data.importers import format_options

    if "negatives" in format_options(format):
        options = {"negatives": 0, **options}
    journal = Journal()
    return Imported(list(import_records(format, source, journal=journal, **options)), journal)


def write(path: Path, content: Any) -> Path:
    """Writes bytes, text, or anything else as JSON; makes the folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def picture(path: Path, size: tuple[int, int] = (100, 80), **save: Any) -> Path:
    """A plain picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, **save)
    return path
