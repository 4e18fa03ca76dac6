"""From a row to a conversation: the request, the answer with its grounding triples, and how much it counts.

Everything here is a pure function of the row, of what the processor recorded about its pictures, and of a random generator that
draws styles and templates. The same generator state gives the same conversation. What is decided by the recipe is in `rules`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from molmopoint.data.record_checks import row_error
from molmopoint.data.records import FULL_SCALE, TRACK_STYLES, Record, to_pixels
from molmopoint.errors import ProcessingError
from molmopoint.geometry import PointingMetadata, points_to_triples
from molmopoint.processing.answers import Style
from molmopoint.processing.message_tree import LossWeighting
from molmopoint.training.counting_questions import without_points
from molmopoint.training.rules import FINETUNING_WEIGHTS, PLAIN_WEIGHTS, FormattingRules, Kind, published_rules, weighting_of
from molmopoint.training.tags import tagged_points, tagged_prompt, tagged_text
from molmopoint.training.templates import draw_caption_prompt, draw_prompt, draw_prompt_for_several, name_images
from molmopoint.training.tracks import NO_TRACKS, format_track
from molmopoint.training.writers import Answer, GroundingWriter, PointWriter

__all__ = [
    "FINETUNING_WEIGHTS", "NO_TRACKS", "PLAIN_WEIGHTS", "Conversation", "Exchange", "FormattingRules", "GroundingWriter", "Kind",
    "PointWriter", "expressions", "format_record", "join_turns", "published_rules", "triples_of", "weighting_of",
]  # fmt: skip

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
    """A record per thing to point at: the row itself, or one per point label where the row has neither prompt nor label.

    Raises:
        ProcessingError: an expression has more than `max_points` points and is no track.

    Source: published training drops annotations with more than 60 points.
    """
    parts = (record,)
    if record.points and not (record.prompt or record.prompts or record.label):
        labels = dict.fromkeys(point.label for point in record.points)
        parts = tuple(replace(record, label=label, points=tuple(p for p in record.points if p.label == label)) for label in labels)
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
    record: Record, metadata: PointingMetadata | PointWriter | None, rng: np.random.Generator, rules: FormattingRules | None = None
) -> Conversation:
    """The conversation of one expression, or of the turns of a row.

    Args:
        record: one expression, see `expressions`.
        metadata: what the processor recorded about its pictures or clip, which are then pointed at by grounding tokens; a writer
            for other models, such as `TextCoordinates`; None for text rows.
        rng: draws style, template and pictures.
        rules: of the recipe.

    Raises:
        ProcessingError: the pictures do not fit the record, a point lies outside its picture, or no point of a track is at
            the time of a frame.
    """
    rules = rules or FormattingRules()
    writer = GroundingWriter(metadata) if isinstance(metadata, PointingMetadata) else metadata
    turns = [_exchange(replace(turn, source=record.source), writer, rng, rules) for turn in record.requests]
    return Conversation(*turns[0], weighting_of(record, rules), record, tuple(turns[1:]))


def join_turns(conversations: Sequence[Conversation]) -> Conversation:
    """One conversation of several about the same pictures, one after the other; it counts as the first one does."""
    first = conversations[0]
    return replace(first, later=tuple(turn for each in conversations for turn in each.turns)[1:])


def _exchange(record: Record, writer: PointWriter | None, rng: np.random.Generator, rules: FormattingRules) -> Exchange:
    """One request and its answer."""
    record = _with_drawn_prompt(record, rng, rules)
    if not record.is_pointing:
        return _text_request(record, rng, rules), (record.answer or record.caption or "",)
    if writer is None:
        raise row_error(record.row, None, "the metadata of the pictures of a row with points", "none", "ask the processor for it")
    if record.style in TRACK_STYLES:
        return format_track(record, _label(record, rules), writer, rng, rules)
    return _pointing(record, writer, rng, rules)


def _with_drawn_prompt(record: Record, rng: np.random.Generator, rules: FormattingRules) -> Record:
    """One of the wordings as the prompt; it is then also what the answer calls the points. Or the label, if there is one."""
    if not record.prompts:
        return record
    if record.label is not None and rng.random() >= rules.prompt_share:
        return replace(record, prompts=())
    return replace(record, prompt=record.prompts[int(rng.integers(len(record.prompts)))], prompts=(), label=None)


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
        ProcessingError: the pictures do not fit the record, or a point lies outside its picture without `clip`.
    """
    group, xy = to_pixels(record, metadata.image_sizes, clip=clip)
    return points_to_triples(group, xy, metadata)


def _pointing(record: Record, writer: PointWriter, rng: np.random.Generator, rules: FormattingRules) -> Exchange:
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

    Source: the reference writes round(1000 * x / 100) of percents. By way of pixels, halves go to either side.
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
