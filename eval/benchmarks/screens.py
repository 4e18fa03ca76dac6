"""Pages that `molmopoint data screens` draws, or that are drawn in the same layout: type, colour, state,
icon, name, position and relation.

A target is one element, which may have several boxes where its words are broken across lines; a point is
right if it lies in any of them, all sides included, and no other point is matched with that element. A click
is the first point of an answer, as in ScreenSpot; it is counted of questions that ask for one thing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.backends.options import complete_prompt
from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import (
    Benchmark,
    DatasetSource,
    GenerationSettings,
    Item,
    Items,
    ItemScores,
    Metric,
    ParsedAnswer,
    ShownTarget,
    ShownTruth,
    View,
)
from molmopoint.eval.datasets.rows import ItemCollector, text_of
from molmopoint.eval.fixtures.scenes import box_of, scene_with, write_lines
from molmopoint.eval.outlines import box_outline
from molmopoint.metrics.lookup import in_box
from molmopoint.metrics.matching import max_hit_scores

NOTHING_THERE = "nothing there"
KINDS = ("type", "colour", "state", "icon", "name", "position", "relation", NOTHING_THERE)
TARGETS_FILE = "targets.jsonl"
ADVICE = "draw pages with `molmopoint data screens SOURCE... --out DIR`"

Boxes = tuple[tuple[float, float, float, float], ...]
"""Left, top, right and bottom of each visible part of one element, in pixels of the picture."""


@dataclass(frozen=True, eq=False)
class Truth:
    """Boxes of every target; none where there is no such thing on the screen."""

    targets: tuple[Boxes, ...]

    def hits(self, xy: np.ndarray) -> np.ndarray:
        """(points, targets) bool: whether each point (points, 2) lies in a box of each target."""
        hits = np.zeros((len(xy), len(self.targets)), dtype=bool)
        for column, boxes in enumerate(self.targets):
            for box in boxes:
                hits[:, column] |= in_box(xy, box)
        return hits


class Screens(Benchmark):
    """See the module for the rules."""

    name = "screens"
    title = "Pages drawn by `molmopoint data screens`"
    source = DatasetSource(None, note=ADVICE, licence="that of the pages")
    generation = GenerationSettings(max_new_tokens=256)
    rules = ("box",)
    headline = ("f1", None)
    metrics = (
        Metric("f1", "mean"),
        Metric("precision", "mean"),
        Metric("recall", "mean"),
        Metric("exact_count", "binary"),
        Metric("click", "binary", given="asks_one"),
    )
    views = (
        View(("group",)),
        View(("kind",), order=KINDS),
        View(("names",), order=("trained", "held out")),
        View(("view",)),
        View(("group", "kind"), order=KINDS),
    )

    def read(self, folder: Path) -> Items:
        """Reads `targets.jsonl`; lines may also name a `group` of pages, and whether `names` were trained."""
        collected = ItemCollector()
        views = dict(_views(folder / "elements.jsonl"))
        for row in _rows(folder / TARGETS_FILE):
            _add(folder, row, views, collected)
        return collected.items()

    def score(self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False) -> ItemScores:
        """Scores of the best matching, the number of points, and whether the first point hits the only
        target.
        """
        truth: Truth = item.truth
        hits = truth.hits(answer.xy)
        asks_one = len(truth.targets) == 1
        clicks = asks_one and len(answer) > 0 and bool(hits[0, 0])
        return {
            **max_hit_scores(hits)._asdict(),
            "exact_count": float(len(answer) == len(truth.targets)),
            "asks_one": float(asks_one),
            "click": float(clicks),
        }

    def shown_truth(self, item: Item) -> ShownTruth:
        """The boxes of every target."""
        truth: Truth = item.truth
        shown = []
        for boxes in truth.targets:
            rings = [ring for box in boxes for ring in box_outline(box)]
            shown.append(ShownTarget(tuple(rings)))
        return ShownTruth(tuple(shown), count=len(shown))

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Scenes in the layout of drawn pages, for no browser may be there: one thing, several, and none."""
        (folder / "images").mkdir()
        rows = []
        for number, targets in enumerate((1, 1, 2, 3, 0)):
            scene, query = scene_with(rng, targets)
            image = f"images/{number}.png"
            scene.image.save(folder / image)
            boxes = [[box_of(target)] for target in query.targets]
            rows.append(
                {
                    "row": number,
                    "image": image,
                    "prompt": query.prompt,
                    "kind": "type",
                    "mentions": [],
                    "boxes": boxes,
                }
            )
        write_lines(folder / TARGETS_FILE, rows)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines.

    Raises:
        EvaluationError: there is no such file, or a line is something else.
    """
    if not path.is_file():
        raise EvaluationError(f"expected {path.name} in {path.parent}, found none; {ADVICE}")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EvaluationError(
                f"expected JSON in line {number} of {path}, got {error}; {ADVICE}"
            ) from error
        if not isinstance(row, dict):
            raise EvaluationError(
                f"expected an object in line {number} of {path}, got {line[:80]!r}; {ADVICE}"
            )
        yield row


def _views(path: Path) -> Iterator[tuple[str, str]]:
    """Size, ratio, theme and scroll position of each picture, where the folder tells them."""
    if path.is_file():
        for row in _rows(path):
            yield text_of(row, "image"), text_of(row, "view")


def _add(folder: Path, row: dict[str, Any], views: Mapping[str, str], collected: ItemCollector) -> None:
    image, prompt = text_of(row, "image"), text_of(row, "prompt")
    item_id = collected.name(f"{image}/{prompt}")
    targets = _targets(row.get("boxes"))
    is_inside = (folder / image).resolve().is_relative_to(folder.resolve())
    if not image or not is_inside:
        return collected.miss(item_id, "no picture of this folder", image)
    if not prompt:
        return collected.miss(item_id, "no question", row.get("row"))
    if targets is None:
        return collected.miss(item_id, "no usable boxes", row.get("boxes"))
    categories = {"kind": text_of(row, "kind") if targets else NOTHING_THERE}
    told = {"group": text_of(row, "group"), "names": text_of(row, "names"), "view": views.get(image, "")}
    categories |= {name: value for name, value in told.items() if value}
    return collected.add(
        Item(
            item_id,
            complete_prompt(prompt),
            (folder / image,),
            truth=Truth(targets),
            categories=categories,
            cluster=image,
            phrase=prompt,
        )
    )


def _targets(values: Any) -> tuple[Boxes, ...] | None:
    """Boxes of every target, or None if they are none."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        return None
    targets = []
    for value in values:
        try:
            boxes = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            return None
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) or not np.isfinite(boxes).all():
            return None
        targets.append(tuple(map(tuple, boxes.tolist())))
    return tuple(targets)
