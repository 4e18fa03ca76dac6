"""YOLO data sets, as Ultralytics and Roboflow write them, and those of Darknet.

Both have a label file per picture. Ultralytics and Roboflow list the pictures in data.yaml, by folders
`images` and `labels`; Darknet in obj.data, which names obj.names and lists of pictures, with the label files
beside the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from molmopoint.data.importers.collector import NEGATIVES, Collector
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import KEYPOINTS
from molmopoint.data.importers.reading import PathLike, read_text
from molmopoint.data.importers.values import label_text, one_of, required, short
from molmopoint.data.importers.yolo_files import (
    LabelFormat,
    PathRules,
    exists,
    label_file,
    labelled_picture,
    listed_pictures,
)
from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.files import PICTURE_SUFFIXES, is_file

TARGETS = ("object", "keypoints")

_UNREAD = frozenset({".dng", ".heic", ".heif", ".pfm"})
"""Endings of pictures that the tools know and the library does not."""

_ABOVE = "../"
"""Roboflow writes `../train/images` for a folder beside data.yaml; readers drop the first part where it leads
nowhere.
"""

_MAX_KEYPOINTS = 1000

_DATA = "data/"
"""Folder in front of the paths, which Darknet has and exports have not."""


def read_yolo(
    source: PathLike,
    journal: Journal,
    images: PathLike | None = None,
    split: str = "train",
    target: str = "object",
    keypoints: str = "visible",
    negatives: float = NEGATIVES,
) -> Iterator[dict[str, Any]]:
    """Rows of one split: boxes and poses at the middle of the box, segments and turned boxes at a point
    inside.

    A picture with an empty label file holds none of the classes; of one without a label file nobody knows, it
    is left out.

    Paths in data.yaml stay in its own folder or lead to a folder beside it (`../train/images`, `path:
    ../coco8`). A data set that lies elsewhere has to be named by `images`.

    Args:
        source: data.yaml, or the folder that holds it.
        journal: hears what is left out.
        images: folder of the data set, in place of `path` of data.yaml; its paths then must stay in this
            folder.
        split: key of data.yaml, such as train, val or test.
        target: "object" points at whole objects; "keypoints" at the keypoints of a pose set, "nose of the
            person", named by `kpt_names` of data.yaml, or numbered from 1.
        keypoints: "visible" takes those of visibility 2; "labelled" also those of visibility 1, which are
            hidden.
        negatives: share of rows about absent classes, see `Collector`.

    Raises:
        ProcessingError: no such data set or split, or a path that leads elsewhere.
    """
    one_of(target, TARGETS, "target")
    least = 1 if one_of(keypoints, KEYPOINTS, "keypoints") == "labelled" else 2
    path = Path(source) / "data.yaml" if Path(source).is_dir() else Path(source)
    settings = _settings(path, split)
    shape = _keypoint_shape(settings.get("kpt_shape"), path.name)
    if target == "keypoints" and shape is None:
        raise ProcessingError(
            f"expected kpt_shape in {path.name} for the option target=keypoints, got none; this is no pose "
            "set"
        )
    label_format = LabelFormat(
        _classes(required(settings, "names", path.name), path.name),
        shape,
        settings.get("kpt_names"),
        target,
        least,
    )
    collector = Collector(journal, classes=label_format.labels, negatives=negatives)
    rules = PathRules.of(path, settings.get("path"), images, without=_ABOVE)
    for image in dict.fromkeys(_pictures(rules, settings[split], journal)):  # lists may name a picture again
        yield from labelled_picture(collector, image, label_file(image), label_format)
    yield from collector.last_rows()


def read_darknet(
    source: PathLike,
    journal: Journal,
    images: PathLike | None = None,
    split: str = "train",
    negatives: float = NEGATIVES,
) -> Iterator[dict[str, Any]]:
    """Rows of one split: the middle of each box.

    Paths begin at the folder of obj.data, with or without `data/` in front, and stay there or lead to a
    folder beside it; a data set that lies elsewhere has to be named by `images`.

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
    settings = _darknet_settings(path)
    for key in ("names", split):
        if key not in settings:
            known = ", ".join(list(settings)[:20])[:200]
            raise ProcessingError(
                f"expected {key!r} in {path.name}, got {known}; check it, or choose another split"
            )
    rules = PathRules.of(path, None, images, without=_DATA)
    names = read_text(_found(rules, settings["names"]))
    classes = dict(enumerate(label_text(line, "obj.names") for line in names.splitlines() if line.strip()))
    label_format = LabelFormat(classes)
    collector = Collector(journal, classes=label_format.labels, negatives=negatives)
    for image in dict.fromkeys(listed_pictures(_found(rules, settings[split]), rules, journal)):
        yield from labelled_picture(collector, image, label_file(image), label_format)
    yield from collector.last_rows()


def _settings(path: Path, split: str) -> Mapping[str, Any]:
    """What data.yaml says, every value as the text it is written as: a class may be called no or 1."""
    try:
        settings = yaml.load(read_text(path), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, MolmoPointError):
            raise
        raise ProcessingError(f"expected YAML in {path}, got {error}; export it again") from error
    if not isinstance(settings, Mapping) or not settings.get(split):
        known = (
            ", ".join(str(key)[:40] for key in list(settings)[:20])
            if isinstance(settings, Mapping)
            else "no keys"
        )
        raise ProcessingError(
            f"expected the split {split!r} in {path.name}, got {known}; choose one with the option split"
        )
    return settings


def _classes(names: Any, where: str) -> dict[int, str]:
    """Names of the classes by number.

    Raises:
        ProcessingError: neither a list of names nor one by number.
    """
    if isinstance(names, list):
        return {index: label_text(name, f"{where}, names") for index, name in enumerate(names)}
    if isinstance(names, Mapping) and all(
        isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 10 for key in names
    ):
        return {int(key): label_text(name, f"{where}, names") for key, name in names.items()}
    raise ProcessingError(
        f"{where}: expected names as a list, or by number, got {short(names)}; export it again"
    )


def _keypoint_shape(shape: Any, where: str) -> tuple[int, int] | None:
    """Number of keypoints, and of values of each."""
    if shape is None or shape == "":
        return None
    if isinstance(shape, list) and all(
        isinstance(size, str) and size.isascii() and size.isdecimal() and len(size) < 5 for size in shape
    ):
        sizes = [int(size) for size in shape]
        if len(sizes) == 2 and 1 <= sizes[0] <= _MAX_KEYPOINTS and sizes[1] in (2, 3):
            return sizes[0], sizes[1]
    raise ProcessingError(
        f"{where}: expected kpt_shape as [keypoints, 2 or 3], got {short(shape)}; export it again"
    )


def _pictures(rules: PathRules, entry: Any, journal: Journal) -> Iterator[Path]:
    """Picture files of a split: a folder, a text file with one path per line, or a list of these."""
    for item in entry if isinstance(entry, list) else [entry]:
        if not isinstance(item, str) or not item.strip():
            raise ProcessingError(
                f"expected the path of a folder of pictures, got {short(item)}; correct data.yaml"
            )
        place = rules.resolve(item, exists)
        if not exists(place):
            raise ProcessingError(
                f"expected pictures at {place}, got nothing there; correct the path in data.yaml, or use "
                "--images"
            )
        if place.is_file():
            yield from listed_pictures(place, rules, journal)
            continue
        files = sorted(rules.walkable(place).rglob("*"))
        for file in files:
            if file.suffix.lower() in PICTURE_SUFFIXES:
                yield file
            elif file.suffix.lower() in _UNREAD:
                journal.skip(
                    "pictures of formats that are not read",
                    f"{file}: left out, its format is not read; convert it to JPEG or PNG",
                )


def _darknet_settings(path: Path) -> dict[str, str]:
    """Lines "name = value"."""
    settings = {}
    for line in read_text(path).splitlines():
        name, equals, value = line.partition("=")
        if equals and value.strip():
            settings[name.strip()] = value.strip()
    if not settings:
        raise ProcessingError(
            f"expected lines such as 'names = obj.names' in {path}, got none; check that the format is the "
            "right one"
        )
    return settings


def _found(rules: PathRules, name: str) -> Path:
    place = rules.resolve(name, is_file)
    if not is_file(place):
        raise ProcessingError(
            f"expected a file at {place}, got none; correct the path in obj.data, or use --images"
        )
    return place
