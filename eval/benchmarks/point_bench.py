"""Point-Bench: language-guided pointing on photographs, five skills. Source: PointArena, arXiv 2505.09990.

Three rules are in use, and they differ by several points:

- `ai2`, of Ai2's tables: at least one point, and all points in the mask. The count is not checked. Mean over
  the five skills.
- `official`, of the authors' scripts and the leaderboard: only the first point counts, except in counting,
  where the number of points must be right and all must lie in the mask. Mean over all items.
- `paper`, of the text of the paper: as many points as targets, every target covered. The data has one mask
  for all targets of an item; where it falls into as many parts as there are targets, each part needs its
  point.

Points become pixels by their integer part; some masks are of another size than their pictures, and a point
must lie in both.

200 of the 982 questions, the skill `steerable`, refer to a point that is already there. `--steerable` says
how it is told:

- `none`: it is not; the question is sent alone. So do Ai2's evaluation and its tables, and so do the rules
  `ai2` and `paper` here.
- `text`: two sentences follow the question, with the point's pixels from `pixmo_metadata.csv`. So do the
  authors' scripts and the leaderboard, and so does the rule `official`, where that file is there; the table
  says how many questions were sent alone.
- `drawn`: a blue dot is drawn into the picture, as on the authors' page for annotators; some of the questions
  name it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import unicodedata
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are used
from PIL import Image, ImageDraw, ImageOps

from molmopoint.data.synthetic import Query
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
from molmopoint.eval.datasets.archives import unpacked
from molmopoint.eval.datasets.files import CACHE_FOLDER, UNREADABLE, FileFinder
from molmopoint.eval.datasets.masks import index_masks, read_mask
from molmopoint.eval.datasets.rows import ItemCollector, displayed_size, json_rows, text_of, whole_number
from molmopoint.eval.fixtures.scenes import png, scene_with
from molmopoint.eval.outlines import mask_outlines
from molmopoint.files import one_spelling, open_picture, written_whole
from molmopoint.metrics.run_lengths import MaskIndex

COUNTING, STEERABLE = "counting", "steerable"
SKILLS = ("affordable", "spatial", "reasoning", STEERABLE, COUNTING)
EXISTING_POINTS = "pixmo_metadata.csv"
ALONE = f"steerable question without the point it refers to, which {EXISTING_POINTS} does not tell"
_ADVICE = "pass a folder with data.json, selected_images.zip and selected_masks.zip"

Percent = tuple[float, float]
"""x and y of a point in percent of its picture."""


@dataclass(frozen=True, eq=False)
class _Truth:
    """What the right answer to an item is.

    Attributes:
        index: of all masks.
        mask: number of the one mask of all targets together.
        count: targets there are.
        refers_to: the points that a steerable question refers to.
    """

    index: MaskIndex
    mask: int
    count: int
    refers_to: tuple[Percent, ...] = ()


class PointBench(Benchmark):
    """See the module for the rules."""

    name = "point_bench"
    title = "Point-Bench (PointArena, arXiv 2505.09990)"
    version = 2
    source = DatasetSource(
        "PointArena/pointarena-data",
        patterns=("data.json", "selected_images.zip", "selected_masks.zip", EXISTING_POINTS),
        licence="see the data set's card",
    )
    generation = GenerationSettings(max_new_tokens=256, min_crops=24)
    rules = ("ai2", "official", "paper")
    headline = ("correct", "category")
    metrics = (Metric("correct", "binary"), Metric("soft", "mean"))
    views = (View(("category",), macro=True, order=SKILLS),)
    own_settings = ("steerable",)

    def headline_of(self, rule: str) -> tuple[str, str | None]:
        """Ai2 averages over skills, the others over items."""
        return ("correct", "category") if rule == "ai2" else ("correct", None)

    def read(self, folder: Path) -> Items:
        """Reads data.json and indexes the masks; rows without a mask file are not part of the benchmark."""
        rows = [row for row in json_rows(folder / "data.json", _ADVICE) if row.get("mask_filename")]
        images = FileFinder(unpacked(folder, "selected_images.zip"))
        masks = FileFinder(unpacked(folder, "selected_masks.zip"))
        files = [masks.find(f"{row.get('category')}/{row['mask_filename']}") for row in rows]
        sizes = [0 if file is None else file.stat().st_size for file in files]
        keys = [_key(row) for row in rows]
        indexed = index_masks(folder, self.name, keys, lambda i: _mask(files[i]), str(sizes))
        collected = ItemCollector()
        existing = existing_points(folder)
        for row, number, file in zip(rows, indexed.numbers, files, strict=True):
            # Several questions may be about one picture; one that comes twice gets a number.
            item_id = collected.name(_key(row))
            count = whole_number(row.get("count", 1))
            fault = _fault_of(row, count)
            if fault is not None or count is None:
                collected.miss(item_id, str(fault), row)
                continue
            if number < 0:
                reason = "no mask file" if file is None else "unreadable mask"
                collected.miss(item_id, reason, row["mask_filename"])
                continue
            category = text_of(row, "category")
            name = text_of(row, "image_filename")
            refers_to = existing.get(one_spelling(name), ()) if category == STEERABLE else ()
            collected.add(
                Item(
                    item_id,
                    text_of(row, "user_input"),
                    (images.expect(f"{category}/{name}"),),
                    truth=_Truth(indexed.index, number, count, refers_to),
                    categories={"category": category},
                    cluster=f"{category}/{name}",
                )
            )
        return collected.items()

    def apply_settings(self, items: Items, settings: GenerationSettings, rule: str, folder: Path) -> Items:
        """Steerable questions with the point they refer to; see the module."""
        chosen = settings.steerable or ("text" if rule == "official" else "none")
        if chosen == "none":
            return items
        steerable = [item for item in items.found if item.categories["category"] == STEERABLE]
        alone = sum(not item.truth.refers_to for item in steerable)
        if settings.steerable is not None and alone == len(steerable):
            raise EvaluationError(
                f"expected {EXISTING_POINTS} with the points that steerable questions refer to in {folder}, "
                "got none of "
                "them; download it from the data set, or ask with --steerable none"
            )
        warnings = dict(items.warnings)
        if alone:
            warnings[ALONE] = alone
        tell = with_text if chosen == "text" else with_dot
        found = tuple(tell(item, folder) if item.truth.refers_to else item for item in items.found)
        return replace(items, found=found, warnings=warnings)

    def score(self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False) -> ItemScores:
        """`correct` by the rule; `soft` is the share of points in the mask, as lmms-eval has it."""
        truth: _Truth = item.truth
        inside = truth.index.contains(np.full(len(answer), truth.mask), answer.xy, "truncate")  # (n,)
        if answer.image_sizes:  # some masks are larger than their pictures
            inside &= (answer.xy < np.array(answer.image_sizes[0])).all(axis=1)
        is_correct = {"ai2": _ai2, "official": _official, "paper": _paper}[rule]
        soft = float(inside.mean()) if len(inside) else 0.0
        return {"correct": float(is_correct(item, answer, inside)), "soft": soft}

    def shown_truth(self, item: Item) -> ShownTruth:
        """The mask of all targets, which is one outline of several parts."""
        truth: _Truth = item.truth
        mask = truth.index.mask(truth.mask)
        return ShownTruth((ShownTarget(mask_outlines(mask)),), count=truth.count, size=mask.shape[::-1])

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Five items, with what the real data has too.

        An accented name in two spellings, a mask of another size than its picture, a mask with opacity, a row
        without a mask, and a mask file that cannot be read.
        """
        rows = []
        with (
            zipfile.ZipFile(folder / "selected_images.zip", "w") as images,
            zipfile.ZipFile(folder / "selected_masks.zip", "w") as masks,
        ):
            for i, category in enumerate(("affordable", "spatial", "reasoning", STEERABLE, COUNTING)):
                scene, query = scene_with(rng)
                name = "café.png" if i == 1 else f"{i:04}.png"
                # Decomposed in the archive of pictures, composed in the table.
                decomposed = unicodedata.normalize("NFD", name)
                images.writestr(f"selected_images/{category}/{decomposed}", png(scene.image))
                mask = _made_mask(query, larger=i == 2, opaque=i == 3)
                masks.writestr(f"selected_masks/{category}/{name}", mask)
                rows.append(
                    {
                        "image_filename": name,
                        "mask_filename": name,
                        "category": category,
                        "user_input": query.prompt,
                        "count": len(query.targets),
                    }
                )
            masks.writestr("selected_masks/spatial/broken.png", b"no picture")
        rows.append({**rows[1], "mask_filename": "broken.png", "user_input": "the broken one"})
        rows.append({**rows[0], "mask_filename": "gone.png", "user_input": "the missing one"})
        rows.append({**rows[0], "mask_filename": None, "user_input": "not part of the benchmark"})
        (folder / "data.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def _key(row: dict[str, Any]) -> str:
    """Independent of the order of the rows, which differs between the published forms of the data."""
    return "/".join(str(row.get(name)) for name in ("category", "image_filename", "user_input"))


def _fault_of(row: dict[str, Any], count: int | None) -> str | None:
    """Why a row cannot be asked or scored; None if it can."""
    if not text_of(row, "user_input"):
        return "no question"
    if not text_of(row, "category"):
        return "no skill"
    return "no usable count" if count is None else None


def _mask(file: Path | None) -> np.ndarray | None:
    if file is None:
        return None
    try:
        return read_mask(file)
    except UNREADABLE:
        return None


def _ai2(item: Item, answer: ParsedAnswer, inside: np.ndarray) -> bool:
    return len(inside) > 0 and bool(inside.all())


def _official(item: Item, answer: ParsedAnswer, inside: np.ndarray) -> bool:
    if item.categories["category"] == COUNTING:
        return len(inside) == item.truth.count and bool(inside.all())
    return len(inside) > 0 and bool(inside[0])


def _paper(item: Item, answer: ParsedAnswer, inside: np.ndarray) -> bool:
    truth: _Truth = item.truth
    if len(inside) != truth.count or not inside.all():
        return False
    labelled: Any = scipy.ndimage.label(truth.index.mask(truth.mask))
    parts, number = labelled  # (height, width) number of the connected part from 1, and how many there are
    if number != truth.count:
        return True
    columns, rows = answer.xy.astype(np.int64).T
    covered = set(parts[rows, columns].tolist())
    return len(covered) == number


# The points that steerable questions refer to, and the two ways of telling a model about them.

_BLUE = (0, 0, 255)
_RADIUS = 0.01
"""Of the dot, as a part of the shorter side."""
_SMALLEST = 3
"""Pixels of the radius at least."""


def existing_points(folder: Path) -> dict[str, tuple[Percent, ...]]:
    """Points by the name of their picture; none without the file.

    Raises:
        EvaluationError: the file is something else.
    """
    path = folder / EXISTING_POINTS
    if not path.is_file():
        return {}
    found: dict[str, tuple[Percent, ...]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"image_filename", "points"} <= set(reader.fieldnames or ()):
                raise ValueError(f"columns {reader.fieldnames}")
            for row in reader:
                found[one_spelling(row["image_filename"] or "")] = _points_of(row["points"])
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise EvaluationError(
            f"expected a table with image_filename and points in {path}, got {error}; download it again"
        ) from error
    return found


def with_text(item: Item, folder: Path) -> Item:
    """The question with two sentences of the authors' scripts behind it.

    It stays as it is where the picture's size cannot be read.
    """
    size = displayed_size(item.images[0])
    if size is None:
        return item
    width, height = size
    pixels = [f"[{x * width / 100:.1f}, {y * height / 100:.1f}]" for x, y in item.truth.refers_to]
    told = (
        f"\nThe image contains an existing original point at pixel coordinates: {', '.join(pixels)}."
        "\nThe query refers to this existing point."
    )
    return replace(item, prompt=item.prompt + told)


def with_dot(item: Item, folder: Path) -> Item:
    """The question about a copy of its picture with a blue dot, kept beside the data.

    It stays as it is where the picture cannot be read.

    Raises:
        EvaluationError: the copy cannot be written.
    """
    source = item.images[0]
    try:
        identity = f"{item.cluster}\0{source.stat().st_size}\0{item.truth.refers_to}"
        digest = hashlib.sha256(identity.encode()).hexdigest()[:24]
        target = folder / CACHE_FOLDER / "steerable" / f"{digest}.png"
        if target.is_file():
            return replace(item, images=(target,))
        with open_picture(source) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except UNREADABLE:
        return item
    draw = ImageDraw.Draw(picture)
    radius = max(_SMALLEST, round(_RADIUS * min(picture.size)))
    for x, y in item.truth.refers_to:
        centre = (x * picture.width / 100, y * picture.height / 100)
        draw.circle(centre, radius, fill=_BLUE)
    try:
        with written_whole(target) as beside:
            picture.save(beside, "PNG")
    except OSError as error:
        raise EvaluationError(
            f"expected to write {target}, got {error}; copy the data to a folder that can be written"
        ) from error
    return replace(item, images=(target,))


def _points_of(cell: str | None) -> tuple[Percent, ...]:
    """Points of a cell, [{"x": ..., "y": ...}, ...]; none where it says none.

    Raises:
        ValueError: no such list.
    """
    if not (cell or "").strip():
        return ()
    points: Any = json.loads(cell or "")
    try:
        pairs = tuple((float(point["x"]), float(point["y"])) for point in points)
    except (TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"points {str(cell)[:80]!r}") from error
    for x, y in pairs:
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError(f"points {str(cell)[:80]!r}")
    return pairs


def _made_mask(query: Query, *, larger: bool, opaque: bool) -> bytes:
    """The mask of all targets as a PNG file."""
    union = np.any([target.mask for target in query.targets], axis=0)
    picture = Image.fromarray(union.astype(np.uint8) * 255)
    if larger:
        picture = picture.resize((picture.width + 8, picture.height + 8), Image.Resampling.NEAREST)
    return png(picture.convert("RGBA") if opaque else picture)
