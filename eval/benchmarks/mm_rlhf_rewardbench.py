"""MM-RLHF-RewardBench: chosen and rejected responses about pictures and videos; 170 pairs. Source: arXiv
2502.10391.

`correct` is the published ACC. `all_correct` is ACC+: several pairs share a question, and all of them must be
right at once, in the same pass. The kind of question is in the path of its picture or video.

See `protocols/preferences.py` for the rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import DatasetSource, Item, Items, ItemScores, Metric, ParsedAnswer, View
from molmopoint.eval.datasets.preference_rows import Media, add_preference, digest_of, rows_of
from molmopoint.eval.datasets.rows import ItemCollector
from molmopoint.eval.fixtures import moving_shapes
from molmopoint.eval.fixtures.scenes import clip_question, question, write_lines
from molmopoint.eval.protocols.preferences import PairBenchmark
from molmopoint.metrics.rankings import mean_scores

FILE = "mm_reward_bench.jsonl"
CATEGORIES = ("mcq", "long", "short", "safety", "video")


class MMRLHFRewardBench(PairBenchmark):
    """See the module."""

    name = "mm_rlhf_rewardbench"
    title = "MM-RLHF-RewardBench (arXiv 2502.10391)"
    source = DatasetSource(
        "yifanzhang114/MM-RLHF-RewardBench",
        note="media as the rows name them",
        licence="see the data set's card",
    )
    metrics = (
        PairBenchmark.metrics[0],
        Metric("all_correct", "binary", title="all pairs of a question right"),
        *PairBenchmark.metrics[1:],
    )
    views = (View(("category",), macro=True, order=CATEGORIES),)

    def read(self, folder: Path) -> Items:
        """Reads every pair; all pairs of a question are one cluster."""
        files = sorted(folder.rglob(FILE))
        if not files:
            raise EvaluationError(f"expected {FILE} in {folder}, found none; download the data set again")
        media = Media(folder)
        collected = ItemCollector()
        for columns, row in rows_of(files[0], ("id", "prompt", "chosen", "rejected")):
            key = columns.text(row, "id")
            prompt = columns.text(row, "prompt")
            responses = (columns.text(row, "chosen"), columns.text(row, "rejected"))
            path = columns.text(row, "image") or columns.text(row, "video")
            pair = f"{key}/{digest_of(prompt, *responses)}"
            if not path:
                collected.miss(collected.name(pair), "names no picture or video")
                continue
            category = next((name for name in CATEGORIES if name in path), "unknown")
            add_preference(
                collected,
                pair,
                prompt,
                responses,
                (1, 2),
                pictures=media.pictures(columns.get(row, "image")),
                clip=media.clip(columns.get(row, "video")),
                categories={"category": category},
                cluster=key,
            )
        return collected.items()

    def score_together(
        self,
        items: Sequence[Item],
        answers: Mapping[str, ParsedAnswer],
        scores: dict[str, ItemScores],
        rule: str,
    ) -> None:
        """Adds `all_correct` to the first pair of every question, so that each question counts once."""
        questions: dict[str, list[Item]] = {}
        for item in items:
            questions.setdefault(item.cluster, []).append(item)
        for pairs in questions.values():
            of_pairs = [answers.get(pair.item_id) for pair in pairs]
            scores[pairs[0].item_id]["all_correct"] = all_correct(of_pairs, pairs, rule)

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Two questions with two pairs each, and one about a video as a folder of frames.

        Beside them a picture that is not there, and an empty response.
        """
        rows = []
        for i, kind in enumerate(("mcq", "long")):
            picture, prompt, texts = question(rng)
            name = f"{kind}/{i}.png"
            (folder / kind).mkdir()
            picture.save(folder / name)
            for worse in texts[1 : 3 - i]:
                rows.append(
                    {"id": f"q{i}", "image": name, "prompt": prompt, "chosen": texts[0], "rejected": worse}
                )
        frames, prompt, texts = clip_question(rng, 2)
        name = "video/27799510"
        moving_shapes.write_frames(folder / name, frames[::4])
        for worse in texts[1:3]:
            rows.append({"id": "q2", "video": name, "prompt": prompt, "chosen": texts[0], "rejected": worse})
        rows.append({**rows[0], "id": "gone", "image": "safety/gone.png"})
        rows.append({**rows[0], "id": "empty", "rejected": ""})
        reasons = {"chosen_reason": "right", "rejected_reason": "wrong"}
        write_lines(folder / FILE, [row | reasons for row in rows])


def all_correct(answers: Sequence[ParsedAnswer | None], pairs: Sequence[Item], rule: str) -> float:
    """Whether all pairs of a question are right at once.

    Args:
        answers: to the pairs; None where the model or its media failed, which is wrong.
        pairs: the items.
        rule: `each` takes the first passes of all pairs together, then the second ones, and so on; `mean` and
            `every` as for one pair.
    """
    right = [_right(answer, pair, rule) for answer, pair in zip(answers, pairs, strict=True)]
    passes = min(map(len, right))
    if not passes:
        return 0.0
    together = np.array([one[:passes] for one in right]).all(axis=0)  # (passes,)
    if rule == "every":
        return float(together.all())
    return float(together.mean())


def _right(answer: ParsedAnswer | None, pair: Item, rule: str) -> list[bool]:
    """Whether the better response has the higher score, in every pass; of the mean scores only once."""
    if answer is None or not answer.passes:
        return []
    scores = np.array([each.scores for each in answer.passes])  # (passes, 2)
    if rule == "mean":
        scores = mean_scores(scores)[None]
    better = int(np.argmin(pair.truth))
    return [bool(one[better] > one[1 - better]) for one in scores]
