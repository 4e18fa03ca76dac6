"""OSWorld-G: one thing to click on a Linux desktop, or nothing, because it is not there. Source: Jedi, arXiv
2505.13227.

- A box is x, y, width, height; a polygon is a flat list of corners, and one of four numbers a box x1, y1, x2,
  y2; 54 of 564 items ask for something that is not on the screen, and the right answer is no point. (Models
  that must write a point decline with a negative one, which counts.)
- So the model is not made to give a point, unlike in the published rows of general models, which therefore
  cannot pass 90.4.
- The reference reads the first four numbers of every target as a box x, y, width, height, the polygons' and
  the refusals' too; `ref_compat` repeats it.

The data comes as a folder `benchmark` of github.com/xlang-ai/OSWorld-G, or as parquet files of the hub; the
kinds of skill are only in the folder. The refined instructions, which are only there too, say the same
targets more plainly and are several points easier. Published scores of the two are often mixed; they are two
benchmarks here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import (
    DatasetSource,
    GenerationSettings,
    Item,
    Items,
    ItemScores,
    ParsedAnswer,
    View,
)
from molmopoint.eval.datasets.files import FileFinder
from molmopoint.eval.datasets.rows import (
    ItemCollector,
    find_parquet,
    in_size,
    json_rows,
    keep_picture,
    read_rows,
    stated_size,
    text_of,
    write_parquet,
)
from molmopoint.eval.fixtures.scenes import box_of, png, scene_with
from molmopoint.eval.protocols.clicks import (
    MAX_NEW_TOKENS,
    MIN_CROPS,
    ClickBenchmark,
    ClickTarget,
    TargetReader,
)
from molmopoint.metrics.lookup import in_box

SKILLS = (
    "text matching",
    "element recognition",
    "layout understanding",
    "fine-grained manipulation",
    "refusal",
)
UNSORTED = "item without a kind of skill"

_SKILL_FILE = "classification_result.json"
_COLUMNS = ("id", "image", "image_size", "instruction", "box_type", "box_coordinates")
_ADVICE = "clone github.com/xlang-ai/OSWorld-G and pass it with --data"


class OSWorldG(ClickBenchmark):
    """See the module for the rules.

    Attributes:
        annotations: file with the instructions.
        on_hub: whether the hub's parquet files have these instructions too.
    """

    name = "osworld_g"
    title = "OSWorld-G (Jedi, arXiv 2505.13227)"
    version = 2
    annotations: ClassVar[str] = "OSWorld-G.json"
    on_hub: ClassVar[bool] = True
    source = DatasetSource(
        "MMInstruction/OSWorld-G",
        patterns=("*.parquet", "data/*.parquet"),
        note=_ADVICE,
        licence="see the data set's card",
    )
    generation = GenerationSettings(MAX_NEW_TOKENS, min_crops=MIN_CROPS)
    views = (
        View(("skill",), order=SKILLS),
        View(("target",), order=("there", "refusal")),
        View(("shape",), order=("bbox", "polygon", "refusal")),
    )
    flaws = ("polygons and refusals are read as boxes x, y, width, height (T10)",)

    def read(self, folder: Path) -> Items:
        """Reads the list of the folder `benchmark`, or the hub's rows."""
        home = folder / "benchmark" if (folder / "benchmark").is_dir() else folder
        collected = ItemCollector()
        targets = TargetReader("xywh", collected.warnings)
        skills = _skills(home)
        if (home / self.annotations).is_file():
            images = FileFinder(home / "images")
            for row in json_rows(home / self.annotations, _ADVICE):
                name = text_of(row, "image_path") or text_of(row, "image") or "nameless"
                _add(row, images.expect(name), skills, targets, collected)
        elif self.on_hub:
            for row in read_rows(find_parquet(folder, "test"), _COLUMNS):
                image = keep_picture(row["image"], folder) or folder / "no picture in the data"
                _add(row, image, skills, targets, collected)
        else:
            raise EvaluationError(f"expected {self.annotations} in {home}, found none; {_ADVICE}")
        targets.check(self.name)
        return collected.items()

    def score(self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False) -> ItemScores:
        """`correct` of the first point; a refusal is right if the model neither points nor tries to."""
        target: ClickTarget = item.truth
        xy, _ = in_size(answer, target.size)
        if ref_compat:
            hit = len(xy) > 0 and not target.is_refusal and _in_first_four(xy[0], target.published)
            return super().score(item, answer, rule) | {"correct": float(hit)}
        if not target.is_refusal:
            return super().score(item, answer, rule)
        # An answer that was cut, or whose point names no place, has not declined.
        declines = not answer.invalid and not answer.truncated
        if len(xy):
            declines = bool((xy[0] < 0).all())
        return {"correct": float(declines), "wrong_format": 0.0, "rescaled": 0.0}

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Five items: a box, three polygons, of which one has two corners and one is none, and a refusal.

        One has two kinds of skill, two have none. Both lists of instructions lie in one folder.
        """
        home = folder / "benchmark"
        (home / "images").mkdir(parents=True)
        rows = [_made_row(home / "images", rng, i) for i in range(5)]
        refined = [{**row, "instruction": f"{row['instruction']}, and nothing else"} for row in rows]
        skills = {
            "text_matching": [rows[0]],
            "element_recognition": [rows[0], rows[3]],
            "layout_understanding": [],
            "refusal": [rows[2]],
        }
        contents = {
            OSWorldG.annotations: rows,
            OSWorldGRefined.annotations: refined,
            _SKILL_FILE: {"classified": skills, "unclassified": []},
        }
        for name, content in contents.items():
            (home / name).write_text(json.dumps(content), encoding="utf-8")


class OSWorldGRefined(OSWorldG):
    """As `OSWorldG`, asked in other words; items have the same ids."""

    name = "osworld_g_refined"
    title = "OSWorld-G, refined instructions (Jedi, arXiv 2505.13227)"
    annotations = "OSWorld-G_refined.json"
    on_hub = False


def write_as_on_hub(folder: Path, rng: np.random.Generator) -> None:
    """The made items as parquet rows with their pictures in them."""
    import pyarrow as pa

    (folder / "images").mkdir()
    rows = [_made_row(folder / "images", rng, i) for i in range(5)]
    for row in rows:
        file = folder / "images" / row["image_path"]
        row["image"] = {"bytes": file.read_bytes(), "path": file.name}
        file.unlink()
    (folder / "images").rmdir()
    types = {
        "id": pa.string(),
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        "image_size": pa.list_(pa.int64()),
        "instruction": pa.string(),
        "box_type": pa.string(),
        "box_coordinates": pa.list_(pa.float64()),
        "GUI_types": pa.list_(pa.string()),
    }
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows, types)


def _in_first_four(xy: np.ndarray, published: tuple[float, ...]) -> bool:
    """Whether a point lies in the box that the reference makes of any target."""
    x, y, width, height = published
    return bool(in_box(xy, (x, y, x + width, y + height))[0])


def _add(
    row: dict[str, Any],
    image: Path,
    skills: dict[str, tuple[str, ...]],
    targets: TargetReader,
    collected: ItemCollector,
) -> None:
    instruction = text_of(row, "instruction")
    shape = text_of(row, "box_type")
    published = row.get("box_coordinates")
    name = str(row.get("id") or f"{image.name}/{instruction}")
    item_id = collected.name(name)
    target = _target(shape, published, stated_size(row.get("image_size")), targets)
    if not instruction:
        return collected.miss(item_id, "no instruction", published)
    if target is None:
        return collected.miss(item_id, f"no usable {shape or 'target'}", published)
    known = skills.get(name, ())
    if not known and target.is_refusal:
        known = ("refusal",)
    collected.warnings[UNSORTED] += not known
    categories = {"skill": known, "target": "refusal" if target.is_refusal else "there", "shape": shape}
    return collected.add(
        Item(item_id, instruction, (image,), truth=target, categories=categories, cluster=image.name)
    )


def _target(
    shape: str, published: Any, size: tuple[int, int] | None, targets: TargetReader
) -> ClickTarget | None:
    if shape == "refusal":
        return ClickTarget(size=size)
    box = polygon = None
    if shape == "bbox":
        box = targets.box(published, size)
    if shape == "polygon":
        box = targets.two_corners(published, size)
        polygon = targets.polygon(published, size)
    if box is None and polygon is None:
        return None
    first_four = np.asarray(published, dtype=np.float64).reshape(-1)[:4]
    return ClickTarget(box, polygon, size, tuple(first_four.tolist()))


def _skills(home: Path) -> dict[str, tuple[str, ...]]:
    """Kinds of skill by id; an item may need several. Empty without the file.

    Raises:
        EvaluationError: the file holds something else.
    """
    path = home / _SKILL_FILE
    if not path.is_file():
        return {}
    found: dict[str, list[str]] = {}
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["classified"]
        for skill in SKILLS:
            for entry in listed.get(skill.replace("-", "_").replace(" ", "_"), ()):
                item_id = str(entry["id"] if isinstance(entry, dict) else entry)
                found.setdefault(item_id, []).append(skill)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f'expected {{"classified": {{skill: [ids]}}}} in {path}, got {error!r}; {_ADVICE}'
        ) from error
    return {item_id: tuple(dict.fromkeys(skills)) for item_id, skills in found.items()}


def _made_row(images: Path, rng: np.random.Generator, i: int) -> dict[str, Any]:
    """A row and its picture."""
    shape = ("bbox", "polygon", "refusal", "polygon", "polygon")[i]
    scene, query = scene_with(rng, 0 if shape == "refusal" else 1)
    name = f"screen {i}.png"
    (images / name).write_bytes(png(scene.image))
    numbers: Sequence[float] = [-1, -1, -1, -1]
    if shape != "refusal":
        x1, y1, x2, y2 = box_of(query.targets[0])
        forms = (
            [x1, y1, x2 - x1, y2 - y1],
            [x1, y1, x2, y1, x2, y2, x1, y2],
            None,
            [x1, y1, x2, y2],
            [x1, y1, x2],
        )
        numbers = forms[i] or numbers
    return {
        "id": f"made-{i}",
        "image_path": name,
        "image_size": list(scene.image.size),
        "instruction": query.prompt,
        "box_type": shape,
        "box_coordinates": numbers,
        "GUI_types": ["Icon"],
    }
