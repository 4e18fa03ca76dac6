"""Points as text: how the Molmo2 family, which has no grounding tokens, writes where things are.

    list    = '<points coords="' units '">' label '</points>'        (or <tracks ...> ... </tracks>)
    units   = unit (';' unit)*                                       one per picture or frame, ascending
    unit    = key (' ' id ' ' X ' ' Y)+ | key ' '                    (the second one: a picture without points among several)
    key     = number of the picture, from 1; or seconds with one decimal
    X, Y    = thousandths of width and height, three digits or more: 000 to 1000

Two things differ from the lists of grounding tokens: the closing tag is plural, and points of a unit are sorted by X first.
`text_answers` reads all of this, and the older forms.

How models are asked to track: the published tags, and the point that one object is followed from.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from molmopoint.errors import GroundingError
from molmopoint.points import Points
from molmopoint.processing.answers import Style, frame_answer

FULL_SCALE = 1000
"""Written coordinate of the right and the lower edge."""

UNIT_SEPARATOR = ";"
"""As in released checkpoints; those before fine-tuning wrote a tab, which is read as well."""


class _Written(NamedTuple):
    """A point as it will be written, in the order of points.

    Attributes:
        group: picture or time, as given: two frames may have one written time.
        key: picture from 1, or seconds with one decimal.
        x: thousandths of the width.
        y: thousandths of the height.
    """

    group: float
    key: float
    x: int
    y: int


def text_answer(
    group: Any,
    xy: Any,
    image_sizes: Sequence[tuple[int, int]],
    label: str,
    style: Style = "pointing",
    *,
    thousandths: Any | None = None,
    pictures: Iterable[int] = (),
) -> str:
    """An answer that points at all given points, in any order; there may be none.

    Args:
        group: (n,) int index of the picture from 0, or float seconds within a clip.
        xy: (n, 2) pixels of the displayed original.
        image_sizes: (width, height) of each picture, or one entry for a clip.
        label: what the points are.
        style: the sentence around the list.
        thousandths: (n, 2) coordinates in thousandths of width and height, not rounded, where they are known better than by way
            of pixels: of half a thousandth, that way can give the other neighbour.
        pictures: indices of pictures that are written even if they have no points.

    Raises:
        GroundingError: a point outside its picture, or arrays that do not fit each other.
        ProcessingError: an unknown style.
    """
    count = len(np.asarray(group))
    points = text_points(group, xy, image_sizes, label, thousandths=thousandths, pictures=pictures) if count else None
    return "".join(str(piece) for piece in frame_answer(points, count, style))


def text_points(
    group: Any,
    xy: Any,
    image_sizes: Sequence[tuple[int, int]],
    label: str,
    *,
    thousandths: Any | None = None,
    pictures: Iterable[int] = (),
) -> str:
    """A list of one or more points, numbered from 1 in the order they are written; arguments as for `text_answer`.

    Raises:
        GroundingError: as `text_answer`, or no points.
    """
    units: dict[float, list[str]] = {picture: [str(picture + 1)] for picture in pictures}
    for number, point in enumerate(sorted(_written(group, xy, image_sizes, thousandths)), 1):
        units.setdefault(point.group, [str(point.key)]).append(_triple(number, point))
    return _write_list("points", [units[group] for group in sorted(units)], label)


def text_tracks(seconds: Any, xy: Any, objects: Sequence[Hashable], image_sizes: Sequence[tuple[int, int]], label: str) -> str:
    """A list of tracks: objects are numbered by first appearance, and listed by number at each time.

    Args:
        seconds: (n,) float time of each point.
        xy: (n, 2) pixels of the displayed original.
        objects: n names of the objects, equal where it is the same one.
        image_sizes: one (width, height).
        label: what is tracked.

    Raises:
        GroundingError: as `text_points`.

    Where an object has two points at one written time, the first one (by X, then Y) is kept: a reader could not tell them apart.
    """
    written = _written(np.asarray(seconds, dtype=np.float64), xy, image_sizes)
    if len(objects) != len(written):
        raise GroundingError(f"expected an object for each of {len(written)} points, got {len(objects)}")
    numbers: dict[Hashable, int] = {}
    points: dict[tuple[float, int], _Written] = {}
    for i in sorted(range(len(written)), key=lambda i: written[i][1:]):
        number = numbers.setdefault(objects[i], len(numbers) + 1)
        points.setdefault((written[i].key, number), written[i])
    units: dict[float, list[str]] = {}
    for key, number in sorted(points):
        units.setdefault(key, [str(key)]).append(_triple(number, points[key, number]))
    return _write_list("tracks", list(units.values()), label)


def text_list(points: Points, image_sizes: Sequence[tuple[int, int]], label: str, *, is_video: bool) -> str:
    """Points of an answer as a list; equal object ids at several times of a clip make them tracks.

    Args:
        points: one or more, in pixels.
        image_sizes: as for `text_answer`.
        label: what they are.
        is_video: whether their groups are seconds.

    Raises:
        GroundingError: as `text_points`.
    """
    group = points.group.astype(np.float64 if is_video else np.int64)
    if is_video and len(set(points.object_id.tolist())) < len(points):
        return text_tracks(group, points.xy, points.object_id.tolist(), image_sizes, label)
    return text_points(group, points.xy, image_sizes, label)


def _written(group: Any, xy: Any, image_sizes: Sequence[tuple[int, int]], thousandths: Any | None = None) -> list[_Written]:
    """Each point as it will be written."""
    group, xy = np.asarray(group), np.asarray(xy, dtype=np.float64).reshape(-1, 2)
    if group.ndim != 1 or len(group) != len(xy) or not len(group):
        raise GroundingError(
            f"expected a group and a pair of coordinates for each of one or more points, got shapes {group.shape} and {xy.shape}; "
            "nothing to point at is a sentence, see text_answer"
        )
    is_video = group.dtype.kind == "f"
    canvas = np.zeros(len(group), dtype=np.int64) if is_video else group.astype(np.int64)
    if canvas.min() < 0 or canvas.max() >= len(image_sizes) or (is_video and not (group >= 0).all()):
        raise GroundingError(f"expected pictures in 0..{len(image_sizes) - 1} or times from 0, got {group.min()} to {group.max()}")
    scaled = FULL_SCALE * xy / np.asarray(image_sizes, dtype=np.float64)[canvas]
    if thousandths is not None:
        scaled = np.asarray(thousandths, dtype=np.float64).reshape(xy.shape)
    if outside := np.flatnonzero(~((scaled >= 0) & (scaled <= FULL_SCALE)).all(axis=1)).tolist():
        size = tuple(image_sizes[canvas[outside[0]]])
        raise GroundingError(f"expected points inside a picture of {size}, got {tuple(xy[outside[0]].tolist())}; clip or drop it first")
    keys = [round(float(time), 1) for time in group] if is_video else (canvas + 1).tolist()
    rounded = np.rint(scaled).astype(np.int64).tolist()
    return [_Written(each, key, x, y) for each, key, (x, y) in zip(group.tolist(), keys, rounded, strict=True)]


def _triple(number: int, point: _Written) -> str:
    return f"{number} {point.x:03d} {point.y:03d}"


def _write_list(tag: Literal["points", "tracks"], units: Sequence[Sequence[str]], label: str) -> str:
    """A list from units in order, each a key and its triples; a key alone is followed by a blank, as in the reference."""
    coords = UNIT_SEPARATOR.join(" ".join(unit) if len(unit) > 1 else f"{unit[0]} " for unit in units)
    return f'<{tag} coords="{coords}">{label}</{tag}>'


TRACK_TAGS = {
    "track": "video_point_track_per_frame",
    "track_start_end": "video_point_ground_start_end",
    "track_from_point": "video_single_point_track_per_frame",
}
"""Published names of the track styles. Only the last two are written in front of prompts after pre-training."""


def tagged(style: str, request: str) -> str:
    """A request behind the tag of its style."""
    return f"{TRACK_TAGS[style]}: {request}"


def written_start(seconds: float, xy: Sequence[float], size: tuple[int, int], label: str) -> str:
    """A point as text in a request to follow it: seconds, object 1, thousandths of width and height.

    Args:
        seconds: of its frame.
        xy: pixels of the displayed video.
        size: (width, height) of the video.
        label: what is there.

    Raises:
        GroundingError: the point lies outside the video.

    Source: the text form of Molmo2, which the published training uses in these requests for either family.
    """
    return text_points(np.array([seconds], dtype=np.float64), np.array([xy], dtype=np.float64), [size], label)
