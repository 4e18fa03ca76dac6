"""VL-RewardBench: which of two responses about a picture is better; 1,250 pairs. Source: arXiv 2411.17451.

Pairs fall into three groups by their id, or where that tells nothing by the data set they come from: general,
hallucination and reasoning. Published tables of reward models show the mean over the three, which is the
headline here; the mean over all pairs stands beside it. `human_ranking` is [0, 1] where the first response is
better, [1, 0] where the second is.

See `protocols/preferences.py` for the rules.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from molmopoint.eval.benchmark import DatasetSource, Items, View
from molmopoint.eval.datasets.preference_rows import Media, add_preference, ranks_in, rows_of
from molmopoint.eval.datasets.rows import ItemCollector, find_parquet, write_parquet
from molmopoint.eval.fixtures.scenes import png, question
from molmopoint.eval.protocols.preferences import PairBenchmark

GROUPS = ("general", "hallucination", "reasoning")
_NEEDED = ("id", "prompt", "responses", "rankings", "image")


class VLRewardBench(PairBenchmark):
    """See the module."""

    name = "vl_rewardbench"
    title = "VL-RewardBench (arXiv 2411.17451)"
    source = DatasetSource(
        "MMInstruction/VL-RewardBench",
        patterns=("data/test-*.parquet",),
        licence="MIT; see the data set's card for its sources",
    )
    headline = ("correct", "group")
    views = (View(("group",), macro=True, order=GROUPS), View(("source",)))

    def read(self, folder: Path) -> Items:
        """Reads the rows of the split `test`; pictures are unpacked from them once."""
        media = Media(folder)
        collected = ItemCollector()
        for path in find_parquet(folder, "test"):
            for columns, row in rows_of(path, _NEEDED):
                key = columns.text(row, "id")
                source = columns.text(row, "source")
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

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Four items of all groups, the better response first or second.

        Beside them a row without a picture, and one without a better response.
        """
        import pyarrow as pa

        pairs = (
            ("RLAIF-V-17", "RLAIF-V"),
            ("mathverse_3", "MathVerse"),
            ("wildvision-8", "WildVision"),
            ("hallucination_pair-5", "POVID"),
        )
        rows = []
        for i, (key, source) in enumerate(pairs):
            picture, prompt, texts = question(rng)
            responses = [texts[0], texts[1 + i % 3]]
            ranking = [0, 1]
            if i % 2 == 0:
                responses.reverse()
                ranking.reverse()
            rows.append(
                {
                    "id": key,
                    "query": prompt,
                    "response": responses,
                    "human_ranking": ranking,
                    "image": {"bytes": png(picture), "path": None},
                    "models": ["one", "another"],
                    "query_source": source,
                }
            )
        rows.append({**rows[0], "id": "no-picture", "image": None})
        rows.append({**rows[0], "id": "no-better", "human_ranking": [0, 0]})
        types = {
            "id": pa.string(),
            "query": pa.string(),
            "response": pa.list_(pa.string()),
            "human_ranking": pa.list_(pa.int64()),
            "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            "models": pa.list_(pa.string()),
            "query_source": pa.string(),
        }
        write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows, types)


def group_of(key: str, source: str) -> str:
    """One of `GROUPS`.

    Args:
        key: id of the pair.
        source: data set of the prompt.
    """
    words = f"{key} {source}".lower()
    if "mmmu" in words or "mathverse" in words:
        return "reasoning"
    if any(name in words for name in ("hallucination", "rlhf", "rlaif", "povid")):
        return "hallucination"
    return "general"
