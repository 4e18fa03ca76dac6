"""What people bring as a clip: a file, a folder of pictures, a `Clip` (frames and their times), a list of
pictures, an array (T, height, width, 3) or a tensor (T, 3, height, width).

Frames without times need their rate, because the times are written into the prompt: `video_metadata` with
`fps`, and `frames_indices` if they are a selection already. A `Clip` is taken as it is; of everything else
the frames are chosen as the model was trained.

Letters: T frames of a clip.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from molmopoint.errors import ProcessingError
from molmopoint.files import is_folder
from molmopoint.processing.pictures import is_picture, picture_to_tensor
from molmopoint.video import (
    LATEST,
    Clip,
    SampleMode,
    check_frame_count,
    check_part,
    end_of_part,
    open_video,
    sample_indices,
    sample_times,
)

FRAMES_AT_ONCE = 16
"""Frames that are decoded and stretched together; more do not run faster and take more memory."""

PIXELS_AT_ONCE = 2**25
"""Their pixels, where frames are large: 16 of 1920 x 1080, 4 of 3840 x 2160."""

_PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
_ROUNDING = 1e-6
"""Of a frame, by which a product of seconds and a rate may be off."""


@dataclass(frozen=True)
class FrameRule:
    """Which frames to look at.

    Attributes:
        max_frames, max_fps, mode, sampling_fps: as in `molmopoint.video.sample_times`.
        start, end: seconds of the part to look at; times count from its start. No end means that of the clip.
    """

    max_frames: int
    max_fps: float | None
    mode: SampleMode
    sampling_fps: int
    start: float = 0.0
    end: float | None = None

    def __post_init__(self) -> None:
        check_part(self.start, self.end)

    def indices(self, num_frames: int, fps: float) -> np.ndarray:
        """(T,) int64 indices of frames in memory."""
        return sample_indices(
            num_frames, fps, self.max_frames, self.max_fps, self.mode, sampling_fps=self.sampling_fps
        )

    def times(self, duration: float, frame_rate: float) -> np.ndarray:
        """(T,) float64 seconds at which to look at a file."""
        return sample_times(
            duration,
            self.max_frames,
            self.max_fps,
            self.mode,
            frame_rate=frame_rate,
            sampling_fps=self.sampling_fps,
        )


@dataclass
class ClipMetadata(VideoMetadata):
    """What is known of one clip after sampling.

    Attributes:
        seconds: (T,) time of each frame that the model sees.
        notes: what is wrong with the clip, where a part of it is used all the same.
    """

    seconds: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def timestamps(self) -> list[float]:
        """(T,) seconds, those that the prompt states."""
        return self.seconds


class SampledClip:
    """The chosen frames of one clip, read only when they are needed.

    Args:
        metadata: what is known of the clip.
        shown: how a person can see the frames again: a file, or the T frames themselves.
    """

    def __init__(self, metadata: ClipMetadata, shown: Any) -> None:
        self.metadata, self.shown = metadata, shown
        self.device: Any = None
        """Where to put the frames; None leaves them on the CPU."""

    @property
    def count(self) -> int:
        """T."""
        return len(self.metadata.seconds)

    def read(self, start: int, stop: int) -> torch.Tensor:
        """uint8 (n, 3, height, width) of the frames from a start to a stop."""
        raise NotImplementedError

    def shorten(self) -> bool:
        """Chooses the frames again if the clip turned out to be shorter, and says so; whether it did."""
        return False

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Place and frames of each chunk; large frames come in smaller ones."""
        pixels = (self.metadata.width or 1) * (self.metadata.height or 1)
        at_once = max(1, min(FRAMES_AT_ONCE, PIXELS_AT_ONCE // pixels))
        for start in range(0, self.count, at_once):
            place = slice(start, min(start + at_once, self.count))
            yield place, self.read(place.start, place.stop).to(self.device)


class _FileClip(SampledClip):
    def __init__(self, path: str | Path, known: Mapping[str, Any], rule: FrameRule) -> None:
        self._reader = open_video(path)
        self._rule = rule
        self._name = str(path)
        width, height = self._reader.size
        metadata = ClipMetadata(
            total_num_frames=0,
            fps=self._reader.frame_rate,
            width=known.get("width") or width,
            height=known.get("height") or height,
        )
        super().__init__(metadata, path)
        self._plan()

    def _plan(self) -> None:
        duration = end_of_part(self._reader, self._name, self._rule.start, self._rule.end) - self._rule.start
        times = self._rule.times(duration, self._reader.frame_rate)
        self._times = times + self._rule.start
        self._planned = self._reader.duration
        metadata = self.metadata
        metadata.total_num_frames = round(duration * self._reader.frame_rate)
        metadata.duration = duration
        metadata.seconds = times.tolist()
        metadata.notes = list(self._reader.notes)

    def read(self, start: int, stop: int) -> torch.Tensor:
        frames = self._reader.frames_at(self._times[start:stop])  # (n, height, width, 3)
        self.metadata.notes = list(self._reader.notes)  # some faults turn up only now
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    def shorten(self) -> bool:
        shorter = self._reader.duration < self._planned
        if shorter:
            self._plan()
        return shorter


class _FramesClip(SampledClip):
    def __init__(self, frames: Any, keep: np.ndarray, metadata: ClipMetadata, shown: Any) -> None:
        super().__init__(metadata, shown)
        self._frames, self._keep = frames, keep
        self._shape = frames_to_tensor(frames, keep[:1]).shape[2:]  # height, width
        metadata.width = metadata.width or self._shape[1]
        metadata.height = metadata.height or self._shape[0]

    def read(self, start: int, stop: int) -> torch.Tensor:
        chunk = frames_to_tensor(self._frames, self._keep[start:stop])
        if chunk.shape[2:] != self._shape:
            raise ProcessingError(unequal({tuple(self._shape[::-1]), tuple(chunk.shape[:1:-1])}))
        return chunk


def flatten_videos(videos: Any) -> Iterator[Any]:
    """The clips of a nested list; a list of pictures is one clip, a list of paths is a list of clips.

    Raises:
        ProcessingError: something is no clip.
    """
    if isinstance(videos, (str, Path, Clip, SampledClip)) or (
        isinstance(videos, (np.ndarray, torch.Tensor)) and videos.ndim == 4
    ):
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
            "expected a clip (file, folder, Clip, list of pictures, array (frames, height, width, 3)), got "
            f"{type(videos).__name__}{shape}"
        )


def metadata_per_clip(video_metadata: Any, count: int) -> list[dict[str, Any]]:
    """What the caller knows of each clip, from mappings that may be nested in lists.

    Raises:
        ProcessingError: there are not as many as clips, or they are no mappings.
    """
    if video_metadata is None:
        return [{} for _ in range(count)]
    names = {entry.name for entry in fields(VideoMetadata)}
    flat = list(_flatten_metadata(video_metadata))
    if len(flat) != count:
        raise ProcessingError(
            f"expected video_metadata for {count} clips, got {len(flat)}; pass one mapping per clip, in "
            "their order"
        )
    known = []
    for item in flat:
        known.append({name: item[name] for name in names if name in item})
    return known


def sample_clip(
    clip: Any, known: Mapping[str, Any], rule: FrameRule | None, assumed_rate: float | None = None
) -> SampledClip:
    """Chooses the frames of one clip, and reads none, or one.

    Args:
        clip: as `flatten_videos` yields it.
        known: what the caller knows of it, by the names of transformers' VideoMetadata.
        rule: how to choose; None takes frames in memory as they are.
        assumed_rate: frames a second of frames that are taken as they are and whose times nobody told; a note
            says so.

    Raises:
        ProcessingError: the clip cannot be read, or has no frames or no times.
    """
    if isinstance(clip, SampledClip):
        return clip
    if isinstance(clip, Clip):
        return _sample_frames(clip.frames, as_seconds(clip.timestamps), known, None)
    if not isinstance(clip, (str, Path)):
        return _sample_frames(clip, None, known, rule, assumed_rate)
    if is_folder(Path(clip)):
        return _sample_frames(pictures_in(Path(clip)), None, known, rule, assumed_rate)
    if rule is None:
        raise ProcessingError(
            f"expected do_sample_frames=True to read {str(clip)!r}, got False; a file is read at the times "
            "the model was trained on, "
            "so pass num_frames and max_fps, or frames with their times"
        )
    return _FileClip(clip, known, rule)


def frame_rate(metadata: VideoMetadata) -> float:
    """Frames a second that frames in memory were taken with.

    Raises:
        ProcessingError: it is not known.
    """
    if metadata.fps is None or not metadata.fps > 0:
        raise ProcessingError(
            f"expected to know when the frames were taken, got a rate of {metadata.fps} frames a second; "
            "pass "
            "video_metadata={'fps': ...}, or a Clip with timestamps"
        )
    return float(metadata.fps)


def _sample_frames(
    frames: Any,
    timestamps: np.ndarray | None,
    known: Mapping[str, Any],
    rule: FrameRule | None,
    assumed_rate: float | None = None,
) -> SampledClip:
    frames = checked_frames(frames)
    count = len(frames)
    metadata = ClipMetadata(**{"total_num_frames": count, **known})
    keep = np.arange(count)
    if rule is not None:
        rate = frame_rate(metadata)
        first = rule.start * rate - _ROUNDING
        last = math.inf if rule.end is None else rule.end * rate + _ROUNDING
        inside = keep[(keep >= first) & (keep <= last)]
        if not len(inside):
            raise ProcessingError(
                f"expected a part within 0..{count / rate:g} seconds, got {rule.start:g}..{rule.end}; it "
                "has no frame"
            )
        keep = inside[rule.indices(len(inside), rate)]
        metadata.frames_indices = keep.tolist()
        timestamps = np.maximum(keep / rate - rule.start, 0.0)
    elif timestamps is None:
        if metadata.fps is None and assumed_rate is not None:
            metadata.fps = assumed_rate
            metadata.notes.append(
                f"expected to know when the {count} frames of a clip were taken, got no rate; they are "
                f"taken to be {assumed_rate:g} a "
                "second, as the model looks at clips; pass video_metadata={'fps': ...}, or a Clip with "
                "timestamps"
            )
        indices = keep if metadata.frames_indices is None else np.asarray(metadata.frames_indices)
        timestamps = indices / frame_rate(metadata)
    metadata.seconds = checked_times(timestamps, len(keep)).tolist()
    check_frame_count(len(keep))
    shown = frames
    if len(keep) < count:
        shown = [frames[i] for i in keep.tolist()]
    return _FramesClip(frames, keep, metadata, shown)


def _flatten_metadata(metadata: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(metadata, Mapping):
        yield metadata
    elif isinstance(metadata, (list, tuple)):
        for item in metadata:
            yield from _flatten_metadata(item)
    else:
        raise ProcessingError(
            f"expected video_metadata as VideoMetadata or dict, got {type(metadata).__name__}"
        )


# ---- Frames in memory, and pictures of a folder
def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder; numbers in names count as numbers, so frame 10 follows frame 9.

    Raises:
        ProcessingError: there are none.
    """
    pictures = [path for path in folder.iterdir() if path.suffix.lower() in _PICTURE_SUFFIXES]
    if not pictures:
        raise ProcessingError(
            f"expected pictures in the folder {str(folder)!r}, got none of "
            f"{', '.join(sorted(_PICTURE_SUFFIXES))}"
        )
    return sorted(pictures, key=_number_aware)


def _number_aware(path: Path) -> list[tuple[int, str]]:
    """A sort key of a name in which digits are one number."""
    key: list[tuple[int, str]] = []
    for part in re.split(r"(\d+)", path.name):
        key.append((int(part), "") if part.isdigit() else (-1, part))
    return key


def as_seconds(timestamps: Any) -> np.ndarray:
    """(T,) float64 seconds, whatever they are.

    Raises:
        ProcessingError: they are no numbers.
    """
    try:
        return np.asarray(timestamps, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        got = type(timestamps).__name__
        raise ProcessingError(
            f"expected the time of each frame in seconds, got {got} ({error}); pass a list of numbers"
        ) from error


def checked_times(timestamps: np.ndarray, count: int) -> np.ndarray:
    """The times of some frames, if there is one for each and they ascend.

    Raises:
        ProcessingError: they do not.
    """
    fits = timestamps.shape == (count,) and np.isfinite(timestamps).all() and (timestamps <= LATEST).all()
    if not fits or (np.diff(timestamps, prepend=0) < 0).any():
        got = np.array2string(timestamps, threshold=20, separator=", ")
        raise ProcessingError(
            f"expected one ascending time in seconds, from 0, for each of {count} frames, up to {LATEST:g} "
            f"s, got {got}"
        )
    return timestamps


def checked_frames(frames: Any) -> Any:
    """Frames that can be counted and indexed: arrays as (T, height, width, 3), tensors as (T, 3, height,
    width).

    Either may come in the other order, as long as no other reading is possible.

    Raises:
        ProcessingError: they are no frames, or none.
    """
    if not isinstance(frames, (Sequence, np.ndarray, torch.Tensor)) or isinstance(frames, (str, bytes)):
        raise ProcessingError(
            f"expected a clip (path, array, tensor, or list of frames), got {type(frames).__name__}; make a "
            "list of it"
        )
    if isinstance(frames, (np.ndarray, torch.Tensor)) and frames.ndim != 4:
        raise ProcessingError(
            "expected frames (T, height, width, 3), or a tensor (T, 3, height, width), got "
            f"{tuple(frames.shape)}"
        )
    if not len(frames):
        raise ProcessingError(
            "expected at least one frame in a clip, got none; check the video or the list of frames"
        )
    if isinstance(frames, torch.Tensor) and frames.shape[1] != 3 and frames.shape[3] == 3:
        return frames.movedim(3, 1)
    if isinstance(frames, np.ndarray) and frames.shape[1] == 3 and frames.shape[3] not in (1, 3, 4):
        return np.moveaxis(frames, 1, 3)
    return frames


def frames_to_tensor(frames: Any, indices: np.ndarray) -> torch.Tensor:
    """uint8 (n, 3, height, width) of some frames.

    Raises:
        ProcessingError: they differ in size, or one cannot be read.
    """
    read = []
    for i in indices.tolist():
        read.append(picture_to_tensor(frames[i]))
    sizes = {tuple(frame.shape[:0:-1]) for frame in read}  # (width, height)
    if len(sizes) > 1:
        raise ProcessingError(unequal(sizes))
    return torch.stack(read)


def unequal(sizes: set[tuple[int, ...]]) -> str:
    """The message for frames of several sizes."""
    return f"expected frames of one size, got (width, height) {sorted(sizes)}; resize them to the size of the video"
