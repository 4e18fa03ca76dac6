"""Counting: how near a number is, and the number that a text states."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Possessive, so that no run of blanks is read twice; what is counted has a bounded length for the same reason.
_LABEL = r"(?:\s++of\s++.{1,2000}?(?<!\s))?\s++is"
_TOTAL = re.compile(rf"\ba total of\s*+(\d+)|\bthe total number{_LABEL}(?::|\b)\s*+(\d+)", re.IGNORECASE)
_TOTAL_OF_REFERENCE = re.compile(rf"a total of\s*+(\d+)|the total number{_LABEL}:\s*+(\d+)", re.IGNORECASE)
_THERE_ARE = re.compile(r"\bthere (?:is|are) (\d+)\b", re.IGNORECASE)
_MOST_DIGITS = 18
"""More digits are no count."""
_NONE = re.compile(r"\bthere (?:is|are) (?:none|no)\b", re.IGNORECASE)


def close_in_image(predicted: int, true: int) -> bool:
    """Whether a count differs by at most one; the rule of the picture benchmarks."""
    return abs(predicted - true) <= 1


def close_in_video(predicted: int, true: int) -> bool:
    """Whether a count differs by at most one and five percent of the true one, rounded down; the rule of the video benchmarks."""
    # Integers: 0.05 * 40 in floats is exact here, but nothing promises that for other factors.
    return abs(predicted - true) <= 1 + true * 5 // 100


def stated_count(text: str, *, ref_compat: bool = False) -> int | None:
    """The number a text states, or None.

    The text is a bare integer, or it says "a total of N", or "the total number ... is: N"; else it says "There are N", or "There are
    none". The first of these that occurs counts, so that "There are 3 of them and a total of 4" states 4.

    Args:
        text: the answer in words.
        ref_compat: read as the reference does: "There are none" and "There are N" state nothing, and "-3" is the number -3.
    """
    stripped = text.strip().rstrip(".").strip()
    if ref_compat:
        try:
            return int(stripped)
        except ValueError:
            return _first_number(_TOTAL_OF_REFERENCE, text)
    if re.fullmatch(r"\d+", stripped):
        return _number(stripped)
    for pattern in (_TOTAL, _THERE_ARE):
        if (stated := _first_number(pattern, text)) is not None:
            return stated
    return 0 if _NONE.search(text) else None


def _first_number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return None if found is None else _number(next(group for group in found.groups() if group))


def _number(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MOST_DIGITS else None


def macro_accuracy(correct: Sequence[bool], true: Sequence[int]) -> float:
    """Mean over the true counts that occur of the accuracy on items of that count; NaN without items."""
    groups: dict[int, list[bool]] = {}
    for right, count in zip(correct, true, strict=True):
        groups.setdefault(count, []).append(right)
    shares = [sum(group) / len(group) for group in groups.values()]
    return sum(shares) / len(shares) if shares else float("nan")


def bin_of(count: int, edges: Mapping[str, tuple[int, int]]) -> str | None:
    """Name of the bin [low, high) that a count falls into, or None."""
    return next((name for name, (low, high) in edges.items() if low <= count < high), None)
