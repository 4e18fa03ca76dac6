"""Draws pages in several views and writes training data about them: pictures, rows, what to judge answers by,
and a contact sheet.

OUT/images/         a picture of each page and view
OUT/data.jsonl      rows in the library's format
OUT/targets.jsonl   for each row the kind of question, and the boxes of all its targets
OUT/elements.jsonl  for each picture everything that is seen on it
OUT/sheet.png       a sample of rows with their points
OUT/report.json     what was drawn, what went wrong, and what pages did by themselves
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from molmopoint.data.contact_sheet import contact_sheet
from molmopoint.data.records import Record, RecordPoint, write_records
from molmopoint.errors import MolmoPointError
from molmopoint.files import written_whole
from molmopoint.screens.browser import Browser, PageFault, View
from molmopoint.screens.elements import Element, Screen
from molmopoint.screens.questions import ScreenQuery, draw_questions
from molmopoint.screens.steps import Script

PAGE_SUFFIXES = frozenset({".html", ".htm", ".xhtml"})
"""Endings of files in a folder that are pages."""

SOURCE = "screens"
"""Name of the data in the rows, for loss weights."""
_MOST_NAMES = 400
"""Names of other pages that absent things are called by."""


def addresses_of(sources: Sequence[str]) -> list[str]:
    """The addresses of all pages that some sources name, each once, in order.

    Args:
        sources: HTML files, folders of them (with those below), and addresses.

    Raises:
        MolmoPointError: a source is neither there nor an address.
    """
    found: dict[str, None] = {}
    for source in sources:
        if "://" in source:
            found[_checked(source)] = None
            continue
        path = Path(source)
        if path.is_dir():
            for page in _pages_in(path):
                found[page.resolve().as_uri()] = None
        elif path.is_file():
            found[path.resolve().as_uri()] = None
        else:
            raise MolmoPointError(
                f"expected an HTML file, a folder or an address, got {source!r}; write addresses with http://"
            )
    return list(found)


def _pages_in(folder: Path) -> list[Path]:
    pages = [path for path in folder.rglob("*") if path.suffix.lower() in PAGE_SUFFIXES and path.is_file()]
    if not pages:
        raise MolmoPointError(f"expected HTML files in {str(folder)!r}, got none; name another folder")
    return sorted(pages)


@dataclass
class Drawn:
    """What became of some pages.

    Attributes:
        pages: addresses that were drawn at least once.
        pictures: written.
        rows: written.
        elements: seen on all pictures together.
        left_out: found but not seen: clipped, covered, transparent, off the screen.
        missed: not looked at, because a page has too many.
        empty: pictures on which nothing can be asked for.
        faults: address, kind and message of each page that could not be drawn.
        events: what pages did by themselves, counted.
        kinds: rows by kind of question, absent ones apart.
    """

    pages: int = 0
    pictures: int = 0
    rows: int = 0
    elements: int = 0
    left_out: int = 0
    missed: int = 0
    empty: int = 0
    faults: list[tuple[str, str, str]] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        fields = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        fields["faults"] = []
        by_kind: Counter[str] = Counter()
        for address, kind, message in self.faults:
            fields["faults"].append({"address": address, "kind": kind, "message": message})
            by_kind[kind] += 1
        fields["events"] = dict(self.events)
        fields["kinds"] = dict(self.kinds)
        fields["faults_by_kind"] = dict(sorted(by_kind.items()))
        return fields


@dataclass(frozen=True)
class _Picture:
    """A picture that is written, and what is seen on it; its pixels are not kept."""

    name: str
    screen: Screen


def draw_pages(
    addresses: Sequence[str],
    out: Path,
    browser: Browser,
    views: Sequence[View],
    *,
    script: Script | None = None,
    questions: int = 8,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Drawn:
    """Draws pages, asks about them, and writes everything to a folder.

    Args:
        addresses: of the pages.
        out: the folder; the files of an earlier run are written over.
        browser: that is open.
        views: how each page is looked at.
        script: steps before the pictures are taken.
        questions: asked of each picture at most.
        seed: of the questions.
        progress: told of each page that is done, or what is wrong with it.

    Returns:
        What was drawn. No fault of a page ends the run.

    Raises:
        MolmoPointError: the folder cannot be used.
    """
    if out.exists() and not out.is_dir():
        raise MolmoPointError(f"expected a folder to write to, got the file {str(out)!r}; name another one")
    (out / "images").mkdir(parents=True, exist_ok=True)
    drawn = Drawn()
    pictures: list[_Picture] = []
    pages = _Pages(out, browser, views, script or Script())
    for number, address in enumerate(addresses, start=1):
        try:
            pictures += pages.draw(address, f"{number:04d}-{short_name(address)}")
            drawn.pages += 1
            progress(address)
        except PageFault as fault:
            drawn.faults.append((address, fault.kind, str(fault)))
            progress(f"{address}: {fault.kind}")
    drawn.pictures = len(pictures)
    drawn.events = browser.events
    _write_rows(pictures, out, drawn, questions, seed)
    with written_whole(out / "report.json") as path:
        path.write_text(json.dumps(drawn.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return drawn


def row_of(query: ScreenQuery, image: str, number: int) -> Record:
    """A question as a row of training data."""
    points = []
    for target in query.targets:
        x, y = target.point
        points.append(RecordPoint(round(x, 1), round(y, 1)))
    return Record(
        number,
        (image,),
        prompts=(f"Point to {query.prompt}",),
        label=query.label,
        points=tuple(points) or None,
        coords="pixel" if points else None,
        no_points=not points,
        style="pointing",
        source=SOURCE,
    )


def target_of(query: ScreenQuery, image: str, number: int) -> dict[str, Any]:
    """What an answer to a question is judged by."""
    boxes = [_rounded(target) for target in query.targets]
    return {
        "row": number,
        "image": image,
        "prompt": query.prompt,
        "kind": query.kind,
        "mentions": query.mentions,
        "boxes": boxes,
    }


class _Pages:
    """Opens pages one after the other, and signs in anew where the browser had to be started anew."""

    def __init__(self, out: Path, browser: Browser, views: Sequence[View], script: Script) -> None:
        self.out, self.browser, self.views, self.script = out, browser, views, script
        self._signed_in = 0

    def draw(self, address: str, name: str) -> list[_Picture]:
        """All views of a page; after a fault none of them is asked about."""
        self.browser.open(address)
        if self.script.once and self._signed_in != self.browser.starts:
            self.browser.act(self.script.once)
            self._signed_in = self.browser.starts
            self.browser.open(address)
        self.browser.act(self.script.each)
        return [self._look(view, address, f"images/{name}-{view}.png") for view in self.views]

    def _look(self, view: View, address: str, image: str) -> _Picture:
        screen = self.browser.look(view, address)
        assert screen.pixels is not None
        with written_whole(self.out / image) as path:
            Image.fromarray(screen.pixels).save(path)
        return _Picture(image, screen.without_pixels())


def _write_rows(pictures: Sequence[_Picture], out: Path, drawn: Drawn, questions: int, seed: int) -> None:
    """Asks about all pictures and writes rows, targets, elements and the contact sheet."""
    names = _names_on(pictures)
    records: list[Record] = []
    targets: list[dict[str, Any]] = []
    seen: list[dict[str, Any]] = []
    for i, picture in enumerate(pictures):
        screen = picture.screen
        drawn.elements += len(screen.elements)
        drawn.left_out += screen.left_out
        drawn.missed += screen.missed
        elements = [element_fields(element) for element in screen.elements]
        seen.append(
            {"image": picture.name, "address": screen.address, "view": screen.view, "elements": elements}
        )

        queries: Sequence[ScreenQuery] = ()
        if screen.elements:
            queries = draw_questions(np.random.default_rng([seed, i]), screen, questions, absent_names=names)
        drawn.empty += not queries
        for query in queries:
            number = len(records) + 1
            records.append(row_of(query, picture.name, number))
            targets.append(target_of(query, picture.name, number))
            drawn.kinds[query.kind if query.targets else f"{query.kind}, absent"] += 1

    drawn.rows = len(records)
    with written_whole(out / "data.jsonl") as path:
        write_records(path, records)
    _write_lines(out / "targets.jsonl", targets)
    _write_lines(out / "elements.jsonl", seen)
    if records:
        with written_whole(out / "sheet.png") as path:
            contact_sheet(records, out, seed=seed).save(path)


def _names_on(pictures: Sequence[_Picture]) -> list[str]:
    """Names of the elements of all pictures, each once, in order; not all of very many."""
    names: dict[str, None] = {}
    for picture in pictures:
        for element in picture.screen.elements:
            if element.label:
                names[element.label] = None
    return list(names)[:_MOST_NAMES]


def _write_lines(target: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as lines of JSON."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    with written_whole(target) as path:
        path.write_text("".join(lines), encoding="utf-8")


def element_fields(element: Element) -> dict[str, Any]:
    """An element for JSON."""
    fields = {
        "kind": element.kind,
        "role": element.role,
        "name": element.name,
        "text": element.text,
        "states": sorted(element.states),
        "colour": element.colour,
        "icon": element.icon,
        "areas": list(element.areas),
        "row": element.row,
        "also": element.also,
        "boxes": _rounded(element),
    }
    return {name: value for name, value in fields.items() if value not in (None, "", [])}


def _rounded(element: Element) -> list[list[float]]:
    boxes = []
    for box in element.boxes:
        boxes.append([round(value, 1) for value in box])
    return boxes


def short_name(address: str) -> str:
    """A few letters of an address, for names of files."""
    parts = urlsplit(address)
    last = parts.path.rstrip("/").rsplit("/", 1)[-1]
    stem = os.path.splitext(last)[0] or parts.hostname or "page"  # noqa: PTH122
    kept = re.sub(r"[^A-Za-z0-9_-]", "-", stem)
    return kept.strip("-")[:40] or "page"


def _checked(source: str) -> str:
    """An address that a browser can be sent to."""
    try:
        scheme = urlsplit(source).scheme.lower()
    except ValueError as error:
        raise MolmoPointError(f"expected an address, got {source!r} ({error}); correct it") from error
    if scheme not in ("http", "https", "file"):
        raise MolmoPointError(f"expected an address with http, https or file, got {source!r}; correct it")
    return source
