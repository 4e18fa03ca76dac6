"""Scenes of coloured shapes, which the embedded model was trained on; the scenes here were not among them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from molmopoint.backends.options import complete_prompt
from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Answer, Asking, Benchmark, Item, Items, Metric, ShownTruth, Source, Target, View
from molmopoint.eval.layouts.outlines import mask_outlines
from molmopoint.metrics.matching import max_hit_scores
from molmopoint.metrics.run_lengths import MaskIndex


@dataclass(frozen=True, eq=False)
class Truth:
    """Masks of the targets, by number."""

    index: MaskIndex
    masks: range


class Synthetic(Benchmark):
    """A point is right if it lies in the visible mask of a target that no other point is matched with."""

    name = "synthetic"
    title = "Synthetic scenes of coloured shapes"
    source = Source(None, licence="Apache-2.0")
    asking = Asking(max_new_tokens=256)
    rules = ("mask",)
    headline = ("f1", None)
    metrics = (Metric("f1", "mean"), Metric("precision", "mean"), Metric("recall", "mean"), Metric("exact_count", "binary"))
    views = (
        View(("kind",), order=("colour", "shape", "both", "size", "position", "count")),
        View(("targets",)),
        View(("pairs",), order=("trained", "held out")),
    )

    def read(self, folder: Path) -> Items:
        """Reads what `fixtures.synthetic` writes."""
        if not (folder / "questions.jsonl").is_file():
            raise EvaluationError(f"expected questions.jsonl in {folder}, found none; leave --data out, the scenes are made on the spot")
        index = MaskIndex.load(folder / "masks.npz")
        lines = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        return Items(tuple(self._item(folder, json.loads(line), index) for line in lines))

    def judge(self, item: Item, answer: Answer, rule: str, *, ref_compat: bool = False) -> dict[str, float]:
        """Scores of the best matching; whether the number of points is right."""
        truth: Truth = item.truth
        masks = np.asarray(truth.masks)
        # Every point against every mask, in one look-up.
        numbers, points = np.tile(masks, len(answer)), np.repeat(answer.xy, len(masks), axis=0)
        hits = truth.index.contains(numbers, points, "truncate").reshape(len(answer), len(masks))
        return {**max_hit_scores(hits)._asdict(), "exact_count": float(len(answer) == len(masks))}

    def shown_truth(self, item: Item) -> ShownTruth:
        """The visible part of every target."""
        truth: Truth = item.truth
        return ShownTruth(tuple(Target(mask_outlines(truth.index.mask(mask))) for mask in truth.masks), count=len(truth.masks))

    def _item(self, folder: Path, fields: dict, index: MaskIndex) -> Item:
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
        )
