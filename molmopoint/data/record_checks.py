"""Checks of single values in a row, and the one form of what is said about a faulty one."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from molmopoint.data.embedded import EmbeddedPicture, embedded_picture
from molmopoint.errors import ProcessingError

_SHOWN = 200
"""Characters of a value in a message."""

_LARGEST = 2**63


def row_error(row: int, field: str | None, expected: str, got: str, remedy: str) -> ProcessingError:
    """What is wrong where, and what to do; `field` is None where it is the whole row."""
    place = f"row {row}" if field is None else f"row {row}, {field}"
    return ProcessingError(f"{place}: expected {expected}, got {got}; {remedy}")


def shown(value: Any) -> str:
    """A value in a message: short, and whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # numbers of thousands of digits, lists in lists in lists
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def refuse_unknown(given: Mapping[str, Any], known: Sequence[str], row: int, prefix: str) -> None:
    """Refuses columns that are not known: a misspelt one would silently do nothing."""
    if unknown := [name for name in given if name not in known]:
        raise row_error(row, f"{prefix}{unknown[0]}", f"one of the columns {', '.join(known)}", shown(unknown[0]), "rename or remove it")


def text_value(value: Any, row: int, field: str) -> str:
    """Text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise row_error(row, field, "text", shown(value), "leave the column out where there is none")
    _refuse_halves(value, row, field)
    return value


def _refuse_halves(value: str, row: int, field: str) -> None:
    """Half a character can stand in JSON, and in no file, no name and no model input."""
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise row_error(row, field, "whole characters", ascii(value)[:_SHOWN], "write emoji as UTF-8, not as half a surrogate pair")


def number_value(value: Any, row: int, field: str) -> float:
    """A finite number."""
    number = math.nan
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # JSON has integers beyond every float
            number = float(value)
    if not math.isfinite(number):
        raise row_error(row, field, "a finite number", shown(value), "write a plain number such as 12.5")
    return number


def integer_value(value: Any, row: int, field: str, expected: str) -> int:
    """A whole number from 0."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < _LARGEST:
        raise row_error(row, field, expected, shown(value), "write a whole number")
    return int(value)


def picture_value(value: Any, row: int, field: str) -> str | EmbeddedPicture:
    """A picture: the path of a file, or what a data set embeds."""
    if isinstance(value, EmbeddedPicture):
        return value
    return embedded_picture(value) or file_value(value, row, field)


def file_value(value: Any, row: int, field: str) -> str:
    """A path as text; also of a data set's undecoded picture column, which keeps it as {"path": ..., "bytes": None}."""
    if isinstance(value, Mapping) and value.get("path") and value.get("bytes") is None:
        value = value["path"]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value.strip():
        kind = shown(value) if isinstance(value, str) else type(value).__name__
        raise row_error(row, field, "the path of a file", kind, "save the picture or clip and write its path")
    _refuse_halves(value, row, field)
    if "\0" in value:
        raise row_error(row, field, "the path of a file", shown(value), "write it without null characters")
    return value


def media_columns(given: Mapping[str, Any], row: int) -> tuple[tuple[str | EmbeddedPicture, ...], str | None]:
    """The pictures and the file of the clip."""
    kinds = [name for name in ("image", "images", "video") if name in given]
    if len(kinds) > 1:
        raise row_error(row, kinds[1], "one of image, images and video", " and ".join(kinds), "write two rows, or use images")
    if not kinds:
        return (), None
    if kinds == ["images"]:
        images = given["images"]
        if isinstance(images, str) or not isinstance(images, Sequence) or not images:
            raise row_error(row, "images", "a list of one or more files", shown(images), "write one picture as image")
        return tuple(picture_value(image, row, f"images[{i}]") for i, image in enumerate(images)), None
    if kinds == ["image"]:
        return (picture_value(given["image"], row, "image"),), None
    return (), file_value(given["video"], row, "video")
