"""VideoRewardBench: which of two responses about a video is better; 1,563 pairs. Source: arXiv 2509.00484.

Tables have the mean over all pairs, which its authors report, and the mean over five dimensions. Which of the
two arXiv 2604.10966 shows is not stated in it; its numbers stand beside the mean over dimensions here, and a
note says so.

Columns are looked for under several names (`datasets/preference_rows.py`), because the published files could
not be looked up. See `protocols/preferences.py` for the rules.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from molmopoint.eval.benchmark import DatasetSource, Items, View
from molmopoint.eval.datasets.preference_rows import Media, add_preference, data_files, digest_of, rows_of
from molmopoint.eval.datasets.rows import ItemCollector
from molmopoint.eval.fixtures import moving_shapes
from molmopoint.eval.fixtures.scenes import clip_question, write_lines
from molmopoint.eval.protocols.preferences import PairBenchmark

LONG, SHORT = "long-form perception", "short-form perception"
DIMENSIONS = (LONG, SHORT, "knowledge", "reasoning", "safety")
_NEEDED = ("prompt", "video", "chosen", "rejected")


class VideoRewardBench(PairBenchmark):
    """See the module."""

    name = "video_rewardbench"
    title = "VideoRewardBench (arXiv 2509.00484)"
    source = DatasetSource(
        "Dragonriser/VideoRewardBench",
        note="videos as the rows name them, in `videos`",
        licence="see the data set's card",
    )
    views = (View(("dimension",), macro=True, order=DIMENSIONS),)

    def read(self, folder: Path) -> Items:
        """Reads every file with pairs."""
        media = Media(folder)
        collected = ItemCollector()
        for path in data_files(folder):
            for columns, row in rows_of(path, _NEEDED):
                prompt = columns.text(row, "prompt")
                responses = (columns.text(row, "chosen"), columns.text(row, "rejected"))
                name = columns.text(row, "video")
                key = columns.text(row, "id")
                pair = f"{key}/{digest_of(prompt, name, *responses)}" if key else ""
                if not name:
                    collected.miss(collected.name(pair or digest_of(prompt, *responses)), "names no video")
                    continue
                dimension = dimension_of(columns.text(row, "category") or path.stem)
                add_preference(
                    collected,
                    pair,
                    prompt,
                    responses,
                    (1, 2),
                    clip=media.clip(name),
                    categories={"dimension": dimension},
                )
        return collected.items()

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Five items, one of every dimension, about three videos, and one whose video is not there."""
        made = [clip_question(rng, discs) for discs in (1, 2, 3)]
        for i, (frames, _, _) in enumerate(made):
            moving_shapes.write_video(folder / "videos" / f"{i}.mp4", frames)
        rows = []
        for i, dimension in enumerate(DIMENSIONS):
            _, prompt, texts = made[i % 3]
            rows.append(
                {
                    "question": prompt,
                    "video_path": f"videos/{i % 3}.mp4",
                    "chosen": texts[0],
                    "rejected": texts[1 + i % 3],
                    "dimension": dimension.title().replace(" ", "_"),
                }
            )
        rows.append({**rows[0], "video_path": "videos/gone.mp4"})
        write_lines(folder / "videorewardbench.jsonl", rows)


def dimension_of(text: str) -> str:
    """One of `DIMENSIONS` as a data set or a file name may write it, or the text itself."""
    words = text.lower().replace("_", " ").replace("-", " ")
    if "perception" in words or words in ("long", "short", "long form", "short form"):
        if "long" in words:
            return LONG
        return SHORT if "short" in words else words
    for name in DIMENSIONS[2:]:
        if name in words:
            return name
    return words or "unknown"
