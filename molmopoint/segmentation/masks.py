"""Masks as results: kept as run-lengths, so that a long clip fits into memory; arrays on demand.

Coloured masks on pictures.

The pictures behind masks: a list of pictures, or the frames of a clip, those of a file a few at a time.

Letters: T frames.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, overload

import numpy as np
from PIL import Image

from molmopoint.drawing import colour_of, draw_points
from molmopoint.errors import GroundingError, ProcessingError
from molmopoint.metrics.run_lengths import MaskIndex, decode_mask, encode_mask
from molmopoint.metrics.segmentation import outline_of
from molmopoint.points import Points
from molmopoint.processing.pictures import load_picture
from molmopoint.video import open_video, until_undamaged

_WINDOW = 8
"""Frames of a file that are held at once; frames are asked for in order, forwards and then backwards."""

_SAME_MOMENT = 1e-3
"""Seconds between moments that show one frame."""


class MaskedPictures(Protocol):
    """What masks are drawn on."""

    many: bool
    """Whether drawing gives a list."""

    def pictures(self) -> Iterator[tuple[int | float, Image.Image]]:
        """Group and picture, one at a time."""
        ...


class PictureList:
    """Pictures in memory.

    Args:
        pictures: as `load_picture` takes them.
        many: whether drawing gives a list.
    """

    def __init__(self, pictures: Sequence[Any], *, many: bool) -> None:
        self.loaded = [load_picture(picture) for picture in pictures]
        self.many = many

    def pictures(self) -> Iterator[tuple[int | float, Image.Image]]:
        """Index and picture, one at a time."""
        return iter(enumerate(self.loaded))


class ClipFrames:
    """The frames of a clip by number.

    Args:
        clip: a video file; or T frames, (T, height, width, 3) uint8 or a list of pictures.
        times: (T,) rising seconds; the frames of a file are those on screen at these moments.
        start: second of a file from which the times count.

    Raises:
        ProcessingError: there are no frames, times do not fit them or go backwards, or the file cannot be read.
    """

    many = True

    def __init__(self, clip: str | Path | np.ndarray | Sequence[Any], times: np.ndarray | Sequence[float], start: float = 0.0) -> None:
        self.times, self._start = np.asarray(times, dtype=np.float64), start
        self._reader = open_video(clip) if isinstance(clip, (str, Path)) else None
        self._frames: Any = None if self._reader is not None else clip
        self._window: tuple[int, np.ndarray] = (-1, np.empty(0))
        if not len(self.times) or (self._frames is not None and len(self._frames) != len(self.times)):
            count = len(self.times) if self._frames is None else len(self._frames)
            raise ProcessingError(f"expected at least one frame, and a time per frame, got {count} frames and {len(self.times)} times")
        if not (np.isfinite(self.times).all() and (np.diff(self.times) >= 0).all()):
            raise ProcessingError("expected times that rise from frame to frame, got some that go backwards or are no numbers; sort them")
        self.height, self.width = self[0].shape[:2]

    @classmethod
    def at_rate(cls, clip: Any, fps: float, keep: np.ndarray, start: float = 0.0, end: float | None = None) -> ClipFrames:
        """The frames of a file, or of its part from `start` to `end`, at a rate, and those on screen at the (n,) seconds `keep`.

        Raises:
            ProcessingError: it is no file, or no rate.
        """
        if not isinstance(clip, (str, Path)):
            raise ProcessingError("expected no fps for frames in memory, got one; every frame that is given is looked at")
        if not 0 < fps < math.inf:
            raise ProcessingError(f"expected fps above 0, got {fps}; leave it out to look at the moments of the request")
        duration = open_video(clip).duration
        length = (duration if end is None else min(end, duration)) - start
        times = np.arange(max(1, math.ceil(length * fps - _SAME_MOMENT))) / fps
        apart = np.abs(times[:, None] - np.unique(keep)).min(axis=1, initial=np.inf) > _SAME_MOMENT
        return cls(clip, np.union1d(times[apart], keep), start)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, number: int) -> np.ndarray:
        """(height, width, 3) uint8 of one frame."""
        if self._reader is None:
            frame = self._frames[number]
            is_ready = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3
            return self._checked(frame if is_ready else np.asarray(load_picture(frame)), number)
        window = number // _WINDOW
        if self._window[0] != window:
            self._window = (window, self._read(self._start + self.times[window * _WINDOW : (window + 1) * _WINDOW]))
        return self._window[1][number % _WINDOW]

    def _checked(self, frame: np.ndarray, number: int) -> np.ndarray:
        """The frame; raises ProcessingError where it is not as large as the first one."""
        if number and frame.shape[:2] != (self.height, self.width):
            raise ProcessingError(
                f"expected frames of {self.width} x {self.height} pixels as the first one, got {frame.shape[1]} x {frame.shape[0]} "
                f"in frame {number}; bring them to one size"
            )
        return frame

    def _read(self, seconds: np.ndarray) -> np.ndarray:
        """(n, height, width, 3) frames of the file; of a damaged one whatever can be read."""
        reader = self._reader
        assert reader is not None, "there is a file"
        return until_undamaged(reader, lambda: reader.frames_at(seconds))

    def pictures(self) -> Iterator[tuple[int | float, Image.Image]]:
        """Seconds and frame, one at a time."""
        for number, time in enumerate(self.times.tolist()):
            yield time, Image.fromarray(self[number])

    def nearest(self, seconds: np.ndarray) -> np.ndarray:
        """(n,) int64 number of the frame nearest to each of (n,) moments; the earlier one of two that are equally near."""
        after = np.searchsorted(self.times, seconds).clip(1, max(len(self) - 1, 1))
        before = after - 1
        last = len(self) - 1
        is_later = np.abs(self.times[np.minimum(after, last)] - seconds) < np.abs(self.times[before] - seconds)
        return np.where(is_later, np.minimum(after, last), before)


def draw_masks(picture: Image.Image, masks: Iterable[tuple[int, np.ndarray]], *, opacity: float = 0.45) -> Image.Image:
    """A copy of the picture in which every object is tinted and outlined in its colour.

    Args:
        picture: any mode.
        masks: object id and (height, width) bool of the picture.
        opacity: of the tint, 0..1; the outline is opaque.

    Returns:
        An RGB picture of the same size.

    Raises:
        ProcessingError: the opacity is out of range, or a mask has another size.
    """
    if not 0 <= opacity <= 1:
        raise ProcessingError(f"expected an opacity from 0 to 1, got {opacity}")
    canvas = np.array(picture.convert("RGB"))
    for object_id, mask in masks:
        if mask.shape != canvas.shape[:2]:
            raise ProcessingError(f"expected a mask of (height, width) {canvas.shape[:2]}, got {mask.shape}; draw it on its own picture")
        colour = np.array(colour_of(object_id))
        canvas[mask] = np.round(canvas[mask] * (1 - opacity) + colour * opacity)
        canvas[outline_of(mask)] = colour
    return Image.fromarray(canvas)


SCHEMA_VERSION = 1
"""Version of what `Masks.to_dict` writes."""


class Mask(NamedTuple):
    """One mask.

    Attributes:
        object_id: of the point, or of the points, it was drawn around.
        group: index of the picture from 0, or seconds within a clip.
        mask: (height, width) bool, pixels of the displayed picture.
        score: see `Masks`.
    """

    object_id: int
    group: int | float
    mask: np.ndarray
    score: float


@dataclass(frozen=True, eq=False, repr=False)
class Masks(Sequence[Mask]):
    """Masks of the displayed pictures: one per point, in the order of the points, or one per object and frame of a clip.

    Attributes:
        object_id: (n,) int64.
        group: (n,) int64 index of the picture, or float64 seconds within a clip; its type says which.
        score: (n,) float64. Pictures: the intersection over union that the segmenter expects of itself. Clips: the probability it
            gives to the object being visible in the frame; a frame without the object has an empty mask. Neither is calibrated.
        runs: the run-lengths of all masks.
        number: (n,) int64, which mask of `runs` each row is.
        image_sizes: (width, height) of each picture, or of the clip.
        source: the pictures, for `draw`.
    """

    object_id: np.ndarray
    group: np.ndarray
    score: np.ndarray
    runs: MaskIndex
    number: np.ndarray
    image_sizes: tuple[tuple[int, int], ...]
    source: MaskedPictures | None = None

    @classmethod
    def collect(
        cls, rows: Iterable[Mask], *, video: bool, image_sizes: Sequence[tuple[int, int]], source: MaskedPictures | None = None
    ) -> Masks:
        """From masks that are made one at a time; only their run-lengths are kept."""
        columns: list[tuple[int, float, float]] = []

        def masks() -> Iterator[np.ndarray]:
            for row in rows:
                columns.append((row.object_id, row.group, row.score))
                yield row.mask

        runs = MaskIndex.build(masks())
        object_id, group, score = np.array(columns, dtype=np.float64).reshape(-1, 3).T
        return cls(
            object_id.astype(np.int64),
            group if video else group.astype(np.int64),
            score,
            runs,
            np.arange(len(runs)),
            tuple((int(width), int(height)) for width, height in image_sizes),
            source,
        )

    @property
    def is_video(self) -> bool:
        """Whether groups are seconds and not indices of pictures."""
        return self.group.dtype.kind == "f"

    @property
    def areas(self) -> np.ndarray:
        """(n,) int64 pixels."""
        return np.array([self.runs.area(number) for number in self.number], dtype=np.int64)

    @property
    def boxes(self) -> np.ndarray:
        """(n, 4) float64 left, upper, right and lower edge in pixels; NaN for an empty mask."""
        found = [self.runs.box(number) or (math.nan,) * 4 for number in self.number]
        return np.array(found, dtype=np.float64).reshape(-1, 4)

    def of_object(self, object_id: int) -> Masks:
        """The masks of one object; none where there is no such object."""
        return self[self.object_id == object_id]

    def at(self, group: float) -> Masks:
        """The masks of one picture, or of the moment of a clip."""
        return self[self.group == group]

    def union(self) -> np.ndarray:
        """(height, width) bool: all of these masks together; of one picture or one moment, as `at` gives them.

        Raises:
            GroundingError: there is no mask, or the masks belong to pictures of several sizes.
        """
        sizes = {tuple(self.runs.sizes[number].tolist()) for number in self.number}
        if len(sizes) != 1:
            raise GroundingError(f"expected masks of one size to unite, got sizes {sorted(sizes)}; choose a picture with `at` first")
        return np.logical_or.reduce([self.runs.mask(number) for number in self.number])

    def to_rle(self) -> list[dict[str, Any]]:
        """Run-lengths of COCO, one a mask: {"size": [height, width], "counts": text}, as pycocotools writes and reads them."""
        return [encode_mask(self.runs.mask(number)) for number in self.number]

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, ready for JSON. `from_dict` reads it back."""
        rows = [
            {"object_id": object_id, "group": group, "score": score, "mask": mask}
            for object_id, group, score, mask in zip(
                self.object_id.tolist(), self.group.tolist(), self.score.tolist(), self.to_rle(), strict=True
            )
        ]
        return {
            "schema_version": SCHEMA_VERSION,
            "group_unit": "second" if self.is_video else "image",
            "image_sizes": [list(size) for size in self.image_sizes],
            "masks": rows,
        }

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as strict JSON."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Masks:
        """Reads what `to_dict` wrote.

        Raises:
            GroundingError: another schema version, or a missing or malformed entry.
        """
        version = document.get("schema_version") if isinstance(document, Mapping) else None
        if version != SCHEMA_VERSION:
            raise GroundingError(f"expected masks of schema version {SCHEMA_VERSION}, got {version!r}; use the release that wrote them")
        try:
            rows = [Mask(row["object_id"], row["group"], _decoded(row["mask"]), row["score"]) for row in document["masks"]]
            video = {"second": True, "image": False}[document["group_unit"]]
            return cls.collect(rows, video=video, image_sizes=document["image_sizes"])
        except (KeyError, TypeError, ValueError) as error:
            raise GroundingError(f"expected a document as Masks.to_dict writes it, got one without a proper {error}") from error

    def to_coco(self, category: str = "object", file_names: Sequence[str] | None = None) -> dict[str, Any]:
        """Images, annotations and categories in the layout of COCO; empty masks are left out.

        Every annotation has `score`, and `track_id`, the object id. Of a clip, every frame is an image with its `time` in seconds, as
        tracks write it.

        Args:
            category: name of what was pointed at.
            file_names: of the pictures, or of the frames in order of time; by default numbered.

        Raises:
            ProcessingError: there are more or fewer names than pictures.
        """
        groups = np.unique(self.group).tolist() if self.is_video else list(range(len(self.image_sizes)))
        if file_names is not None and len(file_names) != len(groups):
            raise ProcessingError(f"expected {len(groups)} file names, one per picture or frame, got {len(file_names)}")
        images = []
        for number, group in enumerate(groups):
            width, height = self.image_sizes[0 if self.is_video else number]
            name = file_names[number] if file_names is not None else f"{number:06}.png"
            of_clip = {"video_id": 1, "time": group} if self.is_video else {}
            images.append({"id": number + 1, "file_name": name, "width": width, "height": height, **of_clip})
        width, height = self.image_sizes[0] if self.image_sizes else (0, 0)
        videos = {"videos": [{"id": 1, "width": width, "height": height}]} if self.is_video else {}
        annotations = self._annotations({group: number + 1 for number, group in enumerate(groups)})
        return {**videos, "images": images, "annotations": annotations, "categories": [{"id": 1, "name": category}]}

    def _annotations(self, image_ids: Mapping[int | float, int]) -> list[dict[str, Any]]:
        """Of COCO, of the masks that are not empty."""
        annotations = []
        for row, (box, area) in enumerate(zip(self.boxes.tolist(), self.areas.tolist(), strict=True)):
            if not area:
                continue
            left, upper, right, lower = box
            annotations.append({
                "id": len(annotations) + 1, "image_id": image_ids[self.group[row].item()], "category_id": 1,
                "track_id": int(self.object_id[row]), "segmentation": encode_mask(self.runs.mask(self.number[row])), "area": area,
                "bbox": [left, upper, right - left, lower - upper], "iscrowd": 0, "score": float(self.score[row]),
                **({"video_id": 1} if self.is_video else {}),
            })  # fmt: skip
        return annotations

    def drawn(self, *, points: Points | None = None, opacity: float = 0.45) -> Iterator[tuple[int | float, Image.Image]]:
        """Group and picture of everything there is to draw on, one at a time: all pictures, or all frames of a clip.

        Args:
            points: also mark these.
            opacity: of the colour inside a mask, 0..1; an object has the colour of its marker.

        Raises:
            ProcessingError: these masks came from a file, without the pictures.
        """
        if self.source is None:
            raise ProcessingError("expected masks that know their pictures, got some without; ask for them with result.masks(segmenter)")
        for group, picture in self.source.pictures():
            here = [(int(self.object_id[row]), self.runs.mask(self.number[row])) for row in np.flatnonzero(self.group == group)]
            canvas = draw_masks(picture, here, opacity=opacity)
            yield group, canvas if points is None else draw_points(canvas, list(points[points.group == group]))

    def draw(self, *, points: Points | None = None, opacity: float = 0.45) -> Image.Image | list[Image.Image]:
        """The pictures with coloured masks; a list for a list of pictures or a clip. `drawn` takes less memory for long clips."""
        pictures = [picture for _, picture in self.drawn(points=points, opacity=opacity)]
        return pictures if self.source is None or self.source.many else pictures[0]

    def __len__(self) -> int:
        return len(self.number)

    def __iter__(self) -> Iterator[Mask]:
        return (self[row] for row in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Mask: ...
    @overload
    def __getitem__(self, index: slice | np.ndarray | Sequence[int]) -> Masks: ...

    def __getitem__(self, index: int | slice | np.ndarray | Sequence[int]) -> Mask | Masks:
        """One mask for an int; masks for a slice, a boolean mask of rows or a list of indices."""
        if isinstance(index, (int, np.integer)):
            object_id, group, score = (column[index].item() for column in (self.object_id, self.group, self.score))
            return Mask(object_id, group, self.runs.mask(self.number[index]), score)
        chosen = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index, dtype=None if len(index) else np.int64)]
        return replace(self, **{name: getattr(self, name)[chosen] for name in ("object_id", "group", "score", "number")})

    def __repr__(self) -> str:
        where = f"{len(np.unique(self.group))} frames" if self.is_video else f"{len(self.image_sizes)} pictures"
        return f"Masks({len(self)} of {len(np.unique(self.object_id))} objects in {where})"


def _decoded(run_lengths: Any) -> np.ndarray:
    mask = decode_mask(run_lengths)
    if mask is None:
        raise ValueError("mask: its run-lengths are broken")
    return mask
