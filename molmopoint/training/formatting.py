"""From a row to a conversation: the request, the answer with its grounding triples, and how much it counts.

Everything here is a pure function of the row, of what the processor recorded about its pictures, and of a random generator that
draws styles and templates. The same generator state gives the same conversation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, cast

import numpy as np

from molmopoint.data.record_checks import row_error
from molmopoint.data.records import Record, to_pixels
from molmopoint.errors import ProcessingError
from molmopoint.geometry import PointingMetadata, points_to_triples
from molmopoint.processing.answers import PointList, Style, write_answer
from molmopoint.processing.message_tree import LossWeighting
from molmopoint.training.templates import draw_caption_prompt, draw_prompt, draw_prompt_for_several, draw_track_prompt, name_images

Kind = Literal["points", "answer", "caption", "video_caption"]
"""What a row teaches, as far as loss weights care."""

NO_TRACKS = "No tracks available."
"""Answer to a request for tracks where nothing can be tracked, as released."""

FINETUNING_WEIGHTS: Mapping[Kind, LossWeighting] = MappingProxyType(
    {
        "points": LossWeighting(factor=0.2),
        "answer": LossWeighting(root_length=2.0, root_branches=True),
        "caption": LossWeighting(root_length=2.0, root_branches=True),
        "video_caption": LossWeighting(factor=0.1),
    }
)
"""Of the published fine-tuning on a mixture. Source: Molmo2 report and public training code."""

PLAIN_WEIGHTS: Mapping[Kind, LossWeighting] = MappingProxyType(dict.fromkeys(FINETUNING_WEIGHTS, LossWeighting()))
"""Of the published pre-training: every target counts once."""

_ASKS_FOR_NUMBER = re.compile(r"\s*(please\s+)?(how\s+many|count|tally)\b", re.IGNORECASE)


@dataclass(frozen=True)
class FormattingRules:
    """What a recipe decides about formatting.

    Attributes:
        weights: loss weighting by kind of row.
        source_weights: loss weighting of the rows of a source, instead of that of their kind.
        styles: drawn from, each as likely, for rows with a label and no style.
        keep_case: sources whose labels keep their case on single pictures too, such as names of buttons.
        clip: sources whose points outside the picture move to its edge; tracks always do. Elsewhere they are refused.
        max_points: of an expression, and of all expressions of a tree; tracks may have more.
        track_tolerance: seconds a point of a track may be away from the frame it belongs to.
        some_images: how likely a request about several pictures names only some of them.
    """

    weights: Mapping[Kind, LossWeighting] = field(default_factory=lambda: FINETUNING_WEIGHTS)
    source_weights: Mapping[str, LossWeighting] = field(default_factory=dict)
    styles: tuple[Style, ...] = ("pointing", "point_count")
    keep_case: frozenset[str] = frozenset()
    clip: frozenset[str] = frozenset()
    max_points: int = 60
    track_tolerance: float = 0.01
    some_images: float = 0.5


@dataclass(frozen=True, eq=False)
class Conversation:
    """A request and its answer, before tokenising.

    Attributes:
        prompt: what the user says.
        answer: text and point lists, as `write_answer` gives them.
        weighting: of the answer's targets.
        record: the row it was made from.
    """

    prompt: str
    answer: tuple[str | PointList, ...]
    weighting: LossWeighting
    record: Record


def expressions(record: Record, max_points: int = 60) -> tuple[Record, ...]:
    """A record per thing to point at: the row itself, or one per point label where the row has neither prompt nor label.

    Raises:
        ProcessingError: an expression has more than `max_points` points and is no track.

    Source: published training drops annotations with more than 60 points.
    """
    parts = (record,)
    if record.points and record.prompt is None and record.label is None:
        labels = dict.fromkeys(point.label for point in record.points)
        parts = tuple(replace(record, label=label, points=tuple(p for p in record.points if p.label == label)) for label in labels)
    for part in parts:
        if part.style != "track" and len(part.points or ()) > max_points:
            raise row_error(
                record.row,
                "points",
                f"at most {max_points} points for one expression",
                str(len(part.points or ())),
                "split the row by a narrower label, or raise max_points",
            )
    return parts


def format_record(
    record: Record, metadata: PointingMetadata | None, rng: np.random.Generator, rules: FormattingRules | None = None
) -> Conversation:
    """The conversation of one expression.

    Args:
        record: one expression, see `expressions`.
        metadata: what the processor recorded about its pictures or clip; None for text rows.
        rng: draws style, template and pictures.
        rules: of the recipe.

    Raises:
        ProcessingError: the pictures do not fit the record, a point lies outside its picture, or no point of a track is at
            the time of a frame.
    """
    rules = rules or FormattingRules()
    weighting = weighting_of(record, rules)
    if not record.is_pointing:
        prompt = record.prompt or draw_caption_prompt(len(record.images), rng)
        tagged = prompt if record.style is None else f"{record.style}: {prompt}"
        return Conversation(tagged, (record.answer or record.caption or "",), weighting, record)
    if metadata is None:
        raise row_error(record.row, None, "the metadata of the pictures of a row with points", "none", "ask the processor for it")
    prompt, answer = (_track if record.style == "track" else _pointing)(record, metadata, rng, rules)
    return Conversation(prompt, answer, weighting, record)


def weighting_of(record: Record, rules: FormattingRules) -> LossWeighting:
    """Loss weighting of a row: by its source if the rules name it, else by its kind; times the row's own weight."""
    kind: Kind = "points" if record.is_pointing else "answer" if record.answer is not None else "caption"
    if kind == "caption" and record.video is not None:
        kind = "video_caption"
    weighting = rules.source_weights.get(record.source or "", rules.weights[kind])
    return weighting if record.weight is None else replace(weighting, factor=weighting.factor * record.weight)


def triples_of(record: Record, metadata: PointingMetadata, *, clip: bool = False) -> np.ndarray:
    """(n, 3) grounding triples of the points of a record, in their order.

    Raises:
        ProcessingError: the pictures do not fit the record, or a point lies outside its picture without `clip`.
    """
    group, xy = to_pixels(record, metadata.image_sizes, clip=clip)
    return points_to_triples(group, xy, metadata)


def _pointing(
    record: Record, metadata: PointingMetadata, rng: np.random.Generator, rules: FormattingRules
) -> tuple[str, tuple[str | PointList, ...]]:
    """Request and answer of the styles that number points from 1 in reading order."""
    style = _draw_style(record, rng, rules)
    triples = triples_of(record, metadata, clip=(record.source or "") in rules.clip)
    label = _label(record, rules)
    if record.prompt is not None:
        return record.prompt, write_answer(triples, label, style)
    if len(record.images) < 2:
        medium = "image" if record.video is None else "video"
        return draw_prompt(style, label, rng, medium=medium), write_answer(triples, label, style)
    chosen = _draw_images(len(record.images), rng, rules)
    if len(chosen) == len(record.images) and style == "pointing" and rng.random() < 0.5:
        return draw_prompt(style, label, rng), write_answer(triples, label, style)
    of_chosen = np.isin([point.image for point in record.points or ()], chosen)
    prompt = draw_prompt_for_several(style, label, name_images(chosen, len(record.images)), rng)
    return prompt, write_answer(triples[of_chosen], label, style)


def _track(
    record: Record, metadata: PointingMetadata, rng: np.random.Generator, rules: FormattingRules
) -> tuple[str, tuple[str | PointList, ...]]:
    """Request and answer of a track: the points at frame times, objects numbered by first appearance."""
    label = _label(record, rules)
    if not record.points:
        return record.prompt or draw_track_prompt(label, None, rng), (NO_TRACKS,)
    if metadata.timestamps is None:
        raise row_error(record.row, "video", "the metadata of a clip", "that of pictures", "process the row's clip as a video")
    times = np.array([point.t for point in record.points], dtype=np.float64)
    away = np.abs(metadata.timestamps[None] - times[:, None])
    kept = np.flatnonzero(away.min(axis=1) <= rules.track_tolerance)
    if not kept.size:
        raise row_error(
            record.row,
            "points",
            f"points within {rules.track_tolerance:g} s of a frame the model sees",
            f"none of {len(times)}; the nearest is {away.min():.3f} s away",
            "annotate at the times of the frames, or raise track_tolerance",
        )
    triples = triples_of(record, metadata, clip=True)[kept]
    objects = [record.points[i].object_id for i in kept]
    rate = _points_per_second(metadata.timestamps[away.argmin(axis=1)[kept]])
    prompt = record.prompt or draw_track_prompt(label, rate, rng)
    return prompt, (PointList.sort_tracks(triples, objects, label),)


def _draw_style(record: Record, rng: np.random.Generator, rules: FormattingRules) -> Style:
    """The row's own style; else what its prompt asks for; else a draw."""
    if record.style is not None:
        return cast("Style", record.style)
    if record.prompt is not None:
        return "point_count" if _ASKS_FOR_NUMBER.match(record.prompt) else "pointing"
    if not rules.styles:
        raise ProcessingError("expected one or more styles to draw from, got none; leave `styles` out for the published ones")
    return rules.styles[int(rng.integers(len(rules.styles)))]


def _label(record: Record, rules: FormattingRules) -> str:
    """What the answer calls the points: the label, in lower case for single pictures; without one, the request itself.

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


def _points_per_second(times: np.ndarray) -> int | None:
    """Rate at which a track has points, None where it is no whole number. The last frame may be nearer than the others."""
    steps = np.diff(np.unique(times))
    if not steps.size:
        return None
    rate = 1.0 / float(np.median(steps))
    return round(rate) if round(rate) and abs(rate - round(rate)) < 0.05 else None
