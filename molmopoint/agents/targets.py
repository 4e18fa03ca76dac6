"""One place per instruction: where on a picture of a screen a click belongs, or that there is none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from molmopoint.errors import MolmoPointError

DEFAULT_MODEL = "nano-screens"
"""Points where no pointer is passed; it comes with the package."""

DEFAULT_MIN_SCORE = 0.1
"""Score below which nothing is clicked."""

DEFAULT_MAX_ABSENT = 0.5
"""Probability of "nothing there" above which nothing is clicked."""

_CLICK_VERBS = re.compile(
    r"(please\s+)?((left|right|double|single)[\s-]?)?(click|tap|press|hit|push)\s+((on|at)\s+)?(?=\S)",
    re.IGNORECASE,
)
"""Words before the name of what is clicked; models are asked where it is, whatever is done to it."""


class AgentError(MolmoPointError):
    """Something an agent asked for that cannot be done."""


class TargetNotFound(AgentError):
    """There is nothing on the screen that an instruction means, or the model is not sure enough.

    Attributes:
        instruction: that was asked.
        best: the likeliest place all the same; None where the model named none.
    """

    def __init__(self, instruction: str, best: Target | None, message: str) -> None:
        super().__init__(message)
        self.instruction = instruction
        self.best = best


class Points(Protocol):
    """What points: a `Pointer`, or a `Client` of a server."""

    def point(self, image: Any, prompt: str, **options: Any) -> Any:
        """The answer about one picture, a `PointingResult`."""
        ...


@dataclass(frozen=True)
class Target:
    """A place to click.

    Attributes:
        x: pixels of the picture from its left edge.
        y: pixels from its upper edge.
        score: 0..1, uncalibrated; NaN where the model writes coordinates as text.
        absent: probability that the model would rather have pointed at nothing, uncalibrated; NaN where it
            tells none.
    """

    x: float
    y: float
    score: float
    absent: float


def find_target(
    pointer: Points,
    image: Any,
    instruction: str,
    *,
    min_score: float = DEFAULT_MIN_SCORE,
    max_absent: float = DEFAULT_MAX_ABSENT,
    **options: Any,
) -> Target:
    """The one place on a picture that an instruction means.

    Args:
        pointer: a `Pointer` or a `Client`.
        image: a screenshot in any form that `Pointer.point` takes.
        instruction: "the search button", or "click the search button".
        min_score: a place with a lower score is none. Scores are not calibrated; take some of your own screens
            to choose it.
        max_absent: a place is none where the model thinks with a higher probability that nothing is there.
        **options: as in `Pointer.point`, such as `max_crops`.

    Raises:
        TargetNotFound: nothing is there, or the model is not sure enough.
        ProcessingError: the picture or the instruction cannot be used.
    """
    for name, value in (("min_score", min_score), ("max_absent", max_absent)):
        if not 0 <= value <= 1:
            raise AgentError(f"expected {name} from 0 to 1, got {value}")
    result = pointer.point(image, without_verb(instruction), single=True, **options)
    if not len(result.points):
        raise TargetNotFound(
            instruction,
            None,
            f"expected {instruction!r} on the screen, got no point; name it as it reads on the screen",
        )
    point = result.points[0]
    best = Target(point.x, point.y, point.score, result.absent)
    # Comparisons with NaN are false: what a model does not tell is no reason to abstain.
    if best.score < min_score:
        raise TargetNotFound(
            instruction,
            best,
            f"expected {instruction!r} with a score of at least {min_score:g}, got {best.score:.2f}; name it "
            "as it reads on the screen, or lower min_score",
        )
    if best.absent > max_absent:
        raise TargetNotFound(
            instruction,
            best,
            f"expected {instruction!r} on the screen, got a model that is sure by {best.absent:.2f} that it is "
            "not there; scroll to it, or raise max_absent",
        )
    return best


def predict_click(
    image: Any, instruction: str, *, pointer: Points | None = None, **options: Any
) -> tuple[int, int] | None:
    """Where to click for an instruction, in whole pixels of the picture; None where nothing fits.

    Args:
        image: a screenshot in any form that `Pointer.point` takes.
        instruction: "the search button", or "click the search button".
        pointer: a `Pointer` or a `Client`; by default the model that comes with the package for screens.
        **options: of `find_target`.

    Raises:
        ProcessingError: the picture or the instruction cannot be used.
    """
    try:
        target = find_target(pointer or _embedded(), image, instruction, **options)
    except TargetNotFound:
        return None
    return int(target.x), int(target.y)


def without_verb(instruction: str) -> str:
    """The name of what is to be clicked.

    >>> without_verb("Click on the search button"), without_verb("the press release")
    ('the search button', 'the press release')
    """
    if not isinstance(instruction, str):
        return instruction  # `point` says what is wrong with it
    found = _CLICK_VERBS.match(instruction.lstrip())
    return instruction if found is None else instruction.lstrip()[found.end() :]


@lru_cache(maxsize=1)
def _embedded() -> Points:
    from molmopoint.pipeline import load

    return load(DEFAULT_MODEL)
