"""From the score of a point to the chance that it is right: one monotone map per model, fitted on answers
that were checked.

The score of a point is a product of three probabilities and usually says too little: of ten points with a
score of 0.25 seven may be right. A calibration says 0.7 for them. It keeps the order of the points, so nothing
changes for who only compares them.

Source: isotonic regression (Zadrozny and Elkan 2002); expected calibration error over bins with equally many
points (Naeini et al. 2015, Nguyen and O'Connor 2015).

Letters: n points, b bins.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import scipy  # its parts are imported when they are used
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from molmopoint.errors import CheckpointError, EvaluationError
from molmopoint.files import CALIBRATION_FILE, write_text_whole

MAX_KNOTS = 256
"""Most knots of a map; those that `fit_calibration` makes have 20."""

_LARGEST_FILE = 65_536
"""Bytes of a file at most, before anything is read."""

_FEWEST_POINTS = 50
"""Points from which a map may be fitted; fewer say next to nothing about the chances."""

Chance = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Knots = Annotated[tuple[Chance, ...], Field(min_length=2, max_length=MAX_KNOTS)]


class Calibration(BaseModel):
    """A monotone map from scores to chances, straight between its knots and level beyond them.

    `fit_calibration` makes one, `save` puts it beside the weights, where `molmopoint.load` finds it.

    Attributes:
        version: of the form of the file.
        scores: (k,) scores at the knots, rising.
        chances: (k,) chance that a point of this score is right, nowhere falling.
        points: points it was fitted on; 0 where that is not known.
        about: on what, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    scores: Knots
    chances: Knots
    points: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = 0
    about: Annotated[str, Field(max_length=2000)] = ""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if len(self.scores) != len(self.chances):
            raise ValueError(
                f"expected as many chances as scores, got {len(self.chances)} and {len(self.scores)}"
            )
        if any(after <= before for before, after in pairwise(self.scores)):
            raise ValueError("expected scores that rise from knot to knot, got some that do not")
        if any(after < before for before, after in pairwise(self.chances)):
            raise ValueError("expected chances that fall nowhere, got some that do: the map is not monotone")
        return self

    def __call__(self, scores: ArrayLike) -> np.ndarray:
        """Chances (n,) of scores (n,); an unknown score, NaN, stays one."""
        return np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.chances)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes the map into the folder of its checkpoint, and returns the file's path.

        It belongs to these very weights: training writes new folders without one.
        """
        path = Path(folder) / CALIBRATION_FILE
        write_text_whole(path, self.model_dump_json(indent=2) + "\n")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a file that `save` wrote.

        Args:
            path: the file, or its folder.

        Raises:
            CheckpointError: there is no such file, or what it holds is no map that only rises.
        """
        file = Path(path)
        if file.is_dir():
            file = file / CALIBRATION_FILE
        try:
            with file.open("rb") as stream:
                text = stream.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise CheckpointError(
                f"expected a calibration at {str(file)!r}, got: {error.strerror}; fit one with "
                "molmopoint.metrics.fit_calibration"
            ) from error
        if len(text) > _LARGEST_FILE:
            raise CheckpointError(
                f"expected a calibration of at most {_LARGEST_FILE:,} bytes, got a longer file, {str(file)!r}; "
                "remove it, or fit a new one"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise CheckpointError(
                f"expected scores and chances in 0..1 that rise, 2 to {MAX_KNOTS} of them, in {str(file)!r}, "
                f"got {_first_fault(error)}; remove the file, or fit a new one"
            ) from error


def _first_fault(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part)[:40] for part in fault["loc"])
    words = fault["msg"].removeprefix("Value error, ")
    return f"{place}: {words}" if place else words


def fit_calibration(
    scores: ArrayLike, hits: ArrayLike, *, max_knots: int = 20, about: str = ""
) -> Calibration:
    """The monotone map under which scores come closest to how often points are right.

    Points are gathered in groups of neighbouring scores, equally many in each, which are the knots; their shares
    of hits are made monotone by isotonic regression.

    Args:
        scores: (n,) of points, of answers that were asked for as they will be later on.
        hits: (n,) whether each of them is right.
        max_knots: most knots; few, so that chance does not draw steps.
        about: what the points were, for who reads the file.

    Raises:
        EvaluationError: there are under 50 points, lengths differ, scores are outside of 0..1 or all alike, or
            `max_knots` is out of range.
    """
    said, right = _checked(scores, hits)
    if isinstance(max_knots, bool) or not isinstance(max_knots, int) or not 2 <= max_knots <= MAX_KNOTS:
        raise EvaluationError(f"expected max_knots in 2..{MAX_KNOTS}, got {max_knots!r}")
    if len(said) < _FEWEST_POINTS:
        raise EvaluationError(
            f"expected at least {_FEWEST_POINTS} points to fit a calibration on, got {len(said)}; ask more"
        )
    bins = _bins(said, right, max_knots)
    # Means that are equal in the decimals that are kept are one knot.
    scores_kept, group = np.unique(np.round(bins.score, 6), return_inverse=True)
    if len(scores_kept) < 2:
        raise EvaluationError(
            "expected scores that differ, got points that nearly all have the same; check them"
        )
    count = np.bincount(group, weights=bins.count)
    share = np.bincount(group, weights=bins.right * bins.count) / count
    chances = scipy.optimize.isotonic_regression(share, weights=count).x
    return Calibration(
        scores=tuple(scores_kept.tolist()),
        chances=tuple(np.round(chances.clip(0, 1), 4).tolist()),
        points=len(said),
        about=about,
    )


class ReliabilityCurve(NamedTuple):
    """How often points are right, by what was said of them.

    Attributes:
        score: (b,) mean of what was said.
        right: (b,) share of points that are right.
        count: (b,) points.
    """

    score: np.ndarray
    right: np.ndarray
    count: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of what was said to what is, weighted by points."""
        return float(np.average(np.abs(self.score - self.right), weights=self.count))


def reliability_curve(scores: ArrayLike, hits: ArrayLike, bins: int = 10) -> ReliabilityCurve:
    """What was said of points beside how often it was so, in bins with equally many points.

    Args:
        scores: (n,) scores or chances; points whose score is not known, NaN, are left out.
        hits: (n,) whether each point is right.
        bins: at most.

    Raises:
        EvaluationError: there are no points, lengths differ, or scores are outside of 0..1.
    """
    said, right = _checked(scores, hits)
    if not len(said):
        raise EvaluationError("expected points with scores, got none; ask a model that scores its points")
    return _bins(said, right, max(1, bins))


def _bins(scores: np.ndarray, hits: np.ndarray, bins: int) -> ReliabilityCurve:
    """Neighbouring scores in groups that are as equal as can be; equal scores are in one."""
    _, which, number = np.unique(scores, return_inverse=True, return_counts=True)
    # A value goes where the middle of its points would go if all were in a row.
    middle = np.cumsum(number) - number / 2
    group = np.floor(bins * middle / len(scores)).astype(np.int64)  # (values,)
    _, group = np.unique(group, return_inverse=True)  # without empty ones
    group = group[which]  # (n,)
    count = np.bincount(group)
    score = np.bincount(group, weights=scores) / count
    right = np.bincount(group, weights=hits) / count
    return ReliabilityCurve(score, right, count)


def _checked(scores: ArrayLike, hits: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Known scores (n,) and whether each point is right."""
    said = np.asarray(scores, dtype=np.float64).reshape(-1)
    right = np.asarray(hits).reshape(-1)
    if len(said) != len(right):
        raise EvaluationError(f"expected a hit per score, got {len(said)} scores and {len(right)} hits")
    is_binary = np.isin(right, (0, 1)).all()
    if not is_binary:
        raise EvaluationError("expected hits that are True or False, got other values; compare them first")
    known = ~np.isnan(said)
    said, right = said[known], right[known].astype(bool)
    if ((said < 0) | (said > 1)).any():
        raise EvaluationError(f"expected scores in 0..1, got {said[(said < 0) | (said > 1)][0]}")
    return said, right
