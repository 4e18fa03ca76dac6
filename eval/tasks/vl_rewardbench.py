"""VL-RewardBench: which of two responses about a picture is better; 1,250 pairs. Source: arXiv 2411.17451.

Pairs fall into three groups by their id, or where that tells nothing by the data set they come from: general, hallucination and
reasoning. Published tables of reward models show the mean over the three, which is the headline here; the mean over all pairs stands
beside it. `human_ranking` is [0, 1] where the first response is better, [1, 0] where the second is.

See `layouts/preferences.py` for the rules.
"""

from __future__ import annotations

from pathlib import Path

from molmopoint.eval.benchmark import Items, Source, View
from molmopoint.eval.layouts.parquet_rows import ItemCollector, find_parquet
from molmopoint.eval.layouts.preference_rows import Media, add_preference, ranks_in, rows_of
from molmopoint.eval.layouts.preferences import PairBenchmark

GROUPS = ("general", "hallucination", "reasoning")
_NEEDED = ("id", "prompt", "responses", "rankings", "image")


class VLRewardBench(PairBenchmark):
    """See the module."""

    name = "vl_rewardbench"
    title = "VL-RewardBench (arXiv 2411.17451)"
    source = Source(
        "MMInstruction/VL-RewardBench", patterns=("data/test-*.parquet",), licence="MIT; see the data set's card for its sources"
    )
    headline = ("correct", "group")
    views = (View(("group",), macro=True, order=GROUPS), View(("source",)))

    def read(self, folder: Path) -> Items:
        """Reads the rows of the split `test`; pictures are unpacked from them once."""
        media, collected = Media(folder), ItemCollector()
        for path in find_parquet(folder, "test"):
            for columns, row in rows_of(path, _NEEDED):
                key, source = columns.text(row, "id"), columns.text(row, "source")
                pictures = media.pictures(columns.get(row, "image"))
                if not pictures:
                    collected.miss(collected.name(key), "no picture in the data")
                    continue
                add_preference(
                    collected,
                    key,
                    columns.text(row, "prompt"),
                    columns.get(row, "responses"),
                    ranks_in(columns.get(row, "rankings"), best=0),
                    pictures=pictures,
                    categories={"group": group_of(key, source), "source": source or "unknown"},
                )
        return collected.items()


def group_of(key: str, source: str) -> str:
    """One of `GROUPS`.

    Args:
        key: id of the pair.
        source: data set of the prompt.
    """
    words = f"{key} {source}".lower()
    if "mmmu" in words or "mathverse" in words:
        return "reasoning"
    return "hallucination" if any(name in words for name in ("hallucination", "rlhf", "rlaif", "povid")) else "general"
