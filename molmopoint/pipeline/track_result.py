"""What a request to track returns.

Tracks on a clip: an annotated video, and a contact sheet.

Letters: T frames.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from molmopoint import sheets
from molmopoint.backends.media import DisplayedMedia
from molmopoint.backends.result import PointingResult
from molmopoint.drawing import colour_of, draw_points, largest_radius, marker_radius
from molmopoint.errors import ProcessingError
from molmopoint.pipeline.video_writing import check_video_path, write_video
from molmopoint.points import Point
from molmopoint.processing.pictures import load_picture
from molmopoint.sheets import Caption
from molmopoint.tracks import TrackPoint, Tracks
from molmopoint.video import open_video

if TYPE_CHECKING:
    from molmopoint.segmentation import Masks, Segmenter

_READ_AT_ONCE = 16
_HIDDEN_RADIUS = 0.6
"""Radius of the marker of an object that is out of sight, as a part of the usual one."""

_LARGER = 1.5
"""How much larger markers are on the small pictures of a sheet."""


def draw_video(
    displayed: DisplayedMedia,
    tracks: Tracks,
    path: str | os.PathLike[str],
    *,
    trail: float,
    numbers: bool,
    max_gap: float | None,
) -> None:
    """Writes an annotated video; see `TrackingResult.draw`."""
    target = check_video_path(path)
    _check_trail(trail)
    times, rate = _frame_times(displayed)
    places = _Places(tracks, times, trail, max_gap)
    frames = (places.draw(frame, i, numbers=numbers) for i, frame in enumerate(_frames(displayed, times)))
    write_video(frames, rate, target)


def draw_sheet(
    displayed: DisplayedMedia,
    tracks: Tracks,
    title: str,
    *,
    cells: int,
    columns: int,
    width: int,
    trail: float,
) -> Image.Image:
    """One picture of evenly spaced moments; see `TrackingResult.contact_sheet`."""
    for name, value in (("cells", cells), ("columns", columns), ("width", width)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ProcessingError(f"expected {name} to be a whole number of 1 or more, got {value!r}")
    _check_trail(trail)
    times = np.asarray(displayed.timestamps, dtype=np.float64)  # (T,)
    evenly = np.linspace(0, len(times) - 1, min(cells, len(times)))
    chosen = np.unique(evenly.round().astype(np.int64))
    frames = [load_picture(frame) for frame in _frames(displayed, times[chosen], chosen)]

    # Small first, then drawn on: markers keep their size and stay sharp.
    full_width, full_height = frames[0].size
    height = max(1, round(width * full_height / full_width))
    scaled = replace(tracks, x=tracks.x * (width / full_width), y=tracks.y * (height / full_height))
    places = _Places(scaled, times, trail, None)
    pictures, captions = [], []
    for i, frame in zip(chosen.tolist(), frames, strict=True):
        small = frame.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        pictures.append(places.draw(small, i, larger=_LARGER))
        captions.append([Caption(f"{times[i]:.1f} s")])
    return sheets.draw_sheet(pictures, captions, title, columns=columns, gap=10)


class _Places:
    """Where everything is at the times of frames.

    Args:
        tracks: of the clip.
        times: (T,) seconds of the frames, ascending.
        trail: seconds of the trails.
        max_gap: seconds without a point beyond which an object is not drawn.
    """

    def __init__(self, tracks: Tracks, times: np.ndarray, trail: float, max_gap: float | None) -> None:
        # The points themselves belong to the trails, also where no frame is at their time.
        filled = tracks.interpolated(times=np.union1d(times, tracks.time), max_gap=max_gap)
        self._times, self._trail = times, trail
        self._max_gap = max_gap
        self._lines = list(filled)
        self._here: dict[float, tuple[TrackPoint, ...]] = dict(filled.by_moment())

    def draw(self, frame: Any, i: int, *, numbers: bool = True, larger: float = 1.0) -> Image.Image:
        """Frame `i` with trails below markers, which may be larger than usual."""
        picture = load_picture(frame).convert("RGB")
        time = float(self._times[i])
        points = self._here.get(time, ())
        radius = min(larger * marker_radius(picture.size, len(points)), largest_radius(picture.size))
        pen = ImageDraw.Draw(picture)
        for track in self._lines:
            self._draw_trail(pen, track.time, track.xy, time, colour_of(track.object_id), radius)
        hidden, shown = (
            [Point(p.object_id, p.time, p.x, p.y) for p in points if p.visible is seen]
            for seen in (False, True)
        )
        picture = draw_points(picture, hidden, numbers=False, radius=max(2.0, radius * _HIDDEN_RADIUS))
        return draw_points(picture, shown, numbers=numbers, radius=radius)

    def _draw_trail(
        self,
        pen: ImageDraw.ImageDraw,
        seconds: np.ndarray,
        xy: np.ndarray,
        time: float,
        colour: tuple[int, int, int],
        radius: float,
    ) -> None:
        part = slice(*np.searchsorted(seconds, [time - self._trail, time + 1e-6]))
        if not (part.stop < len(seconds) or time - seconds[-1] <= self._trail):
            return
        breaks = (
            []
            if self._max_gap is None
            else (np.flatnonzero(np.diff(seconds[part]) > self._max_gap + 1e-6) + 1).tolist()
        )
        for piece in np.split(xy[part], breaks):
            line = [tuple(place) for place in piece.tolist()]
            if len(line) > 1:
                pen.line(line, fill=(255, 255, 255), width=max(3, round(radius * 0.7)), joint="curve")
                pen.line(line, fill=colour, width=max(1, round(radius * 0.4)), joint="curve")


def _frame_times(displayed: DisplayedMedia) -> tuple[np.ndarray, float]:
    """(T,) times of all frames that are drawn, and frames per second of the drawing."""
    if isinstance(displayed.clip, (str, Path)):
        reader = open_video(displayed.clip)
        end = reader.duration if displayed.end is None else min(displayed.end, reader.duration)
        count = max(1, round((end - displayed.start) * reader.frame_rate))
        return np.arange(count) / reader.frame_rate, reader.frame_rate
    times = np.asarray(displayed.timestamps, dtype=np.float64)
    steps = np.diff(times)
    return times, 1 / max(float(np.median(steps)), 1e-3) if len(steps) else 1.0


def _frames(
    displayed: DisplayedMedia, times: np.ndarray, chosen: Sequence[int] | np.ndarray | None = None
) -> Iterator[Any]:
    """The frames at given times: of a file some at a time, of frames in memory those with the chosen numbers,
    or all.
    """
    if isinstance(displayed.clip, (str, Path)):
        reader = open_video(displayed.clip)
        for start in range(0, len(times), _READ_AT_ONCE):
            yield from reader.frames_at(displayed.start + times[start : start + _READ_AT_ONCE])
        return
    clip: Any = displayed.clip
    for i in range(len(times)) if chosen is None else chosen:
        yield clip[int(i)]


def _check_trail(trail: float) -> None:
    if (
        isinstance(trail, bool)
        or not isinstance(trail, (int, float))
        or not (math.isfinite(trail) and trail >= 0)
    ):
        raise ProcessingError(f"expected trail to be 0 or more seconds, got {trail!r}")


@dataclass(frozen=True, eq=False)
class TrackingResult:
    """The answer to one request to track. An answer without tracks is a valid result.

    Attributes:
        tracks: where the objects are, in pixels of the displayed video; filled in between if that was asked
            for.
        text: the answer in words, one line per window of the clip; a list of tracks reads as its label.
        raw_text: the answer as generated, with `<POINT_n>` tokens, one line per window.
        prompt: the request as it was sent, with every window.
        truncated: a limit of tokens or time cut the answer; `tracks` holds the points that were complete.
        invalid: triples that name no place of the clip.
        size: (width, height) of the displayed video.
        answers: what the model said of each window, times counted from its start; one entry where the clip
            was seen as a whole.
        displayed: the clip, for drawing.
        notes: what was wrong with the clip, where a part of it was used all the same.
    """

    tracks: Tracks
    text: str
    raw_text: str
    prompt: str
    truncated: bool
    invalid: int
    size: tuple[int, int]
    answers: tuple[PointingResult, ...] = field(repr=False)
    displayed: DisplayedMedia = field(repr=False)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        notes = ", truncated" * self.truncated + (f", {self.invalid} invalid" if self.invalid else "")
        return f"TrackingResult({self.tracks!r}{notes}, prompt={self.prompt!r})"

    def __len__(self) -> int:
        return len(self.tracks)

    def draw(
        self,
        path: str | os.PathLike[str],
        *,
        trail: float = 1.0,
        numbers: bool = True,
        max_gap: float | None = None,
    ) -> None:
        """Writes the clip as a video with a numbered marker per object and a trail behind it; needs PyAV.

        An object has one colour throughout. Between its points the marker moves on a straight line; where the
        object was looked for and not found it is small and has no number.

        Args:
            path: .mp4, .mov, .mkv or .avi; H.264 where PyAV has it, else MPEG-4.
            trail: seconds of the trail.
            numbers: write the numbers of objects into the markers.
            max_gap: seconds without a point beyond which nothing is drawn; None for no limit.

        Raises:
            ProcessingError: PyAV is missing, the ending is another, or a number is out of range.
        """
        draw_video(self.displayed, self.tracks, path, trail=trail, numbers=numbers, max_gap=max_gap)

    def contact_sheet(
        self, *, cells: int = 12, columns: int = 4, width: int = 320, trail: float = 1.0
    ) -> Image.Image:
        """One picture of the clip at evenly spaced moments with the objects drawn in.

        Args:
            cells: most moments shown.
            columns: side by side.
            width: of a frame in pixels.
            trail: seconds of the trails.

        Raises:
            ProcessingError: a number is out of range.
        """
        return draw_sheet(
            self.displayed, self.tracks, self.prompt, cells=cells, columns=columns, width=width, trail=trail
        )

    def masks(
        self, segmenter: Segmenter, *, negative_others: bool = False, fps: float | None = None
    ) -> Masks:
        """Outlines: one mask per object and frame; every point in sight is a click.

        Args:
            segmenter: what `molmopoint.load_segmenter` returned.
            negative_others: points of the nearest other objects of the same frame say "not here".
            fps: for a file, frames per second to draw on; more are easier to follow. By default the frames
                the model saw, and then an object has one click at most in a frame, the nearest in time.

        Raises:
            ProcessingError: `fps` is not for this clip, or the segmenter is something else.
            CheckpointError: the segmenter is for pictures only.
        """
        from molmopoint.segmentation.segmenter import check_segmenter

        check_segmenter(segmenter)
        clicks = self.tracks.where(self.tracks.visible)
        if fps is None:
            clicks = _one_per_frame(clicks, np.asarray(self.displayed.timestamps, dtype=np.float64))
        return self.displayed.follow(segmenter, clicks.to_points(), fps, negative_others=negative_others)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, ready for JSON."""
        return {
            "prompt": self.prompt,
            "text": self.text,
            "truncated": self.truncated,
            "invalid": self.invalid,
            "notes": list(self.notes),
            "windows": len(self.answers),
            "tracks": self.tracks.to_dict(),
        }


def _one_per_frame(tracks: Tracks, times: np.ndarray) -> Tracks:
    """Of the points that are nearest to one of (T,) frames, the nearest of each object: filled-in points lie
    between frames, too.
    """
    distance = np.abs(tracks.time[:, None] - times)
    frame = distance.argmin(axis=1)
    order = np.lexsort((distance.min(axis=1), frame, tracks.object_id))
    pairs = np.stack([tracks.object_id, frame], axis=1)[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    keep = np.zeros(len(order), dtype=bool)
    keep[order[is_first]] = True
    return tracks.where(keep)
