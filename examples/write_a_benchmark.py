"""A benchmark of your own is one file with one class: where the data is, how to ask, how to score.

    python examples/write_a_benchmark.py shapes                                  # makes a little data to try it with
    molmopoint eval examples/write_a_benchmark.py --data shapes --model nano
    molmopoint score examples/write_a_benchmark.py answers.jsonl --form molmo --data shapes

The runner does the rest: resuming, several processes, tables with intervals, the gallery. The benchmarks of
the package, in `eval/benchmarks`, are written in the same way; they also have `write_fixture`, which makes a
few items in the published layout.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from molmopoint.data.synthetic import sample_scene
from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import (
    Benchmark,
    DatasetSource,
    GenerationSettings,
    Item,
    Items,
    Metric,
    ParsedAnswer,
    View,
)
from molmopoint.metrics.lookup import in_box
from molmopoint.metrics.matching import max_hit_scores


class Shapes(Benchmark):
    """Every box of a picture should get one point."""

    name = "shapes"  # of the folder with the results
    title = "Shapes, an example"
    source = DatasetSource(None)  # or a data set of the hub, best with a pinned revision
    generation = GenerationSettings(max_new_tokens=256, template="Point to {}")
    rules = ("box",)  # several where people score in several ways; the first is the default
    headline = ("f1", None)  # the one number people quote: this metric, as the mean over items
    metrics = (Metric("f1", "mean"), Metric("exact_count", "binary"))
    views = (View(("targets",)),)  # rows of the table

    def read(self, folder: Path) -> Items:
        """Every item, whether its picture is there or not; the runner finds out which can be asked."""
        if not (folder / "questions.json").is_file():
            raise EvaluationError(
                f"expected questions.json in {folder}, found none; make it with `python {__file__} {folder}`"
            )
        rows = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
        return Items(tuple(self._item(folder, row) for row in rows))

    def score(
        self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False
    ) -> dict[str, float]:
        """Numbers by metric, from points in pixels; no picture is needed."""
        hits = [in_box(answer.xy, box) for box in item.truth]
        table = np.stack(hits, axis=1) if hits else np.zeros((len(answer), 0), dtype=bool)
        return {"f1": max_hit_scores(table).f1, "exact_count": float(len(answer) == len(hits))}

    def _item(self, folder: Path, row: dict) -> Item:
        return Item(
            item_id=f"{row['picture']}/{row['label']}",  # from the content, so that answers stay valid when rows move
            prompt=row["label"],
            images=(folder / row["picture"],),
            truth=row["boxes"],  # x1, y1, x2, y2 in pixels; whatever `score` needs
            categories={"targets": str(len(row["boxes"]))},
            cluster=row["picture"],  # items of one picture are not independent, which the intervals respect
        )


def make(folder: Path, number: int = 5) -> None:
    """A few pictures of shapes, and what to point at in each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(number):
        scene = sample_scene(np.random.default_rng([1, index]))
        scene.image.save(folder / f"{index}.png")
        for query in {query.label: query for query in scene.queries}.values():
            places = [np.nonzero(target.mask)[::-1] for target in query.targets]
            boxes = [[int(x.min()), int(y.min()), int(x.max()), int(y.max())] for x, y in places]
            rows.append({"picture": f"{index}.png", "label": query.label, "boxes": boxes})
    (folder / "questions.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"{number} pictures and {len(rows)} questions in {folder}")
    print(f"molmopoint eval {__file__} --data {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes a little data for the benchmark in this file.")
    parser.add_argument("folder", type=Path, help="new folder for the data")
    make(parser.parse_args().folder)
