"""Reading the files of other tools, and finding the pictures that they name.

Every file is somebody else's: its encoding, its depth and the names in it may be anything.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.values import short, whole_text
from molmopoint.errors import ProcessingError
from molmopoint.files import PICTURE_SUFFIXES, is_file, is_folder

PathLike = str | os.PathLike[str]

_ENDINGS = sorted(PICTURE_SUFFIXES | {suffix.upper() for suffix in PICTURE_SUFFIXES})
"""Of names of pictures."""

_MAX_DEPTH = 200
"""Elements inside each other; no annotation tool comes near it."""

# That of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and the encodings that they mean."""

_JSON_DIGITS = 400
"""Digits of a whole number from which on it is taken as infinite, as JSON with fractions is."""


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        ProcessingError: the file is missing or holds no JSON.
    """
    text = read_text(path)
    try:
        return loaded_json(text)
    except (ValueError, RecursionError) as error:
        raise ProcessingError(f"expected JSON in {path}, got {error}; export it again") from error


def loaded_json(text: str) -> Any:
    """The value of a JSON text; whole numbers of more digits than Python reads become infinite, which only
    spoils their object.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(text, parse_int=_whole_number)


def read_text(path: Path) -> str:
    """Text of a file in UTF-8, or in what its byte order mark says.

    Raises:
        ProcessingError: there is no such file, or it is not text.
    """
    return decoded_text(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """Content of a file.

    Raises:
        ProcessingError: there is no such file, or it cannot be read.
    """
    try:
        return existing_file(path).read_bytes()
    except OSError as error:
        raise ProcessingError(f"expected a file that can be read, got {error}; check its rights") from error


def decoded_text(data: bytes, where: str, *, otherwise: str | None = None) -> str:
    """Text in UTF-8, or in UTF-16 or UTF-32 as its byte order mark says.

    Args:
        data: of the file.
        where: the file, for messages.
        otherwise: encoding of what is none of these; by default it is refused.

    Raises:
        ProcessingError: it is not text.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if otherwise is None or encoding != "utf-8":
            raise ProcessingError(
                f"expected text in UTF-8 in {where}, got {error}; save it in UTF-8"
            ) from error
        text = data.decode(otherwise)
    if "\0" in text:
        raise ProcessingError(f"expected text in {where}, got bytes of another kind; check the file")
    return text


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file. Entities are not expanded and nothing outside of the file is read.

    Raises:
        ProcessingError: the file is missing, holds no XML, declares entities, or nests too deeply.
    """
    data = read_bytes(path)
    builder = ElementTree.TreeBuilder()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise ProcessingError(
                f"expected XML of at most {_MAX_DEPTH} levels in {path}, got more; export it again"
            )
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def entity(name: str, *_: Any) -> None:
        raise ProcessingError(
            f"expected XML without entities of its own in {path}, got {name!r}; do not trust its source"
        )

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = parser.SkippedEntityHandler = entity
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, ProcessingError):
            raise
        raise ProcessingError(f"expected XML in {path}, got {error}; export it again") from error


def read_rows(
    source: PathLike | Iterable[Any], wanted: str, journal: Journal
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows of a JSONL file, of a JSON file with a list, or of an iterable such as a Hugging Face data set.

    Args:
        source: where they are.
        wanted: what a row has, for messages.
        journal: hears of rows that are no objects, which are left out.

    Yields:
        Number of the row, of a JSONL file that of the line, from 1, and its columns.

    Raises:
        ProcessingError: a file of another kind.
    """
    rows = (
        enumerate(source, start=1) if not isinstance(source, str | os.PathLike) else _file_rows(Path(source))
    )
    for position, row in rows:
        if isinstance(row, Mapping):
            yield position, row
            continue
        got = (
            str(row)
            if isinstance(row, ProcessingError)
            else f"expected an object with {wanted}, got {short(row)}; check the format"
        )
        journal.skip("rows", f"row {position} of the source: left out: {got}")


def existing_file(path: Path) -> Path:
    """The path itself, if it is a file."""
    if not is_file(path):
        raise ProcessingError(f"expected a file, got none at {path}; check the path")
    return path


def picture_path(folder: Path, name: Any, where: str, *, beside: bool = False) -> Path:
    """The file of a picture that an annotation names; separators of Windows are understood.

    Args:
        folder: in which names begin.
        name: as the annotation has it.
        where: place of the annotation, for messages.
        beside: the name may also lead to what lies beside the folder (`../pictures/a.png`).

    Raises:
        ProcessingError: no usable name, or one that leads elsewhere.
    """
    spelt = whole_text(name, where).replace("\\", "/")
    begin = settled(folder)
    outer = begin.parent if beside else begin
    if "\0" in spelt or not lies_in(outer, begin / spelt):
        raise ProcessingError(
            f"{where}: expected a file inside {str(outer)!r}, got {short(name)}, which leads out of it; "
            "correct the name, or give the "
            "folder of the pictures with --images"
        )
    return on_disk(folder, spelt)


def on_disk(folder: Path, name: str) -> Path:
    """A path below a folder with its letters written as on the disk, if it is there: "é" is one character, or
    two from a Mac.
    """
    path = folder / name
    if name.isascii() or is_file(path):
        return path
    place = folder
    for part in PurePosixPath(name).parts:
        spellings = [place / part, *(place / unicodedata.normalize(form, part) for form in ("NFC", "NFD"))]
        place = next((other for other in spellings if is_file(other) or is_folder(other)), place / part)
    return place


def folder_alike(folder: Path, file: Path, source: Path) -> Path:
    """The folder below `folder` that corresponds to that of an annotation file below `source`; `folder`
    itself where there is none.
    """
    below = (
        folder / file.parent.relative_to(source) if file.is_relative_to(source) and file != source else folder
    )
    return below if is_folder(below) else folder


def picture_called(folder: Path, stem: str) -> Path | None:
    """The picture that is called so before the ending of its name; None if there is none."""
    return next((path for suffix in _ENDINGS if is_file(path := on_disk(folder, stem + suffix))), None)


def lies_in(folder: Path, path: Path) -> bool:
    """Whether a path leads into a folder.

    Links are not followed: below the folder they are the user's own, for pictures are often kept on another
    disk.
    """
    return settled(path).is_relative_to(settled(folder))


def settled(path: Path) -> Path:
    """The absolute path without steps back; unlike resolved ones its links are not followed."""
    return Path(os.path.normpath(path.absolute()))


def _whole_number(text: str) -> int | float:
    if len(text) <= _JSON_DIGITS:
        return int(text)
    return math.inf if text[0] != "-" else -math.inf


def _file_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Numbered values of a file; of a line that is no JSON the error."""
    existing_file(path)
    if path.suffix == ".parquet":
        raise ProcessingError(
            f"expected JSONL or JSON, got {path.name}; load it with datasets.load_dataset and pass the data "
            "set, or save it by to_json"
        )
    if path.suffix == ".json":
        rows = read_json(path)
        yield from enumerate(rows if isinstance(rows, list) else [rows], start=1)
        return
    with path.open("rb") as lines:
        for position, line in enumerate(lines, start=1):
            if line.strip():
                yield position, _json_line(line)


def _json_line(line: bytes) -> Any:
    try:
        return loaded_json(decoded_text(line, "the line"))
    except ProcessingError as error:
        return error
    except (ValueError, RecursionError) as error:
        return ProcessingError(f"expected a JSON object, got {error}; export it again")
