"""The space of the numbers in stored answers of other models. It is stated by the caller, never guessed."""

from __future__ import annotations

from typing import Literal, get_args

from molmopoint.errors import EvaluationError

Space = Literal["pixel", "percent", "norm1", "norm1000"]
FULL_SCALE: dict[str, float] = {"percent": 100.0, "norm1": 1.0, "norm1000": 1000.0}
"""Value at the right and lower edge; pixels need none."""


def check_space(space: str | None) -> Space:
    """The space a caller named.

    Raises:
        EvaluationError: none, or one that is not known.
    """
    if space not in get_args(Space):
        raise EvaluationError(
            f"expected --coords with one of {', '.join(get_args(Space))}, got {space!r}; "
            "the numbers alone do not tell, and a wrong guess is a wrong score"
        )
    return space  # type: ignore[return-value]


def to_pixels(xy: tuple[float, float], space: Space, size: tuple[int, int]) -> tuple[float, float]:
    """A point in pixels of a picture of (width, height)."""
    if space == "pixel":
        return xy
    scale = FULL_SCALE[space]
    return xy[0] / scale * size[0], xy[1] / scale * size[1]
