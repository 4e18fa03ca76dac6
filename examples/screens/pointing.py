"""Second stage: the whole model learns to answer questions with points.

One training example is a message tree: one page and several questions about it, cut into crops as the processor cuts it. A small page
has one tile that is equal to its overview, so the vision transformer runs once. Every so many steps, if such pages were drawn, a large
one takes the place of the small ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nano.pointing import metrics_of, selections_of
from nano.running import LEAN_ATTENTION, Log, StopRequest, load_checkpoint, optimiser_for, save_checkpoint, set_rates
from PIL import Image
from torch import Tensor, nn

from molmopoint.data.records import Record
from molmopoint.geometry import points_to_triples
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.pipeline.options import complete_prompt
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.grounding_answers import EncodedText, encode_answer, write_answer
from molmopoint.processing.message_tree import MessageTree, Turn, build_row
from molmopoint.processing.rows import Row, collate
from molmopoint.tokens import NO_MORE_POINTS, NO_SELECTION
from molmopoint.training.families import GroundingFamily
from molmopoint.training.prepare import share_equal_crops
from molmopoint.training.sources import Example
from screens.alignment import Alignment
from screens.dense import DenseHead, DenseModel, dense_loss, moved, pages_for_ever, targets_of
from screens.drawing import decode, shard_paths
from screens.files import build_tokenizer, screens_config, write_files
from screens.labels import PageLabels, element_vector, vector_of
from screens.settings import GRID, WINDOW, ScreenSettings

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
        self.family = GroundingFamily(self.processor)
        self.template = cache(self._template)

    def page(self, png: bytes, row: dict[str, Any], rng: np.random.Generator, kinds: tuple[str, ...] | None) -> Page | None:
        """An example; None for pages about which nothing is asked."""
        pixels = decode(png)
        is_small = pixels.shape[:2] == (GRID * 14, GRID * 14)
        limit = self.settings.shift
        by = (int(rng.integers(-limit, limit + 1)), int(rng.integers(-limit, limit + 1))) if is_small else (0, 0)
        pixels = moved(pixels, by) if is_small else pixels
        seen = self.family.see(self.example(Image.fromarray(pixels)))
        high, wide = pixels.shape[:2]
        chosen = self._choose(row["queries"], by, (wide, high), rng, kinds)
        if not chosen:
            return None
        turns, named = [], []
        for query in chosen:
            triples = points_to_triples(np.zeros(len(query["points"])), np.array(query["points"]).reshape(-1, 2) + by, seen.metadata)
            turns.append((self.turn(query, triples, rng),))
            named += [vector_of(map(tuple, query["mentions"]))] * (len(triples) + 1 if len(triples) else 0)
        tree = build_row(MessageTree(seen.trunk, turns), self.tokenizer.eos_token_id)
        elements = [element for element in row["elements"] if _inside(element, by, (wide, high))]
        middles = np.array([_middle(element) for element in elements]).reshape(-1, 2) + by
        tokens = points_to_triples(np.zeros(len(elements)), middles, seen.metadata)[:, 0]
        places, inverse = np.unique(tokens, return_inverse=True)
        there = np.zeros((len(places), vector_of(()).size), dtype=np.float32)
        for place, element in zip(inverse, elements, strict=True):
            there[place] = np.maximum(there[place], element_vector(element))
        labels = PageLabels(row["elements"], row["letters"], by) if is_small else None
        return Page(share_equal_crops(tree), np.array(named, dtype=np.float32).reshape(-1, there.shape[1]), places, there, labels)

    def example(self, picture: Image.Image) -> Example:
        """A picture as the library's training takes it."""
        return Example((Record(1, ("page.png",), label="page", no_points=True),), (picture,))

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
        self, queries: list[dict], by: tuple[int, int], size: tuple[int, int], rng: np.random.Generator, kinds: tuple[str, ...] | None
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
        encoded = encode_answer(write_answer(np.arange(3 * count).reshape(-1, 3), label, "pointing"), self.tokenizer)
        return encoded.ids, np.flatnonzero(encoded.selections != NO_SELECTION)


def build_model(settings: ScreenSettings) -> MolmoPointForConditionalGeneration:
    """A new model, with weights as large as their inputs are many."""
    torch.manual_seed(1)
    model = MolmoPointForConditionalGeneration(screens_config(settings))
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "vision_tower" not in name and name != "lm_head":
            shrink = math.sqrt(2 * settings.text_layers) if name.endswith(("self_attn.o_proj", "mlp.down_proj")) else 1.0
            nn.init.normal_(module.weight, std=module.in_features**-0.5 / shrink)
    nn.init.normal_(model.model.language_model.embed_tokens.weight, std=0.2)
    return model


def batches(
    folder: Path, examples: Examples, rng: np.random.Generator, settings: ScreenSettings, steps: int, start: int
) -> Iterator[list[Page]]:
    """Examples of each step: a few small pages, or one large one."""
    small = pages_for_ever([folder / "small"], rng)
    large = [pages_for_ever([folder / name], rng) for name in LARGE if shard_paths(folder / name)]
    for step in range(start, steps):
        is_large = bool(large) and step % settings.large_every == settings.large_every - 1
        source = large[int(rng.integers(len(large)))] if is_large else small
        kinds = _FIRST if step < settings.first_lesson * steps else None
        pages: list[Page] = []
        while len(pages) < (1 if is_large else settings.point_batch):
            page = examples.page(*next(source), rng, kinds)
            if page is not None:
                pages.append(page)
        yield pages


def train_pointing(folder: Path, settings: ScreenSettings, steps: int, log_every: int = 25) -> None:
    """Runs or resumes the second stage."""
    place = folder / "tokenizer"
    if not place.exists():
        write_files(place, build_tokenizer(settings))
    examples = Examples(place, settings)
    checkpoint, log = folder / "point.safetensors", Log(folder / "point.jsonl")
    model = build_model(settings)
    for config in (model.config.text_config, model.config.vision_config):
        config._attn_implementation = LEAN_ATTENTION
    vision, dense, alignment = model.model.vision_tower, DenseHead(2 * settings.vit_width), Alignment(model)
    modules = {"model": model, "dense": dense, "alignment": alignment}
    rates = [
        (vision, settings.point_vit_rate),
        (dense, settings.point_vit_rate),
        (model, settings.point_rate),
        (alignment, settings.point_rate),
    ]
    optimiser = optimiser_for(rates, settings)  # type: ignore[arg-type]
    step = load_checkpoint(checkpoint, modules, optimiser)["step"] if checkpoint.exists() else _take_over(folder, vision, dense, settings)
    rng = np.random.default_rng([2, step])
    saved, stop = time.monotonic(), StopRequest()
    for pages in batches(folder, examples, rng, settings, steps, step):
        learns_to_see = step >= settings.vit_frozen * steps
        vision.requires_grad_(learns_to_see)
        set_rates(optimiser, step, steps, settings)  # type: ignore[arg-type]
        loss, seen = _loss(model, dense, alignment, pages, examples, settings, step / steps, learns_to_see)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        log.add({"norm": norm.item(), **seen})
        if step % log_every == 0:
            log.write(step, log_every * settings.point_batch)
        if time.monotonic() - saved > 60 * settings.save_minutes or step == steps or stop:
            save_checkpoint(checkpoint, modules, optimiser, {"step": step, "steps": steps})
            saved = time.monotonic()
        if stop:
            break


def _loss(
    model: MolmoPointForConditionalGeneration, dense: nn.Module, alignment: Alignment, pages: list[Page], examples: Examples,
    settings: ScreenSettings, progress: float, learns_to_see: bool,
) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
    """Loss of a step: answers, words of queries and keys while that fades, and the patches while the vision transformer learns."""
    batch = collate([page.row for page in pages], examples.tokenizer.pad_token_id)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**batch)
    chosen = selections_of(batch, model.config.patch_token_id)
    loss, seen = output.loss, metrics_of(output, chosen)
    fading = max(0.0, 1 - progress / settings.alignment_until)
    if fading:
        starts = np.cumsum([0, *(len(page.row.pooling) for page in pages if page.row.pooling is not None)])
        tokens = torch.from_numpy(np.concatenate([page.tokens + start for page, start in zip(pages, starts, strict=False)]))
        named, there = (torch.from_numpy(np.concatenate([getattr(page, name) for page in pages])) for name in ("named", "there"))
        push, spoken = alignment.loss([len(page.named) for page in pages], named, tokens, there)
        loss, seen = loss + settings.alignment_part * fading * push, seen | spoken
    if learns_to_see and all(page.labels is not None for page in pages):
        with torch.autocast("cpu", torch.bfloat16):
            logits = dense(output.grounding_state.vit_features.flatten(0, -2))
        aside, told = dense_loss(logits, targets_of([page.labels for page in pages if page.labels is not None]))
        loss, seen = loss + settings.dense_part * aside, seen | {f"dense_{name}": told[name] for name in ("icon", "letters", "name")}
    return loss, seen


def _take_over(folder: Path, vision: nn.Module, dense: nn.Module, settings: ScreenSettings) -> int:
    """Takes over the vision transformer of the first stage and its heads; returns the step to start from."""
    trained = DenseModel(settings)
    load_checkpoint(folder / "vit.safetensors", {"dense": trained})
    vision.load_state_dict(trained.vision.state_dict())
    dense.load_state_dict(trained.head.state_dict())
    return 0


def _middle(element: dict[str, Any]) -> tuple[float, float]:
    left, top, right, bottom = element["boxes"][0]
    return (left + right) / 2, (top + bottom) / 2


def _inside(element: dict[str, Any], by: tuple[int, int], size: tuple[int, int]) -> bool:
    x, y = _middle(element)
    return 0 <= x + by[0] < size[0] and 0 <= y + by[1] < size[1]


__all__ = ["GRID", "WINDOW", "Examples", "Page", "build_model", "train_pointing"]
