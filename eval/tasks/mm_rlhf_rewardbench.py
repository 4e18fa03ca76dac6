"""MM-RLHF-RewardBench: chosen and rejected responses about pictures and videos; 170 pairs. Source: arXiv 2502.10391.

`correct` is the published ACC. `all_correct` is ACC+: several pairs share a question, and all of them must be right at once, in the
same pass. The kind of question is in the path of its picture or video.

See `layouts/preferences.py` for the rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Answer, Item, Items, Metric, Source, View
from molmopoint.eval.layouts.parquet_rows import ItemCollector
from molmopoint.eval.layouts.preference_rows import Media, add_preference, digest_of, rows_of
from molmopoint.eval.layouts.preferences import PairBenchmark
from molmopoint.metrics.rankings import mean_scores

FILE = "mm_reward_bench.jsonl"
CATEGORIES = ("mcq", "long", "short", "safety", "video")


class MMRLHFRewardBench(PairBenchmark):
    """See the module."""

    name = "mm_rlhf_rewardbench"
    title = "MM-RLHF-RewardBench (arXiv 2502.10391)"
    source = Source("yifanzhang114/MM-RLHF-RewardBench", note="media as the rows name them", licence="see the data set's card")
    metrics = (PairBenchmark.metrics[0], Metric("all_correct", "binary", title="all pairs of a question right"), *PairBenchmark.metrics[1:])
    views = (View(("category",), macro=True, order=CATEGORIES),)

    def read(self, folder: Path) -> Items:
        """Reads every pair; all pairs of a question are one cluster."""
        files = sorted(folder.rglob(FILE))
        if not files:
            raise EvaluationError(f"expected {FILE} in {folder}, found none; download the data set again")
        media, collected = Media(folder), ItemCollector()
        for columns, row in rows_of(files[0], ("id", "prompt", "chosen", "rejected")):
            key, prompt = columns.text(row, "id"), columns.text(row, "prompt")
            responses = (columns.text(row, "chosen"), columns.text(row, "rejected"))
            path = columns.text(row, "image") or columns.text(row, "video")
            pair = f"{key}/{digest_of(prompt, *responses)}"
            if not path:
                collected.miss(collected.name(pair), "names no picture or video")
                continue
            add_preference(
                collected,
                pair,
                prompt,
                responses,
                (1, 2),
                pictures=media.pictures(columns.get(row, "image")),
                clip=media.clip(columns.get(row, "video")),
                categories={"category": next((name for name in CATEGORIES if name in path), "unknown")},
                cluster=key,
            )
        return collected.items()

    def judge_together(self, items: Sequence[Item], answers: Mapping[str, Answer], scores: dict[str, dict[str, float]], rule: str) -> None:
        """Adds `all_correct` to the first pair of every question, so that each question counts once."""
        questions: dict[str, list[Item]] = {}
        for item in items:
            questions.setdefault(item.cluster, []).append(item)
        for pairs in questions.values():
            scores[pairs[0].item_id]["all_correct"] = all_correct([answers.get(pair.item_id) for pair in pairs], pairs, rule)


def all_correct(answers: Sequence[Answer | None], pairs: Sequence[Item], rule: str) -> float:
    """Whether all pairs of a question are right at once.

    Args:
        answers: to the pairs; None where the model or its media failed, which is wrong.
        pairs: the items.
        rule: `each` takes the first passes of all pairs together, then the second ones, and so on; `mean` and `every` as for one pair.
    """
    right = [_right(answer, pair, rule) for answer, pair in zip(answers, pairs, strict=True)]
    passes = min(map(len, right))
    if not passes:
        return 0.0
    together = np.array([one[:passes] for one in right]).all(axis=0)
    return float(together.all() if rule == "every" else together.mean())


def _right(answer: Answer | None, pair: Item, rule: str) -> list[bool]:
    """Whether the better response has the higher score, in every pass; of the mean scores only once."""
    if answer is None or not answer.passes:
        return []
    scores = np.array([each.scores for each in answer.passes])
    better = int(np.argmin(pair.truth))
    return [bool(one[better] > one[1 - better]) for one in ([mean_scores(scores)] if rule == "mean" else scores)]
