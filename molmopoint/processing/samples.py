"""Sorting the texts, pictures and clips of a call by sample, and saying what is wrong with them.

A sample is one prompt with the pictures, or the one clip, that its placeholders stand for.

What the processor knows about each sample's image tokens: how many there are, and where their ViT patches
lie.

Tables of a call number the ViT patches of all its pictures, or of all its clips; a `PointingMetadata` numbers
those of its own sample, from 0.

Letters: P image tokens of a sample, K slots per image token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from molmopoint.errors import ProcessingError
from molmopoint.geometry import PointingMetadata
from molmopoint.processing.clips import flatten_videos


@dataclass(frozen=True)
class Samples:
    """The inputs of a call.

    Attributes:
        texts: one prompt per sample.
        pictures: per sample, in the order of its placeholders.
        clips: per sample, none or one; no model takes pictures and a clip in one row, but their text can be
            looked at.
    """

    texts: list[str]
    pictures: list[list[Any]]
    clips: list[list[Any]]

    @property
    def all_pictures(self) -> list[Any]:
        """Pictures of the call in order."""
        return [picture for row in self.pictures for picture in row]

    @property
    def all_clips(self) -> list[Any]:
        """Clips of the call in order."""
        return [clip for row in self.clips for clip in row]


def sort_by_sample(text: Any, images: Any, videos: Any, image_token: str, video_token: str) -> Samples:
    """Gives every sample its pictures and clip.

    Args:
        text: a prompt or a list of prompts.
        images: None; one picture; pictures in the order of the placeholders; or one list (or None) per
            sample.
        videos: the same for clips.
        image_token: placeholder of a picture.
        video_token: placeholder of a clip.

    Raises:
        ProcessingError: the text is no text, the numbers of placeholders and pictures differ, or a sample has
            more than one clip.
    """
    texts = _as_texts(text)
    pictures = _per_sample(
        images, [t.count(image_token) for t in texts], "image", image_token, _flatten_pictures
    )
    clips = _per_sample(videos, [t.count(video_token) for t in texts], "video", video_token, flatten_videos)
    for row, row_clips in enumerate(clips):
        if len(row_clips) > 1:
            raise ProcessingError(
                f"expected at most one video in a sample, got {len(row_clips)} in sample {row}; ask about "
                "one at a time"
            )
    return Samples(texts, pictures, clips)


def _as_texts(text: Any) -> list[str]:
    if isinstance(text, str):
        return [text]
    if isinstance(text, (list, tuple)) and text and all(isinstance(prompt, str) for prompt in text):
        return list(text)
    if text is None:
        raise ProcessingError(
            "expected text with placeholders, got none; processor.image_processor takes pictures alone"
        )
    got = (
        f"a list of {sorted({type(t).__name__ for t in text})}"
        if isinstance(text, (list, tuple))
        else type(text).__name__
    )
    raise ProcessingError(
        f"expected a string or a list of at least one string as text, got {got}; render messages with "
        "apply_chat_template"
    )


def _per_sample(
    items: Any, placeholders: list[int], kind: str, token: str, flatten: Callable[[Any], Iterator[Any]]
) -> list[list[Any]]:
    """The items of each sample: those given for it, or the next ones of a flat list."""
    plural = f"{kind}s"
    rule = f"the number of {token} tokens in the prompts should be the same as the number of {plural}"  # as transformers says it
    if _is_nested(items) and len(items) == len(placeholders):
        rows = [list(flatten(row)) for row in items]
        for row, (given, wanted) in enumerate(zip(rows, placeholders, strict=True)):
            if len(given) != wanted:
                raise ProcessingError(
                    f"expected {wanted} {plural} for {wanted} placeholders {token} in sample {row}, got "
                    f"{len(given)}: {rule}; "
                    f"pass the {plural} in the order of the prompt, one list per sample"
                )
        return rows
    flat = list(flatten(items))
    if len(flat) != sum(placeholders):
        raise ProcessingError(
            f"expected {sum(placeholders)} {plural} for {sum(placeholders)} placeholders {token} in "
            f"{len(placeholders)} prompts, "
            f"got {len(flat)}: {rule}; pass the {plural} in the order of the prompts"
        )
    if _is_nested(items) and len(placeholders) > 1:
        raise ProcessingError(
            f"expected one list of {plural} per sample for {len(placeholders)} samples, got {len(items)} "
            "lists; pass [] for samples without"
        )
    ends = np.cumsum(placeholders).tolist()
    return [flat[end - count : end] for end, count in zip(ends, placeholders, strict=True)]


def _is_nested(items: Any) -> bool:
    """Whether this has one list (or None) per sample: every entry is a list, or nothing."""
    return (
        isinstance(items, (list, tuple))
        and bool(items)
        and all(entry is None or type(entry) in (list, tuple) for entry in items)
    )


def _flatten_pictures(images: Any) -> Iterator[Any]:
    if isinstance(images, (list, tuple)):
        for image in images:
            yield from _flatten_pictures(image)
    elif isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
        raise ProcessingError(
            f"expected single pictures, got an array of shape {tuple(images.shape)}; pass a list of pictures"
        )
    elif images is not None:
        yield images


def split_counts(counts: Sequence[int]) -> list[slice]:
    """Slices that cut a flat sequence into pieces of the given lengths."""
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]


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
        self._side, self._low_res_selectable, self._location_grid = (
            patches_per_frame_side,
            low_res_selectable,
            location_grid,
        )
        self._picture_slices = split_counts([len(row) for row in samples.pictures])
        self._clip_slices = split_counts([len(row) for row in samples.clips])
        self._image_grids = np.asarray(self._pictures.get("image_grids", np.empty((0, 4))), dtype=np.int64)
        self._video_grids = np.asarray(self._clips.get("video_grids", np.empty((0, 3))), dtype=np.int64)
        self._picture_tokens = split_counts(
            self._image_grids.reshape(-1, 2, 2).prod(axis=2).sum(axis=1).tolist()
        )
        self._clip_tokens = split_counts(self._video_grids.prod(axis=1).tolist())

    def num_patches(self, sample: int) -> int:
        """P of a sample."""
        spans = (
            self._picture_tokens[self._picture_slices[sample]] + self._clip_tokens[self._clip_slices[sample]]
        )
        return sum(span.stop - span.start for span in spans)

    def metadata(self, sample: int) -> PointingMetadata:
        """What is needed to turn the triples of a sample into pixels.

        Raises:
            ProcessingError: the sample has pictures and a clip.
        """
        if (
            self._clip_tokens[self._clip_slices[sample]]
            and self._picture_tokens[self._picture_slices[sample]]
        ):
            pictures = self._picture_slices[sample]
            raise ProcessingError(
                f"expected pictures or a video in a sample, got {pictures.stop - pictures.start} pictures "
                f"and a video in sample {sample}; "
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
        pooling = np.asarray(
            self._pictures["image_token_pooling"][spans[0].start : spans[-1].stop], dtype=np.int64
        )
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
    return {
        name: value.cpu().numpy() if isinstance(value, torch.Tensor) else value
        for name, value in tables.items()
    }
