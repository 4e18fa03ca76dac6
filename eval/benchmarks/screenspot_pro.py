"""ScreenSpot-Pro: one small thing to click on large screens of professional programs. Source: arXiv
2504.07981.

Boxes are x1, y1, x2, y2, unlike in ScreenSpot-v2. The English `instruction` is asked, the target is there
("positive"), as in the leaderboard. A sample is correct, wrong, or has no point (`wrong_format`); the mean is
over all items. Points are brought to the published `img_size` first.

Published rows of general models are made with exactly one point forced, which is the setting here; those of
models made for screens are not. Those models take many crops: --max-crops 64. Rows of GUI-Actor are made with
pictures of 3200 x 1800 pixels in area: --picture-area 5760000.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import DatasetSource, Item, Items, View
from molmopoint.eval.datasets.files import FileFinder
from molmopoint.eval.datasets.rows import ItemCollector, json_rows, stated_size, text_of
from molmopoint.eval.fixtures.scenes import box_of, scene_with
from molmopoint.eval.protocols.clicks import ClickBenchmark, ClickTarget, TargetReader

GROUPS = ("Dev", "Creative", "CAD", "Scientific", "Office", "OS")
TYPES = ("text", "icon")
_CATEGORIES = {"group": "group", "type": "ui_type", "application": "application", "platform": "platform"}
"""Names in the table, and in the data."""


class ScreenSpotPro(ClickBenchmark):
    """See the module for the rules."""

    name = "screenspot_pro"
    title = "ScreenSpot-Pro (arXiv 2504.07981)"
    source = DatasetSource(
        "likaixin/ScreenSpot-Pro",
        patterns=("annotations/*.json", "images/**"),
        licence="see the data set's card",
    )
    views = (
        View(("group",), order=GROUPS),
        View(("type",), order=TYPES),
        View(("group", "type"), order=(*GROUPS, *TYPES)),
        View(("application",)),
        View(("application", "type"), order=TYPES),
    )

    own_settings = ("picture_area",)

    def read(self, folder: Path) -> Items:
        """Reads every list in `annotations`."""
        files = sorted((folder / "annotations").glob("*.json"))
        if not files:
            raise EvaluationError(
                f"expected annotations/*.json and images in {folder}, found no annotations; download the "
                "data set again"
            )
        images = FileFinder(folder / "images")
        collected = ItemCollector()
        targets = TargetReader("xyxy", collected.warnings)
        for file in files:
            for row in json_rows(file, "download the data set again"):
                _add(row, images, targets, collected)
        targets.check(self.name)
        return collected.items()

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Four items, with what real data has too.

        A picture that is smaller than the data says, an id that occurs twice, a box whose corners are in the
        wrong order, and one that is no box (a fifth row).
        """
        (folder / "annotations").mkdir()
        programs = (("blender_windows", "Creative"), ("word_macos", "Office"), ("linux_common_linux", "OS"))
        for i, (program, group) in enumerate(programs):
            rows = [_made_row(folder, rng, program, group, i)]
            if i == 0:
                x1, y1, x2, y2 = rows[0]["bbox"]
                rows.append({**rows[0], "bbox": [x2, y2, x1, y1], "ui_type": "icon"})
                rows.append({**rows[0], "id": "blender_9", "bbox": [x1, y1]})
            text = json.dumps(rows, ensure_ascii=False)
            (folder / "annotations" / f"{program}.json").write_text(text, encoding="utf-8")


def _add(row: dict[str, Any], images: FileFinder, targets: TargetReader, collected: ItemCollector) -> None:
    name = text_of(row, "img_filename")
    instruction = text_of(row, "instruction")
    item_id = collected.name(text_of(row, "id") or f"{name}/{instruction}")
    size = stated_size(row.get("img_size"))
    box = targets.box(row.get("bbox"), size)
    if not instruction:
        return collected.miss(item_id, "no instruction", row.get("bbox"))
    if box is None:
        return collected.miss(item_id, "no usable box", row.get("bbox"))
    image = images.expect(name or "nameless")
    truth = ClickTarget(box, size=size)
    categories = {category: text_of(row, field) for category, field in _CATEGORIES.items()}
    return collected.add(
        Item(item_id, instruction, (image,), truth=truth, categories=categories, cluster=name)
    )


def _made_row(folder: Path, rng: np.random.Generator, program: str, group: str, i: int) -> dict[str, Any]:
    scene, query = scene_with(rng, 1)
    name = f"{program}/screenshot_{i}.png"
    (folder / "images" / program).mkdir(parents=True)
    scene.image.save(folder / "images" / name)
    # The data says that the second picture is twice as large as it is.
    factor = 2 if i == 1 else 1
    application, _, platform = program.rpartition("_")
    return {
        "id": f"{program}_{i}",
        "img_filename": name,
        "bbox": [factor * value for value in box_of(query.targets[0])],
        "instruction": query.prompt,
        "instruction_cn": query.prompt,
        "application": application,
        "platform": platform,
        "img_size": [factor * side for side in scene.image.size],
        "ui_type": "icon" if i == 1 else "text",
        "group": group,
    }
