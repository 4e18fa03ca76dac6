"""Options of looking again: how often, and at how much of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

from molmopoint.errors import ProcessingError

DEFAULT_LOOKS = 6
"""Parts of a picture that are looked at again: enough for all of a screen of 2560x1440."""

MOST_LOOKS = 64


@dataclass(frozen=True)
class Zoom:
    """How `zoom` looks again at native pixels.

    Attributes:
        looks: parts of the picture that are looked at again, at most; fewer where the first look was sure.
        size: side of a part in pixels of the picture; None for the side that the model sees at native pixels
            with three by three crops. A part that is larger than the model sees at native pixels is seen
            smaller.

    Raises:
        ProcessingError: an option is out of range.
    """

    looks: int = DEFAULT_LOOKS
    size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "looks", _whole("zoom.looks", self.looks, MOST_LOOKS))
        if self.size is not None:
            object.__setattr__(self, "size", _whole("zoom.size", self.size, None))


def zoom_of(value: object) -> Zoom | None:
    """The options of looking again, as a call gives them: True, False or a `Zoom`; None for a single look.

    Raises:
        ProcessingError: it is something else.
    """
    if isinstance(value, Zoom):
        return value
    if not isinstance(value, bool):
        raise ProcessingError(
            f"expected zoom to be True, False or a molmopoint.Zoom, got {value!r:.80}; pass zoom=True, or "
            "zoom=molmopoint.Zoom(looks=4)"
        )
    return Zoom() if value else None


def _whole(name: str, value: Any, most: int | None) -> int:
    bounds = "1 or more" if most is None else f"1 to {most}"
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    number = int(value) if is_whole else 0  # of NumPy, perhaps
    if number < 1 or (most is not None and number > most):
        raise ProcessingError(f"expected {name} to be a whole number of {bounds}, got {value!r}")
    return number
