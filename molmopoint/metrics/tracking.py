"""Tracks of points against the masks of moving objects: point scores and HOTA of one answer.

HOTA says how well objects are found and kept apart over time. A point is in an object's mask or it is not, so
every localisation threshold gives the same number and one is enough. Source: Luiten et al., "HOTA: A Higher
Order Metric for Evaluating Multi-Object Tracking" (IJCV 2020), the two-pass procedure.

Letters: n points of an answer, m objects of a frame, T tracks of the truth, P of the answer. Frames are
counted from 0 at the start of the clip.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported when they are used

from molmopoint.metrics.matching import PointScores, assigned_scores, max_hit_scores
from molmopoint.metrics.run_lengths import MaskIndex


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """One moment: who is there, who is said to be there, and which points lie in which masks.

    Attributes:
        true_ids: of the objects, each once.
        predicted_ids: of the points, each once.
        similarity: (objects, points), 1 where the point lies in the object's mask, else 0.
    """

    true_ids: Sequence[Hashable]
    predicted_ids: Sequence[Hashable]
    similarity: np.ndarray


@dataclass(frozen=True)
class Hota:
    """Attributes:
    score: geometric mean of detection and association.
    detection: DetA, true positives per true positive, miss and false positive.
    association: AssA, how well ids are kept, over the true positives.
    """

    score: float
    detection: float
    association: float


def hota(frames: Iterable[TrackedFrame], alpha: float = 0.5) -> Hota:
    """HOTA of one sequence.

    Args:
        frames: of the sequence; a frame where nobody is and nobody is predicted changes nothing.
        alpha: least similarity of a match.

    Returns:
        All 1 if there is nothing to track and nothing was predicted; all 0 if there is only one of both.

    Raises:
        ValueError: an id occurs twice in a frame, or a similarity matrix has another shape than its ids.
    """
    moments = list(frames)
    true: dict[Hashable, int] = {}
    predicted: dict[Hashable, int] = {}
    for frame in moments:
        _number(frame.true_ids, true)
        _number(frame.predicted_ids, predicted)
    if not true or not predicted:
        perfect = float(not true and not predicted)
        return Hota(perfect, perfect, perfect)

    # First pass: how much two tracks are together over the whole clip.
    indexed = []
    true_counts = np.zeros(len(true))  # (T,)
    predicted_counts = np.zeros(len(predicted))  # (P,)
    together = np.zeros((len(true), len(predicted)))  # (T, P)
    for frame in moments:
        rows = _index(frame.true_ids, true)
        columns = _index(frame.predicted_ids, predicted)
        similarity = _checked(frame)  # (m, n)
        indexed.append((rows, columns, similarity))
        true_counts[rows] += 1
        predicted_counts[columns] += 1
        union = similarity.sum(axis=1, keepdims=True) + similarity.sum(axis=0, keepdims=True) - similarity
        share = np.divide(similarity, union, out=np.zeros_like(similarity), where=union > _EPSILON)
        together[np.ix_(rows, columns)] += share
    counts = true_counts[:, None] + predicted_counts[None]  # (T, P)
    alignment = together / (counts - together)

    # Second pass: in every frame, points go to the objects that their tracks go with.
    matches = np.zeros_like(together)
    for rows, columns, similarity in indexed:
        worth = alignment[np.ix_(rows, columns)] * similarity
        objects, points = scipy.optimize.linear_sum_assignment(worth, maximize=True)
        is_match = similarity[objects, points] >= alpha - _EPSILON
        matches[rows[objects[is_match]], columns[points[is_match]]] += 1

    hits = matches.sum()
    detection = hits / (true_counts.sum() + predicted_counts.sum() - hits)
    association = (matches * matches / (counts - matches)).sum() / max(1.0, hits)
    return Hota(math.sqrt(detection * association), float(detection), float(association))


def _number(ids: Iterable[Hashable], numbers: dict[Hashable, int]) -> None:
    """Gives every new id the next number."""
    for each in ids:
        numbers.setdefault(each, len(numbers))


def _index(ids: Sequence[Hashable], numbers: dict[Hashable, int]) -> np.ndarray:
    index = np.array([numbers[each] for each in ids], dtype=np.int64)
    if len(np.unique(index)) != len(index):
        raise ValueError(
            f"expected every id once in a frame, got {list(ids)}; keep one point per object and time"
        )
    return index


def _checked(frame: TrackedFrame) -> np.ndarray:
    similarity = np.asarray(frame.similarity, dtype=np.float64)
    wanted = (len(frame.true_ids), len(frame.predicted_ids))
    if similarity.shape != wanted:
        raise ValueError(
            f"expected similarities of shape {wanted}, objects by points, got {similarity.shape}"
        )
    return similarity


_EPSILON = np.finfo(float).eps

NO_ID = -1
"""Object id of a point to which the model gave none."""
_REACH = 0.25
"""Part of a step. Frames seen twice per step are no farther from the moments asked for."""
_NO_MASK = -1


@dataclass(frozen=True, eq=False)
class TrueFrame:
    """The objects in one frame; there may be none.

    Attributes:
        ids: of the objects that are there, each once, in the order in which the data lists them.
        xy: (m, 2) their places, in pixels of the video.
        masks: number of the mask of every object of the question, in the stored order; -1 where it has none
            in this frame.
    """

    ids: tuple[str, ...]
    xy: np.ndarray
    masks: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class TrueTracks:
    """What there is to track.

    Attributes:
        index: of masks; one of another size than the video is looked up at the same relative place.
        size: (width, height) of the video.
        fps: its frames per second.
        rate: answers per second that were asked for.
        frames: by number, those that are scored; in one without objects an answer without points is right.
        num_frames: of the clip; None where the data does not say.
        reference_frames: by number, those that the reference scores; None if they are the same.
        objects: all objects of the question in the order of the data, which is that of the reference's ids;
            empty for that of the masks.
    """

    index: MaskIndex
    size: tuple[int, int]
    fps: float
    rate: float
    frames: Mapping[int, TrueFrame]
    num_frames: int | None = None
    reference_frames: Mapping[int, TrueFrame] | None = None
    objects: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PredictedTracks:
    """The points of an answer by frame.

    Attributes:
        xy: (n, 2) pixels of the video.
        frame: (n,) int64.
        object_id: (n,) int64, -1 where the model gave none.
    """

    xy: np.ndarray
    frame: np.ndarray
    object_id: np.ndarray


@dataclass(frozen=True)
class TrackScores:
    """Attributes:
    points: mean over frames.
    max_hit: the same with points and objects matched by masks instead of distance.
    hota: of the whole clip.
    """

    points: PointScores
    max_hit: PointScores
    hota: Hota


def at_frames(xy: np.ndarray, seconds: np.ndarray, object_id: np.ndarray, fps: float) -> PredictedTracks:
    """Every point at the frame nearest to its time, wanted there or not.

    Args:
        xy: (n, 2) pixels.
        seconds: (n,) from the start of the clip.
        object_id: (n,).
        fps: frames per second of the clip.
    """
    return _one_per_object(xy, np.rint(seconds * fps).astype(np.int64), object_id)


def on_grid(xy: np.ndarray, seconds: np.ndarray, object_id: np.ndarray, truth: TrueTracks) -> PredictedTracks:
    """Points at the moments that were asked for: every 1/rate seconds, counted from the start of the clip.

    Each moment gets the points of the one time in the answer that is nearest, if it is less than a quarter of
    a step away. All
    other points are left out: a model may answer more often than it was asked to.

    Args:
        xy: (n, 2) pixels.
        seconds: (n,) from the start of the clip.
        object_id: (n,).
        truth: tells rate, frames and end of the clip.
    """
    offset = grid_offset(truth.frames, truth.fps, truth.rate)
    steps = (seconds - offset) * truth.rate
    moment = np.rint(steps)
    away = np.abs(steps - moment)
    frame = np.rint((moment / truth.rate + offset) * truth.fps).astype(np.int64)
    end = truth.num_frames or np.iinfo(np.int64).max
    kept = (away < _REACH) & (frame >= 0) & (frame < end)
    nearest: dict[int, float] = {}
    # Of two times that are equally near the earlier one is taken.
    for i in np.lexsort((seconds, np.round(away, 6))):
        if kept[i]:
            kept[i] = seconds[i] == nearest.setdefault(int(frame[i]), float(seconds[i]))
    return _one_per_object(xy[kept], frame[kept], object_id[kept])


def grid_offset(frames: Collection[int], fps: float, rate: float) -> float:
    """Seconds by which the moments asked for are later than multiples of 1/rate.

    None, unless no frame at all is at such a multiple: then data was annotated out of step, and its first
    frame leads.
    """
    if not frames or any(is_on_grid(frame, fps, rate) for frame in frames):
        return 0.0
    return (min(frames) / fps) % (1 / rate)


def is_on_grid(frame: int, fps: float, rate: float) -> bool:
    """Whether a frame is the one at a multiple of 1/rate seconds from the start of the clip."""
    steps = round(frame / fps * rate)
    return round(steps * fps / rate) == frame


def is_on_reference_grid(frame: int, fps: float, rate: float) -> bool:
    """Whether the reference takes a frame to be at a moment asked for: it counts whole frames, which drifts
    from the seconds.

    At 29.97 frames per second and one answer a second: 0, 29, 58, 87, 116.
    """
    return frame % max(fps // rate, 1) == 0


def track_scores(truth: TrueTracks, predicted: PredictedTracks, *, ref_compat: bool = False) -> TrackScores:
    """Scores of an answer over all frames that have objects or points.

    A frame with only one of both scores 0. Where there is nothing to track, in a frame or at all, an answer
    without points is right.

    Args:
        truth: of the question.
        predicted: of the answer.
        ref_compat: score the reference's frames, pair the objects of a frame with masks by their place in the
            two lists instead of their ids, and divide recall by all objects of the question.
    """
    frames = truth.frames
    if ref_compat and truth.reference_frames is not None:
        frames = truth.reference_frames
    numbers = sorted(frames.keys() | set(predicted.frame.tolist()))
    if not numbers:
        perfect = PointScores(1.0, 1.0, 1.0)
        return TrackScores(perfect, perfect, hota([]))
    nearest, max_hit, tracked = [], [], []
    for number in numbers:
        here = predicted.frame == number
        xy = predicted.xy[here]
        ids = _track_names(predicted.object_id[here])
        frame = frames.get(number)
        if frame is None or not frame.ids:
            share = float(not len(xy))
            scores = PointScores(share, share, share)
            nearest.append(scores)
            max_hit.append(scores)
            tracked.append(TrackedFrame((), ids, np.zeros((0, len(ids)))))
            continue
        hits = _hits(truth, frame, xy, _masks_of(frame, frame.ids, by_place=ref_compat))
        total = len(frame.masks) if ref_compat else None
        nearest.append(assigned_scores(xy, frame.xy, hits, total))
        max_hit.append(max_hit_scores(hits, total))
        order = frame.ids
        if ref_compat:
            # The reference numbers the objects of a question in order, and pairs those that are there with
            # the masks as stored.
            order = tuple(each for each in truth.objects or frame.masks if each in frame.ids)
        similarity = _hits(truth, frame, xy, _masks_of(frame, order, by_place=ref_compat)).T
        tracked.append(TrackedFrame(order, ids, similarity.astype(np.float64)))
    return TrackScores(_mean(nearest), _mean(max_hit), hota(tracked))


def _masks_of(frame: TrueFrame, ids: Sequence[str], *, by_place: bool) -> np.ndarray:
    """(m,) number of the mask of each object."""
    numbers = [frame.masks.get(each, _NO_MASK) for each in ids]
    if by_place:
        numbers = list(frame.masks.values())[: len(ids)]
    return np.array(numbers, dtype=np.int64)


def _hits(truth: TrueTracks, frame: TrueFrame, xy: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(n, m) bool: which points lie in which masks."""
    readable = np.flatnonzero(masks != _NO_MASK)
    hits = np.zeros((len(xy), len(masks)), dtype=bool)
    if not len(readable) or not len(xy):
        return hits
    numbers = np.tile(masks[readable], len(xy))
    places = np.repeat(xy, len(readable), axis=0)
    hits[:, readable] = truth.index.contains_resized(numbers, places, truth.size).reshape(
        len(xy), len(readable)
    )
    return hits


def _one_per_object(xy: np.ndarray, frame: np.ndarray, object_id: np.ndarray) -> PredictedTracks:
    """Of several points of one object in a frame the first one; points without an id are all kept."""
    seen: set[tuple[int, int]] = set()
    kept = np.ones(len(xy), dtype=bool)
    for i, (number, name) in enumerate(zip(frame.tolist(), object_id.tolist(), strict=True)):
        kept[i] = name == NO_ID or (number, name) not in seen
        seen.add((number, name))
    return PredictedTracks(xy[kept], frame[kept], object_id[kept])


def _track_names(object_id: np.ndarray) -> list[Hashable]:
    """A track per id; points without one are followed by their turn in the frame, which is right for a single
    object.
    """
    names: list[Hashable] = []
    for each in object_id.tolist():
        names.append(each if each != NO_ID else ("without an id", len(names)))
    return names


def _mean(scores: Sequence[PointScores]) -> PointScores:
    return PointScores(*(float(value) for value in np.mean(scores, axis=0)))
