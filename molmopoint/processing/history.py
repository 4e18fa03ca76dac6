"""Earlier answers of a chat: their points, written anew as selections of the new input.

The ids an answer was generated with mean nothing in another input, so points travel in pixels. A message
names them in a part of its content,

    {"type": "points", "points": result.points, "label": "the cats"}

`apply_chat_template` puts a mark in its place, and once the pictures are cut and it is known which image
token shows which place, the processor writes the point list there and returns `selection_ids` beside the
token ids.

Letters: B samples, S tokens per row.

Messages of a chat before they meet the template: text is made literal, and points of earlier answers are set
aside.

Earlier answers must not carry `<POINT_n>`: those ids meant places of the input they were generated for, and
would mean others in a new one. Their points are passed as such (see `molmopoint.processing.history`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

from molmopoint.errors import ProcessingError
from molmopoint.geometry import NO_LOCATION, PointingMetadata
from molmopoint.points import Points
from molmopoint.processing.grounding_answers import NOTHING_THERE, PointList
from molmopoint.tokens import LOCATION, NO_MORE_POINTS, NO_SELECTION, PATCH, SUBPATCH

_Written = TypeVar("_Written")

LIST_MARK = "\ufdd1"
"""Where a rendered prompt wants the next earlier point list; a noncharacter, like `escaping.MARK`."""


@dataclass(frozen=True, eq=False)
class EarlierPoints:
    """Points of an earlier answer in pixels, and their phrase; equal object ids on different frames make them
    tracks.
    """

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
            f"expected a place in the prompt for each of {len(earlier)} earlier point lists, got "
            f"{len(stretches) - 1}; "
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


def place_selections(
    input_ids: Any, selections: Sequence[Sequence[int]], grounding_ids: Sequence[int]
) -> np.ndarray:
    """`selection_ids` (B, S) int64: the selections of each row at its grounding tokens, NO_SELECTION
    elsewhere.

    Raises:
        ProcessingError: a row has another number of grounding tokens, because of truncation or because its
            text contains some.
    """
    rows = [np.asarray(ids) for ids in input_ids]
    placed = np.full((len(rows), max(len(row) for row in rows)), NO_SELECTION, dtype=np.int64)
    for row, (ids, selected) in enumerate(zip(rows, selections, strict=True)):
        positions = np.flatnonzero(np.isin(ids, grounding_ids))
        if len(positions) != len(selected):
            raise ProcessingError(
                f"expected {len(selected)} grounding tokens of earlier answers in sample {row}, got "
                f"{len(positions)}; "
                "truncation must not cut into them, and text must not contain their names"
            )
        placed[row, positions] = selected
    return placed


def _write_list(
    entry: EarlierPoints, metadata: PointingMetadata, escape: Callable[[str], str]
) -> tuple[str, list[int]]:
    if not len(entry.points):
        return NOTHING_THERE, []
    written = PointList.from_points(entry.points, metadata, entry.label)
    if len(set(written.object_ids.tolist())) < len(written):
        written = replace(written, tag="tracks")
    text, selections = f'<{written.tag} coords="', []
    for (patch, slot, location), object_id in zip(
        written.triples.tolist(), written.object_ids.tolist(), strict=True
    ):
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
        raise ProcessingError(
            f"expected Points in a message part of type 'points', got {type(points).__name__}; pass "
            "result.points"
        )
    if label is None and len(points):
        labels = set(points.labels or [None])
        label = labels.pop() if len(labels) == 1 else None
        if label is None:
            raise ProcessingError(
                "expected one label for the points of a message part, got none or several; pass 'label' for "
                "each part"
            )
    return EarlierPoints(points, re.sub(LIST_MARK, "", label or ""))


_OLD_PLACE = re.compile("|".join([r"<POINT_[0-9]+>", *map(re.escape, (PATCH, SUBPATCH, LOCATION))]))


@dataclass(frozen=True)
class PreparedMessages:
    """Messages for the template.

    Attributes:
        messages: the conversation, or the list of conversations, with literal text and marks for point lists.
        earlier: point lists of each conversation, in order.
    """

    messages: list[Any]
    earlier: list[list[EarlierPoints]]


def prepare_messages(conversation: Any, escape: Callable[[str], str]) -> PreparedMessages:
    """A copy of the messages in which all text is literal.

    Args:
        conversation: messages, or a list of conversations. Messages and their parts are mappings, dataclasses
            or pydantic models, and a conversation may be an object with `messages`; fields of objects that
            are None are left out, as in transformers.
        escape: makes one text literal.

    Raises:
        ProcessingError: this is no list of messages, or an answer in it holds places of an earlier input.
    """
    conversation = getattr(conversation, "messages", conversation)
    if not isinstance(conversation, (list, tuple)) or not conversation:
        raise ProcessingError(
            f"expected a list of messages with role and content, got {type(conversation).__name__} "
            f"{conversation!r:.80}"
        )
    if isinstance(conversation[0], (list, tuple)) or hasattr(conversation[0], "messages"):
        prepared = [prepare_messages(messages, escape) for messages in conversation]
        return PreparedMessages(
            [p.messages for p in prepared], [lists for p in prepared for lists in p.earlier]
        )
    earlier: list[EarlierPoints] = []
    messages = [_prepare_message(message, escape, earlier) for message in conversation]
    return PreparedMessages(messages, [earlier])


def _as_mapping(value: Any) -> Any:
    """The fields of a message object; a mapping as it is, and so is what is neither."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
    elif callable(getattr(value, "model_dump", None)):  # pydantic
        found = value.model_dump()
    else:
        return value
    return {name: entry for name, entry in found.items() if entry is not None}


def _prepare_message(
    message: Any, escape: Callable[[str], str], earlier: list[EarlierPoints]
) -> dict[str, Any]:
    message = _as_mapping(message)
    if not isinstance(message, Mapping) or "role" not in message:
        raise ProcessingError(f"expected messages with role and content, got {message!r:.80}")
    content, answers = message.get("content"), message["role"] == "assistant"
    if isinstance(content, str):
        return {**message, "content": _literal(content, escape, answers)}
    if not isinstance(content, (list, tuple)):
        return dict(message)
    parts = []
    for part in map(_as_mapping, content):
        if isinstance(part, Mapping) and part.get("type") == "points":
            if not answers:
                raise ProcessingError(
                    f"expected points in assistant messages only, got some from role {message['role']!r}"
                )
            earlier.append(earlier_points_of(part))
            parts.append({"type": "text", "text": LIST_MARK})
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            parts.append({**part, "text": _literal(part["text"], escape, answers)})
        else:
            parts.append(part)
    return {**message, "content": _in_one_piece(parts) if answers else parts}


def _in_one_piece(parts: list[Any]) -> list[Any]:
    """Parts of an answer as one, because templates put spaces between parts and an answer with points has
    none there.
    """
    if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
        return parts
    return [{"type": "text", "text": "".join(part["text"] for part in parts)}]


def _literal(text: str, escape: Callable[[str], str], answer: bool) -> str:
    if answer and _OLD_PLACE.search(text):
        raise ProcessingError(
            "expected an earlier answer without <POINT_n>, got ids of an earlier input, which mean other "
            "places in this one; "
            "pass its points as a part {'type': 'points', 'points': ..., 'label': ...}"
        )
    return escape(text.replace(LIST_MARK, ""))
