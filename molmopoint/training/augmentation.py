"""Pictures that look different in every epoch, with their points: what makes a few hundred pictures enough.

A change is made only where the answer stays right. Pictures that anybody speaks of with a word of place are
left as they lie, points are never cut off, and pictures with questions or captions are only made lighter or
darker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from molmopoint.data.records import Record, to_pixels
from molmopoint.processing.pictures import load_picture
from molmopoint.training.recipe import Augmentation
from molmopoint.training.sources import Example, Source

MARGIN = 0.1
"""What stays between a point and a cut edge, as part of the side: most of what is pointed at is kept."""

_ANGLES = 8
"""Angles that are tried."""

_PLACE = re.compile(
    r"\b(left|right|top|bottom|upper|lower|uppermost|leftmost|rightmost|topmost|bottommost|lowest|highest|above|below|under|over|up|down|"
    r"beneath|beside|between|first|last|middle|cent(er|re)|corner|edge|row|column|horizontal|vertical|upside|clockwise)(s|ly|hand)?\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, eq=False)
class AugmentedSource:
    """The examples of a source, each time another view of them.

    Attributes:
        source: where they come from.
        settings: of the recipe.
        seed: of the changes; with the number of the example and the epoch it decides them.
    """

    source: Source
    settings: Augmentation
    seed: int = 0

    @property
    def name(self) -> str:
        """Of the source."""
        return self.source.name

    def __len__(self) -> int:
        return len(self.source)

    def example(self, index: int, epoch: int = 0) -> Example:
        """The example of this number as this epoch shows it."""
        return augment(
            self.source.example(index, epoch), self.settings, np.random.default_rng([self.seed, index, epoch])
        )


def augment(example: Example, settings: Augmentation, rng: np.random.Generator) -> Example:
    """Another view of an example; clips, rows without pictures and examples with masks stay as they are.

    Args:
        example: rows on the same pictures.
        settings: how much may change.
        rng: draws the changes.

    Raises:
        ProcessingError: a picture is missing or broken, or a point lies outside of it.
    """
    is_fixed = not example.pictures or example.clip is not None or example.masks is not None
    if is_fixed or settings == Augmentation():
        return example
    pictures = [load_picture(picture) for picture in example.pictures]
    sizes = [picture.size for picture in pictures]

    # The points of all rows stand below each other, so that a picture moves all of its own at once.
    located = [to_pixels(record, sizes) for record in example.records]
    group = np.concatenate([groups for groups, _ in located])  # (n,) the picture of each point
    xy = np.concatenate([points for _, points in located])  # (n, 2)
    may_move = all(_may_move(record) for record in example.records)
    for i, picture in enumerate(pictures):
        is_here = group == i
        if may_move:
            picture, xy[is_here] = _move(picture, xy[is_here], settings, rng)
        pictures[i] = _relight(picture, settings.light, rng)

    ends = np.cumsum([len(points) for _, points in located])
    by_record = np.split(xy, ends[:-1])
    records = [
        _with_points(record, points) for record, points in zip(example.records, by_record, strict=True)
    ]
    return replace(example, records=tuple(records), pictures=tuple(pictures))


def _move(
    picture: Image.Image, xy: np.ndarray, settings: Augmentation, rng: np.random.Generator
) -> tuple[Image.Image, np.ndarray]:
    """Mirrors, turns and crops a picture and its points (n, 2) in pixels."""
    if rng.random() < settings.mirror:
        xy = np.stack([picture.width - xy[:, 0], xy[:, 1]], axis=1)
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if settings.turn > 0:
        picture, xy = _turn(picture, xy, settings.turn, rng)
    if settings.crop > 0:
        picture, xy = _crop(picture, xy, settings.crop, rng)
    return picture, xy


def _turn(
    picture: Image.Image, xy: np.ndarray, most: float, rng: np.random.Generator
) -> tuple[Image.Image, np.ndarray]:
    """Turns about the middle by up to `most` degrees; the first of some angles that keeps all points well
    inside, else none.

    Corners that come into view have the mean colour of the old edge.
    """
    size = np.array(picture.size)
    middle = size / 2
    for angle in rng.uniform(-most, most, size=_ANGLES):
        cosine = np.cos(np.deg2rad(angle))
        sine = np.sin(np.deg2rad(angle))
        rotation = np.array([[cosine, -sine], [sine, cosine]])
        turned = (xy - middle) @ rotation + middle
        stays_inside = (turned >= MARGIN * size) & (turned <= (1 - MARGIN) * size)
        if stays_inside.all():
            rotated = picture.rotate(
                float(angle), Image.Resampling.BICUBIC, fillcolor=_colour_of_edge(picture)
            )
            return rotated, turned
    return picture, xy


def _colour_of_edge(picture: Image.Image) -> tuple[int, ...]:
    """Mean colour of the outermost pixels."""
    pixels = np.asarray(picture)  # (height, width, 3)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    mean = edge.mean(axis=0).round().astype(int)
    return tuple(mean.tolist())


def _crop(
    picture: Image.Image, xy: np.ndarray, most: float, rng: np.random.Generator
) -> tuple[Image.Image, np.ndarray]:
    """Cuts off up to the part `most` of each side, as far as points allow."""
    size = np.array(picture.size)
    near = most / 2 * rng.random(2) * size  # (2,) cut off at the left and at the top
    far = most / 2 * rng.random(2) * size  # (2,) at the right and at the bottom
    if len(xy):
        room_near = xy.min(axis=0) - MARGIN * size
        room_far = size - xy.max(axis=0) - MARGIN * size
        near = np.clip(near, 0, np.maximum(room_near, 0))
        far = np.clip(far, 0, np.maximum(room_far, 0))
    left, top = np.floor(near).astype(int).tolist()
    right, bottom = (size - np.floor(far).astype(int)).tolist()
    return picture.crop((left, top, right, bottom)), xy - np.array([left, top])


def _relight(picture: Image.Image, most: float, rng: np.random.Generator) -> Image.Image:
    """Changes brightness and contrast by factors of up to 1 + `most`."""
    if most <= 0:
        return picture
    brightness, contrast = (1 + most) ** rng.uniform(-1, 1, size=2)
    pixels = np.asarray(picture, dtype=np.float32)
    mean = pixels.mean()
    return Image.fromarray(
        np.clip((pixels - mean) * contrast + mean * brightness, 0, 255).round().astype(np.uint8)
    )


def _may_move(record: Record) -> bool:
    """Whether a row says the same of its picture when that is moved: points alone, and no word of place."""
    if not record.is_pointing or record.turns:
        return False
    labels = [point.label for point in record.points or ()]
    texts = [record.prompt, *record.prompts, record.label, *labels]
    return not any(text and _PLACE.search(text) for text in texts)


def _with_points(record: Record, xy: np.ndarray) -> Record:
    """The record with points (n, 2) in pixels."""
    if not record.points:
        return record
    moved = tuple(
        replace(point, x=float(x), y=float(y)) for point, (x, y) in zip(record.points, xy, strict=True)
    )
    return replace(record, points=moved, coords="pixel")
