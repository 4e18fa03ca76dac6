"""The points of pictures by label, as importers collect them, and rows that say what is not there.

Detection formats hold objects, we hold requests: every label of a picture becomes one row with all its points. An object that
has no place makes the list of its label incomplete, and a model trained on incomplete lists learns to overlook things; so that
label is left out on that picture. It is not absent either: nothing is said about it there.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.data.importers.common import MAX_COORDINATE, short
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.masks import mask_place
from molmopoint.data.importers.placement import Placement, Size, placement_of
from molmopoint.data.interior import polygon_interior
from molmopoint.errors import MolmoPointError, ProcessingError

MAX_CORNERS = 20_000
"""Corners of a polygon; the search of its inside takes memory and time by their number."""

_ELLIPSE_CORNERS = 32
"""Corners of the polygon that stands for an ellipse."""

NEGATIVES = 0.2
"""Share of rows without points, unless it is given."""

WITHOUT_PLACE = "objects without a place"
BROKEN = "broken objects"
OUTSIDE = "objects outside of their picture"

_BORDER = 1.0
"""Pixels, or parts of the whole scale as large, by which a point may lie beyond the border and is moved to it."""

_TRIES = 20
"""Draws of a class before all classes absent from a picture are listed."""


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
        self, image: str, journal: Journal, *, coords: str = "pixel", placement: Placement | None = None, ungroup: bool = False
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
            group: shapes with the same label and group, other than None and 0, are one object, placed in the largest of them.
            area: of the shape in annotated units.
        """
        moved = self._moved(label, np.array([[x, y]], dtype=np.float64))
        place = None if moved is None else self._inside(label, moved[0])
        if place is not None:
            self._keep(label, place, area * _magnification(self.placement), group)

    def add_box(self, label: str, left: float, top: float, right: float, bottom: float, *, group: Any = None) -> None:
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
        self, label: str, middle: tuple[float, float], radii: tuple[float, float], angle: float = 0.0, *, group: Any = None
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

    def add_turned_box(self, label: str, middle: tuple[float, float], size: Size, angle: float, *, group: Any = None) -> None:
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
        turn = np.radians(angle)
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * size / 2
        ring = corners @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + middle
        self.add_polygon(label, [ring], group=group)

    def add_polygon(self, label: str, rings: Iterable[np.ndarray], *, group: Any = None) -> None:
        """An object of one or more parts, (num_corners, 2) each; it has a place if one part has an area in the picture."""
        moved = [ring for given in rings if (ring := self._moved(label, given)) is not None]
        if label in self.spoilt:
            return
        if sum(len(ring) for ring in moved) > MAX_CORNERS:
            self.spoil(label, f"its polygon has more than {MAX_CORNERS:,} corners; simplify it", BROKEN)
            return
        if (limit := self._limit()) is not None:
            beyond = [ring for ring in moved if len(ring) and ((ring < 0) | (ring > limit)).any()]
            if beyond and all(((ring.max(axis=0) < 0) | (ring.min(axis=0) > limit)).any() for ring in moved if len(ring)):
                self._outside(label)
                return
            moved = [_clipped(ring, limit) for ring in moved]
        try:
            place = polygon_interior(moved)
        except ProcessingError as error:
            self.spoil(label, str(error))
        else:
            self._keep(label, place, sum(_area(ring) for ring in moved), group)

    def add_mask(self, label: str, mask: np.ndarray, left: float = 0, top: float = 0, *, whole: bool = False, group: Any = None) -> None:
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
            label: what it is; None where that cannot be read either, which leaves the lists, but nothing counts as absent.
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
        self._journal.skip(kind, f"{self.image}, label {short(label)}: left out, an object has no place: {reason}")

    def hidden(self, label: str, visibility: float) -> None:
        """A keypoint that does not count: visibility 1 is labelled but hidden, 0 not labelled. Nobody knows whether it is absent."""
        self.unsure.add(label)
        if visibility == 1:
            self._journal.note("hidden keypoints left out (--keypoints labelled takes them)")

    @contextlib.contextmanager
    def object(self, label: str | None, where: str) -> Iterator[None]:
        """Reads one object; what is wrong with it spoils its label and nothing else, and is told with its place."""
        before, self._where = self._where, where
        try:
            yield
        except MolmoPointError as error:
            self.spoil(label, str(error), BROKEN)
        finally:
            self._where = before

    def rows(self) -> Iterator[dict[str, Any]]:
        """Columns of one row per label that is complete."""
        for label, found in self._objects.items():
            if label in self.spoilt:
                self._journal.note("points left out because another object of their label and picture is", count=len(found))
                continue
            if joined := sum(entry.shapes for entry in found if entry.shapes > 1):
                objects = sum(entry.shapes > 1 for entry in found)
                self._journal.note("shapes that belong to one object with others of their group (--ungroup keeps them apart)", count=joined)
                self._journal.note("objects joined from such shapes", count=objects)
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
        self._journal.skip(OUTSIDE, f"{self.image}, label {short(label)}: an object left out, it lies outside of the picture{where}")

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


@dataclass
class _Seen:
    """What is known of the labels of a picture or clip.

    Attributes:
        columns: that rows about it have.
        not_absent: labels that are there or may be.
        only: labels that alone may be called absent; None for all.
        unsure: nothing may be called absent.
        asked: labels already drawn.
    """

    columns: dict[str, str]
    not_absent: set[str] = field(default_factory=set)
    only: set[str] | None = None
    unsure: bool = False
    asked: set[str] = field(default_factory=set)


class Collector:
    """Rows of an import, picture by picture, and at the end rows about what is absent.

    The share of rows without points is that of all rows written: 0.2 makes one row in five say that there is nothing to point
    at, at least one, and fewer only where no more classes are absent. Pictures take turns, in an order drawn with a fixed seed.
    The class is drawn among those that the picture does not have, as often as rows point at it elsewhere, so that none is
    denied more than others.
    """

    def __init__(
        self, journal: Journal, *, classes: Iterable[str] | None = None, negatives: float = NEGATIVES, ungroup: bool = False
    ) -> None:
        """An import that begins.

        Args:
            journal: hears what is left out and what else there is to say.
            classes: all classes of the file, where it lists them; else those that are seen.
            negatives: share of rows without points, from 0 to below 1.
            ungroup: count the shapes of a group one by one.

        Raises:
            ProcessingError: the share is none.
        """
        if isinstance(negatives, bool) or not isinstance(negatives, int | float) or not 0 <= negatives < 1:
            raise ProcessingError(
                f"expected the option negatives, a share of the rows from 0 to below 1, got {short(negatives)}; 0 writes none"
            )
        self.journal = journal
        self._negatives = float(negatives)
        self._ungroup = ungroup
        self._classes: dict[str, None] = dict.fromkeys(classes or ())
        self._closed = classes is not None
        self._rows: Counter[str] = Counter()
        self._left_out: set[str] = set()
        self._pictures: dict[str, _Seen] = {}

    def picture(
        self,
        image: Path,
        recorded: Size | None = None,
        *,
        coords: str = "pixel",
        only_absent: Iterable[str] | None = None,
    ) -> PointLists | None:
        """Begins a picture; None if it is left out because it is not the one that was annotated.

        Args:
            image: the file, which need not be there yet.
            recorded: width and height in which places are annotated; None where the annotation does not say.
            coords: space of the rows; recorded sizes are compared with files only for pixels, and are the whole scale else.
            only_absent: classes known to be absent, where the others are merely not annotated.
        """
        if coords != "pixel":
            placement = Placement(recorded)
        else:
            try:
                placement = placement_of(image, recorded)
            except ProcessingError as error:
                self.journal.skip("pictures of another size than recorded", f"{image}: left out: {error}")
                return None
            self._tell(image, placement)
        lists = PointLists(str(image), self.journal, coords=coords, placement=placement, ungroup=self._ungroup)
        lists.only_absent = None if only_absent is None else set(only_absent)
        return lists

    def rows(self, lists: PointLists) -> Iterator[dict[str, Any]]:
        """Ends a picture: one row per label that is complete. Of pictures that nobody ends nothing is absent."""
        seen = self._pictures.setdefault(lists.image, _Seen({"image": lists.image}))
        if lists.only_absent is not None:
            seen.only = lists.only_absent if seen.only is None else seen.only & lists.only_absent
        seen.unsure |= lists.all_unsure
        self._note(seen, lists.labels, {*lists.spoilt, *lists.unsure})
        yield from lists.rows()

    def leave_out(self, labels: Iterable[str]) -> None:
        """Notes what a picture shows that is left out: if no other row points at it, it would only ever be denied, so nothing is said."""
        self._left_out.update(labels)

    def clip(self, video: Path, labels: Iterable[str], left_out: Iterable[str], *, unsure: bool = False) -> None:
        """Notes what rows of tracks, which are made elsewhere, say about a clip.

        Args:
            video: the file.
            labels: of the rows.
            left_out: labels of objects without a row.
            unsure: something without a label was left out, so that nothing may be called absent.
        """
        seen = self._pictures.setdefault(str(video), _Seen({"video": str(video), "style": "track"}))
        seen.unsure |= unsure
        self._note(seen, list(labels), set(left_out))

    def absent_rows(self) -> Iterator[dict[str, Any]]:
        """Rows about what is not there, and what there is to say of the pictures; call it last."""
        media = list(self._pictures.values())
        for kind, column in (("pictures", "image"), ("clips", "video")):
            found = [seen for seen in media if column in seen.columns]
            if found or kind == "pictures":
                self.journal.note(kind, count=len(found))
                self.journal.note(f"{kind} without objects", count=sum(not seen.not_absent and not seen.unsure for seen in found))
        count = 0
        if self._negatives:
            for seen, label in self._drawn(media):
                count += 1
                yield {**seen.columns, "label": label, "no_points": True}
        self.journal.note("rows that say that there is nothing to point at (--negatives 0 leaves them out)", count=count)

    def _note(self, seen: _Seen, labels: list[str], left_out: set[str]) -> None:
        seen.not_absent.update(labels, left_out)
        self._left_out.update(left_out)
        self._rows.update(labels)
        self._classes.update(dict.fromkeys(() if self._closed else labels))

    def _drawn(self, media: list[_Seen]) -> Iterator[tuple[_Seen, str]]:
        """Pictures and clips, and classes absent from them."""
        # A class whose every object was left out would only ever be denied.
        classes = [label for label in self._classes if self._rows[label] or label not in self._left_out]
        weights = [self._rows[label] + 1 for label in classes]
        wanted = max(1, round(self._negatives / (1 - self._negatives) * self._rows.total()))
        generator = random.Random(0)
        turn = generator.sample(media, len(media))
        while turn and wanted:
            following = []
            for seen in turn:
                label = _draw(seen, classes, weights, generator) if classes and wanted else None
                if label is None:
                    continue
                seen.asked.add(label)
                following.append(seen)
                wanted -= 1
                yield seen, label
            turn = following

    def _tell(self, image: Path, placement: Placement) -> None:
        """Notes what had to be done with a picture."""
        recorded, picture = placement.recorded, placement.picture
        if picture is None:
            self.journal.note("pictures that are not there or cannot be opened, their size not compared", str(image))
            return
        if recorded is None:
            return
        sizes = f"{image}: recorded {recorded[0]:g} x {recorded[1]:g}, found {picture.displayed[0]:g} x {picture.displayed[1]:g}"
        if placement.orientation != 1:
            self.journal.note("pictures annotated before their EXIF rotation, whose points were turned", sizes)
        if placement.is_scaled:
            self.journal.note("pictures of another size than recorded, whose points were scaled", sizes)


def ellipse_ring(middle: tuple[float, float], radii: tuple[float, float], angle: float) -> np.ndarray:
    """(num_corners, 2) polygon that stands for an ellipse, turned clockwise about its middle by an angle in degrees."""
    around = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)
    along = np.stack([np.cos(around), np.sin(around)], axis=1) * radii
    turn = np.radians(angle)
    return along @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + middle


def _draw(seen: _Seen, classes: list[str], weights: list[int], generator: random.Random) -> str | None:
    """A class absent from a picture that was not asked for yet; None if there is none left."""
    taken = {label.casefold() for label in seen.not_absent | seen.asked}

    def is_free(label: str) -> bool:
        return not seen.unsure and label.casefold() not in taken and (seen.only is None or label in seen.only)

    if seen.only is None:
        for label in generator.choices(classes, weights, k=_TRIES):
            if is_free(label):
                return label
    free = [i for i, label in enumerate(classes) if is_free(label)]
    return classes[generator.choices(free, [weights[i] for i in free])[0]] if free else None


def _magnification(placement: Placement) -> float:
    """Area in the picture of a unit of annotated area."""
    if placement.recorded is None or placement.displayed is None:
        return 1.0
    return float(np.prod(placement.displayed) / np.prod(placement.recorded))


def _area(ring: np.ndarray) -> float:
    """Of a polygon (num_corners, 2)."""
    if len(ring) < 3:
        return 0.0
    here = ring - ring[0]
    there = np.roll(here, -1, axis=0)
    return abs(float((here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]).sum())) / 2


def _clipped(ring: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """The part of a polygon (num_corners, 2) in 0..limit; parts that it falls into stay connected along the border.

    Source: Sutherland and Hodgman, "Reentrant polygon clipping" (1974).
    """
    for axis in (0, 1):
        for sign, edge in ((1.0, 0.0), (-1.0, -float(limit[axis]))):
            inside = sign * ring[:, axis] - edge  # how far inside of this border
            if not len(ring) or (inside >= 0).all():
                continue
            there, depth = np.roll(ring, -1, axis=0), np.roll(inside, -1)
            kept = []
            for corner, following, a, b in zip(ring, there, inside, depth, strict=True):
                if a >= 0:
                    kept.append(corner)
                if (a >= 0) != (b >= 0):
                    kept.append(corner + (following - corner) * (a / (a - b)))
            ring = np.array(kept, dtype=np.float64).reshape(-1, 2)
    return ring


def _cropped(mask: np.ndarray, left: float, top: float, size: Size) -> tuple[np.ndarray, float, float]:
    """The part of a mask that lies in the annotated picture, and where that begins."""
    first_row, first_column = max(0, int(np.ceil(-top))), max(0, int(np.ceil(-left)))
    last_row, last_column = max(0, int(np.floor(size[1] - top))), max(0, int(np.floor(size[0] - left)))
    return mask[first_row:last_row, first_column:last_column], left + first_column, top + first_row
