"""Point-Bench: language-guided pointing on photographs, five skills. Source: PointArena, arXiv 2505.09990.

Three rules are in use, and they differ by several points:

- `ai2`, of Ai2's tables: at least one point, and all points in the mask. The count is not checked. Mean over the five skills.
- `official`, of the authors' scripts and the leaderboard: only the first point counts, except in counting, where the number of
  points must be right and all must lie in the mask. Mean over all items.
- `paper`, of the text of the paper: as many points as targets, every target covered. The data has one mask for all targets of an
  item; where it falls into as many parts as there are targets, each part needs its point.

Points become pixels by their integer part; some masks are of another size than their pictures, and a point must lie in both.

200 of the 982 questions, the skill `steerable`, refer to a point that is already there. `--steerable` says how it is told:

- `none`: it is not; the question is sent alone. So do Ai2's evaluation and its tables, and so do the rules `ai2` and `paper` here.
- `text`: two sentences follow the question, with the point's pixels from `pixmo_metadata.csv`. So do the authors' scripts and the
  leaderboard, and so does the rule `official`, where that file is there; the table says how many questions were sent alone.
- `drawn`: a blue dot is drawn into the picture, as on the authors' page for annotators; some of the questions name it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import label

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Answer, Asking, Benchmark, Item, Items, Metric, ShownTruth, Source, Target, View
from molmopoint.eval.layouts.archives import unpacked
from molmopoint.eval.layouts.boxes import whole_number
from molmopoint.eval.layouts.existing_points import FILE, existing_points, with_dot, with_text
from molmopoint.eval.layouts.file_names import FileFinder
from molmopoint.eval.layouts.outlines import UNREADABLE, index_masks, mask_outlines, read_mask
from molmopoint.eval.layouts.parquet_rows import ItemCollector, json_rows, text_of
from molmopoint.files import one_spelling
from molmopoint.metrics.run_lengths import MaskIndex

COUNTING, STEERABLE = "counting", "steerable"
SKILLS = ("affordable", "spatial", "reasoning", STEERABLE, COUNTING)
EXISTING_POINTS = FILE
ALONE = f"steerable question without the point it refers to, which {EXISTING_POINTS} does not tell"


@dataclass(frozen=True, eq=False)
class _Truth:
    """The mask of all targets together, how many there are, and the points in percent that a steerable question refers to."""

    index: MaskIndex
    mask: int
    count: int
    refers_to: tuple[tuple[float, float], ...] = ()


class PointBench(Benchmark):
    """See the module for the rules."""

    name = "point_bench"
    title = "Point-Bench (PointArena, arXiv 2505.09990)"
    version = 2
    source = Source(
        "PointArena/pointarena-data",
        patterns=("data.json", "selected_images.zip", "selected_masks.zip", EXISTING_POINTS),
        licence="see the data set's card",
    )
    asking = Asking(max_new_tokens=256, least_crops=24)
    rules = ("ai2", "official", "paper")
    headline = ("correct", "category")
    metrics = (Metric("correct", "binary"), Metric("soft", "mean"))
    views = (View(("category",), macro=True, order=SKILLS),)
    settings = ("steerable",)

    def headline_of(self, rule: str) -> tuple[str, str | None]:
        """Ai2 averages over skills, the others over items."""
        return ("correct", "category") if rule == "ai2" else ("correct", None)

    def read(self, folder: Path) -> Items:
        """Reads data.json and indexes the masks; rows without a mask file are not part of the benchmark."""
        advice = "pass a folder with data.json, selected_images.zip and selected_masks.zip"
        rows = [row for row in json_rows(folder / "data.json", advice) if row.get("mask_filename")]
        images, masks = FileFinder(unpacked(folder, "selected_images.zip")), FileFinder(unpacked(folder, "selected_masks.zip"))
        files = [masks.find(f"{row.get('category')}/{row['mask_filename']}") for row in rows]
        sizes = [0 if file is None else file.stat().st_size for file in files]
        indexed = index_masks(folder, self.name, [_key(row) for row in rows], lambda i: _mask(files[i]), str(sizes))
        collected = ItemCollector()
        existing = existing_points(folder)
        for row, number, file in zip(rows, indexed.numbers, files, strict=True):
            item_id = collected.name(_key(row))  # several questions about one picture; one that comes twice gets a number
            question, category, name = text_of(row, "user_input"), text_of(row, "category"), text_of(row, "image_filename")
            count = whole_number(row.get("count", 1))
            faults = {"no question": not question, "no skill": not category, "no usable count": count is None}
            if count is None or any(faults.values()):
                collected.miss(item_id, next(fault for fault, there in faults.items() if there), row)
                continue
            if number < 0:
                collected.miss(item_id, "no mask file" if file is None else "unreadable mask", row["mask_filename"])
                continue
            image = images.expect(f"{category}/{name}")
            refers_to = existing.get(one_spelling(name), ()) if category == STEERABLE else ()
            truth = _Truth(indexed.index, number, count, refers_to)
            cluster = f"{category}/{name}"
            collected.add(Item(item_id, question, (image,), truth=truth, categories={"category": category}, cluster=cluster))
        return collected.items()

    def asked_with(self, items: Items, asking: Asking, rule: str, folder: Path) -> Items:
        """Steerable questions with the point they refer to; see the module."""
        chosen = asking.steerable or ("text" if rule == "official" else "none")
        steerable = [item for item in items.found if item.categories["category"] == STEERABLE]
        alone = sum(not item.truth.refers_to for item in steerable)
        if chosen == "none":
            return items
        if asking.steerable is not None and alone == len(steerable):
            raise EvaluationError(
                f"expected {EXISTING_POINTS} with the points that steerable questions refer to in {folder}, got none of them; "
                "download it from the data set, or ask with --steerable none"
            )
        warnings = dict(items.warnings) | ({ALONE: alone} if alone else {})
        tell = with_text if chosen == "text" else with_dot
        found = tuple(tell(item, folder) if item.truth.refers_to else item for item in items.found)
        return replace(items, found=found, warnings=warnings)

    def judge(self, item: Item, answer: Answer, rule: str, *, ref_compat: bool = False) -> dict[str, float]:
        """`correct` by the rule; `soft` is the share of points in the mask, as lmms-eval has it."""
        truth: _Truth = item.truth
        inside = truth.index.contains(np.full(len(answer), truth.mask), answer.xy, "truncate")
        if answer.image_sizes:  # some masks are larger than their pictures
            inside &= (answer.xy < np.array(answer.image_sizes[0])).all(axis=1)
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
    return "/".join(str(row.get(name)) for name in ("category", "image_filename", "user_input"))


def _mask(file: Path | None) -> np.ndarray | None:
    try:
        return None if file is None else read_mask(file)
    except UNREADABLE:
        return None
