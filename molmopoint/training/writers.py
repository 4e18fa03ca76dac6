"""How places are written in an answer: as grounding tokens here, as text by models without them (`text_coordinates`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from molmopoint.geometry import PointingMetadata, points_to_triples
from molmopoint.processing.answers import PointList, Style, write_answer

Answer = tuple[str | PointList, ...]
"""Pieces of an answer, as `write_answer` gives them."""


class PointWriter(Protocol):
    """Writes answers about the pictures or the clip of one example."""

    @property
    def image_sizes(self) -> Sequence[tuple[int, int]]:
        """(width, height) of each picture as displayed, or one entry for a clip."""
        ...

    @property
    def timestamps(self) -> np.ndarray | None:
        """(T,) seconds of the frames of a clip; None for pictures."""
        ...

    def points(
        self,
        group: np.ndarray,
        xy: np.ndarray,
        label: str,
        style: Style,
        *,
        thousandths: np.ndarray | None = None,
        pictures: Sequence[int] = (),
    ) -> Answer:
        """An answer in a style.

        Args:
            group: (n,) picture of each point, or its seconds in the clip.
            xy: (n, 2) pixels of the displayed picture; n may be 0.
            label: what the points show.
            style: how to answer.
            thousandths: (n, 2) of width and height, not rounded, for writers that write them.
            pictures: that the request is about, where it is about several; one without points may have to be named.
        """
        ...

    def tracks(self, group: np.ndarray, xy: np.ndarray, objects: Sequence[Any], label: str) -> Answer:
        """The points (n, 2) of one or more tracked objects at seconds (n,), n from 1; objects are numbered by first appearance."""
        ...


@dataclass(frozen=True, eq=False)
class GroundingWriter:
    """Writes points as grounding triples.

    Attributes:
        metadata: what the processor recorded about the pictures or the clip.
    """

    metadata: PointingMetadata

    @property
    def image_sizes(self) -> Sequence[tuple[int, int]]:
        """(width, height) of each picture as displayed, or one entry for a clip."""
        return self.metadata.image_sizes

    @property
    def timestamps(self) -> np.ndarray | None:
        """(T,) seconds of the frames of a clip; None for pictures."""
        return self.metadata.timestamps

    def points(
        self,
        group: np.ndarray,
        xy: np.ndarray,
        label: str,
        style: Style,
        *,
        thousandths: np.ndarray | None = None,
        pictures: Sequence[int] = (),
    ) -> Answer:
        """Points in reading order of the image tokens, numbered from 1."""
        return write_answer(points_to_triples(group, xy, self.metadata), label, style)

    def tracks(self, group: np.ndarray, xy: np.ndarray, objects: Sequence[Any], label: str) -> Answer:
        """Points in reading order of the image tokens, each with the number of its object."""
        return (PointList.sort_tracks(points_to_triples(group, xy, self.metadata), objects, label),)
