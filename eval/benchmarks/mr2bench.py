"""MR2Bench-Image and -Video: four responses per prompt with human ranks. Source: arXiv 2604.10966.

- MR2Bench-Image: best of four responses about a picture, ranked by people. Its 240 prompts are inferred from
  the published scores.
- MR2Bench-Video: best of four responses about a video, ranked from many judgments of pairs;
  `molmopoint.metrics.preference_graphs` says how such judgments become ranks.

The layout of the published files could not be looked up; rows are read in the canonical form of
`datasets/preference_rows.py`, under any of its names. A file whose name has "image" or "video" in it belongs
to that benchmark; of other files, the rows with that medium do. See `protocols/preferences.py` for the rules.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from molmopoint.eval.benchmark import DatasetSource, Items, VideoSegment, View
from molmopoint.eval.datasets.preference_rows import (
    Columns,
    Media,
    add_preference,
    data_files,
    ranks_in,
    rows_of,
)
from molmopoint.eval.datasets.rows import ItemCollector
from molmopoint.eval.fixtures import moving_shapes
from molmopoint.eval.fixtures.scenes import clip_question, question, shuffled, write_lines
from molmopoint.eval.protocols.preferences import ListBenchmark

_OTHER = {"image": "video", "video": "image"}


class MR2Bench(ListBenchmark):
    """What both benchmarks share.

    Attributes:
        medium: of the prompts.
    """

    source = DatasetSource(
        "yinuoy/MR2Bench",
        note="JSON, JSON lines or parquet with prompt, responses, rankings (1 is best) and image or video; media as the rows name them",
        licence="ODC-BY",
    )
    medium: ClassVar[Literal["image", "video"]]

    def read(self, folder: Path) -> Items:
        """Reads all files of this medium."""
        media = Media(folder)
        collected = ItemCollector()
        files = data_files(folder)
        mine = [path for path in files if _OTHER[self.medium] not in path.stem.lower()]
        for path in mine or files:
            for columns, row in rows_of(path, self._needed(path, files)):
                self._add(collected, media, columns, row)
        return collected.items()

    def _needed(self, path: Path, files: Sequence[Path]) -> tuple[str, ...]:
        """Columns without which a file is refused."""
        needed = ("prompt", "responses", "rankings")
        has_this_medium_alone = self.medium in path.stem.lower() or len(files) == 1
        return (*needed, self.medium) if has_this_medium_alone else needed

    def _add(self, collected: ItemCollector, media: Media, columns: Columns, row: dict[str, Any]) -> None:
        is_of_the_other = columns.get(row, _OTHER[self.medium]) and not columns.get(row, self.medium)
        if is_of_the_other:
            return
        prompt = columns.text(row, "prompt")
        key = columns.text(row, "id")
        pictures: tuple[Path, ...] = ()
        clip: VideoSegment | None = None
        if self.medium == "image":
            pictures = media.pictures(columns.get(row, "image"))
        else:
            clip = media.clip(columns.get(row, "video"))
        if not pictures and clip is None:
            collected.miss(collected.name(key or prompt), f"names no {self.medium}")
            return
        add_preference(
            collected,
            key,
            prompt,
            columns.get(row, "responses"),
            ranks_in(columns.get(row, "rankings")),
            pictures=pictures,
            clip=clip,
            categories={name: columns.text(row, name) or "unknown" for name in ("category", "source")},
        )


class MR2BenchImage(MR2Bench):
    """See the module."""

    name = "mr2bench_image"
    title = "MR2Bench-Image (arXiv 2604.10966)"
    medium = "image"
    views = (View(("category",), macro=True, order=("vqa", "reasoning", "safety")),)

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Five items and what may be wrong with rows, in the canonical form and with other names of the
        columns.

        Ties for the first place, an empty response, a picture that is not there, one response only, all of
        one rank, and ranks that count from 0, which could be anything.
        """
        (folder / "images").mkdir()
        rows = []
        for i, ranks in enumerate(([1, 2, 3, 4], [1, 1, 3, 4], [1, 2, 2, 4], [1, 2, 3, 4])):
            picture, prompt, texts = question(rng)
            picture.save(folder / "images" / f"{i}.png")
            responses, rankings = shuffled(rng, texts, ranks)
            rows.append(
                {
                    "id": f"i{i}",
                    "prompt": prompt,
                    "responses": responses,
                    "rankings": rankings,
                    "image": f"{i}.png",
                    "category": ("vqa", "reasoning", "safety", "vqa")[i],
                }
            )
        worst = rows[3]["rankings"].index(4)
        rows[3]["responses"][worst] = " "
        first = rows[0]
        rows.append({**first, "id": "gone", "image": "gone.png"})
        rows.append({**first, "id": "alone", "responses": ["One."], "rankings": [1]})
        rows.append({**first, "id": "equal", "rankings": [1, 1, 1, 1]})
        rows.append({**first, "id": "from zero", "rankings": [0, 1, 2, 3]})
        without_picture = {**first, "id": "no picture"}
        del without_picture["image"]
        rows.append(without_picture)
        write_lines(folder / "mr2bench_image.jsonl", rows)
        other = {
            "question": rows[1]["prompt"],
            "candidates": rows[1]["responses"],
            "ranks": rows[1]["rankings"],
            "image_path": "1.png",
            "task": "reasoning",
        }
        (folder / "more_image.json").write_text(json.dumps([other]), encoding="utf-8")


class MR2BenchVideo(MR2Bench):
    """See the module."""

    name = "mr2bench_video"
    title = "MR2Bench-Video (arXiv 2604.10966)"
    medium = "video"
    views = (View(("source",)),)

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Three items, of which one is a folder of frames.

        Beside them a video that is not there, and a file about pictures, which is not read.
        """
        rows = []
        for i, name in enumerate(("0.mp4", "videos/1.mp4", "2")):
            frames, prompt, texts = clip_question(rng, i + 1)
            if i < 2:
                moving_shapes.write_video(folder / "videos" / f"{i}.mp4", frames)
            else:
                moving_shapes.write_frames(folder / "videos" / str(i), frames[::4])
            responses, rankings = shuffled(rng, texts, [1, 2, 3, 4])
            rows.append(
                {
                    "id": f"v{i}",
                    "prompt": prompt,
                    "responses": responses,
                    "rankings": rankings,
                    "video": name,
                    "source": "made",
                }
            )
        rows.append({**rows[0], "id": "gone", "video": "gone.mp4"})
        write_lines(folder / "mr2bench_video.jsonl", rows)
        about_pictures = {"prompt": "?", "responses": ["a", "b"], "rankings": [1, 2], "image": "a.png"}
        write_lines(folder / "mr2bench_image.jsonl", [about_pictures])
