"""One item of the gallery: its pictures, small enough for a page that needs no other file, what is drawn on
them, and what it is filtered by.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from molmopoint.errors import MolmoPointError
from molmopoint.eval.benchmark import (
    Benchmark,
    GenerationSettings,
    Item,
    ParsedAnswer,
    ShownTarget,
    ShownTruth,
    VideoSegment,
)
from molmopoint.eval.datasets.files import UNREADABLE
from molmopoint.eval.datasets.videos import read_frames
from molmopoint.eval.predictions.records import Prediction
from molmopoint.eval.reports.faults import Finding, ShownResponse, find_faults, reward_faults, shown_responses
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
        except UNREADABLE:
            return Stored(None, None)

    def frames(
        self, clip: VideoSegment, settings: GenerationSettings, moments: Sequence[float]
    ) -> list[Stored]:
        """The frames of a clip that are nearest to some moments; placeholders if it cannot be read."""
        frames, times = _read(clip, settings)
        if not len(frames):
            return [Stored(None, None)] * len(moments)
        stored = []
        for moment in moments:
            nearest = int(np.abs(np.array(times) - moment).argmin())
            stored.append(self._store(Image.fromarray(frames[nearest]), self._side))
        return stored

    def strip(self, clip: VideoSegment, settings: GenerationSettings) -> list[tuple[float, Stored]]:
        """All frames of a clip by some settings, with their seconds; one placeholder if it cannot be read."""
        frames, times = _read(clip, settings)
        stored = []
        for frame, time in zip(frames, times, strict=True):
            stored.append((time, self._store(Image.fromarray(frame), self._side)))
        return stored or [(0.0, Stored(None, None))]

    def _open(self, path: Path) -> Stored:
        try:
            with open_picture(path) as opened:
                return self._store(ImageOps.exif_transpose(opened), self._side)
        except UNREADABLE as error:
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


def _read(clip: VideoSegment, settings: GenerationSettings) -> tuple[np.ndarray, list[float]]:
    """Frames of a clip and their seconds; none if it cannot be read."""
    try:
        return read_frames(clip, settings)
    except (OSError, ValueError, ImportError, RuntimeError, MolmoPointError) as error:
        logger.debug("no frames of %s: %s", clip.path, error)
        return np.empty((0, 0, 0, 3), dtype=np.uint8), []


Verdict = Literal["right", "partly right", "wrong"]
VERDICTS: tuple[Verdict, ...] = ("right", "partly right", "wrong")

_MOST_FRAMES = 6
_SMALL = 16
"""Targets that fit so often into both sides are also shown from near."""
_ASSUMED = (1000, 1000)
"""(width, height) of a picture nobody knows the size of."""


@dataclass(frozen=True)
class Mark:
    """A point that is drawn.

    Attributes:
        number: from 1, in the order of the answer.
        x: pixels.
        y: pixels.
        title: what a pointing device over it tells.
    """

    number: int
    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Drawing:
    """A picture or frame with everything on it, in pixels of the displayed original.

    Attributes:
        label: "picture 2", "3.5 s", or nothing where there is only one.
        key: of the picture's data; None for a placeholder.
        width: pixels.
        height: pixels.
        outlines: targets as SVG paths.
        truths: places where annotators pointed.
        marks: predicted points.
        left: pixels of the original to the left, in a close-up.
        top: pixels of the original above, in a close-up.
    """

    label: str
    key: str | None
    width: int
    height: int
    outlines: tuple[str, ...]
    truths: tuple[tuple[float, float], ...]
    marks: tuple[Mark, ...]
    left: int = 0
    top: int = 0

    @property
    def unit(self) -> float:
        """Pixels of the original that are a hundredth of the longer side: what marks are measured in."""
        return max(self.width, self.height) / 100


@dataclass(frozen=True)
class Card:
    """An item as the page shows it.

    Attributes:
        item_id: of the item.
        prompt: as it was asked.
        categories: values by way of grouping.
        scores: by metric.
        value: of the headline's metric.
        verdict: by that value.
        faults: see `faults.FAULTS`.
        distance: see `faults.Finding`.
        expected: right number of points, where it is known.
        points: predicted ones.
        text: the answer in words, or as it was generated.
        error: of the model or the media.
        drawings: pictures, or frames at predicted and at true moments.
        responses: that were scored, the best first; empty where the model answered itself.
    """

    item_id: str
    prompt: str
    categories: Mapping[str, tuple[str, ...]]
    scores: Mapping[str, float]
    value: float
    verdict: Verdict
    faults: tuple[str, ...]
    distance: float | None
    expected: int | None
    points: int
    text: str
    error: str | None
    drawings: tuple[Drawing, ...]
    responses: tuple[ShownResponse, ...] = ()


def verdict_of(value: float) -> Verdict:
    """Of a score between 0 and 1."""
    if value >= 1:
        return "right"
    return "wrong" if value <= 0 else "partly right"


def card_of(
    benchmark: Benchmark,
    item: Item,
    scores: Mapping[str, float],
    value: float,
    prediction: Prediction | None,
    thumbnails: Thumbnails,
) -> Card:
    """The card of an item.

    Args:
        benchmark: the item's.
        item: with or without its media.
        scores: of the item.
        value: of the headline's metric.
        prediction: None if nothing was stored.
        thumbnails: where its pictures go.
    """
    answer = None
    if prediction is not None and prediction.error is None:
        answer = prediction.answer()
    sizes = _sizes_of(item, prediction, thumbnails)
    truth = _in_size(benchmark.shown_truth(item), sizes[0] if sizes else None)
    if item.clip is None:
        drawings = _pictures(item, answer, truth, sizes, thumbnails)
    else:
        drawings = _frames(benchmark, item, answer, truth, sizes, thumbnails)
    if item.responses:
        found = Finding(reward_faults(answer), None)
    else:
        size = (drawings[0].width, drawings[0].height) if drawings else None
        found = find_faults(answer, truth, size)
    categories = {}
    for name, each in item.categories.items():
        categories[name] = (each,) if isinstance(each, str) else tuple(each)
    return Card(
        item_id=item.item_id,
        prompt=item.prompt if prediction is None else prediction.prompt or item.prompt,
        categories=categories,
        scores=scores,
        value=value,
        verdict=verdict_of(value),
        faults=found.faults,
        distance=found.distance,
        expected=None if truth is None else truth.count,
        points=0 if answer is None else len(answer),
        text="" if prediction is None else prediction.raw_text or prediction.text,
        error=None if prediction is None else prediction.error,
        drawings=drawings,
        responses=shown_responses(item, answer),
    )


def _sizes_of(
    item: Item, prediction: Prediction | None, thumbnails: Thumbnails
) -> tuple[tuple[int, int], ...]:
    """(width, height) of the pictures or the clip, as far as anybody knows them."""
    sizes = item.image_sizes
    if prediction is not None and prediction.image_sizes:
        sizes = prediction.image_sizes
    if sizes or not item.images:
        return sizes
    size = thumbnails.picture(item.images[0]).size
    return () if size is None else (size,)


def _pictures(
    item: Item,
    answer: ParsedAnswer | None,
    truth: ShownTruth | None,
    sizes: tuple[tuple[int, int], ...],
    thumbnails: Thumbnails,
) -> tuple[Drawing, ...]:
    drawings = []
    for i, path in enumerate(item.images):
        stored = thumbnails.picture(path)
        size = stored.size
        if i < len(sizes):
            size = sizes[i]
        elif size is None and truth is not None:
            size = truth.size
        label = f"picture {i + 1}" if len(item.images) > 1 else ""
        drawing = _drawing(label, stored.key, size, answer, truth, (i, 0.5))
        drawings.append(drawing)
        area = None
        if truth is not None and stored.key is not None and stored.size == size:
            area = _close_area(truth, i, (drawing.width, drawing.height))
        if area is not None:
            left, top, right, bottom = area
            drawings.append(
                replace(
                    drawing,
                    label="close-up",
                    key=thumbnails.part(path, area).key,
                    width=right - left,
                    height=bottom - top,
                    left=left,
                    top=top,
                )
            )
    return tuple(drawings)


def _close_area(truth: ShownTruth, group: int, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Left, top, right and lower edge around targets that are too small to be seen in the whole picture.

    None if they are not.
    """
    rings: list[np.ndarray] = []
    for target in truth.targets:
        if abs(target.group - group) < 0.5:
            rings += target.rings
    if not rings:
        return None
    corners = np.concatenate(rings)
    low, high = corners.min(axis=0), corners.max(axis=0)
    whole = np.array(size)
    share = float(((high - low) / whole).max())
    if share * _SMALL > 1:
        return None
    side = np.maximum(whole * max(3 * share, 1 / 16), np.minimum(whole, 64)).astype(int)
    start = np.clip((low + high) / 2 - side / 2, 0, whole - side).astype(int)
    left, top = start.tolist()
    right, bottom = (start + side).tolist()
    return left, top, right, bottom


def _frames(
    benchmark: Benchmark,
    item: Item,
    answer: ParsedAnswer | None,
    truth: ShownTruth | None,
    sizes: tuple[tuple[int, int], ...],
    thumbnails: Thumbnails,
) -> tuple[Drawing, ...]:
    """Moments of points and targets, a few spread over all of them."""
    assert item.clip is not None, "only items with a clip have frames"
    drawings = []
    if item.responses:
        few_frames = replace(benchmark.generation, max_frames=_MOST_FRAMES)
        for moment, stored in thumbnails.strip(item.clip, few_frames):
            drawings.append(_drawing(f"{moment:g} s", stored.key, stored.size, None, None, (moment, 0)))
        return tuple(drawings)
    chosen = _moments(answer, truth)
    for moment, stored in zip(
        chosen, thumbnails.frames(item.clip, benchmark.generation, chosen), strict=True
    ):
        size = sizes[0] if sizes else stored.size
        drawings.append(_drawing(f"{moment:g} s", stored.key, size, answer, truth, (moment, 1e-3)))
    return tuple(drawings)


def _moments(answer: ParsedAnswer | None, truth: ShownTruth | None) -> list[float]:
    """Seconds of points and targets, or the first moment; a few spread over all of them."""
    every: set[float] = set()
    if answer is not None:
        every |= {round(float(moment), 3) for moment in answer.group}
    if truth is not None:
        every |= {round(target.group, 3) for target in truth.targets}
    moments = sorted(every) or [0.0]
    spread = np.linspace(0, len(moments) - 1, min(_MOST_FRAMES, len(moments)))
    return [moments[i] for i in sorted({round(place) for place in spread})]


def _drawing(
    label: str,
    key: str | None,
    size: tuple[int, int] | None,
    answer: ParsedAnswer | None,
    truth: ShownTruth | None,
    where: tuple[float, float],
) -> Drawing:
    """What belongs to a picture, or to a moment: those whose group is near enough."""
    group, tolerance = where
    targets = []
    if truth is not None:
        targets = [target for target in truth.targets if abs(target.group - group) < tolerance]
    outlines = tuple(_path(target) for target in targets if target.rings)
    truths = tuple(target.point for target in targets if target.point is not None)
    width, height = size or _ASSUMED
    return Drawing(label, key, width, height, outlines, truths, _marks(answer, group, tolerance))


def _marks(answer: ParsedAnswer | None, group: float, tolerance: float) -> tuple[Mark, ...]:
    if answer is None:
        return ()
    marks = []
    for i in np.flatnonzero(np.abs(answer.group - group) < tolerance).tolist():
        x, y = answer.xy[i].tolist()
        marks.append(Mark(i + 1, x, y, _title(answer, i)))
    return tuple(marks)


def _title(answer: ParsedAnswer, i: int) -> str:
    name = f", object {answer.object_id[i]}" if answer.object_id[i] >= 0 else ""
    return f"point {i + 1}{name}: x {answer.xy[i, 0]:.1f}, y {answer.xy[i, 1]:.1f}"


def _path(target: ShownTarget) -> str:
    """All rings of a target as one SVG path."""
    path = ""
    for ring in target.rings:
        corners = [f"{x:g} {y:g}" for x, y in ring.round(1)]
        path += f"M{'L'.join(corners)}Z"
    return path


def _in_size(truth: ShownTruth | None, size: tuple[int, int] | None) -> ShownTruth | None:
    """The right answer in the pixels of the points."""
    if truth is None or truth.size is None or size is None or truth.size == size:
        return truth
    factor = np.array(size) / np.array(truth.size)
    return replace(truth, targets=tuple(_scaled(target, factor) for target in truth.targets), size=size)


def _scaled(target: ShownTarget, factor: np.ndarray) -> ShownTarget:
    rings = tuple(ring * factor for ring in target.rings)
    if target.point is None:
        return replace(target, rings=rings)
    x, y = target.point
    return replace(target, rings=rings, point=(x * float(factor[0]), y * float(factor[1])))
