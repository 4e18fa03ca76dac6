"""Messages of a chat before they meet the template: text is made literal, and points of earlier answers are set aside.

Earlier answers must not carry `<POINT_n>`: those ids meant places of the input they were generated for, and would mean others
in a new one. Their points are passed as such (see `molmopoint.processing.history`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from molmopoint.errors import ProcessingError
from molmopoint.processing.history import LIST_MARK, EarlierPoints, earlier_points_of
from molmopoint.tokens import LOCATION, PATCH, SUBPATCH

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
        conversation: messages, or a list of conversations. Messages and their parts are mappings, dataclasses or pydantic models, and a
            conversation may be an object with `messages`; fields of objects that are None are left out, as in transformers.
        escape: makes one text literal.

    Raises:
        ProcessingError: this is no list of messages, or an answer in it holds places of an earlier input.
    """
    conversation = getattr(conversation, "messages", conversation)
    if not isinstance(conversation, (list, tuple)) or not conversation:
        raise ProcessingError(f"expected a list of messages with role and content, got {type(conversation).__name__} {conversation!r:.80}")
    if isinstance(conversation[0], (list, tuple)) or hasattr(conversation[0], "messages"):
        prepared = [prepare_messages(messages, escape) for messages in conversation]
        return PreparedMessages([p.messages for p in prepared], [lists for p in prepared for lists in p.earlier])
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


def _prepare_message(message: Any, escape: Callable[[str], str], earlier: list[EarlierPoints]) -> dict[str, Any]:
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
                raise ProcessingError(f"expected points in assistant messages only, got some from role {message['role']!r}")
            earlier.append(earlier_points_of(part))
            parts.append({"type": "text", "text": LIST_MARK})
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            parts.append({**part, "text": _literal(part["text"], escape, answers)})
        else:
            parts.append(part)
    return {**message, "content": _in_one_piece(parts) if answers else parts}


def _in_one_piece(parts: list[Any]) -> list[Any]:
    """Parts of an answer as one, because templates put spaces between parts and an answer with points has none there."""
    if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
        return parts
    return [{"type": "text", "text": "".join(part["text"] for part in parts)}]


def _literal(text: str, escape: Callable[[str], str], answer: bool) -> str:
    if answer and _OLD_PLACE.search(text):
        raise ProcessingError(
            "expected an earlier answer without <POINT_n>, got ids of an earlier input, which mean other places in this one; "
            "pass its points as a part {'type': 'points', 'points': ..., 'label': ...}"
        )
    return escape(text.replace(LIST_MARK, ""))
