"""Questions about a synthetic clip, and the objects that answer them.

Four kinds: colour ("the red objects"), shape ("every circle"), both ("the red circles") and motion ("the
moving shapes", "the stars that move left", "the circle that enters"). Each of them is asked as a request to
point or to track. A question names at most `MAX_TARGETS` objects, and about one in seven tries to ask for
something that is not there.

Letters: T frames of the clip.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from molmopoint.data.drawing import SHAPES
from molmopoint.data.questions import EVERYTHING, PLURALS, Named, Namer

ClipStyle = Literal["pointing", "track"]
Motion = Literal["still", "left", "right", "up", "down"]

CLIP_KINDS: dict[str, float] = {"colour": 0.20, "shape": 0.20, "both": 0.30, "motion": 0.30}
"""Share of each kind of question."""

MAX_TARGETS = 4
"""Objects that a question names at most."""

ABSENT_IN_CLIP = 0.15
"""Share of questions that ask for something absent."""

_TRIES = 60

_MOTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "moving": (("the moving {}", "moving {}"), ("the {} that move", "{} that move")),
    "still": (("the still {}", "still {}"), ("the {} that stay still", "{} that stay still")),
    "left": (("the {} that move left", "{} that move left"),),
    "right": (("the {} that move right", "{} that move right"),),
    "up": (("the {} that move up", "{} that move up"),),
    "down": (("the {} that move down", "{} that move down"),),
    "enters": (("the {} that enter", "{} that enter"),),
    "leaves": (("the {} that leave", "{} that leave"),),
}
"""Phrases and labels by what the objects do. Of a single object the verb takes an s."""


@dataclass(frozen=True, eq=False)
class ClipObject:
    """One shape of a clip.

    Attributes:
        colour: a key of COLOURS.
        shape: one of SHAPES.
        size: nominal side as part of the frames' short side.
        motion: what it does all the time.
        enters: it comes from outside of the picture.
        leaves: it goes out of the picture.
        xy: (T, 2) float64 pixels, the point it is pointed at, also where that is outside or covered.
        visible: (T,) bool, the pixels around its point can be seen.
        masks: (T, height, width) bool, the pixels of it that can be seen.
    """

    colour: str
    shape: str
    size: float
    motion: Motion
    enters: bool
    leaves: bool
    xy: np.ndarray
    visible: np.ndarray
    masks: np.ndarray

    def does(self, what: str) -> bool:
        """Whether it does one of the things that questions of motion ask for."""
        done = {"moving": self.motion != "still", "enters": self.enters, "leaves": self.leaves}
        return done.get(what, self.motion == what)


@dataclass(frozen=True, eq=False)
class SeenPoints:
    """Points of an answer, n of them, in the order of frames.

    Attributes:
        frame: (n,) int64.
        target: (n,) int64, number of the object among the targets of the question.
        xy: (n, 2) float64 pixels.
    """

    frame: np.ndarray
    target: np.ndarray
    xy: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True, eq=False)
class ClipQuery:
    """A question about a clip and its answer.

    Attributes:
        prompt: the noun phrase, "the red circles".
        targets: what it names, empty if there is no such thing.
        kind: a key of CLIP_KINDS.
        label: the phrase that an answer closes with.
        style: whether objects are pointed at once each, where they are seen first, or tracked.
        held_out: the prompt names a pair of colour and shape that was never trained.
    """

    prompt: str
    targets: tuple[ClipObject, ...]
    kind: str
    label: str
    style: ClipStyle
    held_out: bool = False

    def request(self, fps: float | None = None) -> str:
        """What is sent: "Point to the red circles", "Track the red circles at 2 FPS"; without `fps` no rate
        is named.
        """
        if self.style == "pointing":
            return f"Point to {self.prompt}"
        return f"Track {self.prompt}" if fps is None else f"Track {self.prompt} at {fps:g} FPS"

    def points(self) -> SeenPoints:
        """The answer: every moment at which a target can be seen, or the first one of each where objects are
        pointed at.
        """
        if not self.targets:
            return SeenPoints(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty((0, 2)))
        asked = np.stack([target.visible for target in self.targets])  # (targets, T)
        if self.style == "pointing":
            asked = asked & (asked.cumsum(axis=1) == 1)
        frame, target = np.nonzero(asked.T)
        xy = np.stack([item.xy for item in self.targets])  # (targets, T, 2)
        return SeenPoints(frame, target, xy[target, frame])


def ask_about_clip(
    rng: np.random.Generator,
    objects: Sequence[ClipObject],
    number: int,
    hidden: Collection[tuple[str, str]] = (),
    allow_hidden: bool = True,
) -> tuple[ClipQuery, ...]:
    """Questions about a clip, no two with the same phrase and style.

    Args:
        rng: source of chance.
        objects: what can be seen in the clip.
        number: how many questions.
        hidden: pairs of colour and shape that mark a question as held out.
        allow_hidden: whether an absent pair may be one of them.
    """
    namer = Namer(rng, objects, hidden, allow_hidden)
    kinds, edges = list(CLIP_KINDS), np.cumsum(list(CLIP_KINDS.values()))
    queries: dict[tuple[str, str], ClipQuery] = {}
    while len(queries) < number:
        number_of_kind = int(np.searchsorted(edges, rng.random(), side="right"))
        kind = kinds[min(number_of_kind, len(kinds) - 1)]
        style: ClipStyle = "track" if rng.random() < 0.5 else "pointing"
        absent = bool(rng.random() < ABSENT_IN_CLIP)
        for _ in range(_TRIES):
            named = _by_motion(namer, absent) if kind == "motion" else namer.named(kind, absent)
            if named and len(named.chosen) <= MAX_TARGETS and (named.phrase, style) not in queries:
                query = ClipQuery(named.phrase, named.chosen, kind, named.label, style, named.held_out)
                queries[named.phrase, style] = query
                break
    return tuple(queries.values())


def _by_motion(namer: Namer, absent: bool) -> Named | None:
    """A phrase by what objects do; None where that is there but should not be, or the other way round."""
    what = namer.pick(tuple(_MOTIONS))
    shape = None
    if namer.rng.random() < 0.35:
        present = sorted({item.shape for item in namer.objects})
        shape = namer.pick(SHAPES if absent else present)
    chosen = tuple(item for item in namer.objects if item.does(what) and shape in (None, item.shape))
    if bool(chosen) == absent:
        return None
    phrase, label = namer.pick(_MOTIONS[what])
    if len(chosen) < 2 and namer.rng.random() < 0.4:
        noun = shape or namer.pick(EVERYTHING)[:-1]
        phrase, label = _of_one(phrase), _of_one(label)
    else:
        noun = PLURALS[shape] if shape else namer.pick(EVERYTHING)
    return Named(phrase.format(noun), label.format(noun), chosen)


def _of_one(text: str) -> str:
    """What is said of several objects, said of one: "{} that moves left"."""
    for verb in ("move", "stay", "enter", "leave"):
        text = text.replace(f"that {verb}", f"that {verb}s")
    return text
