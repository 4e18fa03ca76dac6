"""Looking again: a question about a large picture is asked once more of parts of it, at native pixels, where
the first look's heat is, and the answers of both looks are merged.

A picture with more pixels than the crops of a model hold is seen shrunk. The first look says where things may
be: the probabilities of its choices, spread over the picture, are its heat. Parts of the picture are taken
where most heat is, until there is hardly any left or enough were taken, and the same is asked of each. What
the parts say there stands in place of what the first look said; outside of them the first look stands.

Letters: n points, h and w cells of a heat map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from molmopoint.backends import Backend
from molmopoint.backends.options import AnswerOptions
from molmopoint.backends.requests import Request
from molmopoint.backends.result import PointingResult
from molmopoint.backends.zoom import Zoom
from molmopoint.points import Points

Ask = Callable[[Sequence[int], Sequence[Request]], Sequence[PointingResult]]
"""Answers requests about parts; the numbers tell for which of the first requests each is asked."""

_CROPS_ALONG = 3
"""Crops along each side of a part, where its size is not given."""

_SIDE_WITHOUT_CROPS = 896
"""Side of a part in pixels at most, for models that see a picture as one."""

_ROUNDED = 56
"""Pixels by which such models may shrink a side and still see it as it is: two of their image tokens."""

_HEAT_CELLS = 256
"""Cells along the longer side of a picture for its heat."""

_LEAST_HEAT = 0.05
"""Part of the heat for which one more part of the picture is looked at."""

_NEAR = 14.0
"""Pixels of the picture within which two points of looks at native pixels are one thing: half an image token
of released models, and less than icons are apart."""

_LINE = 28.0
"""Pixels of the picture that make a line of points that stand side by side."""

_AROUND = 3.0
"""ViT patches of the first look around a place whose heat speaks for it: it sees no finer."""

_COLD, _DAMPING = 1e-3, 0.25
"""Heat that every place has, and the power that heat weighs with: the first look sees the whole, but less of
it. Of 0, 0.25, 0.5 and 1 the second was best on pages of 2560x1440 that are not those of the published test."""


@dataclass(frozen=True)
class Part:
    """A part of a picture that is looked at again.

    Attributes:
        left: pixels of the picture.
        top: pixels of the picture.
        right: the pixel after its last column.
        bottom: the pixel after its last row.
    """

    left: int
    top: int
    right: int
    bottom: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, as Pillow crops."""
        return self.left, self.top, self.right, self.bottom

    def in_picture(self, xy: np.ndarray) -> np.ndarray:
        """(n, 2) pixels of the picture for pixels of this part: a part is cut out, and not resized."""
        return xy + np.array([self.left, self.top], dtype=np.float64)

    def depth(self, xy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """(n,) how far points (n, 2) of the picture lie inside, in pixels; negative outside. A side that is a
        side of the picture cuts nothing off, and counts as far away.
        """
        width, height = size
        x, y = xy[:, 0], xy[:, 1]
        far = float(width + height)
        left = x - self.left if self.left > 0 else x + far
        top = y - self.top if self.top > 0 else y + far
        right = self.right - x if self.right < width else far + width - x
        bottom = self.bottom - y if self.bottom < height else far + height - y
        return np.minimum(np.minimum(left, right), np.minimum(top, bottom))


@dataclass(frozen=True, eq=False)
class Looker:
    """Looks again at native pixels.

    Attributes:
        backend: of the model; says how its pictures are seen, and makes rows.
    """

    backend: Backend

    def look_again(
        self,
        requests: Sequence[Request],
        firsts: Sequence[PointingResult],
        options: AnswerOptions,
        ask: Ask,
    ) -> list[PointingResult]:
        """The answers of a batch after a second look.

        Args:
            requests: of the first look, each about one picture.
            firsts: their results, with all points whatever their score.
            options: of the call.
            ask: answers requests about parts, with the options of a single look.
        """
        zoom = options.looks_again
        assert zoom is not None, "nobody asked to look again"
        owners: list[int] = []
        parts: list[Part] = []
        for number, first in enumerate(firsts):
            chosen = self.parts_of(first, zoom, options.max_crops)
            owners += [number] * len(chosen)
            parts += chosen
        most_tokens = sum(len(request.row) for request in requests)
        answers = self._asked(requests, owners, parts, options, ask, most_tokens)
        results = []
        for number, first in enumerate(firsts):
            mine = [i for i, owner in enumerate(owners) if owner == number]
            looks = [(parts[i], answers[i]) for i in mine]
            merged = merged_looks(first, looks, options) if looks else first
            results.append(merged.at_least(options.min_score))
        return results

    def parts_of(self, first: PointingResult, zoom: Zoom, max_crops: int | None) -> list[Part]:
        """The parts of a picture to look at again, the likeliest first; none where nothing was found, or the
        first look was at native pixels.
        """
        ((width, height),) = first.image_sizes
        if not len(first.points) or self._was_native(first):
            return []
        side = zoom.size or self._native_side(first, max_crops)
        if side >= max(width, height):
            return []
        return hottest_parts(heat_of(first), (width, height), side, zoom.looks)

    def _was_native(self, first: PointingResult) -> bool:
        """Whether no pixel of the picture was lost in the first look."""
        ((width, height),) = first.image_sizes
        seen_width, seen_height = self.backend.seen_size(first.metadata)
        # Hosts without crops round the sides of a picture to whole image tokens, down as well.
        has_crops = hasattr(self.backend.processor.image_processor, "overlap_margins")
        lost = 0 if has_crops else _ROUNDED
        return width <= seen_width + lost and height <= seen_height + lost

    def _native_side(self, first: PointingResult, max_crops: int | None) -> int:
        """Side in pixels of a square that the model sees at native pixels with few crops."""
        images = self.backend.processor.image_processor
        if not hasattr(images, "overlap_margins"):
            return min(_SIDE_WITHOUT_CROPS, *self.backend.seen_size(first.metadata))
        crop, patch = int(images.size["height"]), int(images.patch_size)
        stride = crop - sum(images.overlap_margins) * patch
        most = max_crops or int(images.max_crops)
        along = min(_CROPS_ALONG, max(1, int(most**0.5)))
        return crop + (along - 1) * stride

    def _asked(
        self,
        requests: Sequence[Request],
        owners: Sequence[int],
        parts: Sequence[Part],
        options: AnswerOptions,
        ask: Ask,
        most_tokens: int,
    ) -> list[PointingResult]:
        """Answers about parts, in batches of no more tokens than the first look had."""
        answers: list[PointingResult] = []
        waiting: list[tuple[int, Request]] = []

        def answer() -> None:
            answers.extend(ask([owner for owner, _ in waiting], [request for _, request in waiting]))
            waiting.clear()

        longest = 0
        shown = -1
        picture = None
        for owner, part in zip(owners, parts, strict=True):
            if owner != shown:
                # A large picture is decoded once for all of its parts, and held no longer.
                shown, picture = owner, requests[owner].media.displayed.pictures[0]
            assert picture is not None, "it was just read"
            media = self.backend.requests.process_images(picture.crop(part.box), options.max_crops)
            request = self.backend.requests.build_request(media, requests[owner].prompt, options.single)
            longest = max(longest, len(request.row))
            if waiting and longest * (len(waiting) + 1) > most_tokens:
                answer()
                longest = len(request.row)
            waiting.append((owner, request))
        if waiting:
            answer()
        return answers


def heat_of(first: PointingResult) -> np.ndarray:
    """(h, w) how likely the first look found something in each cell of the picture; of a model that says no
    more than where its points are, these alone.
    """
    ((width, height),) = first.image_sizes
    shrink = min(1.0, _HEAT_CELLS / max(width, height))
    shape = max(1, round(height * shrink)), max(1, round(width * shrink))
    heat = np.zeros(shape, dtype=np.float64)
    if first.distributions is not None and first.points.triples is not None:
        for number in range(len(first.points)):
            heat += first.heatmap(number, _HEAT_CELLS)
    if not heat.any():
        xy = first.points.xy
        rows = (xy[:, 1] * shape[0] / height).astype(np.int64).clip(0, shape[0] - 1)
        cols = (xy[:, 0] * shape[1] / width).astype(np.int64).clip(0, shape[1] - 1)
        np.add.at(heat, (rows, cols), 1.0)
    return heat


def hottest_parts(heat: np.ndarray, size: tuple[int, int], side: int, most: int) -> list[Part]:
    """Parts of a picture that hold most of the heat, one after the other.

    Args:
        heat: (h, w) over the whole picture.
        size: width and height of the picture in pixels.
        side: of a part in pixels; a picture that is narrower is taken from edge to edge.
        most: parts at most.

    Returns:
        Parts that lie in the picture; each holds heat that those before it do not hold.
    """
    left_over = heat.astype(np.float64, copy=True)
    whole = left_over.sum()
    width, height = size
    rows, cols = heat.shape
    tall = min(rows, max(1, int(side * rows / height)))
    wide = min(cols, max(1, int(side * cols / width)))
    middles_y = (np.arange(rows) + 0.5) * height / rows  # (h,) pixels
    middles_x = (np.arange(cols) + 0.5) * width / cols  # (w,) pixels
    parts: list[Part] = []
    while len(parts) < most and left_over.sum() > _LEAST_HEAT * whole:
        sums = _window_sums(left_over, tall, wide)
        row, col = np.unravel_index(int(sums.argmax()), sums.shape)
        inside = left_over[row : row + tall, col : col + wide]
        # What is hot in this window comes into the middle of the part.
        hot_rows, hot_cols = np.nonzero(inside >= 0.5 * inside.max())
        y = middles_y[row + hot_rows]
        x = middles_x[col + hot_cols]
        left, right = _span((x.min() + x.max()) / 2, side, width)
        top, bottom = _span((y.min() + y.max()) / 2, side, height)
        part = Part(left, top, right, bottom)
        if part not in parts:
            parts.append(part)
        is_inside_y = (middles_y >= top) & (middles_y < bottom)
        is_inside_x = (middles_x >= left) & (middles_x < right)
        left_over[np.ix_(is_inside_y, is_inside_x)] = 0.0
        # A part may be smaller than a cell, and hold the middle of none.
        left_over[row + hot_rows, col + hot_cols] = 0.0
    return parts


def _window_sums(values: np.ndarray, tall: int, wide: int) -> np.ndarray:
    """Sums over all windows of `tall` rows and `wide` columns: (h - tall + 1, w - wide + 1)."""
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    sums[1:, 1:] = values.cumsum(axis=0).cumsum(axis=1)
    return sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]


def _span(middle: float, side: int, length: int) -> tuple[int, int]:
    """Whole pixels from and to which `side` pixels around a place lie within a picture of that length."""
    if side >= length:
        return 0, length
    start = min(max(round(middle - side / 2), 0), length - side)
    return start, start + side


def merged_looks(
    first: PointingResult, looks: Sequence[tuple[Part, PointingResult]], options: AnswerOptions
) -> PointingResult:
    """One answer of a first look and of looks at parts.

    Where the first look found one thing, or one was asked for, the best point of all parts is the answer;
    where it found several, the parts say what is in them, and the first look says what is not.

    Args:
        first: with all of its points.
        looks: parts and what was said of them, at least one.
        options: of the call.
    """
    (size,) = first.image_sizes
    chosen = _found(size, looks)
    most = 1 if options.single or len(first.points) == 1 else options.max_points
    if most != 1:
        chosen = chosen.joined(_outside(first, [part for part, _ in looks]))
    if not len(chosen.xy):
        chosen = _found_in(first)
    if most is not None:
        chosen = chosen.best(first, most)
    points = chosen.in_reading_order().points(first)
    notes = first.notes
    if len(points) != len(first.points):
        notes += (
            f"looking again changed the number of points from {len(first.points)} to {len(points)}; the words "
            "are those of the first look",
        )
    return replace(
        first,
        points=points,
        truncated=first.truncated or any(look.truncated for _, look in looks),
        distributions=None,
        notes=notes,
        absent=max(first.absent, float(chosen.absent[0])) if options.single else first.absent,
        looks=1 + len(looks),
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """Points in pixels of the picture.

    Attributes:
        xy: (n, 2).
        score: (n,) in their own look; NaN where there is none.
        absent: (n,) probability of their look that there is nothing; NaN where it was not asked for one thing.
        labels: n phrases.
    """

    xy: np.ndarray
    score: np.ndarray
    absent: np.ndarray
    labels: Sequence[str | None]

    def where(self, chosen: np.ndarray) -> _Found:
        """Those of a mask (n,), or of indices in their order."""
        indices = np.arange(len(self.xy))[chosen]
        labels = [self.labels[i] for i in indices.tolist()]
        return _Found(self.xy[indices], self.score[indices], self.absent[indices], labels)

    def joined(self, other: _Found) -> _Found:
        """These and others."""
        return _Found(
            np.concatenate([self.xy, other.xy]),
            np.concatenate([self.score, other.score]),
            np.concatenate([self.absent, other.absent]),
            [*self.labels, *other.labels],
        )

    def best(self, first: PointingResult, number: int) -> _Found:
        """At most so many, by the scores of both looks: their own, and the heat of the first look around
        them.
        """
        own = np.nan_to_num(self.score, nan=1.0) * (1.0 - np.nan_to_num(self.absent, nan=0.0))
        order = np.argsort(-own * _warmth(first, self.xy), kind="stable")
        return self.where(order[:number])

    def in_reading_order(self) -> _Found:
        """From top to bottom and, in what stands side by side, from left to right."""
        line = np.round(self.xy[:, 1] / _LINE)
        return self.where(np.lexsort((self.xy[:, 0], line)))

    def points(self, first: PointingResult) -> Points:
        """As points of a result; their numbers count from 1."""
        number = len(self.xy)
        return Points(
            np.arange(1, number + 1),
            np.zeros(number, dtype=np.int64),
            self.xy[:, 0],
            self.xy[:, 1],
            self.score,
            image_sizes=first.image_sizes,
            labels=self.labels,
        )


def _found_in(look: PointingResult) -> _Found:
    """Points of one look, in its own pixels."""
    number = len(look.points)
    labels = look.points.labels or [None] * number
    return _Found(look.points.xy, look.points.score, np.full(number, look.absent), labels)


def _outside(first: PointingResult, parts: Sequence[Part]) -> _Found:
    """Points of the first look that lie in no part."""
    found = _found_in(first)
    (size,) = first.image_sizes
    depths = [part.depth(found.xy, size) for part in parts]
    return found.where(np.max(depths, axis=0) < 0)


def _found(size: tuple[int, int], looks: Sequence[tuple[Part, PointingResult]]) -> _Found:
    """Points of all parts, each thing once.

    Where parts overlap, a thing is that of the part in which it lies deepest: there it is cut off least. Of
    points that are near each other all the same, the one with the highest score is kept.
    """
    parts = [part for part, _ in looks]
    found = _Found(np.empty((0, 2)), np.empty(0), np.empty(0), [])
    for number, (part, look) in enumerate(looks):
        mine = _found_in(look)
        mine = replace(mine, xy=part.in_picture(mine.xy))
        depths = np.array([each.depth(mine.xy, size) for each in parts])  # (parts, n)
        found = found.joined(mine.where(depths.argmax(axis=0) == number))
    by_score = np.argsort(-np.nan_to_num(found.score, nan=1.0), kind="stable").tolist()
    kept: list[int] = []
    for i in by_score:
        distances = np.linalg.norm(found.xy[kept] - found.xy[i], axis=1)
        if not (distances < _NEAR).any():
            kept.append(i)
    return found.where(np.sort(np.array(kept, dtype=np.int64)))


def _warmth(first: PointingResult, xy: np.ndarray) -> np.ndarray:
    """(n,) how much the heat of the first look around points (n, 2) of the picture speaks for them."""
    heat = heat_of(first)
    rows, cols = heat.shape
    ((width, height),) = first.image_sizes
    patch_rows, patch_cols = first.metadata.patch_maps[0].shape
    reach_y, reach_x = _AROUND * rows / patch_rows, _AROUND * cols / patch_cols
    warmth = np.empty(len(xy))
    for number, (x, y) in enumerate(xy.tolist()):
        row, col = y * rows / height, x * cols / width
        top, left = max(0, int(row - reach_y)), max(0, int(col - reach_x))
        around = heat[top : int(row + reach_y) + 1, left : int(col + reach_x) + 1]
        warmth[number] = (around.sum() + _COLD) ** _DAMPING
    return warmth
