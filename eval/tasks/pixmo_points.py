"""PixMo-Points: point to everything a label names, on photographs. Source: Molmo, arXiv 2409.17146; "pointing_eval_v2" in code.

- Points and objects are matched by distance alone, and a pair counts if the point lies in the mask of that very object; F1 is the
  mean over items. `max_hit_f1` matches by masks instead, so that two neighbours cannot be taken for each other; it is no
  published number.
- Ground truth is percent of the mask's size, though the card of the data set says pixels. Points become pixels by rounding.
- Pictures are fetched by address, and some are of another size by now. Then points are brought to the size of the masks, and
  `rescaled` says how often.
- Some rows without points have a mask nevertheless. The points decide: there is nothing to point at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.backends.options import POINTING_TEMPLATE
from molmopoint.eval.benchmark import Answer, Asking, Benchmark, Item, Items, Metric, ShownTruth, Source, Target, View
from molmopoint.eval.layouts.archives import HOW_TO, UrlPictures
from molmopoint.eval.layouts.outlines import index_masks, mask_outlines
from molmopoint.eval.layouts.parquet_rows import ItemCollector, find_parquet, in_size, read_masks, read_rows, text_of
from molmopoint.metrics.matching import assigned_scores, max_hit_scores
from molmopoint.metrics.run_lengths import MaskIndex

NOT_PERCENT = "ground truth beyond 100 percent"
MASK_OF_NOTHING = "masks of an item without points, not used"


@dataclass(frozen=True, eq=False)
class _Truth:
    """Places of the objects (m, 2) in pixels of the masks, numbers of their masks, and (width, height) of the masks."""

    index: MaskIndex
    masks: np.ndarray
    xy: np.ndarray
    size: tuple[int, int] | None


class PixmoPoints(Benchmark):
    """See the module for the rules."""

    name = "pixmo_points"
    title = "PixMo-Points (Molmo, arXiv 2409.17146)"
    source = Source("allenai/pixmo-points-eval", patterns=("*.parquet", "data/*.parquet"), note=HOW_TO, licence="see the data set's card")
    asking = Asking(max_new_tokens=192, least_crops=24, template=POINTING_TEMPLATE)
    rules = ("matched",)
    headline = ("f1", None)
    metrics = (
        Metric("f1", "mean"),
        Metric("precision", "mean"),
        Metric("recall", "mean"),
        Metric("max_hit_f1", "mean", title="F1, matched by masks"),
        Metric("exact_count", "binary"),
        Metric("rescaled", "binary", title="rescaled to the masks"),
    )
    views = (View(("objects",), order=("0", "1", "2-5", "6 and more")),)

    def read(self, folder: Path) -> Items:
        """Reads the rows of the split `test` and indexes their masks."""
        files = find_parquet(folder, "test")
        rows = list(read_rows(files, ("image_url", "image_sha256", "label", "points")))
        places = [_places(row.get("points")) for row in rows]
        numbers = self._index(folder, files, rows, places)
        pictures, collected = UrlPictures(folder), ItemCollector()
        for row, xy, (index, masks) in zip(rows, places, numbers, strict=True):
            _add(collected, pictures, row, xy, index, masks)
        collected.warnings.update(pictures.warnings)
        return collected.items()

    def judge(self, item: Item, answer: Answer, rule: str, *, ref_compat: bool = False) -> dict[str, float]:
        """Scores of both ways of matching."""
        truth: _Truth = item.truth
        xy, rescaled = in_size(answer, truth.size)
        count = len(truth.masks)
        hits = truth.index.contains(np.tile(truth.masks, len(xy)), np.repeat(xy, count, axis=0), "round").reshape(len(xy), count)
        return {
            **assigned_scores(xy, truth.xy, hits)._asdict(),
            "max_hit_f1": max_hit_scores(hits).f1,
            "exact_count": float(len(xy) == count),
            "rescaled": float(rescaled),
        }

    def shown_truth(self, item: Item) -> ShownTruth:
        """The mask and the annotated place of every object."""
        truth: _Truth = item.truth
        outlines = (mask_outlines(truth.index.mask(int(number))) for number in truth.masks)
        targets = tuple(Target(rings, point=(x, y)) for rings, (x, y) in zip(outlines, truth.xy.tolist(), strict=True))
        return ShownTruth(targets, count=len(targets), size=truth.size)

    def _index(
        self, folder: Path, files: Sequence[Path], rows: Sequence[dict[str, Any]], places: Sequence[np.ndarray | None]
    ) -> list[tuple[MaskIndex, np.ndarray]]:
        """The index, and per row the numbers of its masks, -1 for one that is not there.

        A row without points asks for one mask, to see whether it has any.
        """
        counts = [1 if xy is None or not len(xy) else len(xy) for xy in places]
        keys = [f"{row['image_sha256']}/{row['label']}/{i}" for row, count in zip(rows, counts, strict=True) for i in range(count)]
        stream = _masks_in_turn(files, places)
        indexed = index_masks(folder, self.name, keys, lambda i: next(stream), str([path.stat().st_size for path in files]))
        ends = np.cumsum(counts)
        numbers = np.array(indexed.numbers, dtype=np.int64)
        return [(indexed.index, numbers[end - count : end]) for count, end in zip(counts, ends, strict=True)]


def _add(
    collected: ItemCollector, pictures: UrlPictures, row: dict[str, Any], xy: np.ndarray | None, index: MaskIndex, masks: np.ndarray
) -> None:
    label = text_of(row, "label").lower()
    cluster = str(row["image_sha256"] or row["image_url"])
    item_id = collected.name(f"{cluster[:16]}/{label}")
    if not label:
        return collected.miss(item_id, "no label", row["image_url"])
    if xy is None:
        return collected.miss(item_id, "ground truth without a place", row["points"])
    if len(xy) and (masks < 0).any():
        return collected.miss(item_id, "masks that do not fit the points", label)
    size = (int(index.sizes[masks[0]][0]), int(index.sizes[masks[0]][1])) if masks[0] >= 0 else None
    collected.warnings[MASK_OF_NOTHING] += bool(not len(xy) and masks[0] >= 0)
    collected.warnings[NOT_PERCENT] += bool(((xy < 0) | (xy > 100)).any())
    wanted = masks[: len(xy)]
    truth = _Truth(index, wanted, xy * index.sizes[wanted] / 100, size)
    image = pictures.expect(row["image_url"], row["image_sha256"])
    return collected.add(Item(item_id, label, (image,), truth=truth, categories={"objects": _bin(len(xy))}, cluster=cluster))


def _masks_in_turn(files: Sequence[Path], places: Sequence[np.ndarray | None]) -> Iterator[np.ndarray | None]:
    """As many masks per row as its points, or one for a row without; None where they do not fit the points."""
    for masks, xy in zip(read_masks(files), places, strict=True):
        if xy is None or not len(xy):
            yield masks[0] if masks else None
        else:
            sizes = {None if mask is None else mask.shape for mask in masks}
            yield from masks if len(masks) == len(xy) and len(sizes) == 1 else [None] * len(xy)


def _places(points: Any) -> np.ndarray | None:
    """(m, 2) percent, or None if a point has no place."""
    try:
        xy = np.array([(point["x"], point["y"]) for point in points or ()], dtype=np.float64).reshape(-1, 2)
    except (TypeError, KeyError, ValueError):
        return None
    return xy if np.isfinite(xy).all() else None


def _bin(count: int) -> str:
    if count < 2:
        return str(count)
    return "2-5" if count < 6 else "6 and more"
