"""Earlier turns of a conversation as messages.

An extended id means a place of one input only. So the points of an earlier answer travel in pixels, and the
processor makes them selections of the new input, whatever its crops are; its words stay as they were.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from molmopoint.backends.result import PointingResult
from molmopoint.decoding import read_answer
from molmopoint.errors import ProcessingError
from molmopoint.points import Points
from molmopoint.processing.text_points import read_text_answer

Turn: TypeAlias = PointingResult | tuple[str, Points | str]
"""One earlier turn: a result, or the request with its points or its plain answer."""

_LIST = re.compile(r'<(points|tracks)\b[^<>]*?coords="([^"]*)(?:(">)|\Z)')
_CLOSING = re.compile(r"</(?:point|track)s?>")
_PLACE = re.compile(r"<POINT_\d+>")


def as_turns(
    history: Sequence[Turn] | PointingResult | None,
) -> list[tuple[str, PointingResult | Points | str]]:
    """The request and the answer of every earlier turn.

    Raises:
        ProcessingError: an entry is neither a result nor a pair, or is about several windows of a clip.
    """
    if history is not None and not isinstance(history, (PointingResult, Sequence)):
        raise ProcessingError(
            f"expected the history as a list of earlier turns, got {type(history).__name__}; pass "
            "history=[first_result, second_result]"
        )
    entries = [history] if isinstance(history, PointingResult) else list(history or ())
    turns: list[tuple[str, PointingResult | Points | str]] = []
    for entry in entries:
        if isinstance(entry, PointingResult):
            if len(entry.answers) > 1:
                raise ProcessingError(
                    "expected an earlier turn about one input, got a clip in windows; pass one of "
                    "`result.answers`"
                )
            turns.append((entry.prompt, entry))
        elif (
            isinstance(entry, tuple)
            and len(entry) == 2
            and isinstance(entry[0], str)
            and isinstance(entry[1], (Points, str))
        ):
            turns.append(entry)
        else:
            raise ProcessingError(
                "expected earlier turns as results, (prompt, points) or (prompt, text), got "
                f"{type(entry).__name__}; "
                "pass history=[first_result, second_result]"
            )
    return turns


def turns_note(count: int, known: int | None) -> str | None:
    """What a user is told of a conversation that is longer than what the model was trained on; None if it is
    not.

    Args:
        count: turns, the one to answer included.
        known: most turns of its training; None where there is no such limit.
    """
    if known is None or count <= known:
        return None
    knows = "one turn only" if known == 1 else f"{known} turns"
    return f"the model knows {knows}, got {count} with the history: its answer may be wrong where it was right without; leave history out"


def conversation(
    kind: str,
    count: int,
    turns: Sequence[tuple[str, PointingResult | Points | str]],
    prompt: str,
    *,
    keep_text: bool = False,
) -> list[dict[str, Any]]:
    """Messages for the chat template: the pictures, earlier turns, and the request.

    Args:
        kind: "image" or "video".
        count: how many of them.
        turns: what `as_turns` returned.
        prompt: the request to answer.
        keep_text: whether answers with coordinates as text stay as they are, because the model writes such
            text itself.
    """
    prompts = [request for request, _ in turns]
    prompts.append(prompt)
    media: list[dict[str, Any]] = [{"type": kind}] * count
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [*media, {"type": "text", "text": prompts[0]}]}
    ]
    for (request, answer), following in zip(turns, prompts[1:], strict=True):
        messages.append({"role": "assistant", "content": _parts_of(request, answer, keep_text)})
        messages.append({"role": "user", "content": [{"type": "text", "text": following}]})
    return messages


def _parts_of(request: str, answer: PointingResult | Points | str, keep_text: bool) -> list[dict[str, Any]]:
    """An earlier answer as parts of a message: words, and points in pixels."""
    if isinstance(answer, PointingResult):
        kept = keep_text and not _PLACE.search(answer.raw_text)
        return [{"type": "text", "text": answer.raw_text}] if kept else _parts_of_result(answer)
    if isinstance(answer, Points):
        label = next((label for label in answer.labels or () if label), request)
        return [{"type": "points", "points": answer, "label": label}]
    return [{"type": "text", "text": answer}]


def _parts_of_result(result: PointingResult) -> list[dict[str, Any]]:
    """The words of a result and its point lists; points that named no place are gone."""
    parts: list[dict[str, Any]] = []
    end = 0
    text = result.raw_text
    closings = True
    while (opening := _LIST.search(text, end)) is not None:
        # Once there is no closing tag, none is looked for again: an answer may have any number of lists
        # without an end.
        closing = _CLOSING.search(text, opening.end()) if closings and opening[3] else None
        closings = closing is not None
        label = ""
        stop = opening.end()
        if closing is not None:
            label = text[opening.end() : closing.start()]
            stop = closing.end()
        points = _points_of_list(opening[2], text[opening.start() : stop], result)
        before = _PLACE.sub("", text[end : opening.start()])
        parts.append({"type": "text", "text": before})
        if len(points):
            parts.append({"type": "points", "points": points, "label": label})
        else:
            parts.append({"type": "text", "text": label})
        end = stop
    return [*parts, {"type": "text", "text": _PLACE.sub("", text[end:])}]


def _points_of_list(places: str, whole: str, result: PointingResult) -> Points:
    """Points of one list, which are grounding tokens or text."""
    if _PLACE.search(places):
        return read_answer(places, result.metadata, 0).points
    return read_text_answer(whole, result.metadata.image_sizes, result.metadata.timestamps).points
