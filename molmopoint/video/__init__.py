"""Which frames of a video the model sees, and reading exactly those: files, animated pictures, parts of them,
subtitles.
"""

from molmopoint.video.loading import (
    MAX_CLIP_PIXELS,
    check_part,
    end_of_part,
    is_number,
    open_video,
    read_frames,
    read_video,
    until_undamaged,
)
from molmopoint.video.reader import LATEST, MAX_FRAME_PIXELS, Clip, DamagedVideoError, RatedFile, VideoReader
from molmopoint.video.sampling import (
    MAX_FRAMES,
    MAX_RATE_OF_FPS_MODE,
    SampleMode,
    check_frame_count,
    sample_indices,
    sample_times,
)
from molmopoint.video.subtitles import Cue, as_cues, subtitle_text

__all__ = [
    "LATEST",
    "MAX_CLIP_PIXELS",
    "MAX_FRAMES",
    "MAX_FRAME_PIXELS",
    "MAX_RATE_OF_FPS_MODE",
    "Clip",
    "Cue",
    "DamagedVideoError",
    "RatedFile",
    "SampleMode",
    "VideoReader",
    "as_cues",
    "check_frame_count",
    "check_part",
    "end_of_part",
    "is_number",
    "open_video",
    "read_frames",
    "read_video",
    "sample_indices",
    "sample_times",
    "subtitle_text",
    "until_undamaged",
]
