"""Synthetic clips of moving shapes, with questions and the points that answer them.

A clip is a few frames of 2 to 6 shapes that stand still or move in a straight line, some of them into the picture or out of
it, and a handful of questions. The distribution is part of the contract of the embedded model, like that of scenes.

    clip = sample_clip(np.random.default_rng([20261, 0]))
    clip.frames, clip.timestamps, clip.queries[0].request(fps=2), clip.queries[0].points().xy

Shapes move by whole pixels, so each is drawn once and the same seed gives the same bytes and questions on every machine.

Letters: T frames of a clip.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
_DIRECTIONS: tuple[tuple[Motion, int, int], ...] = (("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1))
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
    rng: np.random.Generator, num_frames: int = 8, fps: float = 2.0, *, held_out: bool = True, num_queries: int = NUM_CLIP_QUERIES
) -> SyntheticClip:
    """Draws one clip.

    Args:
        rng: everything random comes from here, so a named seed names a clip.
        num_frames: T, 2 or more; shapes go the same way in more frames by smaller steps.
        fps: frames per second.
        held_out: allow the pairs of HELD_OUT_PAIRS. True is the distribution that scores are measured on; training
            uses False, and then no frame shows such a pair and no question names one.
        num_queries: how many questions to ask.

    Raises:
        ProcessingError: fewer than two frames, or a rate that is not positive.
    """
    if num_frames < 2 or not fps > 0:
        raise ProcessingError(f"expected two or more frames and a positive rate, got {num_frames} at {fps} a second; nothing moves in one")
    height, width = (int(side) for side in rng.integers(*FRAME_SIDES, size=2))
    ground, ends = draw_background(rng, height, width)
    movers, owners = _place(rng, (width, height), draw_palette(rng, ends), num_frames, held_out)
    frames = np.repeat(ground[None], num_frames, axis=0)
    for mover in movers:
        for frame in range(num_frames):
            paint(frames[frame], mover.at(frame), mover.rgb)
    if rng.random() < 0.3:
        grain = int(rng.integers(2, 9))
        frames = frames + rng.integers(-grain, grain + 1, size=frames.shape, dtype=np.int32)
    objects = tuple(
        replace(mover.item, visible=_visible(owners, number, mover.item.xy), masks=owners == number) for number, mover in enumerate(movers)
    )
    queries = ask_about_clip(rng, objects, num_queries, HELD_OUT_PAIRS, held_out)
    return SyntheticClip(np.clip(frames, 0, 255).astype(np.uint8), np.arange(num_frames) / fps, objects, queries)


def _place(
    rng: np.random.Generator, size: tuple[int, int], palette: tuple[list[str], list[str]], num_frames: int, held_out: bool
) -> tuple[list[_Mover], np.ndarray]:
    """Shapes that leave each other visible, and (T, height, width) the number of the one that each pixel shows, -1 for the ground."""
    wanted = int(rng.integers(MIN_MOVING_OBJECTS, MAX_MOVING_OBJECTS + 1))
    movers: list[_Mover] = []
    owners = np.full((num_frames, size[1], size[0]), -1, dtype=np.int8)
    tries = 0
    while len(movers) < wanted and (tries < _TRIES * wanted or len(movers) < MIN_MOVING_OBJECTS):
        tries += 1
        candidate = _candidate(rng, size, palette, num_frames)
        if not held_out and (candidate.item.colour, candidate.item.shape) in HELD_OUT_PAIRS:
            continue
        after = _cover(owners, candidate, len(movers))
        if all(_followable(after, number, mover.item.xy) for number, mover in enumerate([*movers, candidate])):
            movers.append(candidate)
            owners = after
    return movers, owners


def _cover(owners: np.ndarray, mover: _Mover, number: int) -> np.ndarray:
    """What each pixel shows once a shape is put on top."""
    after = owners.copy()
    for frame in range(len(owners)):
        coverage, window = clip_stamp(mover.at(frame), *owners.shape[1:])
        after[frame][window][2 * coverage >= SAMPLES * SAMPLES] = number
    return after


def _followable(owners: np.ndarray, number: int, xy: np.ndarray) -> bool:
    """Whether an object is seen often enough, and is covered at most once while its point is in the picture."""
    visible, inside = _visible(owners, number, xy), _inside(owners, xy)
    covered = inside & ~visible
    starts = covered & ~np.concatenate([[False], covered[:-1]])
    return bool(visible.sum() >= min(MIN_SEEN, len(owners)) and starts.sum() <= 1)


def _inside(owners: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(T,) bool: the pixels around the point lie in the picture."""
    place, (height, width) = np.floor(xy), owners.shape[1:]
    return np.all((place >= _AROUND) & (place < np.array([width, height]) - _AROUND), axis=1)


def _visible(owners: np.ndarray, number: int, xy: np.ndarray) -> np.ndarray:
    """(T,) bool: the pixels around the point show the object."""
    visible = _inside(owners, xy)
    for frame in np.flatnonzero(visible):
        col, row = np.floor(xy[frame]).astype(np.int64).tolist()
        visible[frame] = (owners[frame, row - _AROUND : row + _AROUND + 1, col - _AROUND : col + _AROUND + 1] == number).all()
    return visible


def _candidate(rng: np.random.Generator, size: tuple[int, int], palette: tuple[list[str], list[str]], num_frames: int) -> _Mover:
    """A random shape on a random way."""
    colour, shape = (names[int(rng.integers(len(names)))] for names in palette)
    low, high = SIZE_BANDS[("medium", "big")[int(rng.integers(2))]]
    part = low + (high - low) * float(rng.random())
    side = part * min(size)
    reach = (0.76 if shape == "rectangle" else 0.66) * side + 1
    motion, enters, leaves, start, end = _way(rng, size, reach)
    steps = np.arange(num_frames)[:, None] / (num_frames - 1)
    shifts = np.floor((end - start) * steps + 0.5).astype(np.int64)
    tilt = 0.1 * (2 * float(rng.random()) - 1)
    x, y = (start + shifts[0]).tolist()
    stamp = draw_shape(shape, x, y, side, tilt, upright=shape == "rectangle" and rng.random() < 0.5)
    nowhere = np.zeros(num_frames, dtype=bool)
    item = ClipObject(colour, shape, part, motion, enters, leaves, start + shifts, nowhere, np.empty((num_frames, 0, 0), dtype=bool))
    return _Mover(stamp, shifts, item, shade(rng, colour))


def _way(rng: np.random.Generator, size: tuple[int, int], reach: float) -> tuple[Motion, bool, bool, np.ndarray, np.ndarray]:
    """What a shape does, and the points (2,) where it is in the first and in the last frame."""
    sides = np.array(size, dtype=np.float64)
    start = _snap(reach + (sides - 2 * reach) * rng.random(2))
    if rng.random() < _STILL:
        return "still", False, False, start, start.copy()
    motion, axis, sign = _DIRECTIONS[int(rng.integers(len(_DIRECTIONS)))]
    draw = rng.random()
    enters, leaves = bool(draw < _ENTERS), bool(_ENTERS <= draw < _LEAVES)
    drift = 0.08 * (2 * float(rng.random()) - 1) * sides[1 - axis]
    end = start.copy()
    end[1 - axis] = np.clip(start[1 - axis] + drift, reach, sides[1 - axis] - reach)
    room = sides[axis] - 2 * reach
    if enters or leaves:  # `depth` pixels inside at one end, all outside at the other
        depth = reach + room * (0.25 + 0.65 * float(rng.random()))
        outside = -reach - 0.35 * sides[axis] * float(rng.random())
        near, far = (outside, depth) if enters else (depth, outside)
        if (sign > 0) == leaves:
            near, far = sides[axis] - near, sides[axis] - far
    else:
        length = room * (0.4 + 0.6 * float(rng.random()))
        near = reach + (room - length) * float(rng.random())
        near, far = (near, near + length) if sign > 0 else (near + length, near)
    start[axis], end[axis] = near, far
    return motion, enters, leaves, _snap(start), _snap(end)


def _snap(xy: np.ndarray) -> np.ndarray:
    """Eighths of a pixel, as in scenes."""
    return np.floor(xy * 8 + 0.5) / 8
