"""Points as text: how the Molmo2 family, which has no grounding tokens, writes where things are.

    list    = '<points coords="' units '">' label '</points>'        (or <tracks ...> ... </tracks>)
    units   = unit (';' unit)*                                       one per picture or time, ascending
    unit    = key (' ' id ' ' X ' ' Y)+
    key     = number of the picture, from 1; or seconds with one decimal
    X, Y    = thousandths of width and height, three digits or more: 000 to 1000

Two things differ from the lists of grounding tokens: the closing tag is plural, and points of a unit are sorted by X first.
`text_answers` reads all of this, and the older forms.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np

from molmopoint.errors import GroundingError
from molmopoint.points import Points
from molmopoint.processing.answers import Style, frame_answer

FULL_SCALE = 1000
"""Written coordinate of the right and the lower edge."""

UNIT_SEPARATOR = ";"
"""As in released checkpoints; those before fine-tuning wrote a tab, which is read as well."""


def text_answer(group: Any, xy: Any, image_sizes: Sequence[tuple[int, int]], label: str, style: Style = "pointing") -> str:
    """An answer that points at all given points, in any order; there may be none.

    Args:
        group: (n,) int index of the picture from 0, or float seconds within a clip.
        xy: (n, 2) pixels of the displayed original.
        image_sizes: (width, height) of each picture, or one entry for a clip.
        label: what the points are.
        style: the sentence around the list.

    Raises:
        GroundingError: a point outside its picture, or arrays that do not fit each other.
        ProcessingError: an unknown style.
    """
    count = len(np.asarray(group))
    pieces = frame_answer(text_points(group, xy, image_sizes, label) if count else None, count, style)
    return "".join(str(piece) for piece in pieces)


def text_points(group: Any, xy: Any, image_sizes: Sequence[tuple[int, int]], label: str) -> str:
    """A list of one or more points, numbered from 1 in the order they are written; arguments as for `text_answer`.

    Raises:
        GroundingError: as `text_answer`, or no points.
    """
    written = _written(group, xy, image_sizes)
    order = sorted(range(len(written)), key=written.__getitem__)
    return _write_list("points", [(written[i], number) for number, i in enumerate(order, 1)], label)


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
    points: dict[tuple[float, int], tuple[float, int, int]] = {}
    for i in sorted(range(len(written)), key=written.__getitem__):
        number = numbers.setdefault(objects[i], len(numbers) + 1)
        points.setdefault((written[i][0], number), written[i])
    return _write_list("tracks", [(points[place], place[1]) for place in sorted(points)], label)


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


def _written(group: Any, xy: Any, image_sizes: Sequence[tuple[int, int]]) -> list[tuple[float, int, int]]:
    """(key, X, Y) of each point as they will be written; the key of a picture counts from 1, a time has one decimal."""
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
    if outside := np.flatnonzero(~((scaled >= 0) & (scaled <= FULL_SCALE)).all(axis=1)).tolist():
        size = tuple(image_sizes[canvas[outside[0]]])
        raise GroundingError(f"expected points inside a picture of {size}, got {tuple(xy[outside[0]].tolist())}; clip or drop it first")
    keys = [round(float(time), 1) for time in group] if is_video else (canvas + 1).tolist()
    return [(key, x, y) for key, (x, y) in zip(keys, np.rint(scaled).astype(np.int64).tolist(), strict=True)]


def _write_list(tag: Literal["points", "tracks"], points: Sequence[tuple[tuple[float, int, int], int]], label: str) -> str:
    """A list from ((key, X, Y), object id) in order; points of one key form a unit."""
    units: dict[float, list[str]] = {}
    for (key, x, y), number in points:
        units.setdefault(key, []).append(f"{number} {x:03d} {y:03d}")
    coords = UNIT_SEPARATOR.join(" ".join([str(key), *triples]) for key, triples in units.items())
    return f'<{tag} coords="{coords}">{label}</{tag}>'
