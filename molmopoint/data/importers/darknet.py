"""Darknet: obj.data, which names obj.names and lists of pictures, and YOLO label files beside the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from molmopoint.data.importers.collecting import NEGATIVES, Collector
from molmopoint.data.importers.common import PathLike, label_text, read_text
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.yolo import labelled_picture
from molmopoint.data.importers.yolo_labels import Kinds
from molmopoint.data.importers.yolo_paths import Places, label_file, listed_pictures
from molmopoint.errors import ProcessingError
from molmopoint.files import is_file

_DATA = "data/"
"""Folder in front of the paths, which Darknet has and exports have not."""


def read_darknet(
    source: PathLike, journal: Journal, images: PathLike | None = None, split: str = "train", negatives: float = NEGATIVES
) -> Iterator[dict[str, Any]]:
    """Rows of one split: the middle of each box.

    Paths begin at the folder of obj.data, with or without `data/` in front, and stay there or lead to a folder beside it; a data set
    that lies elsewhere has to be named by `images`.

    Args:
        source: obj.data, or the folder that holds it.
        journal: hears what is left out.
        images: folder where paths begin, and which they must not leave then.
        split: key of obj.data: train or valid.
        negatives: share of rows about absent classes, see `Collector`.

    Raises:
        ProcessingError: no such data set or split, or a path that leads elsewhere.
    """
    path = Path(source) / "obj.data" if Path(source).is_dir() else Path(source)
    settings = _settings(path)
    for key in ("names", split):
        if key not in settings:
            known = ", ".join(list(settings)[:20])[:200]
            raise ProcessingError(f"expected {key!r} in {path.name}, got {known}; check it, or choose another split")
    places = Places.of(path, None, images, without=_DATA)
    names = read_text(_found(places, settings["names"]))
    classes = dict(enumerate(label_text(line, "obj.names") for line in names.splitlines() if line.strip()))
    kinds = Kinds(classes)
    collector = Collector(journal, classes=kinds.labels, negatives=negatives)
    for image in dict.fromkeys(listed_pictures(_found(places, settings[split]), places, journal)):
        yield from labelled_picture(collector, image, label_file(image), kinds)
    yield from collector.last_rows()


def _settings(path: Path) -> dict[str, str]:
    """Lines "name = value"."""
    settings = {}
    for line in read_text(path).splitlines():
        name, equals, value = line.partition("=")
        if equals and value.strip():
            settings[name.strip()] = value.strip()
    if not settings:
        raise ProcessingError(f"expected lines such as 'names = obj.names' in {path}, got none; check that the format is the right one")
    return settings


def _found(places: Places, name: str) -> Path:
    place = places.meant(name, is_file)
    if not is_file(place):
        raise ProcessingError(f"expected a file at {place}, got none; correct the path in obj.data, or use --images")
    return place
