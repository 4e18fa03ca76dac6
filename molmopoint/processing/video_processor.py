"""Clips to frames of ViT patches: one crop per frame, no tiling, no global crop.

Letters: N frames of the call, G ViT patches per frame, K slots per image token, P image tokens of the call.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_utils import SizeDict
from transformers.models.molmo2.image_processing_molmo2 import arange_for_pooling
from transformers.models.molmo2.video_processing_molmo2 import (
    Molmo2VideoProcessor,
    Molmo2VideoProcessorKwargs,
)
from transformers.video_utils import VideoMetadata

from molmopoint.errors import InputWarning, ProcessingError
from molmopoint.processing.clips import (
    ClipMetadata,
    FrameRule,
    SampledClip,
    flatten_videos,
    frame_rate,
    metadata_per_clip,
    sample_clip,
)
from molmopoint.processing.image_processor import (
    PixelSettings,
    checked_crop_size,
    cut_into_patches,
    new_floats,
    stretch,
)
from molmopoint.video import DamagedVideoError


class MolmoPointVideoProcessorKwargs(Molmo2VideoProcessorKwargs, total=False):
    """
    frame_sample_mode (`str`, *optional*, defaults to `"uniform_last_frame"`):
        `"uniform_last_frame"` or `"fps"`, see `molmopoint.video`.
    sampling_fps (`int`, *optional*, defaults to 2):
        Base rate of the mode `"fps"`.
    """

    frame_sample_mode: str
    sampling_fps: int


class MolmoPointVideoProcessor(Molmo2VideoProcessor):
    """The native Molmo2 video processor with the released values and the released choice of frames.

    Unlike the native one it always looks at the last moment, normalises without being told, and holds a few
    decoded frames at a time, however long or large the video is.
    """

    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    num_frames = 384
    frame_sample_mode: Any = "uniform_last_frame"
    sampling_fps = 2
    valid_kwargs = MolmoPointVideoProcessorKwargs

    def __init__(self, **kwargs: Unpack[MolmoPointVideoProcessorKwargs]) -> None:
        # null in a file means the default of the class; the native class would take it for "do not"
        given: dict[str, Any] = {name: value for name, value in kwargs.items() if value is not None}
        super().__init__(**given)

    def preprocess(self, videos: Any, **kwargs: Unpack[MolmoPointVideoProcessorKwargs]) -> BatchFeature:
        """Frames and tables of one clip or a (nested) list of them.

        Args:
            videos: clips, see `molmopoint.processing.clips`.
            **kwargs: any setting of the processor for this call; `video_metadata`, one mapping per clip with
                what is known of it (`fps`, `frames_indices`, `width`, `height`); `do_sample_frames=False`
                takes frames in memory as they are, those of unknown times as `max_fps` a second and with a
                warning; `return_metadata=True`; `return_tensors` ("pt" or "np").

        Returns:
            `pixel_values_videos` (N, G, patch values) float32; `video_token_pooling` (P, K) int64, absolute
            over the call, -1 for an empty slot; `video_grids` (clips, 3): frames, rows and columns of image
            tokens; `video_metadata` if asked for.

        Raises:
            ProcessingError: a clip cannot be read, has no frames or no times, or the settings do not fit each
                other.
        """
        return super().preprocess(videos, **kwargs)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        max_fps: float | None = None,
        frame_sample_mode: Any = None,
        sampling_fps: int | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Indices (T,) int64 of the frames in memory to keep; `fps` takes the place of `max_fps`."""
        rule = self._rule(num_frames, fps, max_fps, frame_sample_mode, sampling_fps)
        return rule.indices(metadata.total_num_frames, frame_rate(metadata))

    def _rule(
        self,
        num_frames: int | None = None,
        fps: float | None = None,
        max_fps: float | None = None,
        frame_sample_mode: Any = None,
        sampling_fps: int | None = None,
        start: float = 0.0,
        end: float | None = None,
        **kwargs: Any,
    ) -> FrameRule:
        return FrameRule(
            max_frames=self.num_frames if num_frames is None else num_frames,
            max_fps=fps or max_fps or self.max_fps,
            mode=frame_sample_mode or self.frame_sample_mode,
            sampling_fps=sampling_fps or self.sampling_fps,
            start=start,
            end=end,
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image tokens of a frame."""
        size: Any = self.size  # the base class says it is a dict, and makes a SizeDict of it
        side = checked_crop_size(size, self.patch_size) // self.patch_size
        rows, cols = (-(-side // window) for window in self.pooling_size)
        return rows, cols

    def sample(self, clip: Any, known: Mapping[str, Any] | None = None, **settings: Any) -> SampledClip:
        """Chooses the frames of a clip and reads none of them yet; the result can be passed to the processor
        in place of the clip.

        Args:
            clip: see `molmopoint.processing.clips`.
            known: what is known of it, by the names of `video_metadata`.
            **settings: `num_frames`, `max_fps`, `frame_sample_mode`, `sampling_fps`, and the `start` and
                `end` of a part in seconds.

        Raises:
            ProcessingError: the clip cannot be read, has no frames or no times, or the settings do not fit
                each other.
        """
        return sample_clip(clip, known or {}, self._rule(**settings))

    def _decode_and_sample_videos(
        self,
        videos: Any,
        video_metadata: Any,
        do_sample_frames: bool | None = None,
        sample_indices_fn: Any = None,
    ) -> tuple[list[SampledClip], list[ClipMetadata]]:
        clips = list(flatten_videos(videos))
        if not clips:
            raise ProcessingError(
                "expected at least one clip, got an empty list; leave videos out for samples without one"
            )
        # the settings of this call travel in the partial object that the base class makes of `sample_frames`
        rule = self._rule(**sample_indices_fn.keywords) if do_sample_frames else None
        known = metadata_per_clip(video_metadata, len(clips))
        sampled = [
            sample_clip(clip, metadata, rule, self.max_fps)
            for clip, metadata in zip(clips, known, strict=True)
        ]
        return sampled, [clip.metadata for clip in sampled]

    def _prepare_input_videos(
        self, videos: list[SampledClip], device: Any = None, **kwargs: Any
    ) -> list[SampledClip]:
        for clip in videos:
            clip.device = device
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
        crop_size = checked_crop_size(size, patch_size)
        settings = PixelSettings.of(kwargs)
        side = crop_size // patch_size
        frames_NGv = self._patches(videos, crop_size, patch_size, settings)
        table, rows, cols = arange_for_pooling(torch.arange(side**2).view(side, side), *pooling_size)
        offsets = torch.arange(len(frames_NGv)).view(-1, 1, 1) * side**2  # (N, 1, 1)
        tables = torch.where(table >= 0, table + offsets, -1)  # (N, P of a frame, K)
        grids = [(clip.count, rows, cols) for clip in videos]
        output = {
            "pixel_values_videos": frames_NGv,
            "video_token_pooling": tables.view(-1, table.shape[1]).to(frames_NGv.device),
            "video_grids": torch.tensor(grids, device=frames_NGv.device),
        }
        return BatchFeature(output, tensor_type=return_tensors, skip_tensor_conversion=["video_metadata"])

    def _patches(
        self, videos: list[SampledClip], crop_size: int, patch_size: int, settings: PixelSettings
    ) -> torch.Tensor:
        """(N, G, values) of all clips; a damaged one is shortened to its good part, with a warning."""
        counts = [clip.count for clip in videos]
        starts = np.cumsum([0, *counts]).tolist()
        patches_per_frame = (crop_size // patch_size) ** 2
        device = torch.device(videos[0].device or "cpu")
        frames_NGv = new_floats((starts[-1], patches_per_frame, 3 * patch_size**2), device)
        try:
            for clip, clip_start in zip(videos, starts, strict=False):
                for place, frames in clip.chunks():
                    for frame, out in zip(frames, frames_NGv[clip_start:][place].split(1), strict=True):
                        (small,) = stretch(self, frame, [(crop_size, crop_size)], settings)
                        cut_into_patches(self, small, crop_size, crop_size, patch_size, settings, out)
        except DamagedVideoError:
            if not any(clip.shorten() for clip in videos):
                raise
            return self._patches(videos, crop_size, patch_size, settings)
        for clip in videos:
            for note in clip.metadata.notes:
                warnings.warn(note, InputWarning, stacklevel=2)
        return frames_NGv
