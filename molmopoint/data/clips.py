"""Synthetic clips of moving shapes, with questions and the points that answer them.

A clip is a few frames of 2 to 6 shapes that stand still or move in a straight line, some of them into the
picture or out of it, and a handful of questions. The distribution is part of the contract of the embedded
model, like that of scenes.

    clip = sample_clip(np.random.default_rng([20261, 0]))
    clip.frames, clip.timestamps, clip.queries[0].request(fps=2), clip.queries[0].points().xy

Shapes move by whole pixels, so each is drawn once and the same seed gives the same bytes and questions on
every machine.

Letters: T frames of a clip.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from molmopoint.data.clip_questions import ClipObject, ClipQuery, Motion, ask_about_clip
from molmopoint.data.drawing import (
    FRAME_SIDES,
    HELD_OUT_PAIRS,
    SAMPLES,
    SIZE_BANDS,
    Stamp,
    clip_stamp,
    draw_background,
    draw_palette,
    draw_shape,
    paint,
    reach_of,
    shade,
)
from molmopoint.errors import ProcessingError

MIN_MOVING_OBJECTS, MAX_MOVING_OBJECTS = 2, 6
NUM_CLIP_QUERIES = 4

MIN_SEEN = 3
"""Frames in which every object can be seen, or all frames of a shorter clip."""

_STILL = 0.3
_ENTERS, _LEAVES = 0.3, 0.6
"""Of the shapes that move, those below the first number enter, those between both leave."""
_DIRECTIONS: tuple[tuple[Motion, int, int], ...] = (
    ("left", 0, -1),
    ("right", 0, 1),
    ("up", 1, -1),
    ("down", 1, 1),
)
_AROUND = 2
"""Pixels around a point that have to be seen."""
_TRIES = 60


@dataclass(frozen=True, eq=False)
class SyntheticClip:
    """Frames, what is in them, and questions about it.

    Attributes:
        frames: (T, height, width, 3) uint8.
        timestamps: (T,) float64 seconds.
        objects: from the lowest to the topmost.
        queries: no two with the same prompt and style.
    """

    frames: np.ndarray
    timestamps: np.ndarray
    objects: tuple[ClipObject, ...]
    queries: tuple[ClipQuery, ...]


@dataclass(frozen=True, eq=False)
class _Mover:
    """A shape with its way through the picture, before it is known what covers it.

    Attributes:
        stamp: the shape at its way's first place.
        shifts: (T, 2) int64 pixels by which it has moved.
        item: with its points; seen nowhere yet.
        rgb: (3,) int32.
    """

    stamp: Stamp
    shifts: np.ndarray
    item: ClipObject
    rgb: np.ndarray

    def at(self, frame: int) -> Stamp:
        x, y = self.shifts[frame].tolist()
        return replace(self.stamp, left=self.stamp.left + x, top=self.stamp.top + y)


def sample_clip(
    rng: np.random.Generator,
    num_frames: int = 8,
    fps: float = 2.0,
    *,
    held_out: bool = True,
    num_queries: int = NUM_CLIP_QUERIES,
) -> SyntheticClip:
    """Draws one clip.

    Args:
        rng: everything random comes from here, so a named seed names a clip.
        num_frames: T, 2 or more; shapes go the same way in more frames by smaller steps.
        fps: frames per second.
        held_out: allow the pairs of HELD_OUT_PAIRS. True is the distribution that scores are measured on;
            training uses False, and then no frame shows such a pair and no question names one.
        num_queries: how many questions to ask.

    Raises:
        ProcessingError: fewer than two frames, or a rate that is not positive.
    """
    if num_frames < 2 or not fps > 0:
        raise ProcessingError(
            f"expected two or more frames and a positive rate, got {num_frames} at {fps} a second; nothing "
            "moves in one"
        )
    height, width = rng.integers(*FRAME_SIDES, size=2).tolist()
    ground, ends = draw_background(rng, height, width)
    palette = draw_palette(rng, ends)
    movers, owners = _place(rng, (width, height), palette, num_frames, held_out)
    frames = np.repeat(ground[None], num_frames, axis=0)
    for mover in movers:
        for frame in range(num_frames):
            paint(frames[frame], mover.at(frame), mover.rgb)
    if rng.random() < 0.3:
        grain = int(rng.integers(2, 9))
        frames = frames + rng.integers(-grain, grain + 1, size=frames.shape, dtype=np.int32)
    objects = []
    for number, mover in enumerate(movers):
        visible = _visible(owners, number, mover.item.xy)
        objects.append(replace(mover.item, visible=visible, masks=owners == number))
    queries = ask_about_clip(rng, objects, num_queries, HELD_OUT_PAIRS, held_out)
    pixels = np.clip(frames, 0, 255).astype(np.uint8)
    return SyntheticClip(pixels, np.arange(num_frames) / fps, tuple(objects), queries)


def _place(
    rng: np.random.Generator,
    size: tuple[int, int],
    palette: tuple[list[str], list[str]],
    num_frames: int,
    held_out: bool,
) -> tuple[list[_Mover], np.ndarray]:
    """Shapes that leave each other visible, and (T, height, width) the number of the one that each pixel
    shows, -1 for the ground.
    """
    width, height = size
    wanted = int(rng.integers(MIN_MOVING_OBJECTS, MAX_MOVING_OBJECTS + 1))
    movers: list[_Mover] = []
    owners = np.full((num_frames, height, width), -1, dtype=np.int8)
    tries = 0
    while len(movers) < wanted and (tries < _TRIES * wanted or len(movers) < MIN_MOVING_OBJECTS):
        tries += 1
        candidate = _candidate(rng, size, palette, num_frames)
        if not held_out and (candidate.item.colour, candidate.item.shape) in HELD_OUT_PAIRS:
            continue
        after = _cover(owners, candidate, len(movers))
        together = [*movers, candidate]
        if all(_followable(after, number, mover.item.xy) for number, mover in enumerate(together)):
            movers = together
            owners = after
    return movers, owners


def _cover(owners: np.ndarray, mover: _Mover, number: int) -> np.ndarray:
    """What each pixel shows once a shape is put on top."""
    after = owners.copy()
    num_frames, height, width = owners.shape
    for frame in range(num_frames):
        coverage, window = clip_stamp(mover.at(frame), height, width)
        is_covered = 2 * coverage >= SAMPLES * SAMPLES  # half of the pixel or more
        after[frame][window][is_covered] = number
    return after


def _followable(owners: np.ndarray, number: int, xy: np.ndarray) -> bool:
    """Whether an object is seen often enough, and is covered at most once while its point is in the picture."""
    visible = _visible(owners, number, xy)
    covered = _inside(owners, xy) & ~visible
    was_covered = np.concatenate([[False], covered[:-1]])
    num_times_covered = (covered & ~was_covered).sum()
    return bool(visible.sum() >= min(MIN_SEEN, len(owners)) and num_times_covered <= 1)


def _inside(owners: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(T,) bool: the pixels around the point lie in the picture."""
    _, height, width = owners.shape
    place = np.floor(xy)
    is_inside = (place >= _AROUND) & (place < np.array([width, height]) - _AROUND)  # (T, 2)
    return np.all(is_inside, axis=1)


def _visible(owners: np.ndarray, number: int, xy: np.ndarray) -> np.ndarray:
    """(T,) bool: the pixels around the point show the object."""
    visible = _inside(owners, xy)
    for frame in np.flatnonzero(visible):
        column, row = np.floor(xy[frame]).astype(np.int64).tolist()
        rows = slice(row - _AROUND, row + _AROUND + 1)
        columns = slice(column - _AROUND, column + _AROUND + 1)
        visible[frame] = (owners[frame, rows, columns] == number).all()
    return visible


def _candidate(
    rng: np.random.Generator, size: tuple[int, int], palette: tuple[list[str], list[str]], num_frames: int
) -> _Mover:
    """A random shape on a random way."""
    colours, shapes = palette
    colour = colours[int(rng.integers(len(colours)))]
    shape = shapes[int(rng.integers(len(shapes)))]
    low, high = SIZE_BANDS[("medium", "big")[int(rng.integers(2))]]
    part = low + (high - low) * float(rng.random())
    side = part * min(size)
    way = _draw_way(rng, size, reach_of(shape, side))
    steps = np.arange(num_frames)[:, None] / (num_frames - 1)  # (T, 1), from 0 to 1
    shifts = np.floor((way.end - way.start) * steps + 0.5).astype(np.int64)
    tilt = 0.1 * (2 * float(rng.random()) - 1)
    x, y = (way.start + shifts[0]).tolist()
    upright = shape == "rectangle" and rng.random() < 0.5
    stamp = draw_shape(shape, x, y, side, tilt, upright=upright)
    item = ClipObject(
        colour=colour,
        shape=shape,
        size=part,
        motion=way.motion,
        enters=way.enters,
        leaves=way.leaves,
        xy=way.start + shifts,
        visible=np.zeros(num_frames, dtype=bool),
        masks=np.empty((num_frames, 0, 0), dtype=bool),
    )
    return _Mover(stamp, shifts, item, shade(rng, colour))


class _Way(NamedTuple):
    """What a shape does.

    Attributes:
        motion: direction, or none.
        enters: it comes from outside of the picture.
        leaves: it goes out of the picture.
        start: (2,) where it is in the first frame.
        end: (2,) where it is in the last one.
    """

    motion: Motion
    enters: bool
    leaves: bool
    start: np.ndarray
    end: np.ndarray


def _draw_way(rng: np.random.Generator, size: tuple[int, int], reach: float) -> _Way:
    """A random way of a shape that needs `reach` pixels around its point."""
    sides = np.array(size, dtype=np.float64)
    start = _snap(reach + (sides - 2 * reach) * rng.random(2))
    if rng.random() < _STILL:
        return _Way("still", False, False, start, start.copy())
    motion, axis, sign = _DIRECTIONS[int(rng.integers(len(_DIRECTIONS)))]
    draw = rng.random()
    enters = bool(draw < _ENTERS)
    leaves = bool(_ENTERS <= draw < _LEAVES)
    # Across the direction it drifts a little, and stays in the picture.
    across = 1 - axis
    drift = 0.08 * (2 * float(rng.random()) - 1) * sides[across]
    end = start.copy()
    end[across] = np.clip(start[across] + drift, reach, sides[across] - reach)
    side = sides[axis]
    room = side - 2 * reach
    if enters or leaves:  # `depth` pixels inside at one end, all outside at the other
        depth = reach + room * (0.25 + 0.65 * float(rng.random()))
        outside = -reach - 0.35 * side * float(rng.random())
        first, last = (outside, depth) if enters else (depth, outside)
        if (sign > 0) == leaves:
            first, last = side - first, side - last
    else:
        length = room * (0.4 + 0.6 * float(rng.random()))
        low = reach + (room - length) * float(rng.random())
        first, last = (low, low + length) if sign > 0 else (low + length, low)
    start[axis] = first
    end[axis] = last
    return _Way(motion, enters, leaves, _snap(start), _snap(end))


def _snap(xy: np.ndarray) -> np.ndarray:
    """Eighths of a pixel, as in scenes."""
    return np.floor(xy * 8 + 0.5) / 8
