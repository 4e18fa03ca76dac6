"""MolmoWeb-SyntheticGround (allenai/MolmoWeb-SyntheticGround): instructions and clicks about pictures of web pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.importers.hub_rows import Entry, entries_of, json_of, picture_of
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.point_lists import BROKEN
from molmopoint.data.importers.reading import PathLike, read_rows
from molmopoint.data.importers.values import number, required, short, whole_text
from molmopoint.errors import ProcessingError


def read_molmoweb_ground(
    source: PathLike | Iterable[Mapping[str, Any]], journal: Journal, images: PathLike
) -> Iterator[dict[str, Any]]:
    """One row per message whose answer is a click, in percent of the picture; the thoughts of answers are not read.

    Both parts of the set, "template" and "gpt", have this layout.

    Args:
        source: JSONL or JSON file, or the loaded data set: rows with `image` and `messages`, which have a
            `question` and, as JSON in a text, an `answer`.
        journal: hears which rows and messages are left out.
        images: folder of the pictures: a path in the column `image` starts there; where that column holds the
            picture itself, the file is the number of the row, from 1, as `<number>.png`.

    Raises:
        ProcessingError: a file of another kind.
    """
    for position, row in read_rows(source, "image and messages", journal):
        where = f"row {position} of the source"
        try:
            file = picture_of(row, Path(images), position, where)
            messages = entries_of(required(row, "messages", where), f"{where}, messages")
        except ProcessingError as error:
            journal.skip("rows", f"left out: {error}")
            continue
        for index, message in enumerate(messages):
            place = f"{where}, message {index}"
            try:
                question = whole_text(required(message, "question", place), f"{place}, question").strip()
                point = _click(required(message, "answer", place), f"{place}, answer")
            except ProcessingError as error:
                journal.skip(BROKEN, f"left out: {error}")
                continue
            yield {
                "image": str(file),
                "prompt": question,
                "points": [point],
                "coords": "percent",
                "style": "pointing",
            }


def _click(answer: Any, where: str) -> Entry:
    """Where an answer clicks.

    Raises:
        ProcessingError: it is no click.
    """
    value = json_of(answer, where) if isinstance(answer, str) else answer
    action = required(value, "action", where) if isinstance(value, Mapping) else value
    if not isinstance(action, Mapping) or action.get("name") != "click":
        raise ProcessingError(f"{where}: expected a click, got {short(action)}; only clicks have one place")
    return {axis: number(required(action, axis, where), f"{where}, {axis}") for axis in ("x", "y")}
