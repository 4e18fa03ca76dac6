"""Folders of frames as clips, as the published reward model reads them: a frame every four seconds, sixteen
at most.

Source: arXiv 2604.10966, public training code.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.errors import ProcessingError
from molmopoint.processing.clips import pictures_in
from molmopoint.video import Clip

FOLDER_FRAMES = 16
"""Frames of a folder at most, unless told otherwise."""

SAMPLING_INTERVAL = 4.0
"""Seconds from one frame of a folder to the next, unless told otherwise."""


def as_clip(video: Any, num_frames: int | None = None, sampling_interval: float | None = None) -> Any:
    """A folder of frames as frames with times; anything else as it is.

    Args:
        video: a clip in any form.
        num_frames: of a folder at most; evenly spread ones are kept, the first and the last among them.
        sampling_interval: seconds from one frame of the folder to the next.

    Raises:
        ProcessingError: the folder has no pictures, or a number is out of range.
    """
    if not isinstance(video, str | Path) or not os.path.isdir(video):  # noqa: PTH112 (names too long for a file are none)
        return video
    interval = SAMPLING_INTERVAL if sampling_interval is None else sampling_interval
    most = FOLDER_FRAMES if num_frames is None else num_frames
    if type(interval) not in (int, float) or not 0 < interval < math.inf:
        raise ProcessingError(f"expected seconds above 0 as sampling_interval, got {interval!r}")
    if type(most) is not int or most < 1:
        raise ProcessingError(f"expected num_frames of 1 or more, got {most!r}")
    pictures = pictures_in(Path(video))
    kept = np.unique(np.linspace(0, len(pictures) - 1, min(most, len(pictures))).round().astype(int))
    return Clip([pictures[place] for place in kept.tolist()], kept * float(interval))
