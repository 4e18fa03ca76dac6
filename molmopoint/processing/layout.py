"""What the processor knows about each sample's image tokens: how many there are, and where their ViT patches lie.

Tables of a call number the ViT patches of all its pictures, or of all its clips; a `PointingMetadata` numbers those of its
own sample, from 0.

Letters: P image tokens of a sample, K slots per image token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from molmopoint.errors import ProcessingError
from molmopoint.geometry import PointingMetadata
from molmopoint.processing.samples import Samples, split_counts


class SampleTables:
    """Tables of each sample of a call, from what the image and video processors returned.

    Args:
        samples: the inputs of the call.
        pictures: output of the image processor with pointing metadata; empty without pictures.
        clips: output of the video processor with its metadata; empty without clips.
        patches_per_frame_side: ViT patches along a side of a frame.
        low_res_selectable: whether tokens of global crops may be chosen.
        location_grid: cells along a side of a ViT patch, 0 for none.
    """

    def __init__(
        self,
        samples: Samples,
        pictures: Mapping[str, Any],
        clips: Mapping[str, Any],
        *,
        patches_per_frame_side: int,
        low_res_selectable: bool,
        location_grid: int,
    ) -> None:
        self._pictures, self._clips = _on_host(pictures), _on_host(clips)
        self._side, self._low_res_selectable, self._location_grid = patches_per_frame_side, low_res_selectable, location_grid
        self._picture_slices = split_counts([len(row) for row in samples.pictures])
        self._clip_slices = split_counts([len(row) for row in samples.clips])
        self._image_grids = np.asarray(self._pictures.get("image_grids", np.empty((0, 4))), dtype=np.int64)
        self._video_grids = np.asarray(self._clips.get("video_grids", np.empty((0, 3))), dtype=np.int64)
        self._picture_tokens = split_counts(self._image_grids.reshape(-1, 2, 2).prod(axis=2).sum(axis=1).tolist())
        self._clip_tokens = split_counts(self._video_grids.prod(axis=1).tolist())

    def num_patches(self, sample: int) -> int:
        """P of a sample."""
        spans = self._picture_tokens[self._picture_slices[sample]] + self._clip_tokens[self._clip_slices[sample]]
        return sum(span.stop - span.start for span in spans)

    def metadata(self, sample: int) -> PointingMetadata:
        """What is needed to turn the triples of a sample into pixels.

        Raises:
            ProcessingError: the sample has pictures and a clip.
        """
        if self._clip_tokens[self._clip_slices[sample]] and self._picture_tokens[self._picture_slices[sample]]:
            pictures = self._picture_slices[sample]
            raise ProcessingError(
                f"expected pictures or a video in a sample, got {pictures.stop - pictures.start} pictures and a video in sample {sample}; "
                "put them into different samples, which may share a call"
            )
        if self._clip_tokens[self._clip_slices[sample]]:
            return self._metadata_of_clip(self._clip_slices[sample].start)
        if self._picture_tokens[self._picture_slices[sample]]:
            return self._metadata_of_pictures(self._picture_slices[sample])
        nothing = np.empty((0, 0), dtype=np.int64)
        return PointingMetadata(nothing, np.empty(0, dtype=bool), [], [], location_grid=self._location_grid)

    def _metadata_of_pictures(self, pictures: slice) -> PointingMetadata:
        spans = self._picture_tokens[pictures]
        pooling = np.asarray(self._pictures["image_token_pooling"][spans[0].start : spans[-1].stop], dtype=np.int64)
        first = int(pooling[pooling >= 0].min())
        indexable = np.ones(len(pooling), dtype=bool)
        for span, (rows, cols, _, _) in zip(spans, self._image_grids[pictures].tolist(), strict=True):
            start = span.start - spans[0].start
            indexable[start : start + rows * cols] = self._low_res_selectable
        return PointingMetadata(
            pooling=np.where(pooling >= 0, pooling - first, -1),
            indexable=indexable,
            patch_maps=[patch_map - first for patch_map in self._pictures["patch_maps"][pictures]],
            image_sizes=self._pictures["image_sizes"][pictures],
            location_grid=self._location_grid,
        )

    def _metadata_of_clip(self, clip: int) -> PointingMetadata:
        known = self._clips["video_metadata"][clip]
        frames = int(self._video_grids[clip, 0])
        pooling = np.asarray(self._clips["video_token_pooling"][self._clip_tokens[clip]], dtype=np.int64)
        first = int(pooling[pooling >= 0].min())
        return PointingMetadata(
            pooling=np.where(pooling >= 0, pooling - first, -1),
            indexable=np.ones(len(pooling), dtype=bool),
            patch_maps=list(np.arange(frames * self._side**2).reshape(frames, self._side, self._side)),
            image_sizes=[(known.width, known.height)],
            timestamps=np.asarray(known.timestamps, dtype=np.float64),
            location_grid=self._location_grid,
        )


def _on_host(output: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a processor's output as arrays; pixels stay where they are."""
    tables = {name: value for name, value in output.items() if not name.startswith("pixel_values")}
    return {name: value.cpu().numpy() if isinstance(value, torch.Tensor) else value for name, value in tables.items()}
