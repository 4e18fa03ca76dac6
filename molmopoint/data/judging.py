"""Questions about synthetic pictures with four answers of graded quality: what the embedded reward model
learns from.

    judgement = sample_judgement(np.random.default_rng([31, 0]))
    judgement.image, judgement.prompt, judgement.responses, judgement.rankings

Three kinds: counts ("How many red circles are there?"), colours ("What colour is the leftmost star?") and
positions ("Where is the blue heart?"). One answer is right. The others are near or far: a count by how much
it is off, a colour by whether anything in the picture has it, a position by how many of its two directions
are wrong. Wording is drawn answer by answer, so it tells nothing.

The pictures are those of `synthetic`; what a judgement is made of is part of the contract of the embedded
reward model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from molmopoint.data.drawing import COLOURS
from molmopoint.data.questions import PLURALS, SceneObject, SceneQuestion
from molmopoint.data.synthetic import Scene, sample_scene
from molmopoint.data.vague import ANCHOR, VAGUE_FAMILIES, write_vague

KINDS = ("count", "colour", "position")
"""What is asked, each as likely; counts stand in where a scene has no clear question of the drawn kind."""

NUM_RESPONSES = 4

_SPOILED = 0.3
"""How likely the last answer is no answer to the question at all."""

_MOST_VAGUE = 3
"""Answers of a list that commit to nothing, where there are any."""

_ANCHORED = 0.25
"""How often one of them is the anchor, which is in every list that a policy is rewarded by."""

_SHORT = 12
"""Characters up to which half an answer may still be one."""

_CLEAR_STEP = 0.06
"""The leftmost is at least this part of the picture's width further left than the next."""

_CLEAR_HALF = 0.05
"""Nothing that a place is asked of lies this close to a middle line, as part of the side."""

_EXTREMES = (("leftmost", 0, 1), ("rightmost", 0, -1), ("topmost", 1, 1), ("lowest", 1, -1))

_T = TypeVar("_T")


@dataclass(frozen=True)
class Judgement:
    """A picture, a question, and answers of known quality.

    Attributes:
        image: RGB.
        prompt: the question.
        responses: four answers, from best to worst; with three vague ones five.
        rankings: of the responses, 1 is best, ties share a rank.
        kind: one of `KINDS`.
        points: (n, 2) float64 x and y in pixels of what the question asks about.
    """

    image: Image.Image
    prompt: str
    responses: tuple[str, ...]
    rankings: tuple[int, ...]
    kind: str
    points: np.ndarray


def sample_judgement(rng: np.random.Generator, held_out: bool = True) -> Judgement:
    """Draws one judgement.

    Args:
        rng: everything random comes from here, so a named seed names a judgement.
        held_out: allow the pairs of colour and shape that `synthetic` keeps for its own test; training uses
            False.
    """
    return judge_scene(rng, sample_scene(rng, held_out, num_queries=0))


def judge_scene(rng: np.random.Generator, scene: Scene) -> Judgement:
    """A question about a scene that is there already, with its answers."""
    return _judgement(rng, scene, ask_about(rng, scene))


def judge_with_vague(rng: np.random.Generator, scene: Scene) -> Judgement:
    """As `judge_scene`, with one to three answers that commit to nothing (`vague`).

    They stand in for wrong answers, of which one at least stays, and share the last rank: whoever says something
    wrong is above whoever says nothing.
    """
    question = ask_about(rng, scene)
    number = int(rng.integers(1, _MOST_VAGUE + 1))
    complete = max(NUM_RESPONSES - number, 2)
    values = question.answers[:complete]
    responses = [write_answer(rng, question.kind, value, question.noun) for value in values]
    vague = [write_vague(rng, question, _pick(rng, VAGUE_FAMILIES)) for _ in range(number)]
    if rng.random() < _ANCHORED:
        vague[0] = ANCHOR
    rankings = (*question.rankings[:complete], *[complete + 1] * number)
    points = _places(question)
    return Judgement(scene.image, question.prompt, (*responses, *vague), rankings, question.kind, points)


def _judgement(rng: np.random.Generator, scene: Scene, question: SceneQuestion) -> Judgement:
    responses = [write_answer(rng, question.kind, answer, question.noun) for answer in question.answers]
    rankings = list(question.rankings)
    if rng.random() < _SPOILED:
        responses[-1] = _spoiled(rng, question)
        rankings[-1] = NUM_RESPONSES
    points = _places(question)
    return Judgement(scene.image, question.prompt, tuple(responses), tuple(rankings), question.kind, points)


def _places(question: SceneQuestion) -> np.ndarray:
    """(n, 2) float64 x and y of what is asked about."""
    return np.array([(item.x, item.y) for item in question.objects], dtype=np.float64).reshape(-1, 2)


def ask_about(rng: np.random.Generator, scene: Scene) -> SceneQuestion:
    """A question about a scene whose answer is clear."""
    makers: dict[str, Callable[[np.random.Generator, Scene], SceneQuestion | None]] = {
        "colour": _colour,
        "position": _position,
    }
    kind = _pick(rng, KINDS)
    question = makers[kind](rng, scene) if kind in makers else None
    return question or _count(rng, scene)


def write_answer(rng: np.random.Generator, kind: str, answer: int | str, noun: str) -> str:
    """A value as a sentence, in a wording drawn from those of its kind."""
    if kind == "count":
        verb = "is" if answer == 1 else "are"
        number = str(answer or "none")
        return _pick(rng, (f"There {verb} {number}.", f"I see {number}.", f"{number.capitalize()}."))
    if kind == "colour":
        return _pick(rng, (f"It is {answer}.", f"The {noun} is {answer}.", f"{str(answer).capitalize()}."))
    return _pick(rng, (f"It is in the {answer}.", f"The {noun} is in the {answer}.", f"In the {answer}."))


def _count(rng: np.random.Generator, scene: Scene) -> SceneQuestion:
    """How many there are; now and then none. The right number is no more likely in the middle of the four
    than at their ends.
    """
    seen = sorted({(item.colour, item.shape) for item in scene.objects})
    colour, shape = _pick(rng, seen)
    form = int(rng.integers(4))
    if form == 0:
        colour = _pick(rng, sorted(COLOURS))  # of another colour: often there are none
    if form == 1:
        members = [item for item in scene.objects if item.shape == shape]
        noun = PLURALS[shape]
    elif form == 2:
        members = [item for item in scene.objects if item.colour == colour]
        noun = f"{colour} {PLURALS['object']}"
    else:
        members = [item for item in scene.objects if (item.colour, item.shape) == (colour, shape)]
        noun = f"{colour} {PLURALS[shape]}"
    right = len(members)
    below = int(rng.integers(min(right, NUM_RESPONSES - 1) + 1))
    numbers = [right - below + i for i in range(NUM_RESPONSES)]
    numbers.sort(key=lambda number: abs(number - right))
    ranks = _ranks([abs(number - right) for number in numbers])
    return SceneQuestion("count", f"How many {noun} are there?", noun, tuple(numbers), ranks, tuple(members))


def _colour(rng: np.random.Generator, scene: Scene) -> SceneQuestion | None:
    """The colour of one object; None where only one colour is there, or no object can be told from the
    others.
    """
    found = _told_apart(rng, scene)
    present = sorted({item.colour for item in scene.objects})
    if found is None or len(present) < 2:
        return None
    noun, item = found
    other = _pick(rng, [colour for colour in present if colour != item.colour])
    absent = [colour for colour in COLOURS if colour not in present]
    order = rng.permutation(len(absent))
    strangers = [absent[i] for i in order[: NUM_RESPONSES - 2]]
    if len(strangers) < NUM_RESPONSES - 2:
        return None
    answers = (item.colour, other, *strangers)
    return SceneQuestion("colour", f"What colour is the {noun}?", noun, answers, (1, 2, 3, 3), (item,))


def _position(rng: np.random.Generator, scene: Scene) -> SceneQuestion | None:
    """The quarter that an object lies in; None where no object is the only one of its kind and clear of the
    middle lines.
    """
    looks = Counter((item.colour, item.shape) for item in scene.objects)
    single = [item for item in scene.objects if looks[item.colour, item.shape] == 1]
    clear = [item for item in single if _is_off_middle(item, scene)]
    if not clear:
        return None
    item = _pick(rng, clear)
    x, y = _place(item, scene)
    across, other_across = _sides_of(x, "left", "right")
    down, other_down = _sides_of(y, "top", "bottom")
    # The right quarter, those with one direction wrong, and the one with both wrong.
    places = [
        f"{down} {across}",
        f"{other_down} {across}",
        f"{down} {other_across}",
        f"{other_down} {other_across}",
    ]
    if rng.random() < 0.5:
        places[1], places[2] = places[2], places[1]
    noun = f"{item.colour} {item.shape}"
    return SceneQuestion("position", f"Where is the {noun}?", noun, tuple(places), (1, 2, 2, 4), (item,))


def _told_apart(rng: np.random.Generator, scene: Scene) -> tuple[str, SceneObject] | None:
    """An object that a phrase without its colour names: the only one of its shape, or the outermost of
    several.
    """
    shape = _pick(rng, sorted({item.shape for item in scene.objects}))
    members = [item for item in scene.objects if item.shape == shape]
    if len(members) == 1:
        return shape, members[0]
    word, axis, sign = _pick(rng, _EXTREMES)
    ranked = sorted(members, key=lambda item: sign * _place(item, scene)[axis])
    first, second = (_place(item, scene)[axis] for item in ranked[:2])
    if abs(second - first) < _CLEAR_STEP:
        return None
    return f"{word} {shape}", ranked[0]


def _spoiled(rng: np.random.Generator, question: SceneQuestion) -> str:
    """What is no answer: one to another question, two answers at once, or half a sentence."""
    other = _pick(rng, [kind for kind in KINDS if kind != question.kind])
    value: int | str = int(rng.integers(7))
    if other == "colour":
        value = _pick(rng, sorted(COLOURS))
    elif other == "position":
        down = _pick(rng, ("top", "bottom"))
        across = _pick(rng, ("left", "right"))
        value = f"{down} {across}"
    stray = write_answer(rng, other, value, "object")
    first = write_answer(rng, question.kind, question.answers[0], question.noun)
    last = write_answer(rng, question.kind, question.answers[-1], question.noun)
    half = first[: len(first) // 2].rstrip() if len(first) > _SHORT else stray
    return _pick(rng, (stray, half, f"{first} {last}", f"{last} {first}"))


def _sides_of(place: float, low: str, high: str) -> tuple[str, str]:
    """The side on which a place from 0 to 1 lies, and the other one."""
    return (high, low) if place > 0.5 else (low, high)


def _ranks(distances: Sequence[int]) -> tuple[int, ...]:
    """Competition ranks of ascending distances."""
    return tuple(1 + sum(other < distance for other in distances) for distance in distances)


def _is_off_middle(item: SceneObject, scene: Scene) -> bool:
    return all(abs(place - 0.5) >= _CLEAR_HALF for place in _place(item, scene))


def _place(item: SceneObject, scene: Scene) -> tuple[float, float]:
    """Where it is, x and y as parts of the picture's sides."""
    return item.x / scene.image.width, item.y / scene.image.height


def _pick(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    return options[int(rng.integers(len(options)))]
