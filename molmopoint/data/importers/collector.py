"""Rows of an import, picture by picture, and at the end rows about what is absent."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.placement import Placement, Size, placement_of
from molmopoint.data.importers.point_lists import PointLists
from molmopoint.data.importers.values import short
from molmopoint.errors import ProcessingError

NEGATIVES = 0.2
"""Share of rows without points, unless it is given."""

_TRIES = 20
"""Draws of a class before all classes absent from a picture are listed."""


@dataclass
class _Seen:
    """What is known of the labels of a picture or clip.

    Attributes:
        columns: that rows about it have.
        not_absent: labels that are there or may be.
        only: labels that alone may be called absent; None for all.
        unsure: nothing may be called absent.
        mentioned: words said of the whole picture; a class called so is not absent.
        asked: labels already drawn.
    """

    columns: dict[str, str]
    not_absent: set[str] = field(default_factory=set)
    only: set[str] | None = None
    unsure: bool = False
    mentioned: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)


class Collector:
    """Rows of an import, picture by picture, and at the end rows about what is absent.

    The share of rows without points is that of all rows written: 0.2 makes one row in five say that there is
    nothing to point at, at least one, and fewer only where no more classes are absent. Pictures take turns,
    in an order drawn with a fixed seed. The class is drawn among those that the picture does not have, as
    often as rows point at it elsewhere, so that none is denied more than others.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        classes: Iterable[str] | None = None,
        negatives: float = NEGATIVES,
        ungroup: bool = False,
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
                "expected the option negatives, a share of the rows from 0 to below 1, got "
                f"{short(negatives)}; 0 writes none"
            )
        self.journal = journal
        self._negatives = float(negatives)
        self._ungroup = ungroup
        self._classes: dict[str, None] = dict.fromkeys(classes or ())
        self._closed = classes is not None
        self._rows: Counter[str] = Counter()
        self._left_out: set[str] = set()
        self._pictures: dict[str, _Seen] = {}
        self._repeated: set[str] = set()
        self._held: dict[tuple[str, str], PointLists] = {}

    def will_come(self, images: Iterable[Path]) -> None:
        """Hears of the pictures of a file beforehand.

        Where one is listed several times, as in files that were merged, no entry alone has all of its
        objects: their lists are joined, and their rows come last.
        """
        counts = Counter(str(image) for image in images)
        self._repeated = {image for image, count in counts.items() if count > 1}

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
            coords: space of the rows; recorded sizes are compared with files only for pixels, and are the
                whole scale else.
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
        lists = PointLists(
            str(image), self.journal, coords=coords, placement=placement, ungroup=self._ungroup
        )
        lists.only_absent = None if only_absent is None else set(only_absent)
        return lists

    def rows(self, lists: PointLists) -> Iterator[dict[str, Any]]:
        """Ends an entry of a picture: one row per label that is complete. Of pictures that nobody ends
        nothing is absent.
        """
        if lists.image not in self._repeated:
            yield from self._finished(lists)
            return
        held = self._held.setdefault((lists.image, lists.coords), lists)
        if held is not lists:
            held.join(lists)

    def _finished(self, lists: PointLists) -> Iterator[dict[str, Any]]:
        if lists.image in self._pictures:
            self.journal.note(
                "entries of pictures that have another file already; if they are two of one name, keep "
                "their folders apart",
                lists.image,
            )
        seen = self._pictures.setdefault(lists.image, _Seen({"image": lists.image}))
        if lists.only_absent is not None:
            seen.only = lists.only_absent if seen.only is None else seen.only & lists.only_absent
        seen.unsure |= lists.all_unsure
        seen.mentioned |= lists.mentioned
        self._note(seen, lists.labels, {*lists.spoilt, *lists.unsure})
        yield from lists.rows()

    def leave_out(self, labels: Iterable[str]) -> None:
        """Notes what a picture shows that is left out: if no other row points at it, it would only ever be
        denied, so nothing is said.
        """
        self._left_out.update(labels)

    def clip(
        self, video: Path, labels: Iterable[str], left_out: Iterable[str], *, unsure: bool = False
    ) -> None:
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

    def last_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of pictures that are listed several times and those about what is not there, and what there is
        to say; call it last.
        """
        for lists in self._held.values():
            self.journal.note("pictures listed several times, whose objects were joined", lists.image)
            yield from self._finished(lists)
        media = list(self._pictures.values())
        for kind, column in (("pictures", "image"), ("clips", "video")):
            found = [seen for seen in media if column in seen.columns]
            if found or kind == "pictures":
                self.journal.note(kind, count=len(found))
                self.journal.note(
                    f"{kind} without objects",
                    count=sum(not seen.not_absent and not seen.unsure for seen in found),
                )
        count = 0
        if self._negatives:
            for seen, label in self._drawn(media):
                count += 1
                yield {**seen.columns, "label": label, "no_points": True}
        self.journal.note(
            "rows that say that there is nothing to point at (--negatives 0 leaves them out)", count=count
        )

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
            self.journal.note(
                "pictures that are not there or cannot be opened, their size not compared", str(image)
            )
            return
        if recorded is None:
            return
        sizes = f"{image}: recorded {recorded[0]:g} x {recorded[1]:g}, found {picture.displayed[0]:g} x {picture.displayed[1]:g}"
        if placement.orientation != 1:
            self.journal.note(
                "pictures annotated before their EXIF rotation, whose points were turned", sizes
            )
        if placement.is_scaled:
            self.journal.note("pictures of another size than recorded, whose points were scaled", sizes)


def _draw(seen: _Seen, classes: list[str], weights: list[int], generator: random.Random) -> str | None:
    """A class absent from a picture that was not asked for yet; None if there is none left."""
    taken = {_folded(label) for label in seen.not_absent | seen.mentioned | seen.asked}

    def is_free(label: str) -> bool:
        return not seen.unsure and _folded(label) not in taken and (seen.only is None or label in seen.only)

    if seen.only is None:
        for label in generator.choices(classes, weights, k=_TRIES):
            if is_free(label):
                return label
    free = [i for i, label in enumerate(classes) if is_free(label)]
    return classes[generator.choices(free, [weights[i] for i in free])[0]] if free else None


def _folded(label: str) -> str:
    """A label as it is compared: without regard to capitals and to how accents are written."""
    return unicodedata.normalize("NFC", label.casefold())
