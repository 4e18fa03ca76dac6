"""YOLO as Ultralytics and Roboflow write it: data.yaml, folders `images` and `labels`, one text file per picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from molmopoint.data.importers.collecting import PointLists
from molmopoint.data.importers.common import PathLike, corners, existing_file, numbers, required
from molmopoint.data.importers.journal import Journal
from molmopoint.errors import ProcessingError

_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


TARGETS = ("object", "keypoints")


def read_yolo(source: PathLike, journal: Journal, split: str = "train", target: str = "object") -> Iterator[dict[str, Any]]:
    """Rows of one split: boxes and poses at the middle of the box, segments and turned boxes at a point inside.

    A picture with an empty label file holds none of the classes, which no row can say; it is left out.

    Args:
        source: data.yaml, or the folder that holds it.
        journal: hears what is left out.
        split: key of data.yaml, such as train, val or test.
        target: "object" points at whole objects; "keypoints" at the visible keypoints of a pose set, "nose of the person", named by
            `kpt_names` of data.yaml, or numbered from 1.

    Raises:
        ProcessingError: no such data set or split, or a label file that does not fit it.
    """
    if target not in TARGETS:
        raise ProcessingError(f"expected the option target among {', '.join(TARGETS)}, got {target!r}; choose one")
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
    shape = settings.get("kpt_shape")
    if target == "keypoints" and shape is None:
        raise ProcessingError(f"expected kpt_shape in {path.name} for the option target=keypoints, got none; this is no pose set")
    kinds = _Kinds(classes, None if shape is None else tuple(int(size) for size in shape), settings.get("kpt_names"), target)
    for image in _pictures(path.parent / str(settings.get("path") or "."), path.parent, settings[split]):
        labels = _label_file(image)
        if not labels.is_file():
            journal.skip("rows", f"{image}: left out, there is no label file {labels}")
            continue
        lists = PointLists(str(image), journal, coords="norm1")
        for number, line in enumerate(labels.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                _add(lists, line.split(), kinds, f"{labels}, line {number}")
        yield from lists.rows()


@dataclass(frozen=True)
class _Kinds:
    """What a number in a label file means.

    Attributes:
        classes: names by index.
        shape: keypoints of an object and numbers of each, 2 or 3; None without keypoints.
        names: of the keypoints, for all classes or by class; None without.
        target: one of `TARGETS`.
    """

    classes: Mapping[int, Any]
    shape: tuple[int, ...] | None
    names: Any
    target: str

    def keypoint(self, label: str, index: int, number: int) -> str:
        """What a keypoint (from 0) of a class is called."""
        names = self.names.get(index) if isinstance(self.names, Mapping) else self.names
        name = names[number] if isinstance(names, list) and number < len(names) else f"keypoint {number + 1}"
        return f"{str(name).replace('_', ' ')} of the {label}"


def _add(lists: PointLists, words: list[str], kinds: _Kinds, where: str) -> None:
    classes = kinds.classes
    index, *places = numbers(words, where)
    if int(index) != index or int(index) not in classes:
        raise ProcessingError(f"{where}: expected a class among 0..{max(classes)}, got {index:g}; add its name to data.yaml")
    label = str(classes[int(index)])
    if kinds.target == "keypoints":
        _add_keypoints(lists, label, int(index), places[4:], kinds, where)
    elif len(places) == 4 or (kinds.shape is not None and len(places) > 4):
        lists.add(label, places[0], places[1])
    elif len(places) >= 6:
        lists.add_polygon(label, [corners(places, where)])
    else:
        raise ProcessingError(f"{where}: expected 4 numbers of a box or 6 and more of a polygon, got {len(places)}; export it again")


def _add_keypoints(lists: PointLists, label: str, index: int, values: list[float], kinds: _Kinds, where: str) -> None:
    """Keypoints that can be seen: visibility 2, or anywhere but in the corner where the set has no visibility."""
    count, size = kinds.shape or (0, 0)
    if len(values) != count * size:
        raise ProcessingError(f"{where}: expected {count} keypoints of {size} numbers behind the box, got {len(values)}; see kpt_shape")
    for number, (x, y, *visibility) in enumerate([values[i : i + size] for i in range(0, len(values), size)]):
        if visibility[0] == 2 if visibility else (x, y) != (0, 0):
            lists.add(kinds.keypoint(label, index, number), x, y)


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
