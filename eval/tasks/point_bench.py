"""Point-Bench: language-guided pointing on photographs, five skills. Source: PointArena, arXiv 2505.09990.

Three rules are in use, and they differ by several points:

- `ai2`, of Ai2's tables: at least one point, and all points in the mask. The count is not checked. Mean over the five skills.
- `official`, of the authors' scripts and the leaderboard: only the first point counts, except in counting, where the number of
  points must be right and all must lie in the mask. Mean over all items.
- `paper`, of the text of the paper: as many points as targets, every target covered. The data has one mask for all targets of an
  item; where it falls into as many parts as there are targets, each part needs its point.

Points become pixels by their integer part.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import label

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Answer, Asking, Benchmark, Item, Items, Metric, Missing, ShownTruth, Source, Target, View
from molmopoint.eval.layouts.archives import unpacked
from molmopoint.eval.layouts.file_names import FileFinder
from molmopoint.eval.layouts.mask_files import index_masks, read_mask
from molmopoint.eval.layouts.outlines import mask_outlines
from molmopoint.metrics.run_lengths import MaskIndex

COUNTING = "counting"
SKILLS = ("affordable", "spatial", "reasoning", "steerable", COUNTING)


@dataclass(frozen=True, eq=False)
class _Truth:
    """The mask of all targets together, and how many there are."""

    index: MaskIndex
    mask: int
    count: int


class PointBench(Benchmark):
    """See the module for the rules."""

    name = "point_bench"
    title = "Point-Bench (PointArena, arXiv 2505.09990)"
    source = Source(
        "PointArena/pointarena-data", patterns=("data.json", "selected_images.zip", "selected_masks.zip"), licence="see the data set's card"
    )
    asking = Asking(max_new_tokens=256, max_crops=24)
    rules = ("ai2", "official", "paper")
    headline = ("correct", "category")
    metrics = (Metric("correct", "binary"), Metric("soft", "mean"))
    views = (View(("category",), macro=True, order=SKILLS),)

    def headline_of(self, rule: str) -> tuple[str, str | None]:
        """Ai2 averages over skills, the others over items."""
        return ("correct", "category") if rule == "ai2" else ("correct", None)

    def read(self, folder: Path) -> Items:
        """Reads data.json and indexes the masks; rows without a mask file are not part of the benchmark."""
        if not (folder / "data.json").is_file():
            raise EvaluationError(f"expected data.json, selected_images.zip and selected_masks.zip in {folder}, found no data.json")
        rows = [row for row in json.loads((folder / "data.json").read_text(encoding="utf-8")) if row.get("mask_filename")]
        images, masks = FileFinder(unpacked(folder, "selected_images.zip")), FileFinder(unpacked(folder, "selected_masks.zip"))
        files = [masks.find(f"{row['category']}/{row['mask_filename']}") for row in rows]
        sizes = [0 if file is None else file.stat().st_size for file in files]
        indexed = index_masks(folder, self.name, [_key(row) for row in rows], lambda i: _mask(files[i]), str(sizes))
        found, missing, seen = [], [], Counter()
        for row, number, file in zip(rows, indexed.numbers, files, strict=True):
            seen[_key(row)] += 1
            # Several questions about one picture: the same question twice is told apart by its turn.
            item_id = _key(row) if seen[_key(row)] == 1 else f"{_key(row)}#{seen[_key(row)]}"
            if number < 0:
                missing.append(Missing(item_id, "no mask file" if file is None else "unreadable mask", row["mask_filename"]))
                continue
            image = images.expect(f"{row['category']}/{row['image_filename']}")
            truth = _Truth(indexed.index, number, int(row["count"]))
            categories = {"category": row["category"]}
            cluster = f"{row['category']}/{row['image_filename']}"
            found.append(Item(item_id, row["user_input"], (image,), truth=truth, categories=categories, cluster=cluster))
        return Items(tuple(found), tuple(missing))

    def judge(self, item: Item, answer: Answer, rule: str, *, ref_compat: bool = False) -> dict[str, float]:
        """`correct` by the rule; `soft` is the share of points in the mask, as lmms-eval has it."""
        truth: _Truth = item.truth
        inside = truth.index.contains(np.full(len(answer), truth.mask), answer.xy, "truncate")
        judged = {"ai2": _ai2, "official": _official, "paper": _paper}[rule](item, answer, inside)
        return {"correct": float(judged), "soft": float(inside.mean()) if len(inside) else 0.0}

    def shown_truth(self, item: Item) -> ShownTruth:
        """The mask of all targets, which is one outline of several parts."""
        truth: _Truth = item.truth
        mask = truth.index.mask(truth.mask)
        return ShownTruth((Target(mask_outlines(mask)),), count=truth.count, size=mask.shape[::-1])


def _ai2(item: Item, answer: Answer, inside: np.ndarray) -> bool:
    return len(inside) > 0 and bool(inside.all())


def _official(item: Item, answer: Answer, inside: np.ndarray) -> bool:
    if item.categories["category"] == COUNTING:
        return len(inside) == item.truth.count and bool(inside.all())
    return len(inside) > 0 and bool(inside[0])


def _paper(item: Item, answer: Answer, inside: np.ndarray) -> bool:
    truth: _Truth = item.truth
    if len(inside) != truth.count or not inside.all():
        return False
    parts, number = _parts_of(truth.index.mask(truth.mask))
    if number != truth.count:
        return True
    columns, rows = answer.xy.astype(np.int64).T
    return len(set(parts[rows, columns].tolist())) == number


def _parts_of(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected parts of a mask by number from 1, and how many there are."""
    parts: Any = label(mask)
    return parts[0], int(parts[1])


def _key(row: dict[str, Any]) -> str:
    """Independent of the order of the rows, which differs between the published forms of the data."""
    return f"{row['category']}/{row['image_filename']}/{row['user_input']}"


def _mask(file: Path | None) -> np.ndarray | None:
    try:
        return None if file is None else read_mask(file)
    except OSError:
        return None
