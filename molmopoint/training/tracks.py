"""Tracks: the points of numbered objects at the times of the frames, and the three things one can ask of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molmopoint.data.record_checks import row_error
from molmopoint.data.records import Record, to_pixels
from molmopoint.processing.track_requests import tagged, written_start
from molmopoint.training.rules import FormattingRules, TrackStyle
from molmopoint.training.tags import tagged_points
from molmopoint.training.templates import draw_from_point_prompt, draw_start_end_prompt, draw_track_prompt
from molmopoint.training.writers import Answer, PointWriter

NO_TRACKS = "No tracks available."
"""Answer to a request for tracks where nothing can be tracked, as released."""

_WRITTEN = 0.05
"""Seconds within which a time is written as another one, with one decimal."""

_FIRST_VISIBLE = 0.8
"""How likely a request for one object shows its first point. Source: the published training."""


@dataclass(frozen=True, eq=False)
class _Track:
    """Points of a record at frame times, n of them, in the order of time.

    Attributes:
        xy: (n, 2) float64 pixels, inside the picture.
        times: (n,) float64 seconds of their frames.
        objects: (n,) int64 numbers of the objects, as written.
    """

    xy: np.ndarray
    times: np.ndarray
    objects: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> _Track:
        return _Track(self.xy[chosen], self.times[chosen], self.objects[chosen])

    def __len__(self) -> int:
        return len(self.objects)

    @property
    def rate(self) -> int | None:
        """Points per second, None where that is no whole number or where no point stands at a multiple of its step.

        The last frame may be nearer than the others.
        """
        steps = np.diff(np.unique(self.times))
        if not steps.size:
            return None
        rate = 1.0 / float(np.median(steps))
        whole = round(rate)
        if not whole or abs(rate - whole) >= 0.05 or not self.on_grid(whole).any():
            return None
        return whole

    def on_grid(self, rate: int) -> np.ndarray:
        """(n,) bool: which points stand at multiples of 1/rate seconds from the start of the clip, as a request for a rate means."""
        return np.abs(self.times - np.rint(self.times * rate) / rate) < _WRITTEN


def format_track(record: Record, label: str, writer: PointWriter, rng: np.random.Generator, rules: FormattingRules) -> tuple[str, Answer]:
    """Request and answer of a row of a track style.

    Objects are numbered by first appearance among the points of the answer. Where the request states a rate, only points at multiples
    of its step, counted from the start of the clip, are answered: "at 1 FPS" means whole seconds, for tracks that begin later too.

    Args:
        record: with a clip and numbered objects, or without points.
        label: what is tracked.
        writer: of the clip.
        rng: draws what is asked, the start of a single object, and the sentence.
        rules: of the recipe.

    Raises:
        ProcessingError: no point is at the time of a frame, or the writer is that of pictures.
    """
    style = _draw_style(record, rng, rules)
    if not record.points:  # with nothing to show, an object can only be asked for by name
        style = "track" if style == "track_from_point" else style
        return _request(record, style, label, None, "", rng, rules), (NO_TRACKS,)
    track = _at_frames(record, writer, rules.track_tolerance)
    query, rate = "", track.rate
    if style == "track_start_end":
        track = track[_ends(track)]
    elif style == "track_from_point":
        start = _draw_start(track, rng)
        query = written_start(track.times[start], track.xy[start], writer.image_sizes[0], label)
        track = track[(track.objects == track.objects[start]) & (track.times > track.times[start])]
    if rate is not None and record.prompt is None and style != "track_start_end":
        track = track[track.on_grid(rate)]
    request = _request(record, style, label, rate, query, rng, rules)
    return request, writer.tracks(track.times, track.xy, track.objects.tolist(), label) if len(track) else (NO_TRACKS,)


def _draw_style(record: Record, rng: np.random.Generator, rules: FormattingRules) -> TrackStyle:
    """The row's style; plain tracks whose request is written by us may be asked for in other ways."""
    if record.style == "track_start_end" or record.style == "track_from_point":
        return record.style
    if record.prompt is not None or len(rules.track_styles) < 2:
        return rules.track_styles[0] if rules.track_styles and record.prompt is None else "track"
    return rules.track_styles[int(rng.integers(len(rules.track_styles)))]


def _request(
    record: Record, style: TrackStyle, label: str, rate: int | None, query: str, rng: np.random.Generator, rules: FormattingRules
) -> str:
    """What is asked, behind its tag where the style has one."""
    if rules.requests == "tags" and style != "track_from_point":
        return tagged_points(record, style, record.prompt or label)
    if style == "track_from_point":
        return tagged(style, draw_from_point_prompt(query, rate, rng))
    if style == "track_start_end":
        return tagged(style, record.prompt or draw_start_end_prompt(label, rng))
    return record.prompt or draw_track_prompt(label, rate, rng)


def _at_frames(record: Record, writer: PointWriter, tolerance: float) -> _Track:
    """The points at the times of frames."""
    if writer.timestamps is None:
        raise row_error(record.row, "video", "the metadata of a clip", "that of pictures", "process the row's clip as a video")
    given = np.array([point.t for point in record.points or ()], dtype=np.float64)
    away = np.abs(writer.timestamps[None] - given[:, None])
    kept = np.flatnonzero(away.min(axis=1) <= tolerance)
    if not kept.size:
        raise row_error(
            record.row,
            "points",
            f"points within {tolerance:g} s of a frame the model sees",
            f"none of {len(given)}; the nearest is {away.min():.3f} s away",
            "annotate at the times of the frames, or raise track_tolerance",
        )
    _, xy = to_pixels(record, writer.image_sizes, clip=True)
    objects = np.array([point.object_id for point in record.points or ()], dtype=np.int64)
    times = writer.timestamps[away.argmin(axis=1)]
    track = _Track(xy, times, objects)
    return track[kept[np.argsort(times[kept], kind="stable")]]


def _ends(track: _Track) -> np.ndarray:
    """Indices of the first and the last point of each object, ascending; an object seen once has one."""
    of_object = [np.flatnonzero(track.objects == number) for number in np.unique(track.objects)]
    return np.unique([index for places in of_object for index in (places[0], places[-1])])


def _draw_start(track: _Track, rng: np.random.Generator) -> int:
    """Index of the point that a request for one object shows: mostly its first one, never its last if there are others."""
    numbers, counts = np.unique(track.objects, return_counts=True)
    followed = numbers[counts > 1] if (counts > 1).any() else numbers
    places = np.flatnonzero(track.objects == followed[int(rng.integers(len(followed)))])
    if rng.random() < _FIRST_VISIBLE:
        return int(places[0])
    return int(places[int(rng.integers(max(len(places) - 1, 1)))])
