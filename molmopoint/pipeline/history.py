"""Earlier turns of a conversation, re-written for a new input.

An extended id means a place of one input only. So the points of an earlier answer travel as places in pixels and become
triples of the new input, whatever its crops are; its words stay as they were.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from molmopoint.decoding import read_answer
from molmopoint.errors import ProcessingError
from molmopoint.geometry import PointingMetadata
from molmopoint.pipeline.result import PointingResult
from molmopoint.points import Points
from molmopoint.processing.answers import (
    TURN_END,
    TURN_START,
    EncodedText,
    PointList,
    encode_answer,
    grounding_token_ids,
    write_answer,
)
from molmopoint.processing.literal import literal_text
from molmopoint.tokens import ExtendedVocabulary, Kind

Turn: TypeAlias = PointingResult | tuple[str, Points | str]
"""One earlier turn: a result, or the request with its points or its plain answer."""

_LIST = re.compile(r'<(points|tracks)\b[^<>]*?coords="([^"]*)(?:">(.*?)</(?:point|track)s?>|">|\Z)', re.DOTALL)
_PLACE = re.compile(r"<POINT_\d+>")


def as_turns(history: Sequence[Turn] | PointingResult | None) -> list[tuple[str, PointingResult | Points | str]]:
    """The request and the answer of every earlier turn.

    Raises:
        ProcessingError: an entry is neither a result nor a pair.
    """
    entries = [history] if isinstance(history, PointingResult) else list(history or ())
    turns: list[tuple[str, PointingResult | Points | str]] = []
    for entry in entries:
        if isinstance(entry, PointingResult):
            turns.append((entry.prompt, entry))
        elif isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], (Points, str)):
            turns.append(entry)
        else:
            raise ProcessingError(
                f"expected earlier turns as results, (prompt, points) or (prompt, text), got {type(entry).__name__}; "
                "pass history=[first_result, second_result]"
            )
    return turns


def encode_turn(
    prompt: str, answer: PointingResult | Points | str, next_prompt: str, metadata: PointingMetadata, tokenizer: Any, vocabulary_start: int
) -> list[int]:
    """Ids from the start of an earlier answer to the header of the next one, points as extended ids of the new input.

    Args:
        prompt: request of the earlier turn.
        answer: its answer.
        next_prompt: request of the turn after it.
        metadata: of the new input.
        tokenizer: of the model.
        vocabulary_start: first id of the extended vocabulary.

    Source: chat template of the released model, without its stray space before earlier assistant headers, which training
        does not have.

    Raises:
        GroundingError: a point names no picture of the new input.
    """
    if isinstance(answer, PointingResult):
        pieces = _pieces_of_result(answer, metadata)
    elif isinstance(answer, Points):
        label = next((label for label in answer.labels or () if label), prompt)
        pieces = [PointList.from_points(answer, metadata, label)] if len(answer) else list(write_answer((), label))
    else:
        pieces = [answer]
    ids = _extend(encode_answer(pieces, tokenizer), metadata, grounding_token_ids(tokenizer), vocabulary_start)
    literal = literal_text(tokenizer)
    turn = f"{TURN_END}\n{TURN_START}user\n{literal.escape(next_prompt)}{TURN_END}\n{TURN_START}assistant\n"
    return ids + literal.encode(turn)


def _pieces_of_result(result: PointingResult, metadata: PointingMetadata) -> list[str | PointList]:
    """The words of a result, and its point lists moved to the new input; points that named no place are gone."""
    pieces: list[str | PointList] = []
    end = 0
    for match in _LIST.finditer(result.raw_text):
        label = match[3] or ""
        points = read_answer(match[2], result.metadata, 0).points
        pieces.append(_PLACE.sub("", result.raw_text[end : match.start()]))
        if len(points):
            written = PointList.from_points(points, metadata, label)
            pieces.append(PointList(written.triples, written.object_ids, label, "tracks" if match[1] == "tracks" else "points"))
        else:
            pieces.append(label)
        end = match.end()
    return [*pieces, _PLACE.sub("", result.raw_text[end:])]


def _extend(text: EncodedText, metadata: PointingMetadata, grounding_ids: Sequence[int], start: int) -> list[int]:
    """Ids with every grounding token replaced by the extended id of what it selects."""
    vocabulary = ExtendedVocabulary(start, metadata.num_patches, metadata.num_slots, metadata.num_locations)
    kinds = dict(zip(grounding_ids, (Kind.PATCH, Kind.SUBPATCH, Kind.LOCATION), strict=True))
    return [
        vocabulary.encode(kinds[token_id], selection) if token_id in kinds else token_id
        for token_id, selection in zip(np.asarray(text.ids).tolist(), np.asarray(text.selections).tolist(), strict=True)
    ]
