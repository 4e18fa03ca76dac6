"""Checks of single values from files of other tools: each may be missing, or of any type.

A check gives the value in the type that its reader needs, or says in an error where it stands and what was
expected.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from molmopoint.errors import ProcessingError

MAX_COORDINATE = 1e9
"""Pixels; what lies further away is no place in a picture, and its square may leave the range of numbers."""


_ID_DIGITS = 100
_LARGEST_ID = 10**_ID_DIGITS
"""Whole numbers that name something stay below; Python writes no larger ones than some thousand digits."""


def required(item: Mapping[str, Any], name: str, where: str) -> Any:
    """A field that must be there.

    Raises:
        ProcessingError: it is not, or not given a value.
    """
    value = item.get(name) if isinstance(item, Mapping) else None
    if value is None:
        raise ProcessingError(
            f"{where}: expected a field {name!r}, got none; check that the format is the right one"
        )
    return value


def listed(value: Any, where: str) -> list[Any]:
    """A list, nothing as an empty one.

    Raises:
        ProcessingError: it is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise ProcessingError(
            f"{where}: expected a list, got {short(value)}; check that the format is the right one"
        )
    return value


def objects(value: Any, where: str) -> list[Mapping[str, Any]]:
    """A list of JSON objects.

    Raises:
        ProcessingError: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise ProcessingError(
            f"{where}: expected a list of objects, got {short(value)}; check that the format is the right one"
        )
    return value


def whole_text(value: Any, where: str) -> str:
    """Text that is not blank and can be written to a file.

    Raises:
        ProcessingError: it is no text, or holds half a character.
    """
    if not isinstance(value, str) or not value.strip():
        raise ProcessingError(f"{where}: expected text, got {short(value)}; export it again")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ProcessingError(f"{where}: expected whole characters, got {ascii(value)[:80]}; rename it")
    return value


def label_text(value: Any, where: str) -> str:
    """What a class is called: text, or a whole number.

    Raises:
        ProcessingError: it is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(_whole(value, where))
    return whole_text(value, where).strip()


def identity(value: Any, where: str) -> str | int:
    """An id: a whole number or text, which can be looked up.

    Raises:
        ProcessingError: it is neither.
    """
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ProcessingError(
            f"{where}: expected an id, a whole number or text, got {short(value)}; export it again"
        )
    return value if isinstance(value, str) else _whole(value, where)


def _whole(value: int, where: str) -> int:
    """The number itself, to its last digit.

    Raises:
        ProcessingError: it has more digits than ids have.
    """
    if abs(value) >= _LARGEST_ID:
        raise ProcessingError(
            f"{where}: expected a whole number of at most {_ID_DIGITS} digits, got a larger one; export it again"
        )
    return value


def number(value: Any, where: str) -> float:
    """A finite number.

    Raises:
        ProcessingError: it is none.
    """
    return float(numbers([value], where, 1)[0])


def numbers(values: Any, where: str, count: int | None = None) -> np.ndarray:
    """(n,) finite float64 numbers.

    Raises:
        ProcessingError: they are no numbers, or not `count`.
    """
    try:
        array = np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError, RecursionError):
        array = np.array([np.nan])
    if not np.isfinite(array).all() or (count is not None and len(array) != count):
        raise ProcessingError(
            f"{where}: expected {count or 'finite'} numbers, got {short(values)}; export it again"
        )
    return array


def corners(values: Any, where: str) -> np.ndarray:
    """(n, 2) x and y from a flat or nested list.

    Raises:
        ProcessingError: no numbers, or an odd number of them.
    """
    flat = numbers(values, where)
    if len(flat) % 2:
        raise ProcessingError(f"{where}: expected pairs of x and y, got {len(flat)} numbers; export it again")
    return flat.reshape(-1, 2)


def recorded_size(width: Any, height: Any, where: str) -> tuple[float, float] | None:
    """Width and height as an annotation says them; None where it says nothing.

    Raises:
        ProcessingError: they are no size.
    """
    if width is None and height is None:
        return None
    across, down = numbers([width, height], f"{where}, width and height", 2).tolist()
    if across == 0 and down == 0:  # how some tools write that they did not look
        return None
    if not (1 <= across <= MAX_COORDINATE and 1 <= down <= MAX_COORDINATE):
        raise ProcessingError(
            f"{where}: expected a width and height in pixels, got {across:g} x {down:g}; export it again"
        )
    return across, down


def one_of(value: Any, choices: Sequence[str], option: str) -> str:
    """The value of an option, if it is one of the choices.

    Raises:
        ProcessingError: it is none of them.
    """
    if value not in choices:
        raise ProcessingError(
            f"expected the option {option} among {', '.join(choices)}, got {short(value)}; choose one"
        )
    return str(value)


def short(value: Any) -> str:
    """A value for a message: of large and deep ones only the beginning is looked at."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = shortener.maxlong = 80
    return shortener.repr(value)[:100]
