"""The pictures or the clip of a request: as the model sees them, as people see them, and as features that
were computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from PIL import Image

from molmopoint.errors import ProcessingError
from molmopoint.files import picture_limit
from molmopoint.points import Points
from molmopoint.processing.media import MediaInputs
from molmopoint.processing.pictures import load_picture
from molmopoint.video import read_frames

if TYPE_CHECKING:
    from molmopoint.segmentation import Masks, Segmenter


class ShownPictures(Sequence[Image.Image]):
    """The pictures of a request as people see them, without holding the pixels of large ones.

    A large picture that came from a file is held as the bytes of that file, and decoded whenever it is asked
    for; what becomes of the file on the disk does not matter.

    Args:
        pictures: as `molmopoint.processing.pictures.load_with_file` gives them.
    """

    def __init__(self, pictures: Iterable[tuple[Image.Image, bytes | None]]) -> None:
        self._kept: list[Image.Image | _PictureFile] = []
        for picture, file in pictures:
            self._kept.append(picture if file is None else _PictureFile(file, picture.size))

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image.Image]: ...

    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        kept = self._kept[index]
        return kept.decoded() if isinstance(kept, _PictureFile) else kept


@dataclass(frozen=True, eq=False)
class _PictureFile:
    """The bytes of a picture's file, and the (width, height) of what is in it."""

    content: bytes = field(repr=False)
    size: tuple[int, int]

    def decoded(self) -> Image.Image:
        """The picture, whatever limit is in force here: it was allowed when it was read."""
        width, height = self.size
        with picture_limit(max(width * height, 1)):
            return load_picture(self.content)


@dataclass(frozen=True, eq=False)
class DisplayedMedia:
    """What a person sees of a request, for drawing; kept by the result, unlike tensors.

    Attributes:
        pictures: the displayed pictures; empty for a clip. Asking for a large one may decode it.
        clip: a video file, or (T, ...) frames; None for pictures.
        timestamps: (T,) seconds of the frames of a clip.
        as_list: they came as a list.
        start: second of a video file from which the timestamps count.
        end: second of a video file at which the part that is drawn ends; None for its end.
    """

    pictures: Sequence[Image.Image] = ()
    clip: str | Path | np.ndarray | Sequence[Any] | None = None
    timestamps: np.ndarray | None = None
    as_list: bool = False
    start: float = 0.0
    end: float | None = None

    @property
    def many(self) -> bool:
        """Whether drawing gives a list: for a list of pictures and for a clip."""
        return self.as_list or self.clip is not None

    def follow(self, segmenter: Segmenter, points: Points, fps: float | None, **options: Any) -> Masks:
        """Masks of the clip around points, on the frames the model saw, or on those of its file at `fps`."""
        assert self.timestamps is not None, "a clip has times"
        if fps is None:
            return segmenter.follow(
                self.clip, points, timestamps=self.timestamps, start=self.start, **options
            )
        if self.timestamps[0] > 0:
            raise ProcessingError(
                "expected no fps for masks of a result with absolute=True, got one; ask again without "
                "absolute=True"
            )
        # The last moment a model sees is that of the end, where the last frame is still on screen.
        return segmenter.follow(
            self.clip,
            points,
            fps=fps,
            start=self.start,
            end=self.start + float(self.timestamps[-1]),
            **options,
        )

    def with_groups(self, points: Points) -> list[tuple[int | float, Image.Image]]:
        """Group and picture of everything there is to draw on: all pictures, or the frames of the clip that
        have points.
        """
        if self.clip is None or self.timestamps is None:
            return list(enumerate(self.pictures))
        shown = np.flatnonzero(np.isin(self.timestamps, points.group))
        times = self.timestamps[shown]
        if isinstance(self.clip, (str, Path)):
            frames = list(read_frames(self.clip, times + self.start)) if len(times) else []
        else:
            frames = [self.clip[int(i)] for i in shown]
        return [(float(time), load_picture(frame)) for time, frame in zip(times, frames, strict=True)]


@dataclass(frozen=True, eq=False)
class RequestMedia(MediaInputs):
    """Pictures or a clip of a request.

    Attributes:
        displayed: the same as people see it.
        notes: what is wrong with it, where a part of it is used all the same.
    """

    displayed: DisplayedMedia = field(default_factory=DisplayedMedia, repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """Pictures the model has looked at; `Pointer.encode` makes it, `Pointer.point` and the others take it.

    Attributes:
        media: the pictures as model input.
        features: what the model sees, on its device; each backend has its own form.
        max_crops: option it was made with.
    """

    media: RequestMedia = field(repr=False)
    features: Any = field(repr=False)
    max_crops: int | None = None

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of every displayed picture."""
        return tuple(self.media.metadata.image_sizes)

    def __repr__(self) -> str:
        return f"EncodedImage({', '.join(f'{width}x{height}' for width, height in self.image_sizes)})"
