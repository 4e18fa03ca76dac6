"""ScreenSpot-v2: one thing to click on screens of phones, desktops and the web. Source: OS-Atlas, arXiv
2410.23218.

Boxes are x, y, width, height. The usual "Avg" is the mean over all 1,272 items; the six cells of kind and
type are shown too.

Published rows of general models are made with exactly one point forced, which is the setting here; those of
models made for screens are not.
"""

from __future__ import annotations

import json
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.eval.benchmark import DatasetSource, Item, Items, View
from molmopoint.eval.datasets.archives import unpacked
from molmopoint.eval.datasets.files import FileFinder
from molmopoint.eval.datasets.rows import ItemCollector, displayed_size, json_rows, text_of
from molmopoint.eval.fixtures.scenes import box_of, png, scene_with
from molmopoint.eval.protocols.clicks import ClickBenchmark, ClickTarget, TargetReader

KINDS = ("mobile", "desktop", "web")
TYPES = ("text", "icon")

_ARCHIVE = "screenspotv2_image.zip"
"""Needed for asking only; stored answers are scored without it."""


class ScreenSpotV2(ClickBenchmark):
    """See the module for the rules."""

    name = "screenspot_v2"
    title = "ScreenSpot-v2 (OS-Atlas, arXiv 2410.23218)"
    source = DatasetSource(
        "OS-Copilot/ScreenSpot-v2",
        patterns=("screenspot_*_v2.json", _ARCHIVE),
        licence="see the data set's card",
    )
    views = (
        View(("kind", "type"), order=(*KINDS, *TYPES)),
        View(("kind",), order=KINDS),
        View(("type",), order=TYPES),
    )

    def read(self, folder: Path) -> Items:
        """Reads the three lists.

        They do not tell the sizes of pictures, so boxes are checked against those pictures that are there.
        """
        lists = {kind: json_rows(_list_of(folder, kind), "download the data set again") for kind in KINDS}
        has_archive = (folder / _ARCHIVE).is_file()
        images = FileFinder(unpacked(folder, _ARCHIVE) if has_archive else folder / Path(_ARCHIVE).stem)
        collected = ItemCollector()
        targets = TargetReader("xywh", collected.warnings)
        for kind, rows in lists.items():
            for row in rows:
                _add(kind, row, images, targets, collected)
        targets.check(self.name)
        return collected.items()

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Four items and a fifth without its picture, with what real data has too.

        An accented name in two spellings, the same instruction twice, a box that reaches out of its picture.
        """
        lists: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        with zipfile.ZipFile(folder / _ARCHIVE, "w") as images:
            for i, kind in enumerate(("mobile", "desktop", "web", "web")):
                scene, query = scene_with(rng, 1)
                x1, y1, x2, y2 = box_of(query.targets[0])
                name = f"{kind}_é{i}.png"
                if i < 3:
                    decomposed = unicodedata.normalize("NFD", name)
                    images.writestr(f"screenspotv2_image/{decomposed}", png(scene.image))
                row = {
                    "img_filename": name,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "instruction": query.prompt,
                    "data_type": "icon" if i % 2 else "text",
                    "data_source": "made",
                }
                lists[kind].append(row)
        lists["mobile"].append({**lists["mobile"][0], "bbox": [100, 100, 400, 400]})
        for kind, rows in lists.items():
            _list_of(folder, kind).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def _list_of(folder: Path, kind: str) -> Path:
    """The file with the questions about one kind of screen."""
    return folder / f"screenspot_{kind}_v2.json"


def _add(
    kind: str, row: dict[str, Any], images: FileFinder, targets: TargetReader, collected: ItemCollector
) -> None:
    name = text_of(row, "img_filename")
    instruction = text_of(row, "instruction")
    item_id = collected.name(f"{kind}/{name}/{instruction}")
    image = images.expect(name or "nameless")
    box = targets.box(row.get("bbox"), displayed_size(image))
    if not instruction:
        return collected.miss(item_id, "no instruction", row.get("bbox"))
    if box is None:
        return collected.miss(item_id, "no usable box", row.get("bbox"))
    categories = {"kind": kind, "type": text_of(row, "data_type"), "source": text_of(row, "data_source")}
    truth = ClickTarget(box)
    return collected.add(
        Item(item_id, instruction, (image,), truth=truth, categories=categories, cluster=name)
    )
