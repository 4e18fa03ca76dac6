"""Small pictures for a page that needs no other file."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from molmopoint.errors import MolmoPointError
from molmopoint.eval.benchmark import Asking, Clip
from molmopoint.eval.runner.clips import cut_clip
from molmopoint.files import open_picture

logger = logging.getLogger(__name__)

SIDE = 512
"""Pixels of the longer side."""
SMALL_SIDE = 384
"""The same of a page with many pictures."""
PART_SIDE = 256
"""The same of a part of a picture."""
QUALITY = 72
"""Of JPEG."""
BUDGET = 12_000_000
"""Characters of all pictures of a page together."""

_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What PIL raises for files that are no pictures."""


@dataclass(frozen=True)
class Stored:
    """A picture of the page.

    Attributes:
        key: of its data in `Thumbnails.data`; None where there is no picture, or no room for it.
        size: (width, height) of the displayed original; None where it could not be read.
    """

    key: str | None
    size: tuple[int, int] | None


class Thumbnails:
    """Pictures by key, each stored once however many items ask about it.

    Args:
        side: pixels of the longer side of pictures and frames.
        budget: characters of all pictures together.

    Attributes:
        data: JPEG as data addresses, by key.
        without_room: pictures that were left out because the page would become too large.
    """

    def __init__(self, side: int = SIDE, budget: int = BUDGET) -> None:
        self.data: dict[str, str] = {}
        self.without_room = 0
        self._side = side
        self._left = budget
        self._known: dict[Path, Stored] = {}

    def picture(self, path: Path) -> Stored:
        """A picture file; one that is missing or unreadable is a placeholder."""
        if path not in self._known:
            self._known[path] = self._open(path)
        return self._known[path]

    def part(self, path: Path, area: tuple[int, int, int, int]) -> Stored:
        """A part of a picture file, left, top, right and lower edge in pixels."""
        try:
            with open_picture(path) as opened:
                return self._store(ImageOps.exif_transpose(opened).crop(area), PART_SIDE)
        except _UNREADABLE:
            return Stored(None, None)

    def frames(self, clip: Clip, asking: Asking, moments: Sequence[float]) -> list[Stored]:
        """The frames of a clip that are nearest to some moments; placeholders if it cannot be read."""
        frames, times = _cut(clip, asking)
        if not len(frames):
            return [Stored(None, None)] * len(moments)
        nearest = [int(np.abs(np.array(times) - moment).argmin()) for moment in moments]
        return [self._store(Image.fromarray(frames[i]), self._side) for i in nearest]

    def strip(self, clip: Clip, asking: Asking) -> list[tuple[float, Stored]]:
        """All frames that `asking` cuts from a clip, with their seconds; one placeholder if it cannot be read."""
        frames, times = _cut(clip, asking)
        stored = [(time, self._store(Image.fromarray(frame), self._side)) for frame, time in zip(frames, times, strict=True)]
        return stored or [(0.0, Stored(None, None))]

    def _open(self, path: Path) -> Stored:
        try:
            with open_picture(path) as opened:
                return self._store(ImageOps.exif_transpose(opened), self._side)
        except _UNREADABLE as error:
            logger.debug("no picture of %s: %s", path, error)
            return Stored(None, None)

    def _store(self, picture: Image.Image, side: int) -> Stored:
        size = picture.size
        small = picture.convert("RGB")
        small.thumbnail((side, side))
        out = io.BytesIO()
        small.save(out, "JPEG", quality=QUALITY, optimize=True)
        address = "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
        if len(address) > self._left:
            self.without_room += 1
            return Stored(None, size)
        self._left -= len(address)
        key = f"p{len(self.data)}"
        self.data[key] = address
        return Stored(key, size)


def _cut(clip: Clip, asking: Asking) -> tuple[np.ndarray, list[float]]:
    """Frames of a clip and their seconds; none if it cannot be read."""
    try:
        return cut_clip(clip, asking)
    except (OSError, ValueError, ImportError, RuntimeError, MolmoPointError) as error:
        logger.debug("no frames of %s: %s", clip.path, error)
        return np.empty((0, 0, 0, 3), dtype=np.uint8), []
