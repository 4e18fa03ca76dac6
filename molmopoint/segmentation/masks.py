"""Masks as results: kept as run-lengths, so that a long clip fits into memory; arrays on demand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, overload

import numpy as np
from PIL import Image

from molmopoint.drawing import draw_points
from molmopoint.errors import GroundingError, ProcessingError
from molmopoint.metrics.run_lengths import MaskIndex, decode_mask, encode_mask
from molmopoint.points import Points
from molmopoint.segmentation.media import MaskedPictures, draw_masks

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
    """Masks of the displayed pictures: one per point, in the order of the points, or one per object and frame
    of a clip.

    Attributes:
        object_id: (n,) int64.
        group: (n,) int64 index of the picture, or float64 seconds within a clip; its type says which.
        score: (n,) float64. Pictures: the intersection over union that the segmenter expects of itself.
            Clips: the probability it gives to the object being visible in the frame; a frame without the
            object has an empty mask. Neither is calibrated.
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
        cls,
        rows: Iterable[Mask],
        *,
        video: bool,
        image_sizes: Sequence[tuple[int, int]],
        source: MaskedPictures | None = None,
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
        """(height, width) bool: all of these masks together; of one picture or one moment, as `at` gives
        them.

        Raises:
            GroundingError: there is no mask, or the masks belong to pictures of several sizes.
        """
        sizes = {tuple(self.runs.sizes[number].tolist()) for number in self.number}
        if len(sizes) != 1:
            raise GroundingError(
                f"expected masks of one size to unite, got sizes {sorted(sizes)}; choose a picture with "
                "`at` first"
            )
        return np.logical_or.reduce([self.runs.mask(number) for number in self.number])

    def to_rle(self) -> list[dict[str, Any]]:
        """Run-lengths of COCO, one a mask: {"size": [height, width], "counts": text}, as pycocotools writes
        and reads them.
        """
        return [encode_mask(self.runs.mask(number)) for number in self.number]

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, ready for JSON. `from_dict` reads it back."""
        columns = zip(
            self.object_id.tolist(), self.group.tolist(), self.score.tolist(), self.to_rle(), strict=True
        )
        rows = [dict(zip(("object_id", "group", "score", "mask"), values, strict=True)) for values in columns]
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
            raise GroundingError(
                f"expected masks of schema version {SCHEMA_VERSION}, got {version!r}; use the release that "
                "wrote them"
            )
        try:
            rows = [
                Mask(row["object_id"], row["group"], _decoded(row["mask"]), row["score"])
                for row in document["masks"]
            ]
            video = {"second": True, "image": False}[document["group_unit"]]
            return cls.collect(rows, video=video, image_sizes=document["image_sizes"])
        except (KeyError, TypeError, ValueError) as error:
            raise GroundingError(
                f"expected a document as Masks.to_dict writes it, got one without a proper {error}"
            ) from error

    def to_coco(self, category: str = "object", file_names: Sequence[str] | None = None) -> dict[str, Any]:
        """Images, annotations and categories in the layout of COCO; empty masks are left out.

        Every annotation has `score`, and `track_id`, the object id. Of a clip, every frame is an image with
        its `time` in seconds, as tracks write it.

        Args:
            category: name of what was pointed at.
            file_names: of the pictures, or of the frames in order of time; by default numbered.

        Raises:
            ProcessingError: there are more or fewer names than pictures.
        """
        groups: list[int | float] = list(range(len(self.image_sizes)))
        if self.is_video:
            groups = np.unique(self.group).tolist()
        if file_names is not None and len(file_names) != len(groups):
            raise ProcessingError(
                f"expected {len(groups)} file names, one per picture or frame, got {len(file_names)}"
            )
        names = file_names or [f"{number:06}.png" for number in range(len(groups))]
        document: dict[str, Any] = {}
        images: list[dict[str, Any]] = []
        for number, (group, name) in enumerate(zip(groups, names, strict=True)):
            width, height = self.image_sizes[0 if self.is_video else number]
            images.append({"id": number + 1, "file_name": name, "width": width, "height": height})
            if self.is_video:
                images[-1] |= {"video_id": 1, "time": group}
        if self.is_video:
            width, height = self.image_sizes[0] if self.image_sizes else (0, 0)
            document["videos"] = [{"id": 1, "width": width, "height": height}]
        image_ids = {group: number for number, group in enumerate(groups, start=1)}
        document["images"] = images
        document["annotations"] = self._annotations(image_ids)
        document["categories"] = [{"id": 1, "name": category}]
        return document

    def _annotations(self, image_ids: Mapping[int | float, int]) -> list[dict[str, Any]]:
        """Of COCO, of the masks that are not empty."""
        annotations = []
        for row, (box, area) in enumerate(zip(self.boxes.tolist(), self.areas.tolist(), strict=True)):
            if not area:
                continue
            left, upper, right, lower = box
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_ids[self.group[row].item()],
                "category_id": 1,
                "track_id": int(self.object_id[row]),
                "segmentation": encode_mask(self.runs.mask(self.number[row])),
                "area": area,
                "bbox": [left, upper, right - left, lower - upper],
                "iscrowd": 0,
                "score": float(self.score[row]),
            }
            if self.is_video:
                annotation["video_id"] = 1
            annotations.append(annotation)
        return annotations

    def drawn(
        self, *, points: Points | None = None, opacity: float = 0.45
    ) -> Iterator[tuple[int | float, Image.Image]]:
        """Group and picture of everything there is to draw on, one at a time: all pictures, or all frames of
        a clip.

        Args:
            points: also mark these.
            opacity: of the colour inside a mask, 0..1; an object has the colour of its marker.

        Raises:
            ProcessingError: these masks came from a file, without the pictures.
        """
        if self.source is None:
            raise ProcessingError(
                "expected masks that know their pictures, got some without; ask for them with "
                "result.masks(segmenter)"
            )
        for group, picture in self.source.pictures():
            here = self.at(group)
            masks = [(mask.object_id, mask.mask) for mask in here]
            canvas = draw_masks(picture, masks, opacity=opacity)
            if points is not None:
                canvas = draw_points(canvas, list(points[points.group == group]))
            yield group, canvas

    def draw(self, *, points: Points | None = None, opacity: float = 0.45) -> Image.Image | list[Image.Image]:
        """The pictures with coloured masks; a list for a list of pictures or a clip. `drawn` takes less
        memory for long clips.
        """
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
            mask = self.runs.mask(self.number[index])
            return Mask(
                self.object_id[index].item(), self.group[index].item(), mask, self.score[index].item()
            )
        if not isinstance(index, slice):
            # An empty list has no type of its own that could index.
            index = np.asarray(index, dtype=None if len(index) else np.int64)
        return replace(
            self,
            object_id=self.object_id[index],
            group=self.group[index],
            score=self.score[index],
            number=self.number[index],
        )

    def __repr__(self) -> str:
        where = (
            f"{len(np.unique(self.group))} frames" if self.is_video else f"{len(self.image_sizes)} pictures"
        )
        return f"Masks({len(self)} of {len(np.unique(self.object_id))} objects in {where})"


def _decoded(run_lengths: Any) -> np.ndarray:
    mask = decode_mask(run_lengths)
    if mask is None:
        raise ValueError("mask: its run-lengths are broken")
    return mask
