"""Answers with grounding tokens: the text around points, and the selections behind them.

An answer is written as pieces, text and point lists; encoding gives plain token ids and, beside them, what
each grounding token selects. Text is tokenised piece by piece between grounding tokens, and always literally:
what looks like a special token in a label or a question stays text.

    list  = '<points coords="' point+ PATCH '">' label '</point>'       (the last PATCH selects no-more-points)
    point = PATCH SUBPATCH LOCATION digits                              (no LOCATION without a location head)

The surprise to know: the closing tag is `</point>` for points and for tracks, as released.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np

from molmopoint.errors import GroundingError, ProcessingError
from molmopoint.geometry import NO_LOCATION, PointingMetadata, points_to_triples
from molmopoint.points import Points
from molmopoint.processing.escaping import text_escaper
from molmopoint.tokens import LOCATION, NO_MORE_POINTS, NO_SELECTION, PATCH, SUBPATCH

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
"""Special tokens around every message; the second one is also the first token of a sequence and the end of an
answer.
"""

NOTHING_THERE = "There are none."
"""Answer where there is nothing to point at, in every style."""

Style = Literal["pointing", "point_count", "count_then_point", "count"]

_Written = TypeVar("_Written")


@dataclass(frozen=True, eq=False)
class PointList:
    """The points of one phrase, sorted by triple; at least one.

    Attributes:
        triples: (n, 3) patch, subpatch and location, counted within the sample; ascending.
        object_ids: (n,) the numbers written after the triples.
        label: the phrase.
        tag: "points", or "tracks" where object ids repeat over time.

    Raises:
        GroundingError: no points, unequal lengths, or triples out of order (`PointList.sort` orders them).
    """

    triples: np.ndarray
    object_ids: np.ndarray
    label: str
    tag: Literal["points", "tracks"] = "points"

    def __post_init__(self) -> None:
        triples = np.asarray(self.triples, dtype=np.int64)  # (n, 3)
        object_ids = np.asarray(self.object_ids, dtype=np.int64)  # (n,)
        are_triples = triples.ndim == 2 and triples.shape[1] == 3 and len(triples) > 0
        if not are_triples or object_ids.shape != triples.shape[:1]:
            raise GroundingError(
                f"expected one or more triples (n, 3) and n object ids, got shapes {triples.shape} and "
                f"{object_ids.shape}; "
                "nothing to point at is a sentence, see write_answer"
            )
        is_sorted = (np.lexsort(triples.T[::-1]) == np.arange(len(triples))).all()
        if not is_sorted or (object_ids < 0).any():
            raise GroundingError(
                "expected triples in ascending order and object ids from 0; use PointList.sort"
            )
        object.__setattr__(self, "triples", triples)
        object.__setattr__(self, "object_ids", object_ids)

    @classmethod
    def sort(cls, triples: Any, label: str) -> PointList:
        """Sorts triples (n, 3) and numbers them from 1; equal triples are all kept."""
        triples = np.asarray(triples, dtype=np.int64).reshape(-1, 3)
        order = np.lexsort(triples.T[::-1])
        return cls(triples[order], np.arange(1, len(triples) + 1), label)

    @classmethod
    def sort_tracks(cls, triples: Any, objects: Sequence[Any], label: str) -> PointList:
        """Sorts triples (n, 3) and numbers their objects from 1 by first appearance after sorting."""
        triples = np.asarray(triples, dtype=np.int64).reshape(-1, 3)
        order = np.lexsort(triples.T[::-1])
        numbers: dict[Any, int] = {}
        ids = [numbers.setdefault(objects[i], len(numbers) + 1) for i in order]
        return cls(triples[order], np.array(ids), label, "tracks")

    @classmethod
    def from_points(cls, points: Points, metadata: PointingMetadata, label: str) -> PointList:
        """Writes points found before anew for another input over the same pictures; object ids are kept."""
        triples = points_to_triples(points.group, points.xy, metadata)
        order = np.lexsort(triples.T[::-1])
        return cls(triples[order], points.object_id[order], label)

    def __len__(self) -> int:
        return len(self.triples)


@dataclass(frozen=True, eq=False)
class EncodedText:
    """Tokens and what they select.

    Attributes:
        ids: (n,) int64 plain token ids.
        selections: (n,) int64, NO_SELECTION except at grounding tokens.
    """

    ids: np.ndarray
    selections: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def write_answer(triples: Any, label: str, style: Style = "pointing") -> tuple[str | PointList, ...]:
    """The pieces of an answer that points at all triples (n, 3), in any order; n may be 0.

    Raises:
        ProcessingError: an unknown style.
    """
    count = len(np.asarray(triples).reshape(-1, 3))
    points = PointList.sort(triples, label) if count else None
    return frame_answer(points, count, style)


def frame_answer(points: _Written | None, count: int, style: Style) -> tuple[str | _Written, ...]:
    """The sentence of a style around a list of `count` points, in whatever form; None where there is nothing
    to point at.

    Raises:
        ProcessingError: an unknown style.
    """
    if points is None:
        return (NOTHING_THERE,)
    styles: dict[str, tuple[str | _Written, ...]] = {
        "pointing": (points,),
        "point_count": ("Counting the ", points, f" shows a total of {count}."),
        "count_then_point": (f"There are {count} ", points, "."),
        "count": (str(count),),
    }
    if style not in styles:
        raise ProcessingError(f"expected one of the answer styles {', '.join(styles)}, got {style!r}")
    return styles[style]


def encode_answer(pieces: Iterable[str | PointList], tokenizer: Any) -> EncodedText:
    """Token ids and selections of an answer, without the end-of-turn token.

    Args:
        pieces: text and point lists in order, as `write_answer` gives them.
        tokenizer: of the model; for point lists it must know the grounding tokens.

    Raises:
        ProcessingError: the tokenizer lacks a grounding token that is needed, or cannot read the name of a
            special token as text.
    """
    runs = _runs_of(pieces)
    texts = [run for run in runs if isinstance(run, str)]
    grounding: tuple[int, ...] = ()
    if len(texts) < len(runs):
        grounding = grounding_token_ids(tokenizer)
    encoded = _encode_as_text(texts, tokenizer)

    ids: list[int] = []
    selections: list[int] = []
    for run in runs:
        if isinstance(run, str):
            ids += encoded[run]
            selections += [NO_SELECTION] * len(encoded[run])
        else:
            ids += grounding[: len(run)]
            selections += run
    return EncodedText(np.array(ids, dtype=np.int64), np.array(selections, dtype=np.int64))


def grounding_token_ids(tokenizer: Any) -> tuple[int, int, int]:
    """Ids of PATCH, SUBPATCH and LOCATION.

    Raises:
        ProcessingError: the tokenizer does not know them.
    """
    names = [PATCH, SUBPATCH, LOCATION]
    ids = tokenizer.convert_tokens_to_ids(names)
    for name, i in zip(names, ids, strict=True):
        if i is None or i == tokenizer.unk_token_id:
            raise ProcessingError(
                f"expected a tokenizer with the token {name}, got one without it; load the model's own "
                "tokenizer"
            )
    patch, subpatch, location = ids
    return patch, subpatch, location


_Run: TypeAlias = str | tuple[int, ...]
"""Text, or the selections of consecutive grounding tokens."""


def _runs_of(pieces: Iterable[str | PointList]) -> list[_Run]:
    """Pieces of an answer as runs; text between two grounding tokens is one run, for the tokenizer to see as
    a whole.
    """
    runs: list[_Run] = []
    for piece in pieces:
        parts = [piece] if isinstance(piece, str) else _runs_of_list(piece)
        for run in parts:
            if isinstance(run, str) and runs and isinstance(runs[-1], str):
                runs[-1] += run
            elif run:
                runs.append(run)
    return runs


def _runs_of_list(points: PointList) -> list[_Run]:
    runs: list[_Run] = [f'<{points.tag} coords="']
    for triple, object_id in zip(points.triples.tolist(), points.object_ids.tolist(), strict=True):
        patch, slot, location = triple
        selections = (patch, slot) if location == NO_LOCATION else (patch, slot, location)
        runs += [selections, str(object_id)]
    return [*runs, (NO_MORE_POINTS,), f'">{points.label}</point>']


def _encode_as_text(texts: Sequence[str], tokenizer: Any) -> dict[str, list[int]]:
    """Ids of each text, special tokens in it spelled out; one call of the tokenizer for all of them."""
    unique = list(dict.fromkeys(texts))
    if not unique:
        return {}
    rows = tokenizer(unique, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    encoded = dict(zip(unique, rows, strict=True))
    # `<POINT_n>` is an added token but not a special one, so the tokenizer has read it. Grounding tokens have
    # the first added ids; a tokenizer without them has no `<POINT_n>` either.
    grounding = tokenizer.convert_tokens_to_ids([PATCH, SUBPATCH, LOCATION])
    known = [i for i in grounding if i is not None and i != tokenizer.unk_token_id]
    first_added = min(known, default=math.inf)
    for text, ids in encoded.items():
        if max(ids, default=0) >= first_added:
            escaper = text_escaper(tokenizer)
            encoded[text] = escaper.encode(escaper.escape(text))
    return encoded
