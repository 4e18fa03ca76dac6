"""Masks of objects over time, in every form in which tracking benchmarks publish them.

Masks are asked for by question (its item id), object and frame of the clip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from molmopoint.eval.datasets.files import UNREADABLE, place_of
from molmopoint.eval.datasets.masks import white_mask
from molmopoint.files import is_folder, open_picture
from molmopoint.metrics.run_lengths import decode_mask, fingerprint

ANNOTATIONS = "Annotations"


class MaskSource(Protocol):
    """Where masks come from."""

    def has(self, item_id: str, object_id: str, frame: int) -> bool:
        """Whether there is a mask, readable or not."""
        ...

    def read(self, item_id: str, object_id: str, frame: int) -> np.ndarray | None:
        """(height, width) bool, or None where it cannot be read."""
        ...

    def num_frames(self, item_id: str) -> int | None:
        """Of the clip, or None where the masks do not say."""
        ...

    def fingerprint(self) -> str:
        """Changes with the masks."""
        ...


class RunLengthTracks:
    """COCO run-lengths.

    Args:
        tracks: by question, by object, by frame; see `by_frame`.
        lengths: frames of each question's clip, where known; see `length_of`.
    """

    def __init__(
        self, tracks: Mapping[str, Mapping[str, Mapping[int, Any]]], lengths: Mapping[str, int | None]
    ) -> None:
        self._tracks = tracks
        self._lengths = lengths

    def has(self, item_id: str, object_id: str, frame: int) -> bool:
        """See `MaskSource`."""
        return frame in self._tracks[item_id].get(object_id, {})

    def read(self, item_id: str, object_id: str, frame: int) -> np.ndarray | None:
        """See `MaskSource`."""
        return decode_mask(self._tracks[item_id][object_id][frame])

    def num_frames(self, item_id: str) -> int | None:
        """See `MaskSource`."""
        return self._lengths[item_id]

    def fingerprint(self) -> str:
        """See `MaskSource`."""
        return fingerprint(self._all_masks())

    def _all_masks(self) -> Iterator[Any]:
        for objects in self._tracks.values():
            for masks in objects.values():
                yield from masks.values()


class PictureTracks:
    """Pictures: `Annotations/VIDEO/OBJECT/FRAME.png`, white (255) where the object is, or
    `Annotations/VIDEO/FRAME.png`, whose pixels are numbers of objects.

    Frames are counted in the order of the names: those of the video's own frames where its folder is there,
    else those of all masks of the video.

    Args:
        folder: of the data.
        videos: name of the video of each question.
        frames: folder with the frames of each video, where there is one.
        numbered: the second form.
    """

    def __init__(
        self, folder: Path, videos: Mapping[str, str], frames: Mapping[str, Path | None], *, numbered: bool
    ) -> None:
        self._folder = folder / ANNOTATIONS
        self._videos = videos
        self._frames = frames
        self._numbered = numbered
        self._names: dict[str, list[str]] = {}
        self._sizes: dict[Path, int] = {}
        for video in sorted(set(videos.values())):
            masks = _masks_below(place_of(self._folder, video))
            self._names[video] = _names(frames.get(video), masks)
            self._sizes |= {file: file.stat().st_size for file in masks}

    def has(self, item_id: str, object_id: str, frame: int) -> bool:
        """See `MaskSource`. Of numbered pictures an object that is nowhere has an empty mask."""
        return self._file(item_id, object_id, frame) in self._sizes

    def read(self, item_id: str, object_id: str, frame: int) -> np.ndarray | None:
        """See `MaskSource`."""
        file = self._file(item_id, object_id, frame)
        if file is None:
            return None
        try:
            return _numbered_mask(file, object_id) if self._numbered else white_mask(file)
        except UNREADABLE:
            return None

    def num_frames(self, item_id: str) -> int | None:
        """See `MaskSource`."""
        video = self._videos[item_id]
        knows_all_frames = self._numbered or self._frames.get(video) is not None
        return len(self._names[video]) if knows_all_frames else None

    def fingerprint(self) -> str:
        """See `MaskSource`."""
        return str([(file.relative_to(self._folder).as_posix(), size) for file, size in self._sizes.items()])

    def _file(self, item_id: str, object_id: str, frame: int) -> Path | None:
        video = self._videos[item_id]
        names = self._names[video]
        if not 0 <= frame < len(names):
            return None
        inside = self._folder / video if self._numbered else self._folder / video / object_id
        return inside / f"{names[frame]}.png"


def by_frame(masks: Sequence[Any] | None) -> dict[int, Any]:
    """Run-lengths by frame; frames without the object are left out.

    Args:
        masks: one or None per frame, or {"frame_id": ..., "rle": ...} or {"frame": ..., "mask": ...} for the
            frames that have one.
    """
    found: dict[int, Any] = {}
    for position, each in enumerate(masks or ()):
        frame, run_lengths = position, each
        if _says_its_frame(each):
            frame = _named(each, "frame_id", "frame")
            run_lengths = _named(each, "rle", "mask")
        is_empty = isinstance(run_lengths, Mapping) and run_lengths.get("counts") is None
        if run_lengths is not None and not is_empty:
            found[int(frame)] = run_lengths
    return found


def length_of(tracks: Iterable[Sequence[Any] | None]) -> int | None:
    """Frames of a clip whose objects have an entry per frame; None where they have entries for some frames
    only.
    """
    lists = [masks for masks in tracks if masks]
    if not lists:
        return None
    for masks in lists:
        if any(_says_its_frame(each) for each in masks):
            return None
    return max(len(masks) for masks in lists)


def _says_its_frame(mask: Any) -> bool:
    return isinstance(mask, Mapping) and _named(mask, "frame_id", "frame") is not None


def _named(mask: Mapping[str, Any], *names: str) -> Any:
    """The first value under some names; columns of tables hold None where a row has no such name."""
    for name in names:
        if mask.get(name) is not None:
            return mask[name]
    return None


def _masks_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png")) if is_folder(folder) else []


def _names(frames: Path | None, masks: Sequence[Path]) -> list[str]:
    files = frames.iterdir() if frames is not None else masks
    return sorted({file.stem for file in files if not file.name.startswith(".")})


def _numbered_mask(file: Path, object_id: str) -> np.ndarray:
    """(height, width) bool: where the pixels of a picture are the number of an object.

    Raises:
        ValueError: the object has no number, or the picture has colours instead of numbers.
    """
    with open_picture(file) as picture:
        numbers = np.asarray(picture)
    if numbers.ndim != 2:
        raise ValueError(f"expected a picture of numbers, got {numbers.shape} in {file}")
    return numbers == int(object_id)
