"""What a request to an engine says beside vLLM's own parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from molmopoint.errors import ProcessingError


@dataclass(frozen=True)
class PointOptions:
    """Options of points.

    Attributes:
        max_points: most points of the answer; None for no limit.
        single: exactly one point.
        open_list: the prompt ends inside a point list.
    """

    max_points: int | None = None
    single: bool = False
    open_list: bool = False

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None) -> PointOptions:
        """Reads them from sampling parameters: as keys of their own, where other keys are left to others.

        Raises:
            ProcessingError: a value of the wrong type, or out of range.
        """
        given = extra_args or {}
        if given.get("min_score") is not None:
            raise ProcessingError(
                "expected no min_score of an engine, whose answers are tokens, got one; leave out points by "
                "their scores once they are read, as molmopoint.load(engine='vllm') does"
            )
        most = given.get("max_points")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise ProcessingError(
                f"expected max_points to be a whole number of 1 or more, or None, got {most!r}"
            )
        flags = {}
        for name in ("single", "open_list"):
            value = given.get(name, False)
            if value not in (0, 1):  # over HTTP, True arrives as 1
                raise ProcessingError(f"expected {name} to be True or False, got {value!r}")
            flags[name] = bool(value)
        return cls(most, **flags)

    def extra_args(self) -> dict[str, Any]:
        """The same for `SamplingParams(extra_args=...)`, without what is left at its default."""
        defaults = type(self)()
        values = vars(self).items()
        return {name: value for name, value in values if value != getattr(defaults, name)}
