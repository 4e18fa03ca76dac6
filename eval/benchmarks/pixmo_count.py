"""PixMo-Count: how many of what a label names are in a photograph; 2 to 10. Source: Molmo, arXiv 2409.17146.

Published tables use the split `test`; progress during training is often shown on `pixmo_count_validation`.
Pictures are fetched by address, and about a dozen are gone. See `protocols/counting.py` for the rules.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from molmopoint.backends.options import COUNTING_TEMPLATE
from molmopoint.eval.benchmark import DatasetSource, GenerationSettings, Item, Items
from molmopoint.eval.datasets.files import HOW_TO, UrlPictures
from molmopoint.eval.datasets.rows import (
    ItemCollector,
    find_parquet,
    read_rows,
    text_of,
    whole_number,
    write_parquet,
)
from molmopoint.eval.fixtures.scenes import png, scene_with
from molmopoint.eval.protocols.counting import MAX_NEW_TOKENS, MIN_CROPS, CountingBenchmark

_LICENCE = "see the data set's card"


class PixmoCount(CountingBenchmark):
    """See the module for the data, and `CountingBenchmark` for the rules.

    Attributes:
        split: of the data set.
    """

    name = "pixmo_count"
    title = "PixMo-Count, test (Molmo, arXiv 2409.17146)"
    split: ClassVar[str] = "test"
    source = DatasetSource(
        "allenai/pixmo-count", patterns=("data/test-*.parquet",), note=HOW_TO, licence=_LICENCE
    )
    generation = GenerationSettings(MAX_NEW_TOKENS, min_crops=MIN_CROPS, template=COUNTING_TEMPLATE)

    def read(self, folder: Path) -> Items:
        """Reads the rows of the split; the points, which only the split `train` has, are not looked at."""
        pictures = UrlPictures(folder)
        collected = ItemCollector()
        columns = ("image_url", "image_sha256", "label", "count")
        for row in read_rows(find_parquet(folder, self.split), columns):
            label = text_of(row, "label").lower()
            count = whole_number(row["count"])
            cluster = str(row["image_sha256"] or row["image_url"])
            item_id = collected.name(f"{cluster[:16]}/{label}")
            if not label:
                collected.miss(item_id, "no label", row["image_url"])
            elif count is None:
                collected.miss(item_id, "no count", row["image_url"])
            else:
                image = pictures.expect(row["image_url"], row["image_sha256"])
                categories = {"count": str(count)}
                collected.add(
                    Item(item_id, label, (image,), truth=count, categories=categories, cluster=cluster)
                )
        collected.warnings.update(pictures.warnings)
        return collected.items()

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Four items, with what the real data has too.

        A picture that is named by its address, one whose address has another picture by now, and the same row
        twice.
        """
        import pyarrow as pa

        (folder / "images").mkdir()
        rows = []
        for i, targets in enumerate((2, 3, 2)):
            scene, query = scene_with(rng, targets)
            picture = png(scene.image)
            digest = hashlib.sha256(picture).hexdigest()
            if i == 0:
                (folder / "images" / "photo.png").write_bytes(picture)
            if i == 1:
                (folder / "images" / f"{digest}.png").write_bytes(picture)
            rows.append(
                {
                    "image_url": "https://example.org/photo.png?size=full",
                    "image_sha256": digest,
                    "label": query.label,
                    "count": targets,
                }
            )
        rows.append(rows[0])
        types = {
            "image_url": pa.string(),
            "image_sha256": pa.string(),
            "label": pa.string(),
            "count": pa.int64(),
        }
        write_parquet(folder / "data" / f"{self.split}-00000-of-00001.parquet", rows, types)


class PixmoCountValidation(PixmoCount):
    """As `PixmoCount`, on the rows of the validation split."""

    name = "pixmo_count_validation"
    title = "PixMo-Count, validation (Molmo, arXiv 2409.17146)"
    split = "validation"
    source = DatasetSource(
        "allenai/pixmo-count", patterns=("data/validation-*.parquet",), note=HOW_TO, licence=_LICENCE
    )
