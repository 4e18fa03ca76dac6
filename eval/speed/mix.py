"""Mixtures of examples for measuring how rows are filled: what is asked of what, and how long it is.

| kind | own data | published | visual input | expressions | answer tokens |
| --- | --- | --- | --- | --- | --- |
| few points | 0.40 | 0.05 | one picture, in 3 of 10 cases of up to 24 crops | 1 to 8 | 4 per point, 0 to 10 points |
| many points | 0.10 | 0.02 | the same | 1 to 3 | 4 per point, 11 to 60 points |
| picture questions | 0.20 | 0.25 | one picture | 1 to 6 | 2 to 20 |
| captions, long answers | 0.08 | 0.12 | one picture | 1 or 2 | 80 to 400 |
| several pictures | 0.06 | 0.04 | 2 to 5 pictures | 1 to 3 | 2 to 60 |
| clip questions | 0.04 | 0.20 | a clip of 16 to 128 frames | 1 to 4 | 2 to 60 |
| clip points, tracks | 0.04 | 0.22 | a clip of 16 to 128 frames | 1 to 3 | 4 per point, 1 to 60 points |
| text | 0.08 | 0.10 | none | 1 | 100 to 1500 |

"own data" is mostly pictures to point at, as in fine-tuning on data of one's own. "published" has the shares
of the published fine-tuning, two fifths clips. Lengths are ours; a picture with points has about four
expressions, as published.

Source of the published shares: Molmo2 and MolmoPoint reports.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PROMPT_TOKENS = (12, 40)
"""Least and most tokens of a request with its chat frame."""
TOKENS_PER_POINT = 4
"""Patch, slot, location and number."""
PICTURES = ((640, 480), (800, 600), (480, 640), (1024, 768), (1920, 1080), (400, 400), (300, 900))
"""Width and height, each as likely."""


@dataclass(frozen=True)
class Kind:
    """A kind of example.

    Attributes:
        name: of it.
        shares: of the mixtures, in the order of `MIXTURES`.
        pictures: least and most.
        frames: least and most of a clip; None for pictures or text.
        expressions: least and most per example.
        answer: least and most tokens; None where the answer is points.
        points: least and most points of an expression.
        large: part of the examples with pictures of up to 24 crops instead of 8.
    """

    name: str
    shares: tuple[float, float]
    pictures: tuple[int, int] = (1, 1)
    frames: tuple[int, int] | None = None
    expressions: tuple[int, int] = (1, 1)
    answer: tuple[int, int] | None = None
    points: tuple[int, int] = (0, 10)
    large: float = 0.0


MIXTURES = ("own data", "published")
KINDS = (
    Kind("few points", (0.40, 0.05), expressions=(1, 8), large=0.3),
    Kind("many points", (0.10, 0.02), expressions=(1, 3), points=(11, 60), large=0.3),
    Kind("picture questions", (0.20, 0.25), expressions=(1, 6), answer=(2, 20)),
    Kind("captions, long answers", (0.08, 0.12), expressions=(1, 2), answer=(80, 400)),
    Kind("several pictures", (0.06, 0.04), pictures=(2, 5), expressions=(1, 3), answer=(2, 60)),
    Kind("clip questions", (0.04, 0.20), pictures=(0, 0), frames=(16, 128), expressions=(1, 4), answer=(2, 60)),
    Kind("clip points, tracks", (0.04, 0.22), pictures=(0, 0), frames=(16, 128), expressions=(1, 3), points=(1, 60)),
    Kind("text", (0.08, 0.10), pictures=(0, 0), answer=(100, 1500)),
)


@dataclass(frozen=True)
class Drawn:
    """One example, as lengths.

    Attributes:
        points: whether it is asked to point.
        pictures: (width, height) of each.
        max_crops: of each picture, the overview not counted.
        frames: of its clip, 0 without.
        expressions: (tokens of the request, tokens of the answer) of each.
    """

    points: bool
    pictures: tuple[tuple[int, int], ...]
    max_crops: int
    frames: int
    expressions: tuple[tuple[int, int], ...]


def draw(rng: np.random.Generator, mixture: str, scale: float = 1.0) -> Drawn:
    """An example of a mixture.

    Args:
        rng: decides everything.
        mixture: one of `MIXTURES`.
        scale: factor of all text lengths and of the frames, for models with smaller pictures.
    """
    kind = KINDS[int(rng.choice(len(KINDS), p=[kind.shares[MIXTURES.index(mixture)] for kind in KINDS]))]
    sizes = rng.integers(len(PICTURES), size=int(rng.integers(kind.pictures[0], kind.pictures[1] + 1)))
    large = rng.random() < kind.large
    frames = 0 if kind.frames is None else max(1, round(scale * int(rng.integers(kind.frames[0], kind.frames[1] + 1))))
    expressions = []
    for _ in range(int(rng.integers(kind.expressions[0], kind.expressions[1] + 1))):
        prompt, answer = int(rng.integers(PROMPT_TOKENS[0], PROMPT_TOKENS[1] + 1)), _answer(kind, rng)
        expressions.append((max(2, round(scale * prompt)), max(2, round(scale * answer))))
    return Drawn(kind.answer is None, tuple(PICTURES[i] for i in sizes), 24 if large else 8, frames, tuple(expressions))


def _answer(kind: Kind, rng: np.random.Generator) -> int:
    """Tokens of an answer; a list of points has a frame of ten tokens and ends with one more patch token."""
    if kind.answer is not None:
        return int(rng.integers(kind.answer[0], kind.answer[1] + 1))
    return 11 + TOKENS_PER_POINT * int(rng.integers(kind.points[0], kind.points[1] + 1))
