"""Points as text: how models without grounding tokens write where things are, and how that is read again.

Molmo2 writes lists of coordinates:

    list    = '<points coords="' units '">' label '</points>'        (or <tracks ...> ... </tracks>)
    units   = unit (';' unit)*                                       one per picture or frame, ascending
    unit    = key (' ' id ' ' X ' ' Y)+ | key ' '                    (the second one: a picture without points among several)
    key     = number of the picture, from 1; or seconds with one decimal
    X, Y    = thousandths of width and height, three digits or more: 000 to 1000

Two things differ from the lists of grounding tokens (`grounding_answers`): the closing tag is plural, and
points of a unit are sorted by X first.

Its predecessors and other models write percents, attributes or clicks; `TextForm` names all forms that are
read. The form of an answer decides the space of its numbers; nothing is guessed from their size. Forms are
looked for in the order of `TextForm`, the first one that occurs is read, and no two are mixed. Reading never
fails on what a model can write, and takes time in proportion to the length of the text: patterns start at
marks that their own repetitions cannot cross, and numbers are of limited length.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from molmopoint.decoding import Answer
from molmopoint.errors import GroundingError
from molmopoint.points import Points
from molmopoint.processing.grounding_answers import Style, frame_answer

# ---- Writing
FULL_SCALE = 1000
"""Written coordinate of the right and the lower edge."""

UNIT_SEPARATOR = ";"
"""As in released checkpoints; those before fine-tuning wrote a tab, which is read as well."""


class _PointToWrite(NamedTuple):
    """A point as it will be written, in the order of points.

    Attributes:
        group: picture or time, as given: two frames may have one written time.
        key: picture from 1, or seconds with one decimal.
        x: thousandths of the width.
        y: thousandths of the height.
    """

    group: float
    key: float
    x: int
    y: int


def text_answer(
    group: Any,
    xy: Any,
    image_sizes: Sequence[tuple[int, int]],
    label: str,
    style: Style = "pointing",
    *,
    thousandths: Any | None = None,
    pictures: Iterable[int] = (),
) -> str:
    """An answer that points at all given points, in any order; there may be none.

    Args:
        group: (n,) int index of the picture from 0, or float seconds within a clip.
        xy: (n, 2) pixels of the displayed original.
        image_sizes: (width, height) of each picture, or one entry for a clip.
        label: what the points are.
        style: the sentence around the list.
        thousandths: (n, 2) coordinates in thousandths of width and height, not rounded, where they are known
            better than by way of pixels: of half a thousandth, that way can give the other neighbour.
        pictures: indices of pictures that are written even if they have no points.

    Raises:
        GroundingError: a point outside its picture, or arrays that do not fit each other.
        ProcessingError: an unknown style.
    """
    count = len(np.asarray(group))
    points = None
    if count:
        points = text_points(group, xy, image_sizes, label, thousandths=thousandths, pictures=pictures)
    return "".join(frame_answer(points, count, style))


def text_points(
    group: Any,
    xy: Any,
    image_sizes: Sequence[tuple[int, int]],
    label: str,
    *,
    thousandths: Any | None = None,
    pictures: Iterable[int] = (),
) -> str:
    """A list of one or more points, numbered from 1 in the order they are written; arguments as for
    `text_answer`.

    Raises:
        GroundingError: as `text_answer`, or no points.
    """
    units: dict[float, list[str]] = {}
    for picture in pictures:
        units[picture] = [str(picture + 1)]
    points = sorted(_points_to_write(group, xy, image_sizes, thousandths))
    for number, point in enumerate(points, 1):
        unit = units.setdefault(point.group, [str(point.key)])
        unit.append(_triple(number, point))
    ascending = [units[group] for group in sorted(units)]
    return _write_list("points", ascending, label)


def text_tracks(
    seconds: Any, xy: Any, objects: Sequence[Hashable], image_sizes: Sequence[tuple[int, int]], label: str
) -> str:
    """A list of tracks: objects are numbered by first appearance, and listed by number at each time.

    Args:
        seconds: (n,) float time of each point.
        xy: (n, 2) pixels of the displayed original.
        objects: n names of the objects, equal where it is the same one.
        image_sizes: one (width, height).
        label: what is tracked.

    Raises:
        GroundingError: as `text_points`.

    Where an object has two points at one written time, the first one (by X, then Y) is kept: a reader could
    not tell them apart.
    """
    points = _points_to_write(np.asarray(seconds, dtype=np.float64), xy, image_sizes)
    if len(objects) != len(points):
        raise GroundingError(f"expected an object for each of {len(points)} points, got {len(objects)}")
    as_written = sorted(range(len(points)), key=lambda i: points[i][1:])  # by key, X and Y

    numbers: dict[Hashable, int] = {}
    kept: dict[tuple[float, int], _PointToWrite] = {}
    for i in as_written:
        number = numbers.setdefault(objects[i], len(numbers) + 1)
        kept.setdefault((points[i].key, number), points[i])

    units: dict[float, list[str]] = {}
    for key, number in sorted(kept):
        unit = units.setdefault(key, [str(key)])
        unit.append(_triple(number, kept[key, number]))
    return _write_list("tracks", list(units.values()), label)


def text_list(points: Points, image_sizes: Sequence[tuple[int, int]], label: str, *, is_video: bool) -> str:
    """Points of an answer as a list; equal object ids at several times of a clip make them tracks.

    Args:
        points: one or more, in pixels.
        image_sizes: as for `text_answer`.
        label: what they are.
        is_video: whether their groups are seconds.

    Raises:
        GroundingError: as `text_points`.
    """
    group = points.group.astype(np.float64 if is_video else np.int64)
    if is_video and len(set(points.object_id.tolist())) < len(points):
        return text_tracks(group, points.xy, points.object_id.tolist(), image_sizes, label)
    return text_points(group, points.xy, image_sizes, label)


def _points_to_write(
    group: Any, xy: Any, image_sizes: Sequence[tuple[int, int]], thousandths: Any | None = None
) -> list[_PointToWrite]:
    """Each point as it will be written, in the order given."""
    group = np.asarray(group)  # (n,)
    xy = np.asarray(xy, dtype=np.float64).reshape(-1, 2)  # (n, 2)
    if group.ndim != 1 or len(group) != len(xy) or not len(group):
        raise GroundingError(
            "expected a group and a pair of coordinates for each of one or more points, got shapes "
            f"{group.shape} and {xy.shape}; "
            "nothing to point at is a sentence, see text_answer"
        )
    is_video = group.dtype.kind == "f"
    picture = np.zeros(len(group), dtype=np.int64) if is_video else group.astype(np.int64)
    is_before_start = is_video and not (group >= 0).all()
    if picture.min() < 0 or picture.max() >= len(image_sizes) or is_before_start:
        raise GroundingError(
            f"expected pictures in 0..{len(image_sizes) - 1} or times from 0, got {group.min()} to "
            f"{group.max()}"
        )

    sizes = np.asarray(image_sizes, dtype=np.float64)[picture]  # (n, 2)
    scaled = FULL_SCALE * xy / sizes
    if thousandths is not None:
        scaled = np.asarray(thousandths, dtype=np.float64).reshape(xy.shape)
    is_inside = ((scaled >= 0) & (scaled <= FULL_SCALE)).all(axis=1)  # (n,); not those that are no numbers
    if not is_inside.all():
        first = int(np.flatnonzero(~is_inside)[0])
        size = tuple(image_sizes[picture[first]])
        raise GroundingError(
            f"expected points inside a picture of {size}, got {tuple(xy[first].tolist())}; clip or drop it "
            "first"
        )

    keys = (picture + 1).tolist()
    if is_video:
        keys = [round(float(time), 1) for time in group]
    rounded = np.rint(scaled).astype(np.int64).tolist()
    rows = zip(group.tolist(), keys, rounded, strict=True)
    return [_PointToWrite(each, key, x, y) for each, key, (x, y) in rows]


def _triple(number: int, point: _PointToWrite) -> str:
    return f"{number} {point.x:03d} {point.y:03d}"


def _write_list(tag: Literal["points", "tracks"], units: Sequence[Sequence[str]], label: str) -> str:
    """A list from units in order, each a key and its triples."""
    written = []
    for unit in units:
        # A key alone is followed by a blank, as in the reference.
        parts = unit if len(unit) > 1 else [*unit, ""]
        written.append(" ".join(parts))
    return f'<{tag} coords="{UNIT_SEPARATOR.join(written)}">{label}</{tag}>'


# ---- Requests to track
TRACK_TAGS = {
    "track": "video_point_track_per_frame",
    "track_start_end": "video_point_ground_start_end",
    "track_from_point": "video_single_point_track_per_frame",
}
"""Published names of the track styles. Only the last two are written in front of prompts after pre-training."""


def tagged(style: str, request: str) -> str:
    """A request behind the tag of its style."""
    return f"{TRACK_TAGS[style]}: {request}"


def written_start(seconds: float, xy: Sequence[float], size: tuple[int, int], label: str) -> str:
    """A point as text in a request to follow it: seconds, object 1, thousandths of width and height.

    Args:
        seconds: of its frame.
        xy: pixels of the displayed video.
        size: (width, height) of the video.
        label: what is there.

    Raises:
        GroundingError: the point lies outside the video.

    Source: the text form of Molmo2, which the published training uses in these requests for either family.
    """
    return text_points(np.array([seconds], dtype=np.float64), np.array([xy], dtype=np.float64), [size], label)


# ---- Reading
_TIME_STEP = 0.05 + 1e-6
"""Times are written with one decimal: a frame this near is the one that was meant."""


class TextForm(enum.Enum):
    """How an answer writes points. The value is the number that stands for the whole width or height."""

    COORDS = 1000, "<points coords=...> and <tracks coords=...> of Molmo2"
    BLOCKS = 100, "<points 0.5 1 12.5 40.0 .../> of older models for clips: a time, then ids and percents"
    ATTRIBUTES = 100, '<point x="12.5" y="40.0"> and <points x1=... y1=...> of Molmo'
    CLICKS = 100, "Click(12.5, 40.0)"
    TENTHS = 1000, "p=125, 400"
    PAIRS = 100, "(12.5, 40.0)"
    PLAIN_INTEGERS = 1000, "1 125 400, without any mark"
    PLAIN_DECIMALS = 100, "1 12.5 40.0, without any mark"

    def __init__(self, full_scale: int, example: str) -> None:
        self.full_scale = full_scale
        self.example = example


@dataclass(frozen=True)
class TextAnswer(Answer):
    """What an answer in text says. Scores are unknown, and there are no triples.

    Attributes:
        form: how its points are written, None without any.
    """

    form: TextForm | None = None


def read_text_answer(
    text: str,
    image_sizes: Sequence[tuple[int, int]],
    timestamps: Any | None = None,
    *,
    is_video: bool | None = None,
) -> TextAnswer:
    """Reads the points of one answer.

    Args:
        text: of the answer.
        image_sizes: (width, height) of each picture as displayed, or one entry for a clip.
        timestamps: (T,) seconds of the frames of a clip. A written time within 0.05 s of a frame becomes the
            frame's own.
        is_video: whether keys are seconds; by default whether there are timestamps.

    Returns:
        Points in pixels of the displayed original, in the order of the text. `invalid` counts those that name
        no place: numbers that cannot be read or lie outside the picture, a picture that is not there, a form
        that does not say which of several pictures (or what time) it means, an object that a track has twice
        at one time. `truncated_triple`: the text ends inside a point.

    Raises:
        GroundingError: not one size for a clip.
    """
    if is_video is None:
        is_video = timestamps is not None
    if is_video and len(image_sizes) != 1:
        raise GroundingError(
            f"expected one (width, height) for a clip, got {len(image_sizes)}; pass that of its frames"
        )
    tags = _tags(text)
    form = _form_of(text, tags)
    reader = TextReader(form)
    if form in _READERS:
        for tag in tags:
            _READERS[form](reader, tag)
    elif form is not None:
        for match in _UNTAGGED[form].finditer(text):
            reader.add(None, match["x"], match["y"], match.groupdict().get("id"))
    sizes = [(int(width), int(height)) for width, height in image_sizes]
    return reader.finish(sizes, timestamps, is_video)


@dataclass(frozen=True)
class _Tag:
    """A tag of points with everything up to the next one.

    Attributes:
        text: from its bracket on.
        ends_text: whether the answer ends with it.
    """

    text: str
    ends_text: bool


TAG_OPENING = re.compile(r"<(?:points?|tracks)\b")
COORDS = re.compile(r'<(points?|tracks)\b(?:[^<>"]|"[^"]*")*?\scoords\s*=\s*"')
COORDS_NAME = re.compile(r"\scoords\s*=\s*\Z")
COORDS_END = re.compile(r'["<>]')
SEPARATOR = re.compile(r"[\t:;,]")
"""The marks of a list of `TextForm.COORDS`, for those who follow an answer while it is written."""

_BLOCK = re.compile(r"<(?:points|tracks)\s+(?=[0-9])([0-9.\s]*)")
_ATTRIBUTES = re.compile(r"<points?\b[^<>]*\b[xy][0-9]*\s*=\s*\"")
_ATTRIBUTE = re.compile(r"\b([A-Za-z]+)([0-9]{0,6})\s*=\s*\"([^\"<>]*)(\"?)")
_LABEL = re.compile(r"[^<>]*(?<!/)>(.*?)</(?:point|track)s?>", re.DOTALL)

_KEY = re.compile(r"[0-9]{1,9}(?:\.[0-9]{0,9})?")
_ID = re.compile(r"[0-9]{1,18}")
INTEGER = re.compile(r"[0-9]{3,4}")
"""A coordinate of `TextForm.COORDS`."""
_PERCENT = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,9})?")

_DECIMAL = r"[0-9]{1,3}\.[0-9]{1,9}"
_UNTAGGED = {
    TextForm.CLICKS: re.compile(rf"Click\(\s*(?P<x>{_PERCENT.pattern})\s*,\s*(?P<y>{_PERCENT.pattern})\s*\)"),
    TextForm.TENTHS: re.compile(r"\bp\s*=\s*(?P<x>[0-9]{3,4})\s*,\s*(?P<y>[0-9]{3,4})(?![0-9])"),
    TextForm.PAIRS: re.compile(rf"\(\s*(?P<x>{_DECIMAL})\s*,\s*(?P<y>{_DECIMAL})\s*\)"),
    TextForm.PLAIN_INTEGERS: re.compile(
        r"(?<![\w.])(?P<id>[0-9]{1,9}) (?P<x>[0-9]{3,4}) (?P<y>[0-9]{3,4})(?!\w|\.[0-9])"
    ),
    TextForm.PLAIN_DECIMALS: re.compile(
        rf"(?<![\w.])(?P<id>[0-9]{{1,9}}) (?P<x>{_DECIMAL}) (?P<y>{_DECIMAL})(?!\w)"
    ),
}


def _tags(text: str) -> list[_Tag]:
    starts = [match.start() for match in TAG_OPENING.finditer(text)]
    ends = [*starts[1:], len(text)]
    return [_Tag(text[start:end], end == len(text)) for start, end in zip(starts, ends, strict=False)]


def _form_of(text: str, tags: Sequence[_Tag]) -> TextForm | None:
    tagged = ((TextForm.COORDS, COORDS), (TextForm.BLOCKS, _BLOCK), (TextForm.ATTRIBUTES, _ATTRIBUTES))
    for form, pattern in tagged:
        if any(pattern.match(tag.text) for tag in tags):
            return form
    for form, pattern in _UNTAGGED.items():
        if pattern.search(text):
            return form
    return None


@dataclass(frozen=True)
class _Found:
    """A point before its picture is known: key as written (None if the form has none), fractions of width and
    height.
    """

    key: float | None
    object_id: int
    x: float
    y: float
    label: str | None = None


@dataclass
class TextReader:
    """Collects the points of an answer of one form."""

    form: TextForm | None
    found: list[_Found] = field(default_factory=list)
    invalid: int = 0
    truncated: bool = False
    labels: list[str] = field(default_factory=list)

    def add(self, key: float | None, x: str, y: str, object_id: str | None = None) -> None:
        """Takes a point as written; without an id it is numbered on."""
        scale = self.form.full_scale if self.form else 1
        fractions = float(x) / scale, float(y) / scale
        if max(fractions) > 1:
            self.invalid += 1
            return
        if object_id:
            number = int(object_id)
        elif self.found:
            number = self.found[-1].object_id + 1
        else:
            number = 1
        self.found.append(_Found(key, number, *fractions))

    def read_unit(
        self, tokens: list[str], number: re.Pattern[str], seen: set[tuple[float, int]] | None = None
    ) -> None:
        """Takes a key and its triples of id, x and y; `seen` holds the places that a track has taken."""
        if not tokens:
            return
        key, rest = tokens[0], tokens[1:]
        triples = [rest[i : i + 3] for i in range(0, len(rest), 3)]
        if not _KEY.fullmatch(key) or not triples:
            self.invalid += max(len(triples), 1)
            return
        for triple in triples:
            if not _is_readable(triple, number):
                self.invalid += 1
                continue
            object_id, x, y = triple
            place = (float(key), int(object_id))
            if seen is not None:
                if place in seen:
                    self.invalid += 1
                    continue
                seen.add(place)
            self.add(place[0], x, y, object_id)

    def close(self, first: int, tail: str) -> None:
        """Gives the points from `first` on the label that follows in `tail`, the rest of their tag."""
        match = _LABEL.match(tail)
        if match:
            self.labels.append(match[1])
            self.found[first:] = [replace(found, label=match[1]) for found in self.found[first:]]

    def finish(self, sizes: list[tuple[int, int]], timestamps: Any | None, is_video: bool) -> TextAnswer:
        """Finds the picture or the frame of every point."""
        times = None
        if timestamps is not None:
            times = np.sort(np.asarray(timestamps, dtype=np.float64).reshape(-1))  # (T,)
        kept: list[_Found] = []
        groups: list[float] = []
        for found in self.found:
            group = _time_of(found.key, times) if is_video else _picture_of(found.key, len(sizes))
            if group is None:
                self.invalid += 1
            else:
                kept.append(found)
                groups.append(group)

        if is_video:
            group_of_points = np.array(groups, dtype=np.float64)
            picture = np.zeros(len(kept), dtype=np.int64)
        else:
            group_of_points = picture = np.array(groups, dtype=np.int64)
        wh = np.array(sizes, dtype=np.float64).reshape(-1, 2)[picture]  # (n, 2)
        points = Points(
            object_id=np.array([found.object_id for found in kept], dtype=np.int64),
            group=group_of_points,
            x=np.array([found.x for found in kept]) * wh[:, 0],
            y=np.array([found.y for found in kept]) * wh[:, 1],
            image_sizes=sizes,
            labels=[found.label for found in kept],
        )
        return TextAnswer(points, self.invalid, self.truncated, tuple(self.labels), None, self.form)


def _is_readable(triple: Sequence[str], number: re.Pattern[str]) -> bool:
    """Whether a triple is whole: an id, and two coordinates that are written as a form writes them."""
    if len(triple) != 3 or not _ID.fullmatch(triple[0]):
        return False
    return number.fullmatch(triple[1]) is not None and number.fullmatch(triple[2]) is not None


def _read_coords(reader: TextReader, tag: _Tag) -> None:
    opening = COORDS.match(tag.text)
    if opening is None:
        return
    first = len(reader.found)
    ending = COORDS_END.search(tag.text, opening.end())
    end = ending.start() if ending else len(tag.text)
    value = tag.text[opening.end() : end]
    units = [unit.split() for unit in SEPARATOR.split(value)]
    if tag.ends_text and end == len(tag.text):
        units[-1], reader.truncated = _without_cut(units[-1], open_end=not value[-1:].isspace())
    seen: set[tuple[float, int]] | None = set() if opening[1] == "tracks" else None
    several = sum(map(bool, units)) > 1
    for unit in units:
        if several and len(unit) == 1 and _KEY.fullmatch(unit[0]):
            continue  # one of several pictures, without points
        reader.read_unit(unit, INTEGER, seen)
    reader.close(first, tag.text[end:])


def _read_block(reader: TextReader, tag: _Tag) -> None:
    block = _BLOCK.match(tag.text)
    if block is None:
        return
    first = len(reader.found)
    tokens = block[1].split()
    if tag.ends_text and block.end() == len(tag.text):
        # A percent that touches the end may go on, so its whole triple is left out.
        touches_end = not block[1][-1:].isspace()
        if touches_end:
            tokens = tokens[:-1]
        tokens, is_cut = _without_cut(tokens, open_end=False)
        reader.truncated = is_cut or touches_end
    reader.read_unit(tokens, _PERCENT)
    reader.close(first, tag.text[block.end() :])


def _read_attributes(reader: TextReader, tag: _Tag) -> None:
    if not _ATTRIBUTES.match(tag.text):
        return
    first, end = len(reader.found), 0
    pairs: dict[str, dict[str, str]] = {}
    cut = False
    for match in _ATTRIBUTE.finditer(tag.text.partition(">")[0]):
        name, number, value, quote = match.groups()
        end = match.end()
        cut = not quote and tag.ends_text and end == len(tag.text)
        if name in ("x", "y"):
            pairs.setdefault(number, {})[name] = "" if cut else value.strip()
    unfinished = tag.ends_text and ">" not in tag.text
    for i, (number, pair) in enumerate(pairs.items(), 1):
        x, y = pair.get("x", ""), pair.get("y", "")
        if _PERCENT.fullmatch(x) and _PERCENT.fullmatch(y):
            reader.add(None, x, y, number or None)
        elif unfinished and i == len(pairs) and not (x and y):
            reader.truncated = True
        else:
            reader.invalid += 1
    reader.close(first, tag.text[end:])


_READERS = {
    TextForm.COORDS: _read_coords,
    TextForm.BLOCKS: _read_block,
    TextForm.ATTRIBUTES: _read_attributes,
}


def _without_cut(tokens: list[str], *, open_end: bool) -> tuple[list[str], bool]:
    """A unit (key and triples) at the end of a cut answer without what is not whole, and whether anything was
    not.

    Args:
        tokens: of the unit.
        open_end: whether the last one touches the end, so that it may go on: three digits may be the first of
            four, which only 1000 has.
    """
    if not tokens:
        return tokens, False
    has_whole_triples = len(tokens) > 1 and len(tokens) % 3 == 1
    may_go_on = open_end and (len(tokens[-1]) < 3 or tokens[-1] == "100")
    if has_whole_triples and not may_go_on:
        return tokens, False
    kept = 3 * ((len(tokens) - 2) // 3)
    if kept <= 0:
        return [], True
    return tokens[: kept + 1], True


def _picture_of(key: float | None, count: int) -> int | None:
    """Index of the picture that a key counts from 1; without a key the only one there is."""
    if key is None:
        return 0 if count == 1 else None
    if not key.is_integer() or not 1 <= key <= count:
        return None
    return int(key) - 1


def _time_of(key: float | None, times: np.ndarray | None) -> float | None:
    """Seconds that a key means: those of the nearest frame, if it rounds to the key; without a key the only
    frame's.
    """
    if key is None:
        if times is None or len(times) != 1:
            return None
        return float(times[0])
    if times is None or not len(times):
        return key
    right = int(np.searchsorted(times, key))
    beside = times[max(right - 1, 0) : right + 1].tolist()
    nearest = min(beside, key=lambda time: abs(time - key))
    return nearest if abs(nearest - key) <= _TIME_STEP else key
