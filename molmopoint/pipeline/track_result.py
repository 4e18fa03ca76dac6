"""What a request to track returns."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from molmopoint.pipeline.result import PointingResult
from molmopoint.pipeline.track_drawing import draw_sheet, draw_video
from molmopoint.pipeline.visual import Displayed
from molmopoint.segmentation import Masks, Segmenter
from molmopoint.segmentation.segmenter import check_segmenter
from molmopoint.tracks import Tracks


@dataclass(frozen=True, eq=False)
class TrackingResult:
    """The answer to one request to track. An answer without tracks is a valid result.

    Attributes:
        tracks: where the objects are, in pixels of the displayed video; filled in between if that was asked for.
        text: the answer in words, one line per window of the clip; a list of tracks reads as its label.
        raw_text: the answer as generated, with `<POINT_n>` tokens, one line per window.
        prompt: the request as it was sent, with every window.
        truncated: a limit of tokens or time cut the answer; `tracks` holds the points that were complete.
        invalid: triples that name no place of the clip.
        size: (width, height) of the displayed video.
        answers: what the model said of each window, times counted from its start; one entry where the clip was seen as a whole.
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
    displayed: Displayed = field(repr=False)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        notes = ", truncated" * self.truncated + (f", {self.invalid} invalid" if self.invalid else "")
        return f"TrackingResult({self.tracks!r}{notes}, prompt={self.prompt!r})"

    def __len__(self) -> int:
        return len(self.tracks)

    def draw(self, path: str | os.PathLike[str], *, trail: float = 1.0, numbers: bool = True, max_gap: float | None = None) -> None:
        """Writes the clip as a video with a numbered marker per object and a trail behind it; needs PyAV.

        An object has one colour throughout. Between its points the marker moves on a straight line; where the object was looked
        for and not found it is small and has no number.

        Args:
            path: .mp4, .mov, .mkv or .avi; H.264 where PyAV has it, else MPEG-4.
            trail: seconds of the trail.
            numbers: write the numbers of objects into the markers.
            max_gap: seconds without a point beyond which nothing is drawn; None for no limit.

        Raises:
            ProcessingError: PyAV is missing, the ending is another, or a number is out of range.
        """
        draw_video(self.displayed, self.tracks, path, trail=trail, numbers=numbers, max_gap=max_gap)

    def contact_sheet(self, *, cells: int = 12, columns: int = 4, width: int = 320, trail: float = 1.0) -> Image.Image:
        """One picture of the clip at evenly spaced moments with the objects drawn in.

        Args:
            cells: most moments shown.
            columns: side by side.
            width: of a frame in pixels.
            trail: seconds of the trails.

        Raises:
            ProcessingError: a number is out of range.
        """
        return draw_sheet(self.displayed, self.tracks, self.prompt, cells=cells, columns=columns, width=width, trail=trail)

    def masks(self, segmenter: Segmenter, *, negative_others: bool = False, fps: float | None = None) -> Masks:
        """Outlines: one mask per object and frame; every point in sight is a click.

        Args:
            segmenter: what `molmopoint.load_segmenter` returned.
            negative_others: points of the nearest other objects of the same frame say "not here".
            fps: for a file, frames per second to draw on; more are easier to follow. By default the frames the model saw, and then
                an object has one click at most in a frame, the nearest in time.

        Raises:
            ProcessingError: `fps` is not for this clip, or the segmenter is something else.
            CheckpointError: the segmenter is for pictures only.
        """
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
    """Of the points that are nearest to one of (T,) frames, the nearest of each object: filled-in points lie between frames, too."""
    distance = np.abs(tracks.time[:, None] - times)
    frame = distance.argmin(axis=1)
    order = np.lexsort((distance.min(axis=1), frame, tracks.object_id))
    pairs = np.stack([tracks.object_id, frame], axis=1)[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    keep = np.zeros(len(order), dtype=bool)
    keep[order[is_first]] = True
    return tracks.where(keep)
