"""What people bring as a clip: a file, a folder of pictures, a `Clip` (frames and their times), a list of pictures, an array
(T, height, width, 3) or a tensor (T, 3, height, width).

Frames without times need their rate, because the times are written into the prompt: `video_metadata` with `fps`, and
`frames_indices` if they are a selection already. A `Clip` is taken as it is; of everything else the frames are chosen as the
model was trained.

Letters: T frames of a clip.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from molmopoint.errors import ProcessingError
from molmopoint.processing.pictures import is_picture, load_picture, picture_to_tensor
from molmopoint.video import Clip, SampleMode, open_video, sample_indices, sample_times

FRAMES_AT_ONCE = 16
"""Frames that are decoded and stretched together; more do not run faster and take more memory."""

_PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True)
class FrameRule:
    """Which frames to look at; the fields are the arguments of `molmopoint.video.sample_times`."""

    max_frames: int
    max_fps: float | None
    mode: SampleMode
    sampling_fps: int

    def indices(self, num_frames: int, fps: float) -> np.ndarray:
        """(T,) int64 indices of frames in memory."""
        return sample_indices(num_frames, fps, self.max_frames, self.max_fps, self.mode, sampling_fps=self.sampling_fps)

    def times(self, duration: float, frame_rate: float) -> np.ndarray:
        """(T,) float64 seconds at which to look at a file."""
        return sample_times(duration, self.max_frames, self.max_fps, self.mode, frame_rate=frame_rate, sampling_fps=self.sampling_fps)


@dataclass
class ClipMetadata(VideoMetadata):
    """What is known of one clip after sampling.

    Attributes:
        seconds: (T,) time of each frame that the model sees.
    """

    seconds: list[float] = field(default_factory=list)

    @property
    def timestamps(self) -> list[float]:
        """(T,) seconds, those that the prompt states."""
        return self.seconds


@dataclass(frozen=True)
class SampledClip:
    """The frames to look at, read only when they are needed.

    Attributes:
        count: T.
        read: uint8 (n, 3, height, width) of the frames from a start to a stop.
        device: where to put them; None leaves them on the CPU.
    """

    count: int
    read: Callable[[int, int], torch.Tensor]
    device: Any = None

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Place and frames of each chunk."""
        for start in range(0, self.count, FRAMES_AT_ONCE):
            place = slice(start, min(start + FRAMES_AT_ONCE, self.count))
            yield place, self.read(place.start, place.stop).to(self.device)


def flatten_videos(videos: Any) -> Iterator[Any]:
    """The clips of a nested list; a list of pictures is one clip, a list of paths is a list of clips.

    Raises:
        ProcessingError: something is no clip.
    """
    if isinstance(videos, (str, Path, Clip)) or (isinstance(videos, (np.ndarray, torch.Tensor)) and videos.ndim == 4):
        yield videos
    elif isinstance(videos, (list, tuple)):
        if videos and all(is_picture(frame) for frame in videos):
            yield list(videos)
        else:
            for video in videos:
                yield from flatten_videos(video)
    elif videos is not None:
        shape = f" of shape {tuple(videos.shape)}" if hasattr(videos, "shape") else ""
        raise ProcessingError(
            f"expected a clip (file, folder, Clip, list of pictures, array (frames, height, width, 3)), got {type(videos).__name__}{shape}"
        )


def metadata_per_clip(video_metadata: Any, count: int) -> list[dict[str, Any]]:
    """What the caller knows of each clip, from mappings that may be nested in lists.

    Raises:
        ProcessingError: there are not as many as clips, or they are no mappings.
    """
    if video_metadata is None:
        return [{} for _ in range(count)]
    names = {f.name for f in fields(VideoMetadata)}
    flat = list(_flatten_metadata(video_metadata))
    if len(flat) != count:
        raise ProcessingError(f"expected video_metadata for {count} clips, got {len(flat)}; pass one mapping per clip, in their order")
    return [{name: item[name] for name in names if name in item} for item in flat]


def sample_clip(clip: Any, known: Mapping[str, Any], rule: FrameRule | None) -> tuple[SampledClip, ClipMetadata]:
    """Chooses the frames of one clip.

    Args:
        clip: as `flatten_videos` yields it.
        known: what the caller knows of it, by the names of transformers' VideoMetadata.
        rule: how to choose; None takes frames in memory as they are.

    Raises:
        ProcessingError: the clip cannot be read, or has no frames or no times.
    """
    if isinstance(clip, (str, Path)):
        path = Path(clip)
        return _sample_frames(_pictures_in(path), None, known, rule) if path.is_dir() else _sample_file(path, known, rule)
    if isinstance(clip, Clip):
        return _sample_frames(clip.frames, _seconds(clip.timestamps), known, None)
    return _sample_frames(clip, None, known, rule)


def frame_rate(metadata: VideoMetadata) -> float:
    """Frames a second that frames in memory were taken with.

    Raises:
        ProcessingError: it is not known.
    """
    if metadata.fps is None or not metadata.fps > 0:
        raise ProcessingError(
            f"expected to know when the frames were taken, got a rate of {metadata.fps} frames a second; pass "
            "video_metadata={'fps': ...}, or a Clip with timestamps"
        )
    return float(metadata.fps)


def _sample_file(path: Path, known: Mapping[str, Any], rule: FrameRule | None) -> tuple[SampledClip, ClipMetadata]:
    if rule is None:
        raise ProcessingError(
            f"expected do_sample_frames=True to read {str(path)!r}, got False; a file is read at the times the model was trained on, "
            "so pass num_frames and max_fps, or frames with their times"
        )
    reader = open_video(path)
    times = rule.times(reader.duration, reader.frame_rate)
    metadata = ClipMetadata(
        total_num_frames=round(reader.duration * reader.frame_rate),
        fps=reader.frame_rate,
        duration=reader.duration,
        width=known.get("width") or reader.size[0],
        height=known.get("height") or reader.size[1],
        seconds=times.tolist(),
    )

    def read(start: int, stop: int) -> torch.Tensor:
        return torch.from_numpy(reader.frames_at(times[start:stop])).permute(0, 3, 1, 2)

    return SampledClip(len(times), read), metadata


def _sample_frames(
    frames: Any, timestamps: np.ndarray | None, known: Mapping[str, Any], rule: FrameRule | None
) -> tuple[SampledClip, ClipMetadata]:
    frames = _checked_frames(frames)
    count = len(frames)
    metadata = ClipMetadata(**{"total_num_frames": count, **known})
    keep = np.arange(count)
    if rule is not None:
        keep = rule.indices(count, frame_rate(metadata))
        metadata.frames_indices = keep.tolist()
        timestamps = keep / frame_rate(metadata)
    elif timestamps is None:
        indices = keep if metadata.frames_indices is None else np.asarray(metadata.frames_indices)
        timestamps = indices / frame_rate(metadata)
    if timestamps.shape != keep.shape or not np.isfinite(timestamps).all() or (np.diff(timestamps, prepend=0) < 0).any():
        raise ProcessingError(f"expected one ascending time in seconds, from 0, for each of {len(keep)} frames, got {timestamps.tolist()}")
    first = _frames_to_tensor(frames, keep[:1])
    metadata.seconds = timestamps.tolist()
    metadata.width, metadata.height = metadata.width or first.shape[3], metadata.height or first.shape[2]

    def read(start: int, stop: int) -> torch.Tensor:
        chunk = _frames_to_tensor(frames, keep[start:stop])
        if chunk.shape[2:] != first.shape[2:]:
            raise ProcessingError(_unequal({tuple(first.shape[:1:-1]), tuple(chunk.shape[:1:-1])}))
        return chunk

    return SampledClip(len(keep), read), metadata


def _flatten_metadata(metadata: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(metadata, Mapping):
        yield metadata
    elif isinstance(metadata, (list, tuple)):
        for item in metadata:
            yield from _flatten_metadata(item)
    else:
        raise ProcessingError(f"expected video_metadata as VideoMetadata or dict, got {type(metadata).__name__}")


def _pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder; numbers in names count as numbers, so frame 10 follows frame 9."""
    pictures = [path for path in folder.iterdir() if path.suffix.lower() in _PICTURE_SUFFIXES]
    if not pictures:
        raise ProcessingError(f"expected pictures in the folder {str(folder)!r}, got none of {', '.join(sorted(_PICTURE_SUFFIXES))}")
    return sorted(pictures, key=lambda path: [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)])


def _seconds(timestamps: Any) -> np.ndarray:
    try:
        return np.asarray(timestamps, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ProcessingError(f"expected the time of each frame in seconds, got {timestamps!r:.80}; pass a list of numbers") from error


def _checked_frames(frames: Any) -> Any:
    if not isinstance(frames, (Sequence, np.ndarray, torch.Tensor)) or isinstance(frames, (str, bytes)):
        raise ProcessingError(f"expected a clip (path, array, tensor, or list of frames), got {type(frames).__name__}; make a list of it")
    if isinstance(frames, (np.ndarray, torch.Tensor)) and frames.ndim != 4:
        raise ProcessingError(f"expected frames (T, height, width, 3), or a tensor (T, 3, height, width), got {tuple(frames.shape)}")
    if not len(frames):
        raise ProcessingError("expected at least one frame in a clip, got none; check the video or the list of frames")
    return frames.movedim(3, 1) if isinstance(frames, torch.Tensor) and frames.shape[1] != 3 and frames.shape[3] == 3 else frames


def _frames_to_tensor(frames: Any, indices: np.ndarray) -> torch.Tensor:
    """uint8 (n, 3, height, width) of some frames; all must have one size."""
    read = [picture_to_tensor(load_picture(frames[i]) if isinstance(frames[i], Path) else frames[i]) for i in indices.tolist()]
    if len(shapes := {tuple(frame.shape[:0:-1]) for frame in read}) > 1:
        raise ProcessingError(_unequal(shapes))
    return torch.stack(read)


def _unequal(sizes: set[tuple[int, ...]]) -> str:
    return f"expected frames of one size, got (width, height) {sorted(sizes)}; resize them to the size of the video"
