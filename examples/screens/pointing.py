"""Second stage: the whole model learns to answer questions with points.

One training example is a message tree: one page and several questions about it, cut into crops as the
processor cuts it. A small page has one tile that is equal to its overview, so the vision transformer runs
once. Every so many steps, if such pages were drawn, a large one takes the place of the small ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nano.dense import take_over
from nano.loop import ShardStream, Stage, train
from nano.pointing import build_model, metrics_of, selections_of
from PIL import Image
from torch import Tensor

from molmopoint.backends.molmopoint import MolmoPointBackend
from molmopoint.backends.options import complete_prompt
from molmopoint.geometry import points_to_triples
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.grounding_answers import EncodedText, encode_answer, write_answer
from molmopoint.processing.message_tree import MessageTree, Turn, build_row
from molmopoint.processing.rows import Row, collate
from molmopoint.tokens import NO_MORE_POINTS, NO_SELECTION
from molmopoint.training.precision import autocast
from molmopoint.training.prepare import share_equal_crops
from screens.alignment import Alignment
from screens.dense import DenseModel, dense_head, dense_loss, moved, pages_of, targets_of
from screens.drawing import SHARDS, decode
from screens.files import build_tokenizer, screens_config, write_files
from screens.labels import PageLabels, element_vector, vector_of
from screens.settings import CROP, ScreenSettings

LARGE = ("square", "phone", "desktop")
"""Folders of larger pages, if they were drawn."""
_SENTENCES = ("Find {}", "Click on {}", "Click {}", "Locate {}", "Where is {}?", "Show me {}")
_REPHRASED = 0.15
"""Share of noun phrases that are not asked as "Point to ..."."""
_FIRST = ("type", "colour", "icon", "state")
"""Kinds of questions that are asked from the beginning."""
_MOST_POINTS = 30


@dataclass(frozen=True)
class Page:
    """A training example, and what `alignment` compares it with.

    Attributes:
        row: for the model.
        named: (Q, SIZE) what the question of each PATCH token names.
        tokens: (T,) image tokens of the row in which points of elements lie.
        there: (T, SIZE) what stands there.
        labels: of each patch; None for large pages.
    """

    row: Row
    named: np.ndarray
    tokens: np.ndarray
    there: np.ndarray
    labels: PageLabels | None


class Examples:
    """Turns pages of shards into training examples.

    Args:
        folder: with tokenizer and processor files.
        settings: of the run.
    """

    def __init__(self, folder: Path, settings: ScreenSettings) -> None:
        self.processor = MolmoPointProcessor.from_pretrained(folder)
        self.tokenizer, self.settings = self.processor.tokenizer, settings
        self.backend = MolmoPointBackend(self.processor)
        self.template = cache(self._template)

    def page(
        self, png: bytes, row: dict[str, Any], rng: np.random.Generator, kinds: tuple[str, ...] | None
    ) -> Page | None:
        """An example; None for pages about which nothing is asked."""
        pixels = decode(png)
        is_small = pixels.shape[:2] == (CROP, CROP)
        limit = self.settings.shift
        by = (
            (int(rng.integers(-limit, limit + 1)), int(rng.integers(-limit, limit + 1)))
            if is_small
            else (0, 0)
        )
        pixels = moved(pixels, by) if is_small else pixels
        media = self.backend.requests.process_images(Image.fromarray(pixels))
        trunk = self.backend.requests.build_trunk(media)
        high, wide = pixels.shape[:2]
        chosen = self._choose(row["queries"], by, (wide, high), rng, kinds)
        if not chosen:
            return None
        turns, named = [], []
        for query in chosen:
            triples = points_to_triples(
                np.zeros(len(query["points"])), np.array(query["points"]).reshape(-1, 2) + by, media.metadata
            )
            turns.append((self.turn(query, triples, rng),))
            named += [vector_of(map(tuple, query["mentions"]))] * (len(triples) + 1 if len(triples) else 0)
        tree = build_row(MessageTree(trunk, turns), self.tokenizer.eos_token_id)
        elements = [element for element in row["elements"] if _inside(element, by, (wide, high))]
        middles = np.array([_middle(element) for element in elements]).reshape(-1, 2) + by
        tokens = points_to_triples(np.zeros(len(elements)), middles, media.metadata)[:, 0]
        places, inverse = np.unique(tokens, return_inverse=True)
        there = np.zeros((len(places), vector_of(()).size), dtype=np.float32)
        for place, element in zip(inverse, elements, strict=True):
            there[place] = np.maximum(there[place], element_vector(element))
        labels = PageLabels(row["elements"], row["letters"], by) if is_small else None
        return Page(
            share_equal_crops(tree),
            np.array(named, dtype=np.float32).reshape(-1, there.shape[1]),
            places,
            there,
            labels,
        )

    def turn(self, query: dict[str, Any], triples: np.ndarray, rng: np.random.Generator) -> Turn:
        """A question and its answer as tokens; some noun phrases become another sentence than the usual one."""
        ids, places = self.template(len(triples), query["label"])
        selections = np.full(len(ids), NO_SELECTION)
        if len(triples):
            selections[places] = [*triples[np.lexsort(triples.T[::-1])].ravel(), NO_MORE_POINTS]
        prompt = query["prompt"]
        if rng.random() < _REPHRASED:
            prompt = _SENTENCES[int(rng.integers(len(_SENTENCES)))].format(prompt)
        (asked,) = self.processor.chat.prompts([complete_prompt(prompt)], "image", 1)
        return Turn(asked, EncodedText(ids, selections))

    def _choose(
        self,
        queries: list[dict],
        by: tuple[int, int],
        size: tuple[int, int],
        rng: np.random.Generator,
        kinds: tuple[str, ...] | None,
    ) -> list[dict]:
        """Some questions whose targets are all still on the page."""
        fitting = [
            query
            for query in queries
            if (kinds is None or query["kind"] in kinds)
            and len(query["points"]) <= _MOST_POINTS
            and all(0 <= x + by[0] < size[0] and 0 <= y + by[1] < size[1] for x, y in query["points"])
        ]
        return [fitting[i] for i in rng.permutation(len(fitting))[: self.settings.branches]]

    def _template(self, count: int, label: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids of an answer with `count` points, and where its grounding tokens stand."""
        encoded = encode_answer(
            write_answer(np.arange(3 * count).reshape(-1, 3), label, "pointing"), self.tokenizer
        )
        return encoded.ids, np.flatnonzero(encoded.selections != NO_SELECTION)


class PointingStage(Stage):
    """Message trees about a few small pages, or about one large one.

    Args:
        folder: of the run; `vit.safetensors` there is what the stage begins with.
        settings: of the run.
        examples: make training examples.
    """

    def __init__(self, folder: Path, settings: ScreenSettings, examples: Examples) -> None:
        super().__init__()
        self.folder, self.settings, self.examples = folder, settings, examples
        self.model = build_model(screens_config(settings))
        self.vision, self.dense = self.model.model.vision_tower, dense_head(settings)
        self.alignment = Alignment(self.model)
        self.modules = {"model": self.model, "dense": self.dense, "alignment": self.alignment}
        self.rates = [
            (self.vision, settings.point_vit_rate),
            (self.dense, settings.point_vit_rate),
            (self.model, settings.point_rate),
            (self.alignment, settings.point_rate),
        ]
        self.clipped = self.model
        self.streams = {
            name: pages_of(folder / name) for name in ("small", *LARGE) if any((folder / name).glob(SHARDS))
        }
        self.large = [name for name in LARGE if name in self.streams]
        self.items = settings.point_batch

    def begin(self) -> None:
        """Takes over what the first stage has trained."""
        take_over(self.folder / "vit.safetensors", DenseModel(self.settings), self.vision, self.dense)

    def add_gradients(self, step: int, steps: int, rng: np.random.Generator) -> dict[str, float]:
        """Of one batch: answers, words of queries and keys while that fades, and the patches while the vision
        transformer learns.
        """
        learns_to_see = step >= self.settings.vit_frozen * steps
        self.vision.requires_grad_(learns_to_see)
        pages = self._pages(step, steps, rng)
        batch = collate([page.row for page in pages], self.examples.tokenizer.pad_token_id)
        with autocast():
            output = self.model(**batch)
        loss, numbers = (
            output.loss,
            metrics_of(output, selections_of(batch, self.model.config.patch_token_id)),
        )
        fading = max(0.0, 1 - step / (self.settings.alignment_until * steps))
        if fading:
            push, spoken = self._push(pages)
            loss, numbers = loss + self.settings.alignment_part * fading * push, numbers | spoken
        labels = [page.labels for page in pages if page.labels is not None]
        if learns_to_see and len(labels) == len(pages):
            aside, told = self._see(output.grounding_state.vit_features, labels)
            loss, numbers = loss + self.settings.dense_part * aside, numbers | told
        loss.backward()
        return numbers

    def _pages(self, step: int, steps: int, rng: np.random.Generator) -> list[Page]:
        """Some small pages; every so many steps one large page, if such were drawn."""
        settings = self.settings
        is_large = bool(self.large) and step % settings.large_every == settings.large_every - 1
        name = self.large[int(rng.integers(len(self.large)))] if is_large else "small"
        wanted = 1 if is_large else settings.point_batch
        kinds = _FIRST if step < settings.first_lesson * steps else None
        pages: list[Page] = []
        while len(pages) < wanted:
            page = self._next_page(self.streams[name], rng, kinds)
            if page is not None:
                pages.append(page)
        return pages

    def _next_page(
        self, stream: ShardStream[Any], rng: np.random.Generator, kinds: tuple[str, ...] | None
    ) -> Page | None:
        shard, (number,) = stream.take(1, rng)
        png, row = shard[number]
        return self.examples.page(png, row, rng, kinds)

    def _push(self, pages: Sequence[Page]) -> tuple[Tensor, dict[str, float]]:
        """Loss of the words that queries and keys say."""
        tokens: list[np.ndarray] = []
        first = 0
        for page in pages:
            tokens.append(page.tokens + first)
            first += 0 if page.row.pooling is None else len(page.row.pooling)
        named = torch.from_numpy(np.concatenate([page.named for page in pages]))
        there = torch.from_numpy(np.concatenate([page.there for page in pages]))
        counts = [len(page.named) for page in pages]
        return self.alignment.loss(counts, named, torch.from_numpy(np.concatenate(tokens)), there)

    def _see(self, features: Tensor, labels: list[PageLabels]) -> tuple[Tensor, dict[str, float]]:
        """Loss of the first stage."""
        with autocast():
            logits = self.dense(features.flatten(0, -2))
        loss, told = dense_loss(logits, targets_of(labels))
        return loss, {f"dense_{name}": told[name] for name in ("icon", "letters", "name")}


def train_pointing(folder: Path, settings: ScreenSettings, steps: int, log_every: int = 25) -> None:
    """Runs or resumes the second stage."""
    place = folder / "tokenizer"
    if not place.exists():
        write_files(place, build_tokenizer(settings))
    stage = PointingStage(folder, settings, Examples(place, settings))
    train(stage, folder / "point", settings, steps, seed=2, log_every=log_every)


def _middle(element: dict[str, Any]) -> tuple[float, float]:
    left, top, right, bottom = element["boxes"][0]
    return (left + right) / 2, (top + bottom) / 2


def _inside(element: dict[str, Any], by: tuple[int, int], size: tuple[int, int]) -> bool:
    x, y = _middle(element)
    return 0 <= x + by[0] < size[0] and 0 <= y + by[1] < size[1]
