"""VideoRewardBench: which of two responses about a video is better; 1,563 pairs. Source: arXiv 2509.00484.

Tables have the mean over all pairs, which its authors report, and the mean over five dimensions. Which of the two arXiv 2604.10966
shows is not stated in it; its numbers stand beside the mean over dimensions here, and a note says so.

Columns are looked for under several names (`layouts/preference_rows.py`), because the published files could not be looked up. See
`layouts/preferences.py` for the rules.
"""

from __future__ import annotations

from pathlib import Path

from molmopoint.eval.benchmark import Items, Source, View
from molmopoint.eval.layouts.parquet_rows import ItemCollector
from molmopoint.eval.layouts.preference_rows import Media, add_preference, data_files, digest_of, rows_of
from molmopoint.eval.layouts.preferences import PairBenchmark

DIMENSIONS = ("long-form perception", "short-form perception", "knowledge", "reasoning", "safety")
_NEEDED = ("prompt", "video", "chosen", "rejected")


class VideoRewardBench(PairBenchmark):
    """See the module."""

    name = "video_rewardbench"
    title = "VideoRewardBench (arXiv 2509.00484)"
    source = Source("Dragonriser/VideoRewardBench", note="videos as the rows name them, in `videos`", licence="see the data set's card")
    views = (View(("dimension",), macro=True, order=DIMENSIONS),)

    def read(self, folder: Path) -> Items:
        """Reads every file with pairs."""
        media, collected = Media(folder), ItemCollector()
        for path in data_files(folder):
            for columns, row in rows_of(path, _NEEDED):
                prompt, responses = columns.text(row, "prompt"), (columns.text(row, "chosen"), columns.text(row, "rejected"))
                name = columns.text(row, "video")
                key = columns.text(row, "id")
                pair = f"{key}/{digest_of(prompt, name, *responses)}" if key else ""
                if not name:
                    collected.miss(collected.name(pair or digest_of(prompt, *responses)), "names no video")
                    continue
                categories = {"dimension": dimension_of(columns.text(row, "category") or path.stem)}
                add_preference(collected, pair, prompt, responses, (1, 2), clip=media.clip(name), categories=categories)
        return collected.items()


def dimension_of(text: str) -> str:
    """One of `DIMENSIONS` as a data set or a file name may write it, or the text itself."""
    words = text.lower().replace("_", " ").replace("-", " ")
    if "perception" in words or words in ("long", "short", "long form", "short form"):
        return DIMENSIONS[0] if "long" in words else DIMENSIONS[1] if "short" in words else words
    return next((name for name in DIMENSIONS[2:] if name in words), words or "unknown")
