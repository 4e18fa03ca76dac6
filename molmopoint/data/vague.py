"""Answers that commit to nothing: what a policy drifts to when its judge prefers them to wrong ones.

    write_vague(np.random.default_rng(0), question, "half")    # "It is in the bottom."

A judge that never saw such answers takes them for careful ones, and whoever is trained by its scores stops to
answer. So lists of `judging` may hold them, ranked below answers that are wrong but say something.

Each family has words of its own that are never drawn for training (`unseen=True`): with them one sees whether
a judge learned what is vague, or a list of sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from molmopoint.data.drawing import COLOURS
from molmopoint.data.questions import SceneQuestion

ANCHOR = "I do not know."
"""The answer against which rewards are measured."""

_T = TypeVar("_T")

_HALVES = ("top", "bottom", "left", "right")
_LARGEST = 7
"""Numbers that a hedge names are below it."""

_UNKNOWN = (
    ANCHOR, "I don't know.", "I am not sure.", "No idea.", "I cannot tell.", "I cannot see it.", "Maybe.", "It is not clear.",
    "Unknown.", "I do not see.",
)  # fmt: skip
_UNKNOWN_UNSEEN = ("Hard to say.", "Nobody knows.", "I have no answer.", "Perhaps.")

_NOTHING = (".", "...", "-", "?", "l.", "s.", "a", "No answer.", "n/a", "!")
_NOTHING_UNSEEN = ("..", "--", "e.", "Not available.", "o")

_GENERAL = (
    "It is in the picture.", "It is there.", "I see it.", "Somewhere.", "This is a picture.", "There is something.", "Yes.", "No.",
    "I see objects.", "There it is.",
)  # fmt: skip
_GENERAL_UNSEEN = ("It is somewhere in the picture.", "Here.", "The picture shows objects.", "Of course.")

_SOME = (
    "There are some.",
    "There are a few.",
    "I see several.",
    "Many.",
    "A few.",
    "More than one.",
    "There are many.",
)
_SOME_UNSEEN = ("Quite a few.", "There are several.", "Not many.")

_SHADES = (
    "It is dark.",
    "It is bright.",
    "It is light.",
    "It is coloured.",
    "It has a colour.",
    "A colour.",
    "Some colour.",
)
_SHADES_UNSEEN = ("It is pale.", "A dark colour.", "It is not dark.")


def _half(rng: np.random.Generator, question: SceneQuestion, unseen: bool) -> str:
    """Half of what was asked for: one direction of two, a few, some shade."""
    if question.kind == "count":
        return _pick(rng, _SOME_UNSEEN if unseen else _SOME)
    if question.kind == "colour":
        return _pick(rng, _SHADES_UNSEEN if unseen else _SHADES)
    half = _pick(rng, _HALVES)
    if unseen:
        return _pick(rng, (f"It lies at the {half}.", f"On the {half} side.", f"The {half} half."))
    return _pick(
        rng,
        (
            f"It is in the {half}.",
            f"The {question.noun} is in the {half}.",
            f"In the {half}.",
            f"It is at the {half}.",
            f"{half.capitalize()}.",
        ),
    )


def _word(rng: np.random.Generator, question: SceneQuestion, unseen: bool) -> str:
    """One word of the question or of an answer that is no value of its kind, now and then several times."""
    begun = (
        ("seems", "would", "have") if unseen else ("It", "is", "There", "are", "in", "the", "I", "see", "In")
    )
    asked = () if unseen else tuple(question.noun.split())
    word = _pick(rng, (*begun, *asked))
    times = _pick(rng, (1, 1, 1, 2, 3))
    end = _pick(rng, (".", ""))
    return " ".join([word] * times) + end


def _cut(rng: np.random.Generator, question: SceneQuestion, unseen: bool) -> str:
    """A sentence that ends before its value."""
    if question.kind == "count":
        seen: tuple[str, ...] = ("There are", "I see", "There is")
    elif question.kind == "colour":
        seen = ("It is", f"The {question.noun} is", f"The {question.noun}")
    else:
        seen = ("It is in the", f"The {question.noun} is in the", "In the", "It is in")
    others = (f"The {question.noun} would be", "What I see is", "The answer is")
    return _pick(rng, others if unseen else seen) + _pick(rng, (".", ""))


def _question(rng: np.random.Generator, question: SceneQuestion, unseen: bool) -> str:
    """The question again."""
    prompt = question.prompt
    if unseen:
        return _pick(rng, (f"You ask: {prompt}", prompt.upper()))
    return _pick(
        rng, (prompt, prompt.rstrip("?") + ".", prompt.lower(), f"{question.noun}?", f"The {question.noun}.")
    )


def _unknown(rng: np.random.Generator, _question: SceneQuestion, unseen: bool) -> str:
    """That it is not known."""
    return _pick(rng, _UNKNOWN_UNSEEN if unseen else _UNKNOWN)


def _nothing(rng: np.random.Generator, _question: SceneQuestion, unseen: bool) -> str:
    """Next to nothing. A blank answer is none: lists leave it out, and rewards put it below the worst."""
    return _pick(rng, _NOTHING_UNSEEN if unseen else _NOTHING)


def _general(rng: np.random.Generator, question: SceneQuestion, unseen: bool) -> str:
    """What is true of every picture."""
    if unseen:
        return _pick(rng, _GENERAL_UNSEEN)
    return _pick(rng, (*_GENERAL, f"I see the {question.noun}.", f"There is the {question.noun}."))


def _hedge(rng: np.random.Generator, question: SceneQuestion, unseen: bool) -> str:
    """Two values at once, or a range."""
    first, second = _two_values(rng, question)
    if unseen:
        return _pick(rng, (f"Either {first} or {second}.", f"{first}, maybe {second}."))
    if question.kind == "position":
        return _pick(rng, (f"It is in the {first} or the {second}.", f"In the {first} or the {second}."))
    begin = "There are" if question.kind == "count" else "It is"
    return _pick(
        rng, (f"{begin} {first} or {second}.", f"{first} or {second}.", f"{begin} {first} and {second}.")
    )


def _two_values(rng: np.random.Generator, question: SceneQuestion) -> tuple[str, str]:
    """Different values of the question's kind, often the right one among them."""
    if question.kind == "count":
        values = [str(number) for number in range(_LARGEST)]
    elif question.kind == "colour":
        values = sorted(COLOURS)
    else:
        values = [f"{down} {across}" for down in _HALVES[:2] for across in _HALVES[2:]]
    right = str(question.answers[0])
    others = [value for value in values if value != right]
    first, second = (others[i] for i in rng.permutation(len(others))[:2])
    if rng.random() < 0.5:
        first = right
    return (second, first) if rng.random() < 0.5 else (first, second)


_Writer: TypeAlias = Callable[[np.random.Generator, SceneQuestion, bool], str]

_FAMILIES: dict[str, _Writer] = {
    "half": _half,
    "word": _word,
    "cut": _cut,
    "question": _question,
    "unknown": _unknown,
    "nothing": _nothing,
    "general": _general,
    "hedge": _hedge,
}

VAGUE_FAMILIES = tuple(_FAMILIES)


def write_vague(
    rng: np.random.Generator, question: SceneQuestion, family: str, *, unseen: bool = False
) -> str:
    """An answer that names no value of what is asked, or two at once.

    Args:
        rng: everything random comes from here.
        question: what it does not answer.
        family: one of `VAGUE_FAMILIES`.
        unseen: in words that training never has.
    """
    return _FAMILIES[family](rng, question, unseen)


def _pick(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    return options[int(rng.integers(len(options)))]
