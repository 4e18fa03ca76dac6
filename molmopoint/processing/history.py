"""Earlier answers of a chat: their points, written anew as selections of the new input.

The ids an answer was generated with mean nothing in another input, so points travel in pixels. A message names them in a part
of its content,

    {"type": "points", "points": result.points, "label": "the cats"}

`apply_chat_template` puts a mark in its place, and once the pictures are cut and it is known which image token shows which
place, the processor writes the point list there and returns `selection_ids` beside the token ids.

Letters: B samples, S tokens per row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from molmopoint.errors import ProcessingError
from molmopoint.geometry import NO_LOCATION, PointingMetadata
from molmopoint.points import Points
from molmopoint.processing.answers import NOTHING_THERE, PointList
from molmopoint.tokens import LOCATION, NO_MORE_POINTS, NO_SELECTION, PATCH, SUBPATCH

_Written = TypeVar("_Written")

LIST_MARK = "\ufdd1"
"""Where a rendered prompt wants the next earlier point list; a noncharacter, like `literal.MARK`."""


@dataclass(frozen=True, eq=False)
class EarlierPoints:
    """Points of an earlier answer in pixels, and their phrase; equal object ids on different frames make them tracks."""

    points: Points
    label: str


def fill_marks(
    prompt: str, earlier: Sequence[EarlierPoints], write: Callable[[EarlierPoints], _Written]
) -> tuple[list[str], list[_Written]]:
    """The stretches of a rendered prompt around its marks, and what belongs between them.

    Args:
        prompt: with one `LIST_MARK` per list.
        earlier: the lists in the order of the marks.
        write: writes one list.

    Raises:
        ProcessingError: the numbers of marks and lists differ.
    """
    stretches = prompt.split(LIST_MARK)
    if len(stretches) - 1 != len(earlier):
        raise ProcessingError(
            f"expected a place in the prompt for each of {len(earlier)} earlier point lists, got {len(stretches) - 1}; "
            "pass points as parts of assistant messages to apply_chat_template"
        )
    return stretches, [write(entry) for entry in earlier]


def write_earlier_points(
    prompt: str, earlier: Sequence[EarlierPoints], metadata: PointingMetadata, escape: Callable[[str], str]
) -> tuple[str, list[int]]:
    """Writes the point lists of one sample into its rendered prompt, as grounding tokens.

    Args:
        prompt: with one `LIST_MARK` per list.
        earlier: the lists in the order of the marks.
        metadata: of the sample as it is now.
        escape: makes a label literal.

    Returns:
        The prompt with grounding tokens, and what each of them selects, in order.

    Raises:
        ProcessingError: the numbers of marks and lists differ.
        GroundingError: a point lies in no picture of the sample.
    """
    stretches, written = fill_marks(prompt, earlier, lambda entry: _write_list(entry, metadata, escape))
    text, selections = stretches[0], []
    for (list_text, selected), following in zip(written, stretches[1:], strict=True):
        text += list_text + following
        selections += selected
    return text, selections


def place_selections(input_ids: Any, selections: Sequence[Sequence[int]], grounding_ids: Sequence[int]) -> np.ndarray:
    """`selection_ids` (B, S) int64: the selections of each row at its grounding tokens, NO_SELECTION elsewhere.

    Raises:
        ProcessingError: a row has another number of grounding tokens, because of truncation or because its text contains some.
    """
    rows = [np.asarray(ids) for ids in input_ids]
    placed = np.full((len(rows), max(len(row) for row in rows)), NO_SELECTION, dtype=np.int64)
    for row, (ids, selected) in enumerate(zip(rows, selections, strict=True)):
        positions = np.flatnonzero(np.isin(ids, grounding_ids))
        if len(positions) != len(selected):
            raise ProcessingError(
                f"expected {len(selected)} grounding tokens of earlier answers in sample {row}, got {len(positions)}; "
                "truncation must not cut into them, and text must not contain their names"
            )
        placed[row, positions] = selected
    return placed


def _write_list(entry: EarlierPoints, metadata: PointingMetadata, escape: Callable[[str], str]) -> tuple[str, list[int]]:
    if not len(entry.points):
        return NOTHING_THERE, []
    written = PointList.from_points(entry.points, metadata, entry.label)
    if len(set(written.object_ids.tolist())) < len(written):
        written = replace(written, tag="tracks")
    text, selections = f'<{written.tag} coords="', []
    for (patch, slot, location), object_id in zip(written.triples.tolist(), written.object_ids.tolist(), strict=True):
        located = location != NO_LOCATION
        text += f"{PATCH}{SUBPATCH}{LOCATION if located else ''}{object_id}"
        selections += [patch, slot, location] if located else [patch, slot]
    return f'{text}{PATCH}">{escape(written.label)}</point>', [*selections, NO_MORE_POINTS]


def earlier_points_of(part: Any) -> EarlierPoints:
    """Reads a message part of type "points"; its label may be left out if all points have the same one.

    Raises:
        ProcessingError: there are no points in it, or no single label.
    """
    points, label = part.get("points"), part.get("label")
    if not isinstance(points, Points):
        raise ProcessingError(f"expected Points in a message part of type 'points', got {type(points).__name__}; pass result.points")
    if label is None and len(points):
        labels = set(points.labels or [None])
        label = labels.pop() if len(labels) == 1 else None
        if label is None:
            raise ProcessingError("expected one label for the points of a message part, got none or several; pass 'label' for each part")
    return EarlierPoints(points, re.sub(LIST_MARK, "", label or ""))
