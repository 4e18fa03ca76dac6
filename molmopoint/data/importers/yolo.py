"""YOLO as Ultralytics and Roboflow write it: data.yaml, folders `images` and `labels`, one text file per picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from molmopoint.data.importers.common import OnSkip, PathLike, PointLists, corners, existing_file, numbers, required
from molmopoint.errors import ProcessingError

_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def read_yolo(source: PathLike, on_skip: OnSkip, split: str = "train") -> Iterator[dict[str, Any]]:
    """Rows of one split: boxes and poses at the middle of the box, segments and turned boxes at a point inside.

    A picture with an empty label file holds none of the classes, which no row can say; it is left out.

    Args:
        source: data.yaml, or the folder that holds it.
        on_skip: hears what is left out.
        split: key of data.yaml, such as train, val or test.

    Raises:
        ProcessingError: no such data set or split, or a label file that does not fit it.
    """
    path = Path(source) / "data.yaml" if Path(source).is_dir() else Path(source)
    try:
        settings = yaml.safe_load(existing_file(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProcessingError(f"expected YAML in {path}, got {error}; export it again") from error
    if not isinstance(settings, Mapping) or split not in settings:
        known = ", ".join(str(key) for key in settings) if isinstance(settings, Mapping) else "no keys"
        raise ProcessingError(f"expected the split {split!r} in {path.name}, got {known}; choose one with the option split")
    names = required(settings, "names", path.name)
    classes = dict(enumerate(names)) if isinstance(names, list) else {int(key): name for key, name in names.items()}
    keypoints = settings.get("kpt_shape") is not None
    for image in _pictures(path.parent / str(settings.get("path") or "."), path.parent, settings[split]):
        labels = _label_file(image)
        if not labels.is_file():
            on_skip(f"{image}: left out, there is no label file {labels}")
            continue
        lists = PointLists(str(image), "norm1", on_skip)
        for number, line in enumerate(labels.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                _add(lists, line.split(), classes, keypoints, f"{labels}, line {number}")
        yield from lists.rows()


def _add(lists: PointLists, words: list[str], classes: Mapping[int, Any], keypoints: bool, where: str) -> None:
    index, *places = numbers(words, where)
    if int(index) != index or int(index) not in classes:
        raise ProcessingError(f"{where}: expected a class among 0..{max(classes)}, got {index:g}; add its name to data.yaml")
    label = str(classes[int(index)])
    if len(places) == 4 or (keypoints and len(places) > 4):
        lists.add(label, places[0], places[1])
    elif len(places) >= 6:
        lists.add_polygon(label, [corners(places, where)])
    else:
        raise ProcessingError(f"{where}: expected 4 numbers of a box or 6 and more of a polygon, got {len(places)}; export it again")


def _pictures(base: Path, beside: Path, entry: Any) -> Iterator[Path]:
    """Picture files of a split: a folder, a text file with one path per line, or a list of these."""
    for item in entry if isinstance(entry, list) else [entry]:
        # Roboflow writes "../train/images" for a folder beside data.yaml; readers drop the first part where it leads nowhere.
        name = str(item)
        candidates = [base / name, beside / name, beside / name.removeprefix("../")]
        place = next((candidate for candidate in candidates if candidate.exists()), None)
        if place is None:
            raise ProcessingError(f"expected pictures at {candidates[0]}, got nothing there; correct the path in data.yaml")
        if place.is_dir():
            yield from sorted(file for file in place.rglob("*") if file.suffix.lower() in _ENDINGS)
        else:
            lines = (line.strip() for line in place.read_text(encoding="utf-8").splitlines())
            yield from (place.parent / line for line in lines if line)


def _label_file(image: Path) -> Path:
    """The last folder named `images` becomes `labels`."""
    parts = list(image.parts)
    at = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if at:
        parts[at[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")
