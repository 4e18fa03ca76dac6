"""PixMo-Count: how many of what a label names are in a photograph; 2 to 10. Source: Molmo, arXiv 2409.17146.

The split `test`; published tables use it, progress during training is often shown on `pixmo_count_validation`. Pictures are
fetched by address, and about a dozen are gone. See `layouts/counting.py` for the rules.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from molmopoint.backends.options import COUNTING_TEMPLATE
from molmopoint.eval.benchmark import Asking, Item, Items, Source
from molmopoint.eval.layouts.archives import HOW_TO, UrlPictures
from molmopoint.eval.layouts.boxes import CountingBenchmark, whole_number
from molmopoint.eval.layouts.parquet_rows import ItemCollector, find_parquet, read_rows, text_of


class PixmoCount(CountingBenchmark):
    """See the module for the data, and `CountingBenchmark` for the rules.

    Attributes:
        split: of the data set.
    """

    name = "pixmo_count"
    title = "PixMo-Count, test (Molmo, arXiv 2409.17146)"
    split: ClassVar[str] = "test"
    source = Source("allenai/pixmo-count", patterns=("data/test-*.parquet",), note=HOW_TO, licence="see the data set's card")
    # 192 tokens hold ten points; more of them are cut off, which the table shows.
    asking = Asking(max_new_tokens=192, least_crops=24, template=COUNTING_TEMPLATE)

    def read(self, folder: Path) -> Items:
        """Reads the rows of the split; the points, which only the split `train` has, are not looked at."""
        pictures, collected = UrlPictures(folder), ItemCollector()
        for row in read_rows(find_parquet(folder, self.split), ("image_url", "image_sha256", "label", "count")):
            label, count = text_of(row, "label").lower(), whole_number(row["count"])
            cluster = str(row["image_sha256"] or row["image_url"])
            item_id = collected.name(f"{cluster[:16]}/{label}")
            if not label or count is None:
                collected.miss(item_id, "no count" if label else "no label", row["image_url"])
                continue
            image = pictures.expect(row["image_url"], row["image_sha256"])
            collected.add(Item(item_id, label, (image,), truth=count, categories={"count": str(count)}, cluster=cluster))
        collected.warnings.update(pictures.warnings)
        return collected.items()
