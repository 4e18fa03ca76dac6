"""MR2Bench-Image and -Video: four responses per prompt with human ranks. Source: arXiv 2604.10966.

The layout of the published files could not be looked up; rows are read in the canonical form of `preference_rows.py`, under any of
its names. A file whose name has "image" or "video" in it belongs to that benchmark; of other files, the rows with that medium do.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from molmopoint.eval.benchmark import Items, Source
from molmopoint.eval.layouts.parquet_rows import ItemCollector
from molmopoint.eval.layouts.preference_rows import Media, add_preference, data_files, ranks_in, rows_of
from molmopoint.eval.layouts.preferences import ListBenchmark

SOURCE = Source(
    "yinuoy/MR2Bench",
    note="JSON, JSON lines or parquet with prompt, responses, rankings (1 is best) and image or video; media as the rows name them",
    licence="ODC-BY",
)
_OTHER = {"image": "video", "video": "image"}


class MR2Bench(ListBenchmark):
    """See the module.

    Attributes:
        medium: of the prompts.
    """

    source = SOURCE
    medium: ClassVar[Literal["image", "video"]]

    def read(self, folder: Path) -> Items:
        """Reads all files of this medium."""
        media, collected = Media(folder), ItemCollector()
        files = data_files(folder)
        mine = [path for path in files if _OTHER[self.medium] not in path.stem.lower()]
        for path in mine or files:
            needed = ("prompt", "responses", "rankings", *([self.medium] if self.medium in path.stem.lower() or len(files) == 1 else ()))
            for columns, row in rows_of(path, needed):
                if columns.get(row, _OTHER[self.medium]) and not columns.get(row, self.medium):
                    continue  # of the other benchmark
                prompt, key = columns.text(row, "prompt"), columns.text(row, "id")
                pictures = media.pictures(columns.get(row, "image")) if self.medium == "image" else ()
                clip = media.clip(columns.get(row, "video")) if self.medium == "video" else None
                if not pictures and clip is None:
                    collected.miss(collected.name(key or prompt), f"names no {self.medium}")
                    continue
                ranks = ranks_in(columns.get(row, "rankings"))
                categories = {name: columns.text(row, name) or "unknown" for name in ("category", "source")}
                add_preference(
                    collected, key, prompt, columns.get(row, "responses"), ranks, pictures=pictures, clip=clip, categories=categories
                )
        return collected.items()
