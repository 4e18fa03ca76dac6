"""How models are asked to track: the published tags, and the point that one object is followed from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from molmopoint.processing.text_coordinates import text_points

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
