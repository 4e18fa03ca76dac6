"""ScreenSpot-v2: one thing to click on screens of phones, desktops and the web. Source: OS-Atlas, arXiv 2410.23218.

Boxes are x, y, width, height. The usual "Avg" is the mean over all 1,272 items; the six cells of kind and type are shown too.

Published rows of general models are made with exactly one point forced, which is the setting here; those of models made for
screens are not.
"""

from __future__ import annotations

from pathlib import Path

from molmopoint.eval.benchmark import Item, Items, Source, View
from molmopoint.eval.layouts.archives import unpacked
from molmopoint.eval.layouts.boxes import ClickBenchmark, ClickTarget, TargetReader
from molmopoint.eval.layouts.file_names import FileFinder
from molmopoint.eval.layouts.parquet_rows import ItemCollector, displayed_size, json_rows, text_of

KINDS = ("mobile", "desktop", "web")
TYPES = ("text", "icon")

_ARCHIVE = "screenspotv2_image.zip"
"""Needed for asking only; stored answers are judged without it."""


class ScreenSpotV2(ClickBenchmark):
    """See the module for the rules."""

    name = "screenspot_v2"
    title = "ScreenSpot-v2 (OS-Atlas, arXiv 2410.23218)"
    source = Source("OS-Copilot/ScreenSpot-v2", patterns=("screenspot_*_v2.json", _ARCHIVE), licence="see the data set's card")
    views = (View(("kind", "type"), order=(*KINDS, *TYPES)), View(("kind",), order=KINDS), View(("type",), order=TYPES))

    def read(self, folder: Path) -> Items:
        """Reads the three lists. They do not tell the sizes of pictures, so boxes are checked against those pictures that are there."""
        lists = {kind: json_rows(folder / f"screenspot_{kind}_v2.json", "download the data set again") for kind in KINDS}
        images = FileFinder(unpacked(folder, _ARCHIVE) if (folder / _ARCHIVE).is_file() else folder / Path(_ARCHIVE).stem)
        collected = ItemCollector()
        targets = TargetReader("xywh", collected.warnings)
        for kind, row in ((kind, row) for kind, rows in lists.items() for row in rows):
            name, instruction = text_of(row, "img_filename"), text_of(row, "instruction")
            item_id = collected.name(f"{kind}/{name}/{instruction}")
            image = images.expect(name or "nameless")
            box = targets.box(row.get("bbox"), displayed_size(image))
            if not instruction or box is None:
                collected.miss(item_id, "no usable box" if instruction else "no instruction", row.get("bbox"))
                continue
            categories = {"kind": kind, "type": text_of(row, "data_type"), "source": text_of(row, "data_source")}
            collected.add(Item(item_id, instruction, (image,), truth=ClickTarget(box), categories=categories, cluster=name))
        targets.check(self.name)
        return collected.items()
