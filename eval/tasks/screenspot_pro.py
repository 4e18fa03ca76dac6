"""ScreenSpot-Pro: one small thing to click on large screens of professional programs. Source: arXiv 2504.07981.

Boxes are x1, y1, x2, y2, unlike in ScreenSpot-v2. The English `instruction` is asked, the target is there ("positive"), as in the
leaderboard. A sample is correct, wrong, or has no point (`wrong_format`); the mean is over all items. Points are brought to the
published `img_size` first.

Published rows of general models are made with exactly one point forced, which is the setting here; those of models made for
screens are not. Those models take many crops: --max-crops 64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item, Items, Source, View
from molmopoint.eval.layouts.boxes import ClickBenchmark, ClickTarget, TargetReader
from molmopoint.eval.layouts.file_names import FileFinder
from molmopoint.eval.layouts.parquet_rows import ItemCollector, json_rows, stated_size, text_of

GROUPS = ("Dev", "Creative", "CAD", "Scientific", "Office", "OS")
TYPES = ("text", "icon")


class ScreenSpotPro(ClickBenchmark):
    """See the module for the rules."""

    name = "screenspot_pro"
    title = "ScreenSpot-Pro (arXiv 2504.07981)"
    source = Source("likaixin/ScreenSpot-Pro", patterns=("annotations/*.json", "images/**"), licence="see the data set's card")
    views = (
        View(("group",), order=GROUPS),
        View(("type",), order=TYPES),
        View(("group", "type"), order=(*GROUPS, *TYPES)),
        View(("application",)),
        View(("application", "type"), order=TYPES),
    )

    def read(self, folder: Path) -> Items:
        """Reads every list in `annotations`."""
        files = sorted((folder / "annotations").glob("*.json"))
        if not files:
            raise EvaluationError(f"expected annotations/*.json and images in {folder}, found no annotations; download the data set again")
        images, collected = FileFinder(folder / "images"), ItemCollector()
        targets = TargetReader("xyxy", collected.warnings)
        for row in (row for file in files for row in json_rows(file, "download the data set again")):
            _add(row, images, targets, collected)
        targets.check(self.name)
        return collected.items()


def _add(row: dict[str, Any], images: FileFinder, targets: TargetReader, collected: ItemCollector) -> None:
    name, instruction = text_of(row, "img_filename"), text_of(row, "instruction")
    item_id = collected.name(text_of(row, "id") or f"{name}/{instruction}")
    size = stated_size(row.get("img_size"))
    box = targets.box(row.get("bbox"), size)
    if not instruction or box is None:
        return collected.miss(item_id, "no usable box" if instruction else "no instruction", row.get("bbox"))
    categories = {name: text_of(row, field) for name, field in _CATEGORIES.items()}
    truth = ClickTarget(box, size=size)
    return collected.add(Item(item_id, instruction, (images.expect(name or "nameless"),), truth=truth, categories=categories, cluster=name))


_CATEGORIES = {"group": "group", "type": "ui_type", "application": "application", "platform": "platform"}
"""Names in the table, and in the data."""
