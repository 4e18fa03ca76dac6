"""Scenes of coloured shapes, which the embedded model was trained on; the scenes here were not among them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.backends.options import complete_prompt
from molmopoint.data.synthetic import Scene, sample_scene
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
from molmopoint.eval.outlines import mask_outlines
from molmopoint.metrics.matching import max_hit_scores
from molmopoint.metrics.run_lengths import MaskIndex

SEED = 20_260
NUM_SCENES = 300


@dataclass(frozen=True, eq=False)
class Truth:
    """Masks of the targets, by number."""

    index: MaskIndex
    masks: range


class Synthetic(Benchmark):
    """A point is right if it lies in the visible mask of a target that no other point is matched with."""

    name = "synthetic"
    title = "Synthetic scenes of coloured shapes"
    source = DatasetSource(None, licence="Apache-2.0")
    generation = GenerationSettings(max_new_tokens=256)
    rules = ("mask",)
    headline = ("f1", None)
    metrics = (
        Metric("f1", "mean"),
        Metric("precision", "mean"),
        Metric("recall", "mean"),
        Metric("exact_count", "binary"),
    )
    views = (
        View(("kind",), order=("colour", "shape", "both", "size", "position", "count")),
        View(("targets",)),
        View(("pairs",), order=("trained", "held out")),
    )

    def read(self, folder: Path) -> Items:
        """Reads what `write_scenes` writes."""
        if not (folder / "questions.jsonl").is_file():
            raise EvaluationError(
                f"expected questions.jsonl in {folder}, found none; leave --data out, the scenes are made "
                "on the spot"
            )
        index = MaskIndex.load(folder / "masks.npz")
        lines = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        return Items(tuple(_item(folder, json.loads(line), index) for line in lines))

    def score(self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False) -> ItemScores:
        """Scores of the best matching; whether the number of points is right."""
        truth: Truth = item.truth
        masks = np.asarray(truth.masks)
        hits = truth.index.contains_each(masks, answer.xy, "truncate")
        return {**max_hit_scores(hits)._asdict(), "exact_count": float(len(answer) == len(masks))}

    def shown_truth(self, item: Item) -> ShownTruth:
        """The visible part of every target."""
        truth: Truth = item.truth
        targets = [ShownTarget(mask_outlines(truth.index.mask(mask))) for mask in truth.masks]
        return ShownTruth(tuple(targets), count=len(targets))

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """All scenes of the benchmark: everyone scores the same ones."""
        write_scenes(folder)


def write_scenes(folder: Path, num_scenes: int = NUM_SCENES) -> None:
    """Writes pictures/NNN.png, questions.jsonl and masks.npz, the same bytes on every machine.

    Args:
        folder: new and empty.
        num_scenes: how many; scene i comes from the seed [20260, i].
    """
    (folder / "pictures").mkdir()
    scenes = [sample_scene(np.random.default_rng([SEED, i])) for i in range(num_scenes)]
    for i, scene in enumerate(scenes):
        scene.image.save(folder / "pictures" / f"{i:03}.png")
    MaskIndex.build(_masks(scenes)).save(folder / "masks.npz")
    (folder / "questions.jsonl").write_text("".join(_questions(scenes)), encoding="utf-8")


def _masks(scenes: Sequence[Scene]) -> Iterator[np.ndarray]:
    """(height, width) bool of every target of every question."""
    for scene in scenes:
        for query in scene.queries:
            for target in query.targets:
                yield target.mask


def _questions(scenes: Sequence[Scene]) -> Iterator[str]:
    """A line per question: its picture, prompt, kind, and the numbers of its masks."""
    first = 0
    for i, scene in enumerate(scenes):
        for number, query in enumerate(scene.queries):
            end = first + len(query.targets)
            fields = {
                "picture": f"{i:03}.png",
                "number": number,
                "prompt": query.prompt,
                "kind": query.kind,
                "held_out": query.held_out,
                "masks": [first, end],
            }
            yield json.dumps(fields) + "\n"
            first = end


def _item(folder: Path, fields: dict[str, Any], index: MaskIndex) -> Item:
    masks = range(*fields["masks"])
    categories = {
        "kind": fields["kind"],
        "targets": "some" if masks else "nothing there",
        "pairs": "held out" if fields["held_out"] else "trained",
    }
    return Item(
        item_id=f"{fields['picture']}#{fields['number']}",
        prompt=complete_prompt(fields["prompt"]),
        images=(folder / "pictures" / fields["picture"],),
        truth=Truth(index, masks),
        categories=categories,
        cluster=fields["picture"],
        phrase=fields["prompt"],
    )
