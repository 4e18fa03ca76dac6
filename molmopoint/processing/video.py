"""Clips to frames of ViT patches: one crop per frame, no tiling, no global crop.

Letters: N frames of the call, G ViT patches per frame, K slots per image token, P image tokens of the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_utils import SizeDict
from transformers.models.molmo2.image_processing_molmo2 import arange_for_pooling
from transformers.models.molmo2.video_processing_molmo2 import Molmo2VideoProcessor, Molmo2VideoProcessorKwargs
from transformers.video_utils import VideoMetadata

from molmopoint.errors import ProcessingError
from molmopoint.processing.clips import (
    ClipMetadata,
    FrameRule,
    SampledClip,
    flatten_videos,
    frame_rate,
    metadata_per_clip,
    sample_clip,
)
from molmopoint.processing.pixels import PixelSettings, checked_crop_size, cut_into_patches, stretch


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
        **kwargs: Any,
    ) -> FrameRule:
        return FrameRule(
            max_frames=self.num_frames if num_frames is None else num_frames,
            max_fps=fps or max_fps or self.max_fps,
            mode=frame_sample_mode or self.frame_sample_mode,
            sampling_fps=sampling_fps or self.sampling_fps,
        )

    def _decode_and_sample_videos(
        self, videos: Any, video_metadata: Any, do_sample_frames: bool | None = None, sample_indices_fn: Any = None
    ) -> tuple[list[SampledClip], list[ClipMetadata]]:
        clips = list(flatten_videos(videos))
        if not clips:
            raise ProcessingError("expected at least one clip, got an empty list; leave videos out for samples without one")
        # the settings of this call travel in the partial object that the base class makes of `sample_frames`
        rule = self._rule(**sample_indices_fn.keywords) if do_sample_frames else None
        known = metadata_per_clip(video_metadata, len(clips))
        sampled = [sample_clip(clip, metadata, rule) for clip, metadata in zip(clips, known, strict=True)]
        return [clip for clip, _ in sampled], [metadata for _, metadata in sampled]

    def _prepare_input_videos(self, videos: list[SampledClip], device: Any = None, **kwargs: Any) -> list[SampledClip]:
        return [replace(clip, device=device) for clip in videos]

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
        device = videos[0].device
        frames_NGv = torch.empty(starts[-1], side**2, 3 * patch_size**2, device=device)
        for clip, clip_start in zip(videos, starts, strict=False):
            for place, frames in clip.chunks():
                stretched = stretch(self, frames.contiguous().float(), (crop_size, crop_size), settings)
                cut_into_patches(stretched, crop_size, crop_size, patch_size, frames_NGv[clip_start:][place])
        table, rows, cols = arange_for_pooling(torch.arange(side**2).view(side, side), *pooling_size)
        offsets = torch.arange(starts[-1]).view(-1, 1, 1) * side**2
        output = {
            "pixel_values_videos": frames_NGv,
            "video_token_pooling": torch.where(table >= 0, table + offsets, -1).view(-1, table.shape[1]).to(device),
            "video_grids": torch.tensor([(clip.count, rows, cols) for clip in videos], device=device),
        }
        return BatchFeature(output, tensor_type=return_tensors, skip_tensor_conversion=["video_metadata"])
