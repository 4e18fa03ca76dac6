"""The points of a picture by label, as importers collect them.

Detection formats hold objects, we hold requests: every label of a picture becomes one row with all its
points. An object that has no place makes the list of its label incomplete, and a model trained on incomplete
lists learns to overlook things; so that
label is left out on that picture. It is not absent either: nothing is said about it there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.placement import Placement, Size
from molmopoint.data.importers.shapes import (
    clipped_ring,
    ellipse_ring,
    mask_place,
    ring_area,
    turned_box_ring,
)
from molmopoint.data.importers.values import MAX_COORDINATE, short
from molmopoint.data.interior import polygon_interior
from molmopoint.errors import MolmoPointError, ProcessingError

MAX_CORNERS = 20_000
"""Corners of a polygon; the search of its inside takes memory and time by their number."""

WITHOUT_PLACE = "objects without a place"
BROKEN = "broken objects"
OUTSIDE = "objects outside of their picture"
HIDDEN = "hidden keypoints left out (--keypoints labelled takes them)"

KEYPOINTS = ("visible", "labelled")
"""Which keypoints count: those that can be seen, or also those that are hidden."""

_BORDER = 1.0
"""Pixels, or parts of the whole scale as large, by which a point may lie beyond the border and is moved to
it.
"""


@dataclass
class _Object:
    """One object, perhaps of several shapes.

    Attributes:
        place: x and y in its largest shape so far.
        area: of that shape.
        shapes: how many were joined.
    """

    place: tuple[float, float]
    area: float
    shapes: int = 1


class PointLists:
    """The points of one picture, one list per label.

    Places go in as they are annotated, and come out in the picture as displayed.
    """

    def __init__(
        self,
        image: str,
        journal: Journal,
        *,
        coords: str = "pixel",
        placement: Placement | None = None,
        ungroup: bool = False,
    ) -> None:
        """A picture without objects yet.

        Args:
            image: the file, as rows name it.
            journal: hears what is left out.
            coords: space of the rows.
            placement: from annotation to picture; None leaves places as they are, and knows of no border.
            ungroup: count the shapes of a group one by one.
        """
        self.image = image
        self.coords = coords
        self.placement = placement or Placement()
        self.spoilt: dict[str, str] = {}
        self.unsure: set[str] = set()
        self.all_unsure = False
        self.mentioned: set[str] = set()
        self.only_absent: set[str] | None = None
        self._journal = journal
        self._where = ""
        self._ungroup = ungroup
        self._objects: dict[str, list[_Object]] = {}
        self._groups: dict[tuple[str, Any], _Object] = {}

    @property
    def labels(self) -> list[str]:
        """Labels of the rows: those with points and nothing missing."""
        return [label for label in self._objects if label not in self.spoilt]

    def add(self, label: str, x: float, y: float, *, group: Any = None, area: float = 0.0) -> None:
        """One object, or a shape of the object of its group.

        Args:
            label: what it is.
            x: across, where it is annotated.
            y: down.
            group: shapes with the same label and group, other than None and 0, are one object, placed in the
                largest of them.
            area: of the shape in annotated units.
        """
        moved = self._moved(label, np.array([[x, y]], dtype=np.float64))
        place = None if moved is None else self._inside(label, moved[0])
        if place is not None:
            self._keep(label, place, area * _magnification(self.placement), group)

    def add_box(
        self, label: str, left: float, top: float, right: float, bottom: float, *, group: Any = None
    ) -> None:
        """The middle of what the picture shows of an upright box."""
        edges = self._moved(label, np.array([[left, top], [right, bottom]], dtype=np.float64))
        if edges is None:
            return
        low, high = edges.min(axis=0), edges.max(axis=0)
        if (limit := self._limit()) is not None:
            low, high = np.maximum(low, 0), np.minimum(high, limit)
            if (high < low).any():
                self._outside(label)
                return
        x, y = ((low + high) / 2).tolist()
        self._keep(label, (x, y), float(np.prod(high - low)), group)

    def add_ellipse(
        self,
        label: str,
        middle: tuple[float, float],
        radii: tuple[float, float],
        angle: float = 0.0,
        *,
        group: Any = None,
    ) -> None:
        """The middle of an ellipse, or a place in what the picture shows of it.

        Args:
            label: what it is.
            middle: x and y, annotated.
            radii: along x and y before it is turned; without an extent it is a point.
            angle: degrees by which it is turned about its middle, clockwise.
            group: see `add`.
        """
        if not min(radii) > 0:
            self.add(label, *middle, group=group)
            return
        self.add_polygon(label, [ellipse_ring(middle, radii, angle)], group=group)

    def add_turned_box(
        self, label: str, middle: tuple[float, float], size: Size, angle: float, *, group: Any = None
    ) -> None:
        """The middle of a box turned about it, or a place in what the picture shows of it.

        Args:
            label: what it is.
            middle: x and y, annotated.
            size: width and height before it is turned; without an extent it is a point.
            angle: degrees, clockwise.
            group: see `add`.
        """
        if not min(size) > 0:
            self.add(label, *middle, group=group)
            return
        self.add_polygon(label, [turned_box_ring(middle, size, angle)], group=group)

    def add_polygon(self, label: str, rings: Iterable[np.ndarray], *, group: Any = None) -> None:
        """An object of one or more parts, (num_corners, 2) each; it has a place if one part has an area in
        the picture.
        """
        moved: list[np.ndarray] = []
        for given in rings:
            ring = self._moved(label, given)
            if ring is not None:
                moved.append(ring)
        if label in self.spoilt:
            return
        if sum(len(ring) for ring in moved) > MAX_CORNERS:
            self.spoil(label, f"its polygon has more than {MAX_CORNERS:,} corners; simplify it", BROKEN)
            return
        limit = self._limit()
        if limit is not None:
            parts = [ring for ring in moved if len(ring)]
            if parts and all(_lies_outside(ring, limit) for ring in parts):
                self._outside(label)
                return
            moved = [clipped_ring(ring, limit) for ring in moved]
        try:
            place = polygon_interior(moved)
        except ProcessingError as error:
            self.spoil(label, str(error))
        else:
            self._keep(label, place, sum(ring_area(ring) for ring in moved), group)

    def add_mask(
        self,
        label: str,
        mask: np.ndarray,
        left: float = 0,
        top: float = 0,
        *,
        whole: bool = False,
        group: Any = None,
    ) -> None:
        """An object from its mask.

        Args:
            label: what it is.
            mask: (height, width) bool.
            left: annotated place of the mask's left edge.
            top: annotated place of its upper edge.
            whole: the mask is one of the whole picture, and is scaled to it if it has another size.
            group: see `add`.
        """
        try:
            placement = self.placement
            if whole:
                placement = placement.of_size((float(mask.shape[1]), float(mask.shape[0])))
            elif placement.recorded is not None:
                mask, left, top = _cropped(mask, left, top, placement.recorded)
            x, y, pixels = mask_place(mask)
        except ProcessingError as error:
            self.spoil(label, str(error))
            return
        place = self._inside(label, placement.moved(np.array([[x + left, y + top]]))[0])
        if place is not None:
            self._keep(label, place, pixels * _magnification(placement), group)

    def spoil(self, label: str | None, reason: str, kind: str = WITHOUT_PLACE) -> None:
        """An object has no place, so the list of its label cannot be complete.

        Args:
            label: what it is; None where that cannot be read either, which leaves the lists, but nothing
                counts as absent.
            reason: said of the object.
            kind: under which it is counted.
        """
        if self._where and not reason.startswith(self._where):
            reason = f"{self._where}: {reason}"
        if label is None:
            self.all_unsure = True
            self._journal.skip(kind, f"{self.image}: an object left out: {reason}")
            return
        self.spoilt.setdefault(label, reason)
        self._journal.skip(
            kind, f"{self.image}, label {short(label)}: left out, an object has no place: {reason}"
        )

    def hidden(self, label: str, visibility: float) -> None:
        """A keypoint that does not count: visibility 1 is labelled but hidden, 0 not labelled. Nobody knows
        whether it is absent.
        """
        self.unsure.add(label)
        if visibility == 1:
            self._journal.note(HIDDEN)

    @contextlib.contextmanager
    def object(self, label: str | None, where: str) -> Iterator[None]:
        """Reads one object; what is wrong with it spoils its label and nothing else, and is told with its
        place.
        """
        before, self._where = self._where, where
        try:
            yield
        except MolmoPointError as error:
            self.spoil(label, str(error), BROKEN)
        finally:
            self._where = before

    def join(self, other: PointLists) -> None:
        """Adds what another entry says of the same picture; an object of the same label at the very same
        place is the same one.
        """
        self.spoilt = other.spoilt | self.spoilt
        self.unsure |= other.unsure
        self.mentioned |= other.mentioned
        self.all_unsure |= other.all_unsure
        if self.only_absent is None or other.only_absent is None:
            self.only_absent = other.only_absent if self.only_absent is None else self.only_absent
        else:
            self.only_absent &= other.only_absent
        for label, found in other._objects.items():
            own = self._objects.setdefault(label, [])
            known = {entry.place for entry in own}
            own += [entry for entry in found if entry.place not in known]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Columns of one row per label that is complete."""
        for label, found in self._objects.items():
            if label in self.spoilt:
                self._journal.note(
                    "points left out because another object of their label and picture is", count=len(found)
                )
                continue
            joined = [entry.shapes for entry in found if entry.shapes > 1]
            if joined:
                self._journal.note(
                    "shapes that belong to one object with others of their group (--ungroup keeps them "
                    "apart)",
                    count=sum(joined),
                )
                self._journal.note("objects joined from such shapes", count=len(joined))
            points = [{"x": entry.place[0], "y": entry.place[1]} for entry in found]
            yield {"image": self.image, "label": label, "points": points, "coords": self.coords}

    def _moved(self, label: str, xy: np.ndarray) -> np.ndarray | None:
        """(n, 2) places in the picture; None, and the label spoilt, if they are too far away to be any."""
        if not (np.abs(xy) <= MAX_COORDINATE).all():
            self.spoil(label, f"its coordinates are beyond {MAX_COORDINATE:g}; export it again", BROKEN)
            return None
        return self.placement.moved(xy)

    def _limit(self) -> np.ndarray | None:
        """Right and lower edge of what can be seen."""
        size = self.placement.displayed
        return None if size is None else np.array(size)

    def _inside(self, label: str, xy: np.ndarray) -> tuple[float, float] | None:
        """The place if the picture shows it; next to the border it is moved onto it."""
        limit = self._limit()
        if limit is not None:
            slack = np.minimum(_BORDER, limit / 100)
            if ((xy < -slack) | (xy > limit + slack)).any():
                self._outside(label)
                return None
            xy = np.clip(xy, 0, limit)
        return float(xy[0]), float(xy[1])

    def _outside(self, label: str) -> None:
        """An object that the picture does not show: the list is complete without it."""
        self.unsure.add(label)
        where = f", {self._where}" if self._where else ""
        self._journal.skip(
            OUTSIDE,
            f"{self.image}, label {short(label)}: an object left out, it lies outside of the picture{where}",
        )

    def _keep(self, label: str, place: tuple[float, float], area: float, group: Any) -> None:
        listed = self._objects.setdefault(label, [])
        if self._ungroup or group is None or group in (0, "0", ""):
            listed.append(_Object(place, area))
            return
        known = self._groups.get((label, group))
        if known is None:
            self._groups[label, group] = known = _Object(place, area)
            listed.append(known)
            return
        known.shapes += 1
        if area > known.area:
            known.place, known.area = place, area


def keypoint_label(name: str, parent: str) -> str:
    """What a keypoint is called, such as "left eye of the person"."""
    return f"{name.replace('_', ' ')} of the {parent}"


def _lies_outside(ring: np.ndarray, limit: np.ndarray) -> bool:
    """Whether the box around a ring (num_corners, 2) lies beside 0..limit."""
    is_beside = (ring.max(axis=0) < 0) | (ring.min(axis=0) > limit)
    return bool(is_beside.any())


def _magnification(placement: Placement) -> float:
    """Area in the picture of a unit of annotated area."""
    if placement.recorded is None or placement.displayed is None:
        return 1.0
    return float(np.prod(placement.displayed) / np.prod(placement.recorded))


def _cropped(mask: np.ndarray, left: float, top: float, size: Size) -> tuple[np.ndarray, float, float]:
    """The part of a mask that lies in the annotated picture, and where that begins."""
    width, height = size
    first_row = max(0, int(np.ceil(-top)))
    first_column = max(0, int(np.ceil(-left)))
    end_row = max(0, int(np.floor(height - top)))
    end_column = max(0, int(np.floor(width - left)))
    return mask[first_row:end_row, first_column:end_column], left + first_column, top + first_row
