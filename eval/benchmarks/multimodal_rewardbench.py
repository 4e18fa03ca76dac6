"""Multimodal RewardBench: which of two responses about a picture is better; about 5,000 pairs. Source: arXiv
2502.14191.

The headline is the mean over all pairs, as published. Reasoning is also shown as math and coding, safety as
bias and toxicity, told apart by the id as the authors do. The pictures of Hateful Memes are not given away,
so tables have fewer pairs than the paper.

See `protocols/preferences.py` for the rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import DatasetSource, Items, View
from molmopoint.eval.datasets.preference_rows import Media, add_preference
from molmopoint.eval.datasets.rows import ItemCollector, json_rows, text_of
from molmopoint.eval.fixtures.scenes import question
from molmopoint.eval.protocols.preferences import PairBenchmark

FILE = "all_data.json"
CATEGORIES = ("correctness", "preference", "knowledge", "reasoning", "safety", "vqa")
PARTS = ("reasoning, math", "reasoning, coding", "safety, bias", "safety, toxicity")
_ADVICE = (
    "clone github.com/facebookresearch/multimodal_rewardbench, run scripts/0_download_data.py there, "
    "and pass the clone or its folder data"
)
_NEEDED = ("ID", "Text", "Image", "Output1", "Output2", "Better", "Category")
_BETTER = {"Output1": (1, 2), "Output2": (2, 1)}


class MultimodalRewardBench(PairBenchmark):
    """See the module."""

    name = "multimodal_rewardbench"
    title = "Multimodal RewardBench (arXiv 2502.14191)"
    source = DatasetSource(
        None,
        note=_ADVICE,
        licence="CC-BY-NC; pictures as their sources say",
        address="https://github.com/facebookresearch/multimodal_rewardbench",
    )
    views = (View(("category",), macro=True, order=CATEGORIES), View(("part",), order=PARTS))

    def read(self, folder: Path) -> Items:
        """Reads the list of all pairs."""
        place = folder if (folder / FILE).is_file() else folder / "data"
        rows = json_rows(place / FILE, _ADVICE)
        media = Media(place)
        collected = ItemCollector()
        names = set().union(*rows)
        absent = [name for name in _NEEDED if name not in names]
        if absent:
            raise EvaluationError(
                f"expected the columns {', '.join(absent)} in {place / FILE}, got "
                f"{', '.join(sorted(names))}; {_ADVICE}"
            )
        for row in rows:
            key = text_of(row, "ID")
            pictures = media.pictures(row.get("Image"))
            if not pictures:
                collected.miss(collected.name(key), "names no picture")
                continue
            add_preference(
                collected,
                key,
                text_of(row, "Text"),
                (row.get("Output1"), row.get("Output2")),
                _BETTER.get(text_of(row, "Better")),
                pictures=pictures,
                categories=_categories(key, row),
            )
        return collected.items()

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Five items, one whose picture is not given away, and one without a verdict."""
        pairs = (
            ("nocaps_1", "open_generation/correctness_task"),
            ("mathvista_2", "reasoning"),
            ("emma_3", "reasoning"),
            ("pairs_4", "safety"),
            ("vqa_5", "vqa"),
        )
        rows = []
        for i, (key, category) in enumerate(pairs):
            picture, prompt, texts = question(rng)
            name = f"images/{key.split('_')[0]}/{i}.png"
            (folder / "data" / name).parent.mkdir(parents=True)
            picture.save(folder / "data" / name)
            better, worse = ("Output2", "Output1") if i % 2 else ("Output1", "Output2")
            rows.append(
                {
                    "ID": key,
                    "Text": prompt,
                    "Image": name,
                    better: texts[0],
                    worse: texts[1 + i % 3],
                    "Better": better,
                    "Category": category,
                }
            )
        not_given = "images/hateful_memes/6.png"
        rows.append({**rows[0], "ID": "hateful_memes_6", "Image": not_given, "Category": "safety"})
        rows.append({**rows[0], "ID": "nocaps_7", "Better": ""})
        (folder / "data" / FILE).write_text(json.dumps(rows), encoding="utf-8")


def _categories(key: str, row: Mapping[str, Any]) -> dict[str, str]:
    written = text_of(dict(row), "Category").lower()
    category = next((name for name in CATEGORIES if name in written), written or "unknown")
    start = key.lower()
    if category == "reasoning":
        return {
            "category": category,
            "part": "reasoning, math" if start.startswith("math") else "reasoning, coding",
        }
    if category == "safety":
        return {
            "category": category,
            "part": "safety, bias" if start.startswith("pairs") else "safety, toxicity",
        }
    return {"category": category}
