"""Points as results: columns that know their units, rows on demand.

`group` says where a point lies: the index of the picture (int, from 0) or the seconds within a clip (float).
`x` and `y` are pixels of the displayed original picture or frame, from its upper left corner.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, overload

import numpy as np

from molmopoint.errors import GroundingError

SCHEMA_VERSION = 1
"""Version of what `Points.to_dict` writes; raised when a reader of the old form would misread the new one."""

XY_DECIMALS = 2
"""Of places in pixels, where numbers are written short: finer than any model points."""

SCORE_DECIMALS = 4
"""Of scores, where numbers are written short."""

_PREVIEW = 3


@dataclass(frozen=True, slots=True)
class Point:
    """One point.

    Attributes:
        object_id: number after the triple in the answer; equal ids are one object across frames.
        group: index of the picture from 0, or seconds within a clip.
        x: pixels from the left edge of the displayed original.
        y: pixels from its upper edge.
        score: product of the probabilities of patch, subpatch and location (0..1), or the chance that the
            point is right, where that was asked for (`calibrated=True`); NaN if unknown.
        label: phrase of the point list it came from, if known.
    """

    object_id: int
    group: int | float
    x: float
    y: float
    score: float = math.nan
    label: str | None = None

    @property
    def xy(self) -> tuple[float, float]:
        """Pixels of the displayed original, from its upper left corner."""
        return self.x, self.y


@dataclass(frozen=True, eq=False, repr=False)
class Points(Sequence[Point]):
    """Points in the order of the answer; a sequence of `Point` that keeps its columns as arrays.

    Attributes:
        object_id: (n,) int64.
        group: (n,) int64 index of the picture, or float64 seconds within a clip; its type says which.
        x: (n,) float64 pixels of the displayed original.
        y: (n,) float64 pixels of the displayed original.
        score: (n,) float64 in 0..1, NaN where unknown; None at birth means unknown for all.
        triples: (n, 3) int64 patch, subpatch and location of the input the points were chosen in, or None.
        image_sizes: (width, height) of each picture, or of the clip; None if unknown.
        labels: n phrases, None for points without one; None at birth means none for all.

    Raises:
        GroundingError: columns of unequal length, coordinates that are not finite, or a group that cannot be.
    """

    object_id: np.ndarray
    group: np.ndarray
    x: np.ndarray
    y: np.ndarray
    score: np.ndarray = None  # type: ignore[assignment]  # becomes a column at birth
    triples: np.ndarray | None = None
    image_sizes: Sequence[tuple[int, int]] | None = None
    labels: Sequence[str | None] | None = None

    def __post_init__(self) -> None:
        group = np.asarray(self.group)
        group = group.astype(np.float64 if group.dtype.kind == "f" else np.int64)
        score = (
            np.full(len(group), np.nan) if self.score is None else np.asarray(self.score, dtype=np.float64)
        )
        columns = {
            "object_id": np.asarray(self.object_id, dtype=np.int64),
            "group": group,
            "x": np.asarray(self.x, dtype=np.float64),
            "y": np.asarray(self.y, dtype=np.float64),
            "score": score,
        }
        labels = None if self.labels is None else tuple(self.labels)
        sizes = None if self.image_sizes is None else tuple((int(w), int(h)) for w, h in self.image_sizes)
        triples = None if self.triples is None else np.asarray(self.triples, dtype=np.int64)
        _check_columns(columns, triples, labels, sizes)
        for name, value in (columns | {"triples": triples, "labels": labels, "image_sizes": sizes}).items():
            object.__setattr__(self, name, value)

    @classmethod
    def empty(cls, *, video: bool = False, image_sizes: Sequence[tuple[int, int]] | None = None) -> Points:
        """No points, of a clip or of pictures."""
        none, group = np.empty(0), np.empty(0, dtype=np.float64 if video else np.int64)
        return cls(none, group, none, none, triples=np.empty((0, 3)), image_sizes=image_sizes)

    @property
    def is_video(self) -> bool:
        """Whether groups are seconds and not indices of pictures."""
        return self.group.dtype.kind == "f"

    @property
    def xy(self) -> np.ndarray:
        """(n, 2) pixels of the displayed original."""
        return np.stack([self.x, self.y], axis=1)

    @property
    def xy_normalized(self) -> np.ndarray:
        """(n, 2) fractions of the width and height of each point's picture.

        Raises:
            GroundingError: `image_sizes` is None.
        """
        if self.image_sizes is None:
            raise GroundingError(
                "expected points that know their image_sizes, got None; pass image_sizes=[(width, height), "
                "...] to Points"
            )
        sizes = np.asarray(self.image_sizes, dtype=np.float64).reshape(-1, 2)
        return self.xy / sizes[np.zeros(len(self), dtype=np.int64) if self.is_video else self.group]

    def with_scores(self, score: np.ndarray) -> Points:
        """The same points with other scores (n,)."""
        return replace(self, score=score)

    def rounded(self) -> Points:
        """The same points with numbers as short as they mean something: places of two decimals, scores of
        four.
        """
        return replace(
            self,
            x=self.x.round(XY_DECIMALS),
            y=self.y.round(XY_DECIMALS),
            score=self.score.round(SCORE_DECIMALS),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, ready for JSON: unknown scores are None. `from_dict` reads it back.

        `triple` and `label` appear in the rows only if the points have them.
        """
        optional = {"triple": None if self.triples is None else self.triples.tolist(), "label": self.labels}
        rows = []
        for i, point in enumerate(self):
            row: dict[str, Any] = {
                "object_id": point.object_id,
                "group": point.group,
                "x": point.x,
                "y": point.y,
            }
            row["score"] = None if math.isnan(point.score) else point.score
            rows.append(row | {name: values[i] for name, values in optional.items() if values is not None})
        return {
            "schema_version": SCHEMA_VERSION,
            "group_unit": "second" if self.is_video else "image",
            "coordinate_unit": "pixel",
            "image_sizes": None if self.image_sizes is None else [list(size) for size in self.image_sizes],
            "points": rows,
        }

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as strict JSON: NaN becomes null."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Points:
        """Reads what `to_dict` wrote.

        Raises:
            GroundingError: another schema version, or a missing or malformed entry.
        """
        version = document.get("schema_version") if isinstance(document, Mapping) else None
        if version != SCHEMA_VERSION:
            raise GroundingError(
                f"expected points of schema version {SCHEMA_VERSION}, got {version!r}; use the release that "
                "wrote them"
            )
        try:
            rows = document["points"]
            kind = {"second": np.float64, "image": np.int64}[document["group_unit"]]
            whole = {"object_id": True, "group": kind is np.int64, "x": False, "y": False}
            columns = {
                name: [
                    checked_number(row[name], f"points[{i}].{name}", whole=is_whole)
                    for i, row in enumerate(rows)
                ]
                for name, is_whole in whole.items()
            }
            scores = [row["score"] for row in rows]
            has_triples, has_labels = (
                bool(rows) and all(name in row for row in rows) for name in ("triple", "label")
            )
            return cls(
                object_id=np.array(columns["object_id"], dtype=np.int64),
                group=np.array(columns["group"], dtype=kind),
                x=np.array(columns["x"], dtype=np.float64),
                y=np.array(columns["y"], dtype=np.float64),
                score=np.array(
                    [
                        math.nan if s is None else checked_number(s, f"points[{i}].score")
                        for i, s in enumerate(scores)
                    ]
                ),
                triples=np.array(
                    [_triple(row["triple"], f"points[{i}].triple") for i, row in enumerate(rows)]
                )
                if has_triples
                else None,
                image_sizes=_sizes(document["image_sizes"]),
                labels=[checked_label(row["label"], f"points[{i}].label") for i, row in enumerate(rows)]
                if has_labels
                else None,
            )
        except GroundingError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise GroundingError(
                f"expected a document as Points.to_dict writes it, got one without a proper {error}"
            ) from error

    @classmethod
    def from_json(cls, text: str) -> Points:
        """Reads what `to_json` wrote; GroundingError as in `from_dict`."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise GroundingError(f"expected JSON as Points.to_json writes it, got: {error}") from error
        return cls.from_dict(document)

    def __len__(self) -> int:
        return len(self.group)

    def __iter__(self) -> Iterator[Point]:
        labels = self.labels or (None,) * len(self)
        columns = (self.object_id, self.group, self.x, self.y, self.score)
        for object_id, group, x, y, score, label in zip(
            *(column.tolist() for column in columns), labels, strict=True
        ):
            yield Point(object_id, group, x, y, score, label)

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice | np.ndarray | Sequence[int]) -> Points: ...

    def __getitem__(self, index: int | slice | np.ndarray | Sequence[int]) -> Point | Points:
        """One point for an int; points for a slice, a boolean mask or a list of indices."""
        if isinstance(index, (int, np.integer)):
            values = [
                column[index].item() for column in (self.object_id, self.group, self.x, self.y, self.score)
            ]
            return Point(*values, label=None if self.labels is None else self.labels[index])
        chosen = np.arange(len(self))[
            index if isinstance(index, slice) else np.asarray(index, dtype=None if len(index) else np.int64)
        ]
        return replace(
            self,
            **{name: getattr(self, name)[chosen] for name in ("object_id", "group", "x", "y", "score")},
            triples=None if self.triples is None else self.triples[chosen],
            labels=None if self.labels is None else [self.labels[i] for i in chosen],
        )

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, Points) else NotImplemented

    __hash__: ClassVar[None] = None  # arrays can be changed in place

    def __repr__(self) -> str:
        unit = "s" if self.is_video else ""
        shown = [f"#{p.object_id} ({p.x:.1f}, {p.y:.1f}) at {p.group}{unit}" for p in self[:_PREVIEW]]
        rest = [f"... {len(self) - _PREVIEW} more"] if len(self) > _PREVIEW else []
        return f"Points({len(self)}: {', '.join(shown + rest)})" if len(self) else "Points(0)"


def checked_number(value: Any, where: str, *, whole: bool = False) -> Any:
    """A finite number of a document as float, or as int of 64 bits where it must be whole; texts and truth
    values are none.

    Raises:
        GroundingError: it is none; `where` tells its place.
    """
    number = math.nan
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # JSON has integers beyond every float
            number = float(value)
    fits = math.isfinite(number) and (not whole or (number == math.floor(number) and abs(number) < 2**63))
    if not fits:
        got = type(value).__name__ if not isinstance(value, float) else repr(value)
        raise GroundingError(
            f"expected a {'whole number of 64 bits' if whole else 'finite number'} in {where}, got {got}; "
            "correct it"
        )
    return int(value) if whole else number


def checked_label(value: Any, where: str) -> str | None:
    """A phrase of a document, or None; half a character can stand in JSON, and in no file.

    Raises:
        GroundingError: it is none; `where` tells its place.
    """
    if value is None or (
        isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
    ):
        return value
    got = ascii(value)[:40] if isinstance(value, str) else type(value).__name__
    raise GroundingError(f"expected text of whole characters or nothing in {where}, got {got}; correct it")


def _sizes(value: Any) -> list[tuple[int, int]] | None:
    """(width, height) per picture."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(
        isinstance(size, list | tuple) and len(size) == 2 for size in value
    ):
        raise GroundingError(
            f"expected image_sizes as a list of [width, height], got {type(value).__name__}; correct it"
        )
    sides = [
        [checked_number(side, f"image_sizes[{i}]", whole=True) for side in size]
        for i, size in enumerate(value)
    ]
    return [(width, height) for width, height in sides]


def _triple(value: Any, where: str) -> list[int]:
    """The three numbers of a point's tokens."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise GroundingError(
            f"expected three whole numbers in {where}, got {type(value).__name__}; correct them"
        )
    return [checked_number(part, where, whole=True) for part in value]


def _check_columns(
    columns: Mapping[str, np.ndarray],
    triples: np.ndarray | None,
    labels: Sequence[str | None] | None,
    sizes: Sequence[tuple[int, int]] | None,
) -> None:
    """Raises GroundingError where columns of a `Points` do not fit each other."""
    count = len(columns["group"])
    for name, column in columns.items():
        if column.shape != (count,):
            raise GroundingError(
                f"expected {count} values in column {name}, one per point, got shape {column.shape}"
            )
        if name != "score" and not np.isfinite(column).all():
            raise GroundingError(
                f"expected finite numbers in column {name}, got {column[~np.isfinite(column)][0]}"
            )
    if triples is not None and triples.shape != (count, 3):
        raise GroundingError(f"expected triples of shape ({count}, 3), got {triples.shape}")
    if labels is not None and len(labels) != count:
        raise GroundingError(f"expected {count} labels, one per point, got {len(labels)}")
    group, score = columns["group"], columns["score"]
    if ((score < 0) | (score > 1)).any():
        raise GroundingError(f"expected scores in 0..1 or NaN, got {score[(score < 0) | (score > 1)][0]}")
    if (group < 0).any():
        raise GroundingError(
            f"expected an index of a picture from 0, or seconds, as group, got {group.min()}"
        )
    if sizes is None or group.dtype.kind == "f":
        return
    if count and group.max() >= len(sizes):
        raise GroundingError(
            f"expected groups below {len(sizes)}, the number of image_sizes, got {group.max()}"
        )
