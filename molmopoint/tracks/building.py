"""What the readers of all file forms share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from molmopoint.errors import GroundingError
from molmopoint.tracks.document import SCHEMA_VERSION

_LARGEST = 2.0**63


def document_of(
    rows: Sequence[Mapping[str, Any]],
    labels: Mapping[int, str | None],
    *,
    fps: float | None = None,
    size: Any = None,
    moments: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The plain form of tracks, from rows and what is known beside them."""
    return {
        "schema_version": SCHEMA_VERSION,
        "size": size,
        "fps": fps,
        "moments": moments,
        "objects": [{"object_id": number, "label": label} for number, label in labels.items()],
        "points": rows,
    }


def number(value: Any, where: str, *, whole: bool = False) -> Any:
    """A finite number from a file, as int where it must be whole.

    Raises:
        GroundingError: it is none; `where` tells its place.
    """
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    fits = math.isfinite(found) and (not whole or (found == math.floor(found) and abs(found) < _LARGEST))
    if isinstance(value, bool) or not fits:
        is_shown = isinstance(value, str | float)
        got = f"{value!r:.40}" if is_shown else type(value).__name__
        raise GroundingError(f"expected a {'whole ' * whole}number{' of 64 bits' * whole} in {where}, got {got}")
    return int(value if isinstance(value, int) or str(value).strip().lstrip("+-").isdecimal() else found) if whole else found


def box_size(box: Any) -> tuple[float, float]:
    """(width, height) of the boxes that stand for points, in pixels.

    Raises:
        GroundingError: it is no pair of numbers of 0 or more.
    """
    try:
        width, height = (float(side) for side in box)
    except (TypeError, ValueError, OverflowError):
        width = height = math.nan
    if not (math.isfinite(width + height) and min(width, height) >= 0):
        raise GroundingError(f"expected box as (width, height) of 0 or more pixels, got {box!r}")
    return width, height
