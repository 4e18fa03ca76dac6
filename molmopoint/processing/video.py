"""Clips to frames of ViT patches: one crop per frame, no tiling, no global crop.

A clip is a video file, a folder of pictures, a `Clip` (frames and their times), a list of pictures, an array
(T, height, width, 3) or a tensor (T, 3, height, width). Frames without times need their rate (`video_metadata`), because the
times are written into the prompt.

Letters: T frames of a clip, N frames of the call, G ViT patches per frame, K slots per image token, P image tokens of the call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_utils import SizeDict
from transformers.models.molmo2.image_processing_molmo2 import arange_for_pooling
from transformers.models.molmo2.video_processing_molmo2 import Molmo2VideoProcessor, Molmo2VideoProcessorKwargs
from transformers.video_utils import VideoMetadata

from molmopoint.errors import ProcessingError
from molmopoint.processing.pictures import is_picture, load_picture, picture_to_tensor
from molmopoint.processing.pixels import PixelSettings, checked_crop_size, cut_into_patches, stretch
from molmopoint.video import Clip, open_video, sample_indices, sample_times

FRAMES_AT_ONCE = 16
"""Frames that are decoded and stretched together; more do not run faster and take more memory."""

_PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


class MolmoPointVideoProcessorKwargs(Molmo2VideoProcessorKwargs, total=False):
    """
    frame_sample_mode (`str`, *optional*, defaults to `"uniform_last_frame"`):
        `"uniform_last_frame"` or `"fps"`, see `molmopoint.video`.
    sampling_fps (`int`, *optional*, defaults to 2):
        Base rate of the mode `"fps"`.
    """

    frame_sample_mode: str
    sampling_fps: int


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
        read: uint8 (n, 3, height, width) of the frames from `start` to `stop`.
    """

    count: int
    read: Callable[[int, int], torch.Tensor]

    def chunks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """Start and frames of each chunk."""
        for start in range(0, self.count, FRAMES_AT_ONCE):
            yield start, self.read(start, min(start + FRAMES_AT_ONCE, self.count))


class MolmoPointVideoProcessor(Molmo2VideoProcessor):
    """The native Molmo2 video processor with the released values and the released choice of frames.

    Unlike the native one it always looks at the last moment, normalises without being told, and holds a few decoded frames at a
    time, however long or large the video is.
    """

    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    num_frames = 384
    frame_sample_mode = "uniform_last_frame"
    sampling_fps = 2
    valid_kwargs = MolmoPointVideoProcessorKwargs

    def __init__(self, **kwargs: Unpack[MolmoPointVideoProcessorKwargs]) -> None:
        super().__init__(**kwargs)

    def preprocess(self, videos: Any, **kwargs: Unpack[MolmoPointVideoProcessorKwargs]) -> BatchFeature:
        """Frames and tables of one clip or a (nested) list of them.

        Args:
            videos: clips, see the text of this module.
            **kwargs: any setting of the processor for this call; `video_metadata`, one mapping per clip with what is known of it
                (`fps`, `frames_indices`, `width`, `height`); `do_sample_frames=False` takes frames in memory as they are;
                `return_metadata=True`; `return_tensors` ("pt" or "np").

        Returns:
            `pixel_values_videos` (N, G, patch values) float32; `video_token_pooling` (P, K) int64, absolute over the call, -1 for an
            empty slot; `video_grids` (clips, 3): frames, rows and columns of image tokens; `video_metadata` if asked for.

        Raises:
            ProcessingError: a clip cannot be read, has no frames or no times, or the settings do not fit each other.
        """
        return super().preprocess(videos, **kwargs)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        max_fps: float | None = None,
        frame_sample_mode: str | None = None,
        sampling_fps: int | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Indices of the frames to keep, (T,) int64, of frames in memory; `fps` takes the place of `max_fps`."""
        rule = self._rule(num_frames, fps, max_fps, frame_sample_mode, sampling_fps)
        return sample_indices(metadata.total_num_frames, _rate(metadata), **rule)

    def _rule(self, num_frames: Any, fps: Any, max_fps: Any, frame_sample_mode: Any, sampling_fps: Any) -> dict[str, Any]:
        return {
            "max_frames": self.num_frames if num_frames is None else num_frames,
            "max_fps": fps or max_fps or self.max_fps,
            "mode": frame_sample_mode or self.frame_sample_mode,
            "sampling_fps": sampling_fps or self.sampling_fps,
        }

    def _decode_and_sample_videos(
        self, videos: Any, video_metadata: Any, do_sample_frames: bool | None = None, sample_indices_fn: Any = None
    ) -> tuple[list[SampledClip], list[ClipMetadata]]:
        clips = list(flatten_videos(videos))
        if not clips:
            raise ProcessingError("expected at least one clip, got an empty list; leave videos out for samples without one")
        known = _metadata_per_clip(video_metadata, len(clips))
        # the settings of this call travel in the partial object that the base class makes of `sample_frames`
        settings = {} if sample_indices_fn is None else sample_indices_fn.keywords
        sampled = [self._sample(clip, metadata, do_sample_frames, settings) for clip, metadata in zip(clips, known, strict=True)]
        return [clip for clip, _ in sampled], [metadata for _, metadata in sampled]

    def _sample(
        self, clip: Any, known: dict[str, Any], do_sample_frames: bool | None, settings: Mapping[str, Any]
    ) -> tuple[SampledClip, ClipMetadata]:
        if isinstance(clip, (str, Path)):
            if not Path(clip).is_dir():
                return self._sample_file(clip, known, do_sample_frames, settings)
            clip = _pictures_in(Path(clip))
        timestamps = None
        if isinstance(clip, Clip):
            clip, timestamps = clip.frames, np.asarray(clip.timestamps, dtype=np.float64)
        frames = _as_frames(clip)
        count = len(frames)
        metadata = ClipMetadata(**(known | {"total_num_frames": known.get("total_num_frames") or count}))
        keep = np.arange(count)
        if timestamps is not None:
            _check_timestamps(timestamps, count)
        elif do_sample_frames:
            metadata.total_num_frames = count
            metadata.frames_indices = keep = self.sample_frames(metadata, **settings)
            timestamps = keep / _rate(metadata)
        else:
            indices = np.arange(count) if metadata.frames_indices is None else np.asarray(metadata.frames_indices)
            timestamps = indices / _rate(metadata)
            _check_timestamps(timestamps, count)
        first = _frames_to_tensor(frames, keep[:1])
        metadata.seconds = timestamps.tolist()
        metadata.width, metadata.height = metadata.width or first.shape[3], metadata.height or first.shape[2]
        return SampledClip(len(keep), lambda start, stop: _frames_to_tensor(frames, keep[start:stop])), metadata

    def _sample_file(
        self, path: str | Path, known: dict[str, Any], do_sample_frames: bool | None, settings: Mapping[str, Any]
    ) -> tuple[SampledClip, ClipMetadata]:
        if do_sample_frames is False:
            raise ProcessingError(
                f"expected do_sample_frames=True to read {str(path)!r}, got False; a file is read at the times the model was trained on, "
                "so pass num_frames and max_fps, or frames with their times"
            )
        names = ("num_frames", "fps", "max_fps", "frame_sample_mode", "sampling_fps")
        reader = open_video(path)
        times = sample_times(reader.duration, frame_rate=reader.frame_rate, **self._rule(*(settings.get(name) for name in names)))
        metadata = ClipMetadata(
            total_num_frames=round(reader.duration * reader.frame_rate),
            fps=reader.frame_rate,
            duration=reader.duration,
            width=known.get("width") or reader.size[0],
            height=known.get("height") or reader.size[1],
            seconds=times.tolist(),
        )
        read = lambda start, stop: torch.from_numpy(reader.frames_at(times[start:stop])).permute(0, 3, 1, 2)  # noqa: E731
        return SampledClip(len(times), read), metadata

    def _prepare_input_videos(self, videos: list[SampledClip], **kwargs: Any) -> list[SampledClip]:
        return videos

    def _preprocess(
        self,
        videos: list[SampledClip],
        size: SizeDict,
        patch_size: int,
        pooling_size: Sequence[int],
        return_tensors: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        crop_size, settings = checked_crop_size(size, patch_size), PixelSettings.of(kwargs)
        side = crop_size // patch_size
        starts = np.cumsum([0, *(clip.count for clip in videos)]).tolist()
        frames_NGv = torch.empty(starts[-1], side**2, 3 * patch_size**2)
        for clip, clip_start in zip(videos, starts, strict=False):
            for start, frames in clip.chunks():
                stretched = stretch(self, frames.float(), (crop_size, crop_size), settings)
                out = frames_NGv[clip_start + start : clip_start + start + len(frames)]
                cut_into_patches(stretched, crop_size, crop_size, patch_size, out)
        table, rows, cols = arange_for_pooling(torch.arange(side**2).view(side, side), *pooling_size)
        offsets = torch.arange(starts[-1]).view(-1, 1, 1) * side**2
        output = {
            "pixel_values_videos": frames_NGv,
            "video_token_pooling": torch.where(table >= 0, table + offsets, -1).view(-1, table.shape[1]),
            "video_grids": torch.tensor([(clip.count, rows, cols) for clip in videos]),
        }
        return BatchFeature(output, tensor_type=return_tensors, skip_tensor_conversion=["video_metadata"])


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


def _metadata_per_clip(video_metadata: Any, count: int) -> list[dict[str, Any]]:
    if video_metadata is None:
        return [{} for _ in range(count)]
    names = {f.name for f in fields(VideoMetadata)}
    flat = list(_flatten_metadata(video_metadata))
    if len(flat) != count:
        raise ProcessingError(f"expected video_metadata for {count} clips, got {len(flat)}; pass one mapping per clip, in their order")
    return [{name: item[name] for name in names if name in item} for item in flat]


def _flatten_metadata(metadata: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(metadata, Mapping):
        yield metadata
    elif isinstance(metadata, (list, tuple)):
        for item in metadata:
            yield from _flatten_metadata(item)
    else:
        raise ProcessingError(f"expected video_metadata as VideoMetadata or dict, got {type(metadata).__name__}")


def _rate(metadata: VideoMetadata) -> float:
    if metadata.fps is None or not metadata.fps > 0:
        raise ProcessingError(
            f"expected to know when the frames were taken, got a rate of {metadata.fps} frames a second; pass "
            "video_metadata={'fps': ...}, or a Clip with timestamps"
        )
    return float(metadata.fps)


def _check_timestamps(timestamps: np.ndarray, count: int) -> None:
    if timestamps.shape != (count,) or not np.isfinite(timestamps).all() or (np.diff(timestamps) < 0).any():
        raise ProcessingError(f"expected one ascending time in seconds for each of {count} frames, got {timestamps.tolist()}")


def _pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder; numbers in names count as numbers, so frame 10 follows frame 9."""
    pictures = [path for path in folder.iterdir() if path.suffix.lower() in _PICTURE_SUFFIXES]
    if not pictures:
        raise ProcessingError(f"expected pictures in the folder {str(folder)!r}, got none of {', '.join(sorted(_PICTURE_SUFFIXES))}")
    return sorted(pictures, key=lambda path: [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)])


def _as_frames(clip: Any) -> Any:
    if isinstance(clip, (np.ndarray, torch.Tensor)) and clip.ndim != 4:
        raise ProcessingError(f"expected frames (frames, height, width, 3) or tensors (frames, 3, height, width), got {tuple(clip.shape)}")
    if isinstance(clip, torch.Tensor) and clip.shape[1] != 3 and clip.shape[3] == 3:
        clip = clip.movedim(3, 1)
    if not len(clip):
        raise ProcessingError("expected at least one frame in a clip, got none; check the video or the list of frames")
    return clip


def _frames_to_tensor(frames: Any, indices: np.ndarray) -> torch.Tensor:
    """uint8 (n, 3, height, width) of some frames; all must have one size."""
    read = [picture_to_tensor(load_picture(frames[i]) if isinstance(frames[i], Path) else frames[i]) for i in indices.tolist()]
    if len({frame.shape for frame in read}) > 1:
        sizes = sorted({(frame.shape[2], frame.shape[1]) for frame in read})
        raise ProcessingError(f"expected frames of one size, got (width, height) {sizes}; resize them to the size of the video")
    return torch.stack(read)
