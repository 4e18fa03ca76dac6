"""Scores of answers about synthetic clips: F1 of points, HOTA of tracks, by kind of question.

A point of a pointing request is right if it lies in the visible mask of a target that no other point was
matched with, at a frame at most `REACH` seconds from the one in which the target is seen first: the published
test of video pointing looks at the three seconds around its moment. `strict_f1` asks for that very frame.
Tracks are scored on all frames by HOTA on points.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from molmopoint.data.clip_questions import ClipQuery
from molmopoint.data.clips import SyntheticClip
from molmopoint.metrics.matching import max_hit_scores, points_inside
from molmopoint.metrics.tracking import TrackedFrame, hota
from molmopoint.points import Points

REACH = 1.5
"""Seconds."""
ORDER = ("all", "colour", "shape", "both", "motion", "nothing there", "trained pairs", "held-out pairs")


def frames_of(clip: SyntheticClip, points: Points) -> np.ndarray:
    """(n,) int64: the frame of each point, from its time."""
    return np.abs(np.asarray(points.group, dtype=np.float64)[:, None] - clip.timestamps).argmin(axis=1)


def score_answer(clip: SyntheticClip, query: ClipQuery, points: Points) -> dict[str, float]:
    """Numbers of one answer: f1, strict_f1 and exact_count, or hota, detection and association."""
    return (
        _score_points(clip, query, points)
        if query.style == "pointing"
        else _score_tracks(clip, query, points)
    )


def table_of_clips(
    scores: Iterable[tuple[ClipQuery, dict[str, float]]],
) -> dict[str, dict[str, dict[str, float]]]:
    """Means by style and group of questions."""
    groups: dict[str, dict[str, list[dict[str, float]]]] = {
        "pointing": defaultdict(list),
        "track": defaultdict(list),
    }
    for query, numbers in scores:
        for name in _groups_of(query):
            groups[query.style][name].append(numbers)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for style, by_name in groups.items():
        table[style] = {name: _means(by_name[name]) for name in ORDER if name in by_name}
    return table


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    means: dict[str, float] = {"questions": len(rows)}
    for key in rows[0]:
        means[key] = float(np.mean([row[key] for row in rows]))
    return means


def _groups_of(query: ClipQuery) -> list[str]:
    names = ["all", query.kind, "held-out pairs" if query.held_out else "trained pairs"]
    return [*names, "nothing there"] if not query.targets else names


def _hits(query: ClipQuery, frame: int, xy: np.ndarray) -> np.ndarray:
    """(n, targets) bool: which points of a frame lie in the visible pixels of which targets."""
    return np.stack([points_inside(xy, target.masks[frame]) for target in query.targets], axis=1)


def _score_points(clip: SyntheticClip, query: ClipQuery, points: Points) -> dict[str, float]:
    frames = frames_of(clip, points)
    hits = np.zeros((len(points), len(query.targets)), dtype=bool)
    if hits.size:
        for i, frame in enumerate(frames.tolist()):
            hits[i] = _hits(query, frame, points.xy[i : i + 1])[0]
    first = np.array([target.visible.argmax() for target in query.targets], dtype=np.int64)
    away = np.abs(clip.timestamps[frames][:, None] - clip.timestamps[first][None])  # (n, targets) seconds
    return {
        "f1": max_hit_scores(hits & (away <= REACH)).f1,
        "strict_f1": max_hit_scores(hits & (away == 0)).f1,
        "exact_count": float(len(points) == len(query.targets)),
    }


def _score_tracks(clip: SyntheticClip, query: ClipQuery, points: Points) -> dict[str, float]:
    frames, moments = frames_of(clip, points), []
    for frame in range(len(clip.timestamps)):
        present = [number for number, target in enumerate(query.targets) if target.visible[frame]]
        chosen = np.flatnonzero(frames == frame)
        _, once = np.unique(points.object_id[chosen], return_index=True)
        chosen = chosen[np.sort(once)]
        similarity = np.zeros((len(present), len(chosen)))
        if similarity.size:
            similarity = _hits(query, frame, points.xy[chosen])[:, present].T.astype(np.float64)
        moments.append(TrackedFrame(present, points.object_id[chosen].tolist(), similarity))
    score = hota(moments)
    return {"hota": score.score, "detection": score.detection, "association": score.association}
