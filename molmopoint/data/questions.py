"""Questions about a synthetic scene, and the objects that answer them.

Six kinds: colour ("the red objects"), shape ("every circle"), both ("the red circles"), size ("the largest
star", "the big squares"), position ("the leftmost star", "the circles in the top half") and count ("How many
red circles are there?"). A question of size or position is asked only where its answer is clear: see
`_CLEAR_SIZE`, `_CLEAR_STEP` and `_CLEAR_HALF`. About a fifth of the questions ask for something that is not
there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np

from molmopoint.data.drawing import COLOURS, SHAPES

Style = Literal["pointing", "point_count"]

KINDS: dict[str, float] = {
    "colour": 0.20,
    "shape": 0.20,
    "both": 0.25,
    "size": 0.10,
    "position": 0.10,
    "count": 0.15,
}
"""Share of each kind of question."""

ABSENT = 0.22
"""Share of questions that try to ask for something absent (a size or place may find everything present)."""

PLURALS = {shape: "crosses" if shape == "cross" else f"{shape}s" for shape in (*SHAPES, "object")}
EVERYTHING = ("objects", "things", "shapes")
"""Words that name any object."""

_CLEAR_SIZE = 1.2
"""The largest is at least this many times the next (nominal sides)."""
_CLEAR_STEP = 0.06
"""The leftmost is at least this part of the picture's width further left than the next."""
_CLEAR_HALF = 0.05
"""Nothing that is asked for lies this close to the middle line, as part of the side."""
_TRIES = 60


_T = TypeVar("_T")


@dataclass(frozen=True)
class SceneObject:
    """One shape of a scene.

    Attributes:
        colour: a key of COLOURS.
        shape: one of SHAPES.
        size: nominal side as part of the picture's short side.
        size_name: "small", "medium" or "big".
        x: pixels, the point it is pointed at.
        y: the same, downwards.
        mask: (height, width) bool, the pixels of it that can be seen.
    """

    colour: str
    shape: str
    size: float
    size_name: str
    x: float
    y: float
    mask: np.ndarray


@dataclass(frozen=True)
class SceneQuestion:
    """A question about a scene, with what tells right from wrong.

    Attributes:
        kind: one of `judging.KINDS`.
        prompt: the question.
        noun: what it asks about, plural for counts.
        answers: values from best to worst, such as 3, "red" or "top left"; the first one is right.
        rankings: of the answers, 1 is best, ties share a rank and the next one counts them ("1, 2, 2, 4").
        objects: what it asks about; empty where the right number is none.
    """

    kind: str
    prompt: str
    noun: str
    answers: tuple[int | str, ...]
    rankings: tuple[int, ...]
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True)
class SceneTarget:
    """One thing to point at: pixels x and y, inside `mask` (height, width), its visible pixels."""

    x: float
    y: float
    mask: np.ndarray


@dataclass(frozen=True)
class Query:
    """A question and its answer.

    Attributes:
        prompt: what a user types to `pointer.point`.
        targets: what to point at, empty if there is no such thing.
        kind: a key of KINDS.
        label: the phrase that an answer closes with.
        style: form of the answer: a point list, or points and then their number.
        held_out: the prompt names a pair of colour and shape that was never trained.
    """

    prompt: str
    targets: tuple[SceneTarget, ...]
    kind: str
    label: str
    style: Style = "pointing"
    held_out: bool = False


@dataclass(frozen=True)
class Named:
    """A noun phrase, and what it names.

    Attributes:
        phrase: as a user types it, "all the red circles".
        label: as an answer repeats it, "red circles".
        chosen: the objects it names, empty if there is no such thing.
        held_out: it names a pair of colour and shape that was never trained.
    """

    phrase: str
    label: str
    chosen: tuple[Any, ...]
    held_out: bool = False


@dataclass(frozen=True)
class Namer:
    """Finds words for objects by their look, present or absent; methods return None where there is no such
    object.

    Args:
        rng: source of chance.
        objects: what can be seen; anything with a colour and a shape.
        hidden: pairs of colour and shape that mark a phrase as held out.
        allow_hidden: whether an absent pair may be one of them.
    """

    rng: np.random.Generator
    objects: Sequence[Any]
    hidden: Collection[tuple[str, str]]
    allow_hidden: bool

    def pick(self, options: Sequence[_T]) -> _T:
        """One of the options."""
        return options[int(self.rng.integers(len(options)))]

    def named(self, kind: str, absent: bool) -> Named | None:
        """A phrase by "colour", by "shape", or by "both"."""
        words = self.words(kind, absent)
        return self.phrase(*words) if words else None

    def words(self, kind: str, absent: bool) -> tuple[str | None, str | None] | None:
        """Colour and shape that the kind asks for."""
        return {"colour": self._colour, "shape": self._shape, "both": self._pair}[kind](absent)

    def phrase(self, colour: str | None, shape: str | None, only_plural: bool = False) -> Named:
        """Words around a colour, a shape or both."""
        chosen = tuple(
            item for item in self.objects if colour in (None, item.colour) and shape in (None, item.shape)
        )
        held_out = (colour, shape) in self.hidden
        front = f"{colour} " if colour else ""
        noun = PLURALS[shape] if shape else self.pick(EVERYTHING)
        plural = front + noun
        if shape and not only_plural:
            singular = front + shape
            if len(chosen) < 2 and self.rng.random() < 0.4:
                return Named(f"the {singular}", singular, chosen, held_out)
            if self.rng.random() < 0.15:
                determiner = self.pick(("every", "each"))
                return Named(f"{determiner} {singular}", singular, chosen, held_out)
        return Named(self.determine(plural), plural, chosen, held_out)

    def determine(self, plural: str) -> str:
        """A plural behind some determiner, or bare."""
        return self.pick(("the {}", "the {}", "all {}", "all the {}", "{}")).format(plural)

    def _colour(self, absent: bool) -> tuple[str, None] | None:
        present = {item.colour for item in self.objects}
        options = [name for name in COLOURS if (name in present) != absent]
        return (self.pick(options), None) if options else None

    def _shape(self, absent: bool) -> tuple[None, str] | None:
        present = {item.shape for item in self.objects}
        options = [name for name in SHAPES if (name in present) != absent]
        return (None, self.pick(options)) if options else None

    def _pair(self, absent: bool) -> tuple[str, str] | None:
        """A colour and a shape; an absent pair is made of words that are there in half of the cases."""
        present = sorted({(item.colour, item.shape) for item in self.objects})
        if not absent:
            return self.pick(present)
        colours, shapes = list(COLOURS), list(SHAPES)
        if self.rng.random() < 0.5:
            colours = sorted({colour for colour, _ in present})
            shapes = sorted({shape for _, shape in present})
        pair = (self.pick(colours), self.pick(shapes))
        is_forbidden = pair in self.hidden and not self.allow_hidden
        return None if pair in present or is_forbidden else pair


@dataclass(frozen=True)
class _QuestionMaker(Namer):
    """Draws questions about one scene; methods return None where chance proposed an unclear question."""

    size: tuple[int, int]
    makers: dict[str, Callable[[bool], Query | None]] = field(init=False)

    def __post_init__(self) -> None:
        makers: dict[str, Callable[[bool], Query | None]] = {
            kind: partial(self.by_look, kind) for kind in ("colour", "shape", "both")
        }
        object.__setattr__(
            self, "makers", makers | {"size": self.by_size, "position": self.by_place, "count": self.count}
        )

    def draw(self, kind: str) -> Query | None:
        return self.makers[kind](self.rng.random() < ABSENT)

    def by_look(self, kind: str, absent: bool) -> Query | None:
        named = self.named(kind, absent)
        return named and self._query(named.phrase, kind, named.label, named.chosen, named.held_out)

    def count(self, absent: bool) -> Query | None:
        draw = self.rng.random()
        kind = "shape"
        if draw < 0.6:
            kind = "both"
        elif draw < 0.8:
            kind = "colour"
        words = self.words(kind, absent)
        if words is None:
            return None
        named = self.phrase(*words, only_plural=True)
        question = self.pick(("How many {} are there?", "How many {} can you see?", "Count the {}.")).format(
            named.label
        )
        targets = tuple(SceneTarget(item.x, item.y, item.mask) for item in named.chosen)
        return Query(question, targets, "count", named.label, "point_count", named.held_out)

    def by_size(self, absent: bool) -> Query | None:
        """Superlatives ("the largest star") and names ("the big stars")."""
        singular, plural, among = self._noun(absent)
        if self.rng.random() < 0.5:
            word, sign = self.pick((("largest", 1), ("biggest", 1), ("smallest", -1)))
            ranked = sorted(among, key=lambda item: -sign * item.size)
            if len(ranked) == 1:
                return None
            if ranked:
                smaller, larger = sorted([ranked[0].size, ranked[1].size])
                if larger < _CLEAR_SIZE * smaller:
                    return None
            return self._query(f"the {word} {singular}", "size", f"{word} {singular}", ranked[:1])
        word, name = self.pick((("big", "big"), ("large", "big"), ("small", "small")))
        chosen = [item for item in among if item.size_name == name]
        if bool(chosen) == absent:
            return None
        return self._query(self.determine(f"{word} {plural}"), "size", f"{word} {plural}", chosen)

    def by_place(self, absent: bool) -> Query | None:
        """Extremes ("the leftmost star") and halves ("the stars in the top half")."""
        singular, plural, among = self._noun(absent)
        if self.rng.random() < 0.5:
            words = (("leftmost", 0, 1), ("rightmost", 0, -1), ("topmost", 1, 1), ("lowest", 1, -1))
            word, axis, sign = self.pick(words)
            ranked = sorted(among, key=lambda item: sign * self._place(item)[axis])
            if len(ranked) == 1:
                return None
            if ranked:
                first, second = (self._place(item)[axis] for item in ranked[:2])
                if abs(second - first) < _CLEAR_STEP:
                    return None
            return self._query(f"the {word} {singular}", "position", f"{word} {singular}", ranked[:1])
        where, axis, sign = self.pick((("left", 0, 1), ("right", 0, -1), ("top", 1, 1), ("bottom", 1, -1)))
        if any(abs(self._place(item)[axis] - 0.5) < _CLEAR_HALF for item in among):
            return None
        chosen = [item for item in among if sign * (self._place(item)[axis] - 0.5) < 0]
        if bool(chosen) == absent:
            return None
        label = f"{plural} in the {where} half"
        return self._query(f"the {label}", "position", label, chosen)

    def _noun(self, absent: bool) -> tuple[str, str, list[SceneObject]]:
        """Singular, plural and members of something that sizes and places are asked of."""
        if self.rng.random() < 0.25:
            return "object", "objects", list(self.objects)
        present = sorted({item.shape for item in self.objects})
        any_shape = absent and self.rng.random() < 0.4
        name = self.pick(SHAPES if any_shape else present)
        members = [item for item in self.objects if item.shape == name]
        return name, PLURALS[name], members

    def _place(self, item: SceneObject) -> tuple[float, float]:
        return item.x / self.size[0], item.y / self.size[1]

    def _query(
        self, prompt: str, kind: str, label: str, chosen: Sequence[SceneObject], held_out: bool = False
    ) -> Query:
        targets = tuple(SceneTarget(item.x, item.y, item.mask) for item in chosen)
        return Query(prompt, targets, kind, label, held_out=held_out)


def ask(
    rng: np.random.Generator,
    objects: Sequence[SceneObject],
    size: tuple[int, int],
    number: int,
    hidden: Collection[tuple[str, str]] = (),
    allow_hidden: bool = True,
) -> tuple[Query, ...]:
    """Questions about a scene, no two with the same prompt.

    Args:
        rng: source of chance.
        objects: what is in the picture.
        size: (width, height) of the picture in pixels.
        number: how many questions; fewer if chance finds no more clear ones.
        hidden: pairs of colour and shape that mark a question as held out.
        allow_hidden: whether an absent pair may be one of them.
    """
    maker = _QuestionMaker(rng, objects, hidden, allow_hidden, size)
    kinds, edges = list(KINDS), np.cumsum(list(KINDS.values()))
    queries: dict[str, Query] = {}
    while len(queries) < number:
        number_of_kind = int(np.searchsorted(edges, rng.random(), side="right"))
        kind = kinds[min(number_of_kind, len(kinds) - 1)]
        for _ in range(_TRIES):
            query = maker.draw(kind)
            if query is not None and query.prompt not in queries:
                queries[query.prompt] = query
                break
    return tuple(queries.values())
