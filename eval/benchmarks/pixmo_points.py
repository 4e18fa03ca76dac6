"""PixMo-Points: point to everything a label names, on photographs. Source: Molmo, arXiv 2409.17146;
"pointing_eval_v2" in code.

- Points and objects are matched by distance alone, and a pair counts if the point lies in the mask of that
  very object; F1 is the mean over items. `max_hit_f1` matches by masks instead, so that two neighbours cannot
  be taken for each other; it is no published number.
- Ground truth is percent of the mask's size, though the card of the data set says pixels. Points become
  pixels by rounding.
- Pictures are fetched by address, and some are of another size by now. Then points are brought to the size of
  the masks, and `rescaled` says how often.
- Some rows without points have a mask nevertheless. The points decide: there is nothing to point at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from molmopoint.backends.options import POINTING_TEMPLATE
from molmopoint.data.synthetic import Query, Scene
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
from molmopoint.eval.datasets.files import HOW_TO, UrlPictures
from molmopoint.eval.datasets.masks import index_masks
from molmopoint.eval.datasets.rows import (
    ItemCollector,
    find_parquet,
    in_size,
    read_masks,
    read_rows,
    text_of,
    write_parquet,
)
from molmopoint.eval.fixtures.scenes import png, scene_with
from molmopoint.eval.outlines import mask_outlines
from molmopoint.metrics.matching import assigned_scores, max_hit_scores
from molmopoint.metrics.run_lengths import MaskIndex

COLUMNS = ("image_url", "image_sha256", "label", "points")
NOT_PERCENT = "ground truth beyond 100 percent"
MASK_OF_NOTHING = "masks of an item without points, not used"


@dataclass(frozen=True, eq=False)
class _Truth:
    """Places of the objects (m, 2) in pixels of the masks, numbers (m,) and (width, height) of the masks."""

    index: MaskIndex
    masks: np.ndarray
    xy: np.ndarray
    size: tuple[int, int] | None


class PixmoPoints(Benchmark):
    """See the module for the rules."""

    name = "pixmo_points"
    title = "PixMo-Points (Molmo, arXiv 2409.17146)"
    source = DatasetSource(
        "allenai/pixmo-points-eval",
        patterns=("*.parquet", "data/*.parquet"),
        note=HOW_TO,
        licence="see the data set's card",
    )
    generation = GenerationSettings(max_new_tokens=192, min_crops=24, template=POINTING_TEMPLATE)
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
        rows = list(read_rows(files, COLUMNS))
        places = [_places(row.get("points")) for row in rows]
        index, masks_of_rows = self._index(folder, files, rows, places)
        pictures = UrlPictures(folder)
        collected = ItemCollector()
        for row, xy, masks in zip(rows, places, masks_of_rows, strict=True):
            _add(collected, pictures, row, xy, index, masks)
        collected.warnings.update(pictures.warnings)
        return collected.items()

    def score(self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False) -> ItemScores:
        """Scores of both ways of matching."""
        truth: _Truth = item.truth
        xy, rescaled = in_size(answer, truth.size)
        hits = truth.index.contains_each(truth.masks, xy, "round")
        return {
            **assigned_scores(xy, truth.xy, hits)._asdict(),
            "max_hit_f1": max_hit_scores(hits).f1,
            "exact_count": float(len(xy) == len(truth.masks)),
            "rescaled": float(rescaled),
        }

    def shown_truth(self, item: Item) -> ShownTruth:
        """The mask and the annotated place of every object."""
        truth: _Truth = item.truth
        targets = []
        for number, (x, y) in zip(truth.masks.tolist(), truth.xy.tolist(), strict=True):
            outlines = mask_outlines(truth.index.mask(number))
            targets.append(ShownTarget(outlines, point=(x, y)))
        return ShownTruth(tuple(targets), count=len(targets), size=truth.size)

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Six items, with what the real data has too.

        A picture that is named by its address, one that is larger now than its masks, one that is gone, one
        whose address answers with another picture, and a row without points that has a mask.
        """
        import pyarrow as pa

        images = folder / "images"
        images.mkdir()
        rows = []
        for i, targets in enumerate((1, None, None, 2, 0, None)):
            scene, query = scene_with(rng, targets)
            picture = scene.image
            if i == 2:
                # Masks were drawn on the picture as it was; the published bytes are twice as large.
                picture = picture.resize((picture.width * 2, picture.height * 2))
            content = png(picture)
            digest = hashlib.sha256(content).hexdigest()
            if i == 1:
                (images / f"café {i}.png").write_bytes(content)
            elif i == 3:
                (images / f"{digest}.png").write_bytes(png(Image.new("RGB", (64, 64), "white")))
            elif i != 5:
                (images / digest).write_bytes(content)
            address = f"https://example.org/{i}/caf%C3%A9 {i}.png"
            rows.append({"image_url": address, "image_sha256": digest, **_made_truth(scene, query)})
        point = pa.struct([("x", pa.float64()), ("y", pa.float64())])
        types = {
            "image_url": pa.string(),
            "image_sha256": pa.string(),
            "label": pa.string(),
            "points": pa.list_(point),
            "masks": pa.list_(pa.list_(pa.list_(pa.bool_()))),
        }
        write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows, types)

    def _index(
        self,
        folder: Path,
        files: Sequence[Path],
        rows: Sequence[dict[str, Any]],
        places: Sequence[np.ndarray | None],
    ) -> tuple[MaskIndex, list[np.ndarray]]:
        """The index, and per row the numbers of its masks, -1 for one that is not there.

        A row without points asks for one mask, to see whether it has any.
        """
        counts = [1 if xy is None else max(1, len(xy)) for xy in places]
        keys = []
        for row, count in zip(rows, counts, strict=True):
            keys += [f"{row['image_sha256']}/{row['label']}/{i}" for i in range(count)]
        stream = _masks_in_turn(files, places)
        sizes = [path.stat().st_size for path in files]
        indexed = index_masks(folder, self.name, keys, lambda i: next(stream), str(sizes))
        numbers = np.array(indexed.numbers, dtype=np.int64)
        ends = np.cumsum(counts)[:-1]
        return indexed.index, np.split(numbers, ends)


def _add(
    collected: ItemCollector,
    pictures: UrlPictures,
    row: dict[str, Any],
    xy: np.ndarray | None,
    index: MaskIndex,
    masks: np.ndarray,
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
    size = None
    if masks[0] >= 0:
        width, height = index.sizes[masks[0]].tolist()
        size = (width, height)
    collected.warnings[MASK_OF_NOTHING] += size is not None and not len(xy)
    collected.warnings[NOT_PERCENT] += bool(((xy < 0) | (xy > 100)).any())
    wanted = masks[: len(xy)]
    truth = _Truth(index, wanted, xy * index.sizes[wanted] / 100, size)
    image = pictures.expect(row["image_url"], row["image_sha256"])
    categories = {"objects": _bin(len(xy))}
    return collected.add(Item(item_id, label, (image,), truth=truth, categories=categories, cluster=cluster))


def _masks_in_turn(files: Sequence[Path], places: Sequence[np.ndarray | None]) -> Iterator[np.ndarray | None]:
    """As many masks per row as its points, or one for a row without; None where they do not fit the points."""
    for masks, xy in zip(read_masks(files), places, strict=True):
        if xy is None or not len(xy):
            yield masks[0] if masks else None
            continue
        sizes = {None if mask is None else mask.shape for mask in masks}
        if len(masks) == len(xy) and len(sizes) == 1:
            yield from masks
        else:
            yield from [None] * len(xy)


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


def _made_truth(scene: Scene, query: Query) -> dict[str, Any]:
    """Label, points and masks of a question, as rows have them; nothing to point at has an empty mask."""
    width, height = scene.image.size
    points = [{"x": target.x / width * 100, "y": target.y / height * 100} for target in query.targets]
    masks = [target.mask.tolist() for target in query.targets]
    if not masks:
        masks = [np.zeros((height, width), dtype=bool).tolist()]
    return {"label": query.label.capitalize(), "points": points, "masks": masks}
