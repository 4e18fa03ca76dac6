"""From a generated answer, as ids or as text, to points in pixels.

Reading never fails on what a model can write: triples that name no place are counted, an answer cut in the
middle of a triple says so. What no answer can contain (negative ids, the wrong type) is an error of the
caller.

An answer is read as pieces, alternating text and places of the extended vocabulary:

    list  = point+ NO_MORE_POINTS '">' label '</point>'
    point = PATCH SUBPATCH LOCATION digits        (no LOCATION in models without a location head)

Letters: P image tokens of the sample, K slots per image token, L location cells per ViT patch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from molmopoint.errors import GroundingError
from molmopoint.geometry import NO_LOCATION, PointingMetadata, triples_to_points, valid_triples
from molmopoint.points import Points
from molmopoint.tokens import NO_MORE_POINTS, ExtendedVocabulary, Kind

_POINT_TEXT = re.compile(r"<POINT_([0-9]+)>")
_OBJECT_ID = re.compile(r" ?([0-9]+)")
_LABEL_START = '">'
_CLOSING = re.compile(r"</(?:point|track)s?>")
_MAX_DIGITS = 18
"""Longer object ids do not fit 64 bits; such a point is numbered as if it had none."""


@dataclass(frozen=True)
class Answer:
    """What a generated answer says.

    Attributes:
        points: every point that names a place, in the order of the answer, with triples and labels.
        invalid: triples that name no place (global view, empty slot, another input's ids, wrong order), not
            in `points`.
        truncated_triple: the answer ends after the first or second token of a triple, which is then neither
            in `points` nor in `invalid`.
        labels: phrase of each point list that closed with one, in order; lists without points included.
        token_positions: (n, 3) index of each point's PATCH, SUBPATCH and LOCATION token in the ids that were
            read (-1 without a location head); None for an answer read from text.
    """

    points: Points
    invalid: int
    truncated_triple: bool
    labels: tuple[str, ...]
    token_positions: np.ndarray | None


def read_answer(
    answer: Any,
    metadata: PointingMetadata,
    vocabulary_start: int,
    decode_ids: Callable[[list[int]], str] | None = None,
    selection_probabilities: Any | None = None,
) -> Answer:
    """Reads the points of one generated answer.

    Args:
        answer: text with `<POINT_n>`, or the (T,) ids that `generate` returned after the prompt: list, array
            or tensor.
        metadata: what the processor recorded for the very same input; the ids mean nothing without it.
        vocabulary_start: first id of the extended vocabulary, `config.extended_start`.
        decode_ids: turns plain ids into their text, as `tokenizer.decode` does; needed for ids, since object
            ids are text.
        selection_probabilities: (T,) probability of each token's selection; gives the points their scores.

    Returns:
        points, and what could not become one. A missing object id counts on from the largest one of its list.

    Raises:
        GroundingError: ids that are not one sequence of non-negative integers, or probabilities of another
            length.
        TypeError: ids without `decode_ids`, or text with `selection_probabilities`.
    """
    vocabulary = ExtendedVocabulary(
        vocabulary_start, metadata.num_patches, metadata.num_slots, metadata.num_locations
    )
    from_text = isinstance(answer, str)
    if from_text:
        if selection_probabilities is not None:
            raise TypeError(
                "expected ids with selection_probabilities, got text; pass the ids that generate returned"
            )
        pieces = _pieces_of_text(answer)
    else:
        if decode_ids is None:
            raise TypeError(
                "expected decode_ids to read an answer given as ids, got None; pass tokenizer.decode"
            )
        pieces = _pieces_of_ids(_as_ids(answer), vocabulary_start, decode_ids)
    reader = _Reader(vocabulary)
    for position, piece in pieces:
        if isinstance(piece, str):
            reader.read_text(piece)
        else:
            reader.read_place(position, piece)
    reader.finish()
    return _assemble(reader, metadata, from_text, selection_probabilities)


@dataclass
class _Found:
    """One complete triple on its way to a point."""

    triple: tuple[int, int, int]
    positions: tuple[int, int, int]
    object_id: int
    label: str | None = None


@dataclass
class _Reader:
    """State machine over the pieces of an answer.

    A triple is open while its tokens arrive; text other than a single space, a new PATCH or a full length
    close it. The text right after a complete triple may start with its object id.
    """

    vocabulary: ExtendedVocabulary
    found: list[_Found] = field(default_factory=list)
    invalid: int = 0
    truncated_triple: bool = False
    labels: list[str] = field(default_factory=list)
    _open: list[tuple[Kind, int, int]] = field(default_factory=list)
    _list_start: int = 0
    _list_ended: bool = False
    _largest_id: int = 0
    _may_number: bool = False

    def read_place(self, position: int, n: int) -> None:
        """Takes the n-th id of the extended vocabulary, found at `position` of the answer."""
        kind, selection = self._kind(n)
        if kind is Kind.PATCH:
            self._abandon()
            if self._list_ended:
                self._begin_list()
            self._list_ended = selection == NO_MORE_POINTS
        self._may_number = False
        if selection == NO_MORE_POINTS:
            return
        self._open.append((kind, selection, position))
        if len(self._open) == len(self._order):
            self._complete()

    def read_text(self, text: str) -> None:
        """Takes the text between two places."""
        if self._open:
            if text == " ":
                return
            self._abandon()
        if self._may_number and (match := _OBJECT_ID.match(text)):
            if len(match[1]) <= _MAX_DIGITS:
                self.found[-1].object_id = int(match[1])
            text = text[match.end() :]
        self._may_number = False
        for label in _labels(text):
            self._close_list(label)

    def finish(self) -> None:
        """Ends the answer; what is open then was cut, if it began as a triple does."""
        kinds = tuple(kind for kind, _, _ in self._open)
        self.truncated_triple = bool(kinds) and kinds == self._order[: len(kinds)]
        if self.truncated_triple:
            self._open.clear()
        self._abandon()

    @property
    def _order(self) -> tuple[Kind, ...]:
        return (Kind.PATCH, Kind.SUBPATCH, Kind.LOCATION)[: 3 if self.vocabulary.num_locations else 2]

    def _kind(self, n: int) -> tuple[Kind, int]:
        """Kind and selection; an id beyond the vocabulary is no kind of place and spoils its triple."""
        if n >= self.vocabulary.size:
            return Kind.TEXT, n
        return self.vocabulary.decode(self.vocabulary.start + n)

    def _complete(self) -> None:
        kinds, selections, positions = zip(*self._open, strict=True)
        if kinds != self._order:
            self._abandon()
            return
        self._open.clear()
        padding = (NO_LOCATION,) * (3 - len(kinds))
        if len(self.found) > self._list_start:  # whose id may have come after its triple
            self._largest_id = max(self._largest_id, self.found[-1].object_id)
        self.found.append(_Found(selections + padding, positions + padding, self._largest_id + 1))
        self._may_number = True

    def _abandon(self) -> None:
        """Counts what is open as one invalid triple."""
        self.invalid += bool(self._open)
        self._open.clear()

    def _close_list(self, label: str) -> None:
        for found in self.found[self._list_start :]:
            found.label = label
        self._begin_list()
        self._list_ended = False
        self.labels.append(label)

    def _begin_list(self) -> None:
        self._list_start, self._largest_id = len(self.found), 0


def _labels(text: str) -> Iterator[str]:
    """What stands between the end of places and the closing tag after it; every character is looked at once."""
    position = 0
    while (start := text.find(_LABEL_START, position)) >= 0:
        start += len(_LABEL_START)
        closing = _CLOSING.search(text, start)
        if closing is None:
            return
        yield text[start : closing.start()]
        position = closing.end()


def _assemble(
    reader: _Reader, metadata: PointingMetadata, from_text: bool, probabilities: Any | None
) -> Answer:
    """Turns complete triples into points; those that name no place into a count."""
    triples = np.array([found.triple for found in reader.found], dtype=np.int64).reshape(-1, 3)
    positions = np.array([found.positions for found in reader.found], dtype=np.int64).reshape(-1, 3)
    valid = valid_triples(triples, metadata)
    kept = [found for found, good in zip(reader.found, valid, strict=True) if good]
    group, xy = triples_to_points(triples[valid], metadata)
    points = Points(
        object_id=np.array([found.object_id for found in kept], dtype=np.int64),
        group=group,
        x=xy[:, 0],
        y=xy[:, 1],
        score=_scores(probabilities, positions[valid]),
        triples=triples[valid],
        image_sizes=metadata.image_sizes,
        labels=[found.label for found in kept],
    )
    invalid = reader.invalid + int((~valid).sum())
    return Answer(
        points,
        invalid,
        reader.truncated_triple,
        tuple(reader.labels),
        None if from_text else positions[valid],
    )


def _scores(probabilities: Any | None, positions: np.ndarray) -> np.ndarray:
    """(n,) product of the probabilities of each point's selections, NaN where they are unknown."""
    if probabilities is None or not len(positions):
        return np.full(len(positions), np.nan)
    values = np.asarray(_on_host(probabilities), dtype=np.float64)
    if values.ndim != 1 or len(values) <= positions.max():
        raise GroundingError(
            f"expected one selection probability per id of the answer, got shape {values.shape}"
        )
    return np.where(positions >= 0, values[positions], 1.0).prod(axis=1).clip(0.0, 1.0)


def _pieces_of_text(text: str) -> Iterator[tuple[int, str | int]]:
    """(-1, text) and (-1, n) in order, without empty texts."""
    for i, piece in enumerate(_POINT_TEXT.split(text)):
        if i % 2:
            yield -1, int(piece) if len(piece) <= _MAX_DIGITS else 10**_MAX_DIGITS
        elif piece:
            yield -1, piece


def _pieces_of_ids(
    ids: list[int], start: int, decode_ids: Callable[[list[int]], str]
) -> Iterator[tuple[int, str | int]]:
    """(position, text of a run of plain ids) and (position, n) in order, without empty texts."""
    run_start = 0
    for position, token_id in enumerate([*ids, start]):
        if token_id < start:
            continue
        if run_start < position and (text := decode_ids(ids[run_start:position])):
            yield run_start, text
        if position < len(ids):
            yield position, token_id - start
        run_start = position + 1


def _as_ids(ids: Any) -> list[int]:
    array = np.asarray(_on_host(ids))
    if array.size == 0 and array.ndim == 1:
        return []
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0:
        raise GroundingError(
            f"expected the ids of one answer, non-negative integers of shape (T,), got {array.dtype} of "
            f"shape {array.shape}; "
            "read one row at a time, without the prompt"
        )
    return array.tolist()


def _on_host(values: Any) -> Any:
    """Tensors become lists, from any device and of any precision, without this module knowing torch."""
    return values.detach().cpu().tolist() if hasattr(values, "detach") else values
