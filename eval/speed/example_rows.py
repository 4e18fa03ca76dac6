"""Examples for measuring how rows are filled: mixtures of lengths, and training rows made of them.

Rows have real layouts, real trees and real packing; ids and pixels are made up.

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

Letters: P image tokens, K slots per image token, G ViT patches per crop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from molmopoint.config import MolmoPointConfig
from molmopoint.eval.speed.subjects import WORD, frame_pooling, picture_ids
from molmopoint.processing import MolmoPointImageProcessor
from molmopoint.processing.grounding_answers import EncodedText
from molmopoint.processing.image_processor import CropLayout, crop_layout
from molmopoint.processing.message_tree import MessageTree, Turn, build_row
from molmopoint.processing.rows import Row, join_pooling
from molmopoint.tokens import NO_MORE_POINTS, NO_SELECTION
from molmopoint.training.packing import ExampleSize

Limits = tuple[int, int]
"""Least and most."""

PROMPT_TOKENS: Limits = (12, 40)
"""Of a request with its chat frame."""
TOKENS_PER_POINT = 4
"""Patch, slot, location and number."""
LIST_TOKENS = 11
"""Of a list of points beside its points: ten of its frame, and one more patch token at its end."""
PICTURES = ((640, 480), (800, 600), (480, 640), (1024, 768), (1920, 1080), (400, 400), (300, 900))
"""Width and height, each as likely."""
FEW_CROPS, MANY_CROPS = 8, 24
FRAME_WINDOW = 3
"""Rows and columns of ViT patches of a frame that make one image token."""
FRAME_TOKENS = 5
"""Tokens of a frame beside its image tokens: time, start and end."""
END = 2
"""Id that ends an answer."""
_MADE_SLOT, _MADE_CELL = 0, 4
"""What made points choose."""
_NOISE_CROPS = 160
"""Crops of made pixels; no example has more."""


@dataclass(frozen=True)
class ExampleKind:
    """A kind of example.

    Attributes:
        name: of it.
        shares: of the mixtures, in the order of `MIXTURES`.
        pictures: how many.
        frames: of a clip; None for pictures or text.
        expressions: per example.
        answer: tokens; None where the answer is points.
        points: of an expression.
        large: part of the examples with pictures of up to 24 crops instead of 8.
    """

    name: str
    shares: tuple[float, float]
    pictures: Limits = (1, 1)
    frames: Limits | None = None
    expressions: Limits = (1, 1)
    answer: Limits | None = None
    points: Limits = (0, 10)
    large: float = 0.0


MIXTURES = ("own data", "published")
KINDS = (
    ExampleKind("few points", (0.40, 0.05), expressions=(1, 8), large=0.3),
    ExampleKind("many points", (0.10, 0.02), expressions=(1, 3), points=(11, 60), large=0.3),
    ExampleKind("picture questions", (0.20, 0.25), expressions=(1, 6), answer=(2, 20)),
    ExampleKind("captions, long answers", (0.08, 0.12), expressions=(1, 2), answer=(80, 400)),
    ExampleKind("several pictures", (0.06, 0.04), pictures=(2, 5), expressions=(1, 3), answer=(2, 60)),
    ExampleKind(
        "clip questions", (0.04, 0.20), pictures=(0, 0), frames=(16, 128), expressions=(1, 4), answer=(2, 60)
    ),
    ExampleKind(
        "clip points, tracks",
        (0.04, 0.22),
        pictures=(0, 0),
        frames=(16, 128),
        expressions=(1, 3),
        points=(1, 60),
    ),
    ExampleKind("text", (0.08, 0.10), pictures=(0, 0), answer=(100, 1500)),
)


@dataclass(frozen=True)
class DrawnExample:
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


def draw(rng: np.random.Generator, mixture: str, scale: float = 1.0) -> DrawnExample:
    """An example of a mixture.

    Args:
        rng: decides everything.
        mixture: one of `MIXTURES`.
        scale: factor of all text lengths and of the frames, for models with smaller pictures.
    """
    number = MIXTURES.index(mixture)
    kind = KINDS[int(rng.choice(len(KINDS), p=[kind.shares[number] for kind in KINDS]))]
    sizes = rng.integers(len(PICTURES), size=_between(kind.pictures, rng))
    is_large = rng.random() < kind.large
    frames = 0
    if kind.frames is not None:
        frames = max(1, round(scale * _between(kind.frames, rng)))
    expressions = []
    for _ in range(_between(kind.expressions, rng)):
        prompt = _between(PROMPT_TOKENS, rng)
        answer = _answer_tokens(kind, rng)
        expressions.append((max(2, round(scale * prompt)), max(2, round(scale * answer))))
    return DrawnExample(
        points=kind.answer is None,
        pictures=tuple(PICTURES[i] for i in sizes),
        max_crops=MANY_CROPS if is_large else FEW_CROPS,
        frames=frames,
        expressions=tuple(expressions),
    )


def _between(limits: Limits, rng: np.random.Generator) -> int:
    least, most = limits
    return int(rng.integers(least, most + 1))


def _answer_tokens(kind: ExampleKind, rng: np.random.Generator) -> int:
    if kind.answer is not None:
        return _between(kind.answer, rng)
    return LIST_TOKENS + TOKENS_PER_POINT * _between(kind.points, rng)


class RowMaker:
    """Makes training rows of drawn examples for one model.

    Args:
        config: of the model.
        processor: supplies tiling and pooling of pictures.
    """

    def __init__(self, config: MolmoPointConfig, processor: MolmoPointImageProcessor) -> None:
        self.config = config
        self.crop_size = int(processor.size["height"])
        self.patch_size = int(processor.patch_size)
        self.side = self.crop_size // self.patch_size
        left, right = processor.overlap_margins
        self.margins = (int(left), int(right))
        rows, columns = processor.pooling_size
        self.window = (int(rows), int(columns))
        generator = torch.Generator().manual_seed(0)
        shape = (_NOISE_CROPS, self.side**2, 3 * self.patch_size**2)
        self._noise = torch.rand(shape, generator=generator) * 2 - 1

    def layout(self, size: tuple[int, int], max_crops: int) -> CropLayout:
        """Crops and image tokens of a picture of (width, height)."""
        width, height = size
        return crop_layout(
            height, width, max_crops, self.crop_size, self.patch_size, self.margins, self.window
        )

    def size(self, drawn: DrawnExample) -> ExampleSize:
        """Tokens and crops of an example as one tree."""
        tokens = 1
        crops = drawn.frames
        for size in drawn.pictures:
            layout = self.layout(size, drawn.max_crops)
            tokens += len(picture_ids(self.config, list(layout.grid)))
            crops += layout.num_crops
        tokens += drawn.frames * (FRAME_TOKENS + (self.side // FRAME_WINDOW) ** 2)
        for prompt, answer in drawn.expressions:
            tokens += prompt + answer
        return ExampleSize(tokens, crops)

    def row(self, drawn: DrawnExample) -> Row:
        """An example as one tree."""
        trunk = self._trunk(drawn)
        branches = []
        for prompt, answer in drawn.expressions:
            branches.append([Turn(_words(prompt), self._answer(answer, trunk, drawn.points))])
        return build_row(MessageTree(trunk, branches), END)

    def rows_of_expressions(self, drawn: DrawnExample) -> list[Row]:
        """An example as one row per expression, each with the pictures."""
        return [self.row(replace(drawn, expressions=(each,))) for each in drawn.expressions]

    def _trunk(self, drawn: DrawnExample) -> Row:
        config = self.config
        ids: list[int] = [WORD]
        tables, counts = [], []
        for size in drawn.pictures:
            layout = self.layout(size, drawn.max_crops)
            ids += picture_ids(config, list(layout.grid))
            tables.append(layout.pooling)
            counts.append(layout.num_crops * self.side**2)
        if drawn.frames:
            table = frame_pooling(drawn.frames, self.side, FRAME_WINDOW)  # (P, K)
            image_tokens = len(table) // drawn.frames
            time = [WORD] * (FRAME_TOKENS - 2)
            image = [config.image_patch_id] * image_tokens
            frame = [*time, config.frame_start_token_id, *image, config.frame_end_token_id]
            ids += frame * drawn.frames
            tables.append(table)
            counts.append(drawn.frames * self.side**2)
        tokens = torch.tensor(ids)
        types = torch.isin(tokens, torch.tensor(config.vision_token_ids)).long()
        if not tables:
            return Row(tokens, types)
        crops = sum(counts) // self.side**2
        return Row(tokens, types, self._noise[:crops], join_pooling(tables, counts))

    def _answer(self, length: int, trunk: Row, pointing: bool) -> EncodedText:
        """Words, or as many points as fit and one more patch token, spread over the image tokens."""
        if not pointing or trunk.pooling is None:
            return _words(length)
        can_be_chosen = np.flatnonzero(self._indexable(trunk))
        count = max(0, (length - 2) // TOKENS_PER_POINT)
        places = np.linspace(0, len(can_be_chosen) - 1, count).astype(int)
        config = self.config
        ids = [WORD]
        selections = [NO_SELECTION]
        for patch in can_be_chosen[places].tolist():
            ids += [config.patch_token_id, config.subpatch_token_id, config.location_token_id, WORD]
            selections += [patch, _MADE_SLOT, _MADE_CELL, NO_SELECTION]
        ids.append(config.patch_token_id)
        selections.append(NO_MORE_POINTS)
        return EncodedText(np.array(ids), np.array(selections))

    def _indexable(self, trunk: Row) -> np.ndarray:
        """(P,) bool: whether a point may choose an image token of the trunk."""
        ids = trunk.input_ids.numpy()
        is_image = np.isin(ids, (self.config.image_patch_id, self.config.image_non_indexable_patch_id))
        return ids[is_image] == self.config.image_patch_id


def _words(count: int) -> EncodedText:
    return EncodedText(np.full(count, WORD), np.full(count, NO_SELECTION))
