"""From a row to a conversation: the request, the answer with its points, and how much it counts.

Everything here is a pure function of the row, of what the processor recorded about its pictures, and of a
random generator that draws styles and templates. The same generator state gives the same conversation. What
is decided by the recipe is in `rules`. How places are written in an answer is the backend's affair: it gives
the `PointWriter`.

Tracks: the points of numbered objects at the times of the frames, and the three things one can ask of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from molmopoint.backends import PointWriter
from molmopoint.data.records import FULL_SCALE, TRACK_STYLES, Record, to_pixels
from molmopoint.data.row_model import row_error
from molmopoint.errors import ProcessingError
from molmopoint.geometry import PointingMetadata, points_to_triples
from molmopoint.processing.grounding_answers import PointList, Style
from molmopoint.processing.message_tree import LossWeighting
from molmopoint.processing.text_points import tagged, written_start
from molmopoint.training.rules import FormattingRules, TrackStyle, weighting_of
from molmopoint.training.templates import (
    draw_caption_prompt,
    draw_from_point_prompt,
    draw_prompt,
    draw_prompt_for_several,
    draw_start_end_prompt,
    draw_track_prompt,
    name_images,
    tagged_points,
    tagged_prompt,
    tagged_text,
    without_points,
)

Answer = tuple[str | PointList, ...]
"""Pieces of an answer, as `write_answer` gives them."""


NO_TRACKS = "No tracks available."
"""Answer to a request for tracks where nothing can be tracked, as released."""

_WRITTEN = 0.05
"""Seconds within which a time is written as another one, with one decimal."""

_FIRST_VISIBLE = 0.8
"""How likely a request for one object shows its first point. Source: the published training."""


@dataclass(frozen=True, eq=False)
class _Track:
    """Points of a record at frame times, n of them, in the order of time.

    Attributes:
        xy: (n, 2) float64 pixels, inside the picture.
        times: (n,) float64 seconds of their frames.
        objects: (n,) int64 numbers of the objects, as written.
    """

    xy: np.ndarray
    times: np.ndarray
    objects: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> _Track:
        return _Track(self.xy[chosen], self.times[chosen], self.objects[chosen])

    def __len__(self) -> int:
        return len(self.objects)

    @property
    def rate(self) -> int | None:
        """Points per second, None where that is no whole number or where no point stands at a multiple of its
        step.

        The last frame may be nearer than the others.
        """
        steps = np.diff(np.unique(self.times))
        if not steps.size:
            return None
        rate = 1.0 / float(np.median(steps))
        whole = round(rate)
        if not whole or abs(rate - whole) >= 0.05 or not self.on_grid(whole).any():
            return None
        return whole

    def on_grid(self, rate: int) -> np.ndarray:
        """(n,) bool: which points stand at multiples of 1/rate seconds from the start of the clip, as a
        request for a rate means.
        """
        return np.abs(self.times - np.rint(self.times * rate) / rate) < _WRITTEN


def format_track(
    record: Record, label: str, writer: PointWriter, rng: np.random.Generator, rules: FormattingRules
) -> tuple[str, Answer]:
    """Request and answer of a row of a track style.

    Objects are numbered by first appearance among the points of the answer. Where the request states a rate,
    only points at multiples of its step, counted from the start of the clip, are answered: "at 1 FPS" means
    whole seconds, for tracks that begin later too.

    Args:
        record: with a clip and numbered objects, or without points.
        label: what is tracked.
        writer: of the clip.
        rng: draws what is asked, the start of a single object, and the sentence.
        rules: of the recipe.

    Raises:
        ProcessingError: no point is at the time of a frame, or the writer is that of pictures.
    """
    style = _draw_track_style(record, rng, rules)
    if not record.points:  # with nothing to show, an object can only be asked for by name
        style = "track" if style == "track_from_point" else style
        return _request(record, style, label, None, "", rng, rules), (NO_TRACKS,)
    track = _at_frames(record, writer, rules.track_tolerance)
    query, rate = "", track.rate
    if style == "track_start_end":
        track = track[_ends(track)]
    elif style == "track_from_point":
        start = _draw_start(track, rng)
        query = written_start(track.times[start], track.xy[start], writer.image_sizes[0], label)
        track = track[(track.objects == track.objects[start]) & (track.times > track.times[start])]
    if rate is not None and record.prompt is None and style != "track_start_end":
        track = track[track.on_grid(rate)]
    request = _request(record, style, label, rate, query, rng, rules)
    return request, writer.tracks(track.times, track.xy, track.objects.tolist(), label) if len(track) else (
        NO_TRACKS,
    )


def _draw_track_style(record: Record, rng: np.random.Generator, rules: FormattingRules) -> TrackStyle:
    """The row's style; plain tracks whose request is written by us may be asked for in other ways."""
    if record.style == "track_start_end" or record.style == "track_from_point":
        return record.style
    if record.prompt is not None or len(rules.track_styles) < 2:
        return rules.track_styles[0] if rules.track_styles and record.prompt is None else "track"
    return rules.track_styles[int(rng.integers(len(rules.track_styles)))]


def _request(
    record: Record,
    style: TrackStyle,
    label: str,
    rate: int | None,
    query: str,
    rng: np.random.Generator,
    rules: FormattingRules,
) -> str:
    """What is asked, behind its tag where the style has one."""
    if rules.requests == "tags" and style != "track_from_point":
        return tagged_points(record, style, record.prompt or label)
    if style == "track_from_point":
        return tagged(style, draw_from_point_prompt(query, rate, rng))
    if style == "track_start_end":
        return tagged(style, record.prompt or draw_start_end_prompt(label, rng))
    return record.prompt or draw_track_prompt(label, rate, rng)


def _at_frames(record: Record, writer: PointWriter, tolerance: float) -> _Track:
    """The points at the times of frames."""
    if writer.timestamps is None:
        raise row_error(
            record.row,
            "video",
            "the metadata of a clip",
            "that of pictures",
            "process the row's clip as a video",
        )
    given = np.array([point.t for point in record.points or ()], dtype=np.float64)
    away = np.abs(writer.timestamps[None] - given[:, None])
    kept = np.flatnonzero(away.min(axis=1) <= tolerance)
    if not kept.size:
        raise row_error(
            record.row,
            "points",
            f"points within {tolerance:g} s of a frame the model sees",
            f"none of {len(given)}; the nearest is {away.min():.3f} s away",
            "annotate at the times of the frames, or raise track_tolerance",
        )
    _, xy = to_pixels(record, writer.image_sizes, clip=True)
    objects = np.array([point.object_id for point in record.points or ()], dtype=np.int64)
    times = writer.timestamps[away.argmin(axis=1)]
    track = _Track(xy, times, objects)
    return track[kept[np.argsort(times[kept], kind="stable")]]


def _ends(track: _Track) -> np.ndarray:
    """Indices of the first and the last point of each object, ascending; an object seen once has one."""
    of_object = [np.flatnonzero(track.objects == number) for number in np.unique(track.objects)]
    return np.unique([index for places in of_object for index in (places[0], places[-1])])


def _draw_start(track: _Track, rng: np.random.Generator) -> int:
    """Index of the point that a request for one object shows: mostly its first one, never its last if there
    are others.
    """
    numbers, counts = np.unique(track.objects, return_counts=True)
    followed = numbers[counts > 1] if (counts > 1).any() else numbers
    places = np.flatnonzero(track.objects == followed[int(rng.integers(len(followed)))])
    if rng.random() < _FIRST_VISIBLE:
        return int(places[0])
    return int(places[int(rng.integers(max(len(places) - 1, 1)))])


Exchange = tuple[str, Answer]
"""A request and its answer."""

_THOUSAND = 1000

_ASKS_FOR_NUMBER = re.compile(r"\s*(please\s+)?(how\s+many|count|tally)\b", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Conversation:
    """A request and its answer, before tokenising, and what else was said after it.

    Attributes:
        prompt: what the user says.
        answer: text and point lists, as `write_answer` gives them.
        weighting: of the targets of all answers.
        record: the row it was made from.
        later: further requests and answers of a conversation of several turns.
    """

    prompt: str
    answer: Answer
    weighting: LossWeighting
    record: Record
    later: tuple[Exchange, ...] = ()

    @property
    def turns(self) -> tuple[Exchange, ...]:
        """All requests and answers, in order."""
        return ((self.prompt, self.answer), *self.later)


def expressions(record: Record, max_points: int = 60) -> tuple[Record, ...]:
    """A record per thing to point at: the row itself, or one per point label where the row has neither prompt
    nor label.

    Raises:
        ProcessingError: an expression has more than `max_points` points and is no track.

    Source: published training drops annotations with more than 60 points.
    """
    parts = (record,)
    if record.points and not (record.prompt or record.prompts or record.label):
        labels = dict.fromkeys(point.label for point in record.points)
        parts = tuple(
            replace(record, label=label, points=tuple(p for p in record.points if p.label == label))
            for label in labels
        )
    for part in parts:
        if part.style not in TRACK_STYLES and part.num_points > max_points:
            raise row_error(
                record.row,
                "points",
                f"at most {max_points} points for one expression",
                str(part.num_points),
                "split the row by a narrower label, or raise max_points",
            )
    return parts


def format_record(
    record: Record, writer: PointWriter | None, rng: np.random.Generator, rules: FormattingRules | None = None
) -> Conversation:
    """The conversation of one expression, or of the turns of a row.

    Args:
        record: one expression, see `expressions`.
        writer: of the backend, for its pictures or clip; None for text rows.
        rng: draws style, template and pictures.
        rules: of the recipe.

    Raises:
        ProcessingError: the pictures do not fit the record, a point lies outside its picture, or no point of
            a track is at the time of a frame.
    """
    rules = rules or FormattingRules()
    turns = [_exchange(replace(turn, source=record.source), writer, rng, rules) for turn in record.requests]
    return Conversation(*turns[0], weighting_of(record, rules), record, tuple(turns[1:]))


def join_turns(conversations: Sequence[Conversation]) -> Conversation:
    """One conversation of several about the same pictures, one after the other; it counts as the first one
    does.
    """
    first = conversations[0]
    return replace(first, later=tuple(turn for each in conversations for turn in each.turns)[1:])


def _exchange(
    record: Record, writer: PointWriter | None, rng: np.random.Generator, rules: FormattingRules
) -> Exchange:
    """One request and its answer."""
    record = _with_drawn_prompt(record, rng, rules)
    if not record.is_pointing:
        return _text_request(record, rng, rules), (record.answer or record.caption or "",)
    if writer is None:
        raise row_error(
            record.row,
            None,
            "the metadata of the pictures of a row with points",
            "none",
            "ask the processor for it",
        )
    if record.style in TRACK_STYLES:
        return format_track(record, _label(record, rules), writer, rng, rules)
    return _pointing(record, writer, rng, rules)


def _with_drawn_prompt(record: Record, rng: np.random.Generator, rules: FormattingRules) -> Record:
    """One of the wordings as the prompt; it is then also what the answer calls the points. Or the label, if
    there is one.
    """
    if not record.prompts:
        return record
    if record.label is not None and rng.random() >= rules.prompt_share:
        return replace(record, prompts=())
    return replace(
        record, prompt=record.prompts[int(rng.integers(len(record.prompts)))], prompts=(), label=None
    )


def _text_request(record: Record, rng: np.random.Generator, rules: FormattingRules) -> str:
    """The request of a row whose answer is text alone."""
    if record.answer is not None and record.prompt is not None and record.source in rules.no_points_please:
        record = replace(record, prompt=without_points(record.prompt, rng))
    if rules.requests == "tags":
        return tagged_text(record, rng)
    return tagged_prompt(record, record.prompt or draw_caption_prompt(len(record.images), rng))


def triples_of(record: Record, metadata: PointingMetadata, *, clip: bool = False) -> np.ndarray:
    """(n, 3) grounding triples of the points of a record, in their order.

    Raises:
        ProcessingError: the pictures do not fit the record, or a point lies outside its picture without
            `clip`.
    """
    group, xy = to_pixels(record, metadata.image_sizes, clip=clip)
    return points_to_triples(group, xy, metadata)


def _pointing(
    record: Record, writer: PointWriter, rng: np.random.Generator, rules: FormattingRules
) -> Exchange:
    """Request and answer of the styles that number points from 1 in reading order."""
    style = _draw_style(record, rng, rules)
    group, xy = to_pixels(record, writer.image_sizes, clip=(record.source or "") in rules.clip)
    thousandths = _thousandths(record)
    label = _label(record, rules)

    def answer(pictures: Sequence[int]) -> Answer:
        """The points in these pictures; without any, all points of a single picture or a clip."""
        kept = np.isin(group, pictures) if pictures else np.ones(len(group), dtype=bool)
        exact = None if thousandths is None else thousandths[kept]
        return writer.points(group[kept], xy[kept], label, style, thousandths=exact, pictures=pictures)

    several = list(range(len(record.images))) if len(record.images) > 1 else []
    if rules.requests == "tags":
        return tagged_points(record, style, record.prompt or label), answer(several)
    if record.prompt is not None:
        return record.prompt, answer(several)
    if not several:
        medium = "image" if record.video is None else "video"
        return draw_prompt(style, label, rng, medium=medium), answer(several)
    chosen = _draw_images(len(several), rng, rules)
    if chosen == several and style == "pointing" and rng.random() < 0.5:
        return draw_prompt(style, label, rng), answer(several)
    return draw_prompt_for_several(style, label, name_images(chosen, len(several)), rng), answer(chosen)


def _thousandths(record: Record) -> np.ndarray | None:
    """(n, 2) thousandths of width and height, straight from a space that has them; None for pixels.

    Source: the reference writes round(1000 * x / 100) of percents. By way of pixels, halves go to either
    side.
    """
    if record.coords == "pixel" or not record.points:
        return None
    scale = FULL_SCALE[str(record.coords)]
    xy = np.array([(point.x, point.y) for point in record.points], dtype=np.float64)
    return _THOUSAND * np.clip(xy, 0.0, scale) / scale


def _draw_style(record: Record, rng: np.random.Generator, rules: FormattingRules) -> Style:
    """The row's own style; else what its prompt asks for; else a draw."""
    if record.style is not None:
        return cast("Style", record.style)
    if record.prompt is not None:
        return "point_count" if _ASKS_FOR_NUMBER.match(record.prompt) else "pointing"
    if not rules.styles:
        raise ProcessingError(
            "expected one or more styles to draw from, got none; leave `styles` out for the published ones"
        )
    return rules.styles[int(rng.integers(len(rules.styles)))]


def _label(record: Record, rules: FormattingRules) -> str:
    """What the answer calls the points: the label, in lower case for single pictures; without one, the
    request itself.

    Source: public training code; labels of clips, of several pictures and of screens keep their case.
    """
    if record.label is None:
        return record.prompt or ""
    keep = len(record.images) != 1 or record.source in rules.keep_case
    return record.label if keep else record.label.lower()


def _draw_images(num_images: int, rng: np.random.Generator, rules: FormattingRules) -> list[int]:
    """All pictures, or some but not all, each at most once."""
    if rng.random() >= rules.some_images:
        return list(range(num_images))
    size = int(rng.integers(1, num_images))
    return sorted(rng.choice(num_images, size=size, replace=False).tolist())
