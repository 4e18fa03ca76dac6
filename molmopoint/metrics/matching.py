"""Points against objects: precision, recall, F1 and exact count of one answer, and counts that a text states.

Points and objects are matched one to one (optimal assignment): by the masks that points lie in, so that as
many as possible match, or by distance.

Letters: n points, m objects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy  # its parts are imported when they are used
from numpy.typing import ArrayLike

# Possessive, so that no run of blanks is read twice; what is counted has a bounded length for the same
# reason.
_LABEL = r"(?:\s++of\s++.{1,2000}?(?<!\s))?\s++is"
_TOTAL = re.compile(rf"\ba total of\s*+(\d+)|\bthe total number{_LABEL}(?::|\b)\s*+(\d+)", re.IGNORECASE)
_TOTAL_OF_REFERENCE = re.compile(rf"a total of\s*+(\d+)|the total number{_LABEL}:\s*+(\d+)", re.IGNORECASE)
_THERE_ARE = re.compile(r"\bthere (?:is|are) (\d+)\b", re.IGNORECASE)
_MOST_DIGITS = 18
"""More digits are no count."""
_NONE = re.compile(r"\bthere (?:is|are) (?:none|no)\b", re.IGNORECASE)


def close_in_image(predicted: int, true: int) -> bool:
    """Whether a count differs by at most one; the rule of the picture benchmarks."""
    return abs(predicted - true) <= 1


def close_in_video(predicted: int, true: int) -> bool:
    """Whether a count differs by at most one and five percent of the true one, rounded down; the rule of the
    video benchmarks.
    """
    # Integers: 0.05 * 40 in floats is exact here, but nothing promises that for other factors.
    return abs(predicted - true) <= 1 + true * 5 // 100


def stated_count(text: str, *, ref_compat: bool = False) -> int | None:
    """The number a text states, or None.

    The text is a bare integer, or it says "a total of N", or "the total number ... is: N"; else it says
    "There are N", or "There are none". The first of these that occurs counts, so that "There are 3 of them
    and a total of 4" states 4.

    Args:
        text: the answer in words.
        ref_compat: read as the reference does: "There are none" and "There are N" state nothing, and "-3" is
            the number -3.
    """
    stripped = text.strip().rstrip(".").strip()
    if ref_compat:
        try:
            return int(stripped)
        except ValueError:
            return _first_number(_TOTAL_OF_REFERENCE, text)
    if re.fullmatch(r"\d+", stripped):
        return _number(stripped)
    for pattern in (_TOTAL, _THERE_ARE):
        if (stated := _first_number(pattern, text)) is not None:
            return stated
    return 0 if _NONE.search(text) else None


def _first_number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return None if found is None else _number(next(group for group in found.groups() if group))


def _number(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MOST_DIGITS else None


def macro_accuracy(correct: Sequence[bool], true: Sequence[int]) -> float:
    """Mean over the true counts that occur of the accuracy on items of that count; NaN without items."""
    groups: dict[int, list[bool]] = {}
    for right, count in zip(correct, true, strict=True):
        groups.setdefault(count, []).append(right)
    shares = [sum(group) / len(group) for group in groups.values()]
    return sum(shares) / len(shares) if shares else float("nan")


def bin_of(count: int, edges: Mapping[str, tuple[int, int]]) -> str | None:
    """Name of the bin [low, high) that a count falls into, or None."""
    return next((name for name, (low, high) in edges.items() if low <= count < high), None)


class PointScores(NamedTuple):
    """Of one answer.

    Attributes:
        precision: hits per point.
        recall: hits per object.
        f1: their harmonic mean.
    """

    precision: float
    recall: float
    f1: float


def assigned_scores(
    points: ArrayLike, objects: ArrayLike, hits: np.ndarray, num_objects: int | None = None
) -> PointScores:
    """Points go to the objects that are nearest in sum; a pair counts if the point lies in the mask of that
    very object.

    The distance decides alone: two points that lie each in the other's nearest object are two misses
    (`max_hit_scores` is free of this). Without objects an empty answer is right in full.

    Args:
        points: (n, d) places of the answer.
        objects: (m, d) places of the objects, in the same space.
        hits: (n, m) bool, whether a point lies in the mask of an object.
        num_objects: what recall divides by; m unless some objects have no place here.

    Source: Molmo2's evaluation; no distance limit, 1.3 of our fact sheet.
    """
    total = hits.shape[1] if num_objects is None else num_objects
    places = np.asarray(points, dtype=np.float64)
    targets = np.asarray(objects, dtype=np.float64)
    wanted = (len(places), len(targets))
    if hits.shape != wanted:
        raise ValueError(
            f"expected hits of shape {wanted}, a row per point and a column per object, got {hits.shape}"
        )
    if not len(places) or not len(targets):
        return _scores(0, len(places), total)
    distance = np.linalg.norm(places[:, None] - targets[None], axis=-1)  # (n, m)
    rows, columns = scipy.optimize.linear_sum_assignment(distance)
    return _scores(int(hits[rows, columns].sum()), len(places), total)


def max_hit_scores(hits: np.ndarray, num_objects: int | None = None) -> PointScores:
    """As `assigned_scores`, but points and objects are matched so that as many pairs as possible are hits."""
    num_points, total = hits.shape
    if num_objects is not None:
        total = num_objects
    rows, columns = scipy.optimize.linear_sum_assignment(hits, maximize=True)
    return _scores(int(hits[rows, columns].sum()), num_points, total)


def _scores(matched: int, num_points: int, num_objects: int) -> PointScores:
    if num_objects == 0:
        perfect = float(num_points == 0)
        return PointScores(perfect, perfect, perfect)
    if matched == 0:
        return PointScores(0.0, 0.0, 0.0)
    precision = matched / num_points
    recall = matched / num_objects
    return PointScores(precision, recall, 2 * precision * recall / (precision + recall))


@dataclass(frozen=True)
class MatchScores:
    """How well the points of one answer fit the targets.

    Attributes:
        matched: points that lie in a target of their own.
        num_points: points of the answer.
        num_targets: targets there are.
    """

    matched: int
    num_points: int
    num_targets: int

    @property
    def precision(self) -> float:
        """Share of the points that match; 1 for an empty answer to a question without targets, 0 for other
        empty answers.
        """
        return self.matched / self.num_points if self.num_points else float(self.num_targets == 0)

    @property
    def recall(self) -> float:
        """Share of the targets that were found; without targets, whether the answer is empty."""
        return self.matched / self.num_targets if self.num_targets else float(self.num_points == 0)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 if there is nothing to find and nothing was found."""
        total = self.num_points + self.num_targets
        return 2 * self.matched / total if total else 1.0

    @property
    def exact_count(self) -> bool:
        """Whether the answer has as many points as there are targets."""
        return self.num_points == self.num_targets


def match_points(xy: ArrayLike, masks: Sequence[np.ndarray]) -> MatchScores:
    """Matches points to masks one to one.

    Args:
        xy: (num_points, 2) x and y in pixels of the picture; points outside of it match nothing.
        masks: one (height, width) boolean array per target.

    Raises:
        ValueError: the points are not pairs, or a mask is not a boolean picture.
    """
    right = right_points(xy, masks)
    return MatchScores(int(right.sum()), len(right), len(masks))


def right_points(xy: ArrayLike, masks: Sequence[np.ndarray]) -> np.ndarray:
    """(num_points,) bool: which points lie in a mask of their own, as many as possible; see `match_points`."""
    places = np.asarray(xy, dtype=np.float64)
    if places.size == 0:
        places = places.reshape(0, 2)
    if places.ndim != 2 or places.shape[1] != 2:
        raise ValueError(
            f"expected points of shape (num_points, 2), got {places.shape}; pass `result.points.xy`"
        )
    for mask in masks:
        if np.ndim(mask) != 2 or np.asarray(mask).dtype != np.bool_:
            raise ValueError(
                f"expected boolean masks of shape (height, width), got {np.asarray(mask).dtype} "
                f"{np.shape(mask)}"
            )
    hits = np.zeros((len(places), len(masks)), dtype=bool)
    for column, mask in enumerate(masks):
        hits[:, column] = points_inside(places, np.asarray(mask))
    return matched_rows(hits)


def matched_rows(hits: np.ndarray) -> np.ndarray:
    """(n,) bool: which of n points have an object of their own, where `hits` (n, m) says which they hit and as
    many as possible shall have one.
    """
    rows, columns = scipy.optimize.linear_sum_assignment(hits, maximize=True)
    right = np.zeros(len(hits), dtype=bool)
    right[rows] = hits[rows, columns]
    return right


def points_inside(xy: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(num_points,) bool: whether each point (num_points, 2), in pixels, lies on a True pixel of (height,
    width).
    """
    height, width = mask.shape
    inside = np.isfinite(xy).all(axis=1) & (xy >= 0).all(axis=1) & (xy[:, 0] < width) & (xy[:, 1] < height)
    cells = np.where(inside[:, None], xy, 0).astype(np.int64)
    return inside & mask[cells[:, 1], cells[:, 0]]


def match_nearby(
    xy: ArrayLike,
    targets: ArrayLike,
    radius: ArrayLike,
    *,
    group: ArrayLike | None = None,
    target_group: ArrayLike | None = None,
) -> MatchScores:
    """Matches points to target points one to one, as many as possible; a point may match a target that is
    near enough.

    Args:
        xy: (num_points, 2) x and y in pixels; points that are not finite match nothing.
        targets: (num_targets, 2) x and y in pixels.
        radius: pixels, largest distance at which a point is right; one number or (num_targets,).
        group: (num_points,) picture or time of each point; only points of the target's group match. None:
            there is one.
        target_group: (num_targets,) the same of each target.

    Raises:
        ValueError: points or targets are not pairs.
    """
    places = _pairs(xy, "points")
    wanted = _pairs(targets, "targets")
    with np.errstate(invalid="ignore"):
        distance = np.linalg.norm(places[:, None] - wanted[None], axis=2)
        hits = distance <= np.broadcast_to(np.asarray(radius, dtype=np.float64), len(wanted))
    if group is not None and target_group is not None:
        hits &= np.isclose(np.reshape(group, (-1, 1)), np.reshape(target_group, (1, -1)))
    rows, columns = scipy.optimize.linear_sum_assignment(hits, maximize=True)
    return MatchScores(int(hits[rows, columns].sum()), len(places), len(wanted))


def _pairs(values: ArrayLike, name: str) -> np.ndarray:
    """(n, 2) float64, also of an empty list."""
    pairs = np.asarray(values, dtype=np.float64)
    if pairs.size == 0:
        pairs = pairs.reshape(0, 2)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"expected {name} of shape (n, 2), got {pairs.shape}; pass `result.points.xy`")
    return pairs
