"""A run: ask, judge, report. Each part can be repeated alone, because everything between them is on the disk.

OUT/TASK/manifest.json            settings; another run with others is refused
OUT/TASK/predictions[.RANK].jsonl answers, appended to
OUT/TASK/items.jsonl              numbers per item
OUT/TASK/metrics.json             all numbers, settings, versions, coverage
OUT/TASK/table.md, table.csv      for people, for spreadsheets
OUT/TASK/gallery.html             pictures with answers, to look at
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from molmopoint.eval.benchmark import Asking, Benchmark, Item, Metric, judge_all
from molmopoint.eval.reports.summary import Summary, summarise
from molmopoint.eval.reports.tables import csv_text, markdown, metrics_dict
from molmopoint.eval.runner import manifest
from molmopoint.eval.runner.data import Data, choose
from molmopoint.eval.runner.predict import Asker, Profile, Progress
from molmopoint.eval.runner.records import Prediction, PredictionWriter, merge, read_predictions
from molmopoint.eval.runner.rewards import RewardAsker, Scorer, check_judge
from molmopoint.files import write_text_whole
from molmopoint.pipeline import Pointer
from molmopoint.version import __version__

logger = logging.getLogger(__name__)

_YOUNGER = {"orders": None, "sample_mode": "uniform_last_frame", "least_crops": None, "steerable": None}
"""Settings that were added later, with the values that stand for how it was before."""


@dataclass(frozen=True)
class Place:
    """This process among those that share the items.

    Attributes:
        rank: from 0.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def from_environment(cls) -> Place:
        """As torchrun and accelerate set it."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


def settings_of(benchmark: Benchmark, asking: Asking, data: Data, model: Mapping[str, Any]) -> dict[str, Any]:
    """Whatever changes answers: which model, which items, how they are asked."""
    # Folders of before there were these settings go on.
    asked = {name: value for name, value in asdict(asking).items() if name not in _YOUNGER or value != _YOUNGER[name]}
    return {"task": benchmark.name, "task_version": benchmark.version, "data": data.digest, "asking": asked, **model}


def predict(
    asked: Pointer | Scorer,
    benchmark: Benchmark,
    data: Data,
    folder: Path,
    *,
    asking: Asking,
    model: Mapping[str, Any],
    limit: int | None = None,
    batch_size: int = 8,
    place: Place | None = None,
    profile: Profile | None = None,
    progress: Progress | None = None,
) -> None:
    """Asks every item of this process's share that has no answer yet.

    Args:
        asked: the model: one that points, or for reward benchmarks one that scores responses.
        benchmark: the items'.
        data: the items.
        folder: of the run; claimed for these settings.
        asking: how to ask, the benchmark's own or changed.
        model: name, revision, precision: what `manifest.json` says about the model.
        limit: items at most; see `choose`.
        batch_size: items per run of the model.
        place: of this process.
        profile: is told where the time goes.
        progress: is told of every batch, first of the items that were done before.

    Raises:
        EvaluationError: the folder holds answers made under other settings, or the model is of the other kind.
    """
    check_judge(asked, benchmark)
    asking = with_crops(asking, asked)
    place, profile = place or Place(), profile or Profile()
    about = {"library": __version__, "origin": data.origin, "items": len(data.items.found), "world": place.world}
    manifest.claim(folder, settings_of(benchmark, asking, data, model), about)
    wanted = choose(data.items.found, limit)[place.rank :: place.world]
    left = unanswered(folder, wanted)
    report = progress or _silent
    report(len(wanted) - len(left))
    kind: Any = RewardAsker if benchmark.needs == "scores" else Asker
    asker = kind(asked, benchmark.name, benchmark.version, asking, batch_size=batch_size, rank=place.rank, profile=profile)
    name = "predictions.jsonl" if place.world == 1 else f"predictions.{place.rank}.jsonl"
    with PredictionWriter(folder / name) as writer:
        for batch in asker.ask(left):
            with profile.phase("write"):
                writer.write(batch)
            report(len(batch))


def with_crops(asking: Asking, asked: Any) -> Asking:
    """How to ask this very model: with the processor's crops, or as many as the benchmark wants at least."""
    if asking.least_crops is None:
        return asking
    processor = getattr(getattr(asked, "processor", None), "image_processor", None)
    most = asking.max_crops or max(int(getattr(processor, "max_crops", None) or 0), asking.least_crops)
    return replace(asking, max_crops=most, least_crops=None)


def unanswered(folder: Path, items: Sequence[Item]) -> list[Item]:
    """Items without an answer in any file of the folder; failures count as unanswered and are tried again."""
    done = {item_id for item_id, prediction in stored(folder).items() if prediction.error is None}
    return [item for item in items if item.item_id not in done]


def stored(folder: Path) -> dict[str, Prediction]:
    """All answers in a folder, of whatever process, by item id, sorted."""
    return merge(prediction for file in sorted(folder.glob("predictions*.jsonl")) for prediction in read_predictions(file))


def score(
    benchmark: Benchmark,
    data: Data,
    predictions: Mapping[str, Prediction],
    rule: str,
    *,
    ref_compat: bool = False,
    segmenter: Any = None,
) -> tuple[Summary, dict[str, dict[str, float]]]:
    """Judges answers; needs neither the model nor the pictures.

    An item is scored if it was asked: failed ones are wrong by every metric, even where an empty answer would be right; those
    never asked are "not asked".

    Args:
        benchmark: the items'.
        data: the items.
        predictions: by item id.
        rule: of judging.
        ref_compat: repeat the reference's flaws.
        segmenter: what `molmopoint.load_segmenter` returns, for J&F beside tracking scores; it needs the clips.

    Returns:
        The summary, and the numbers of every scored item.
    """
    asked = [item for item in data.items.found if item.item_id in predictions]
    answers = {item.item_id: predictions[item.item_id].answer() for item in asked if predictions[item.item_id].error is None}
    scores = judge_all(benchmark, asked, answers, rule, ref_compat=ref_compat)
    failed = [item.item_id for item in asked if predictions[item.item_id].error is not None]
    scores |= {item_id: dict.fromkeys(scores[item_id], 0.0) for item_id in failed}
    benchmark.judge_together(asked, answers, scores, rule)
    extra: tuple[Metric, ...] = ()
    if segmenter is not None:
        from molmopoint.eval.runner.segmentation import METRICS, add_segmentation

        extra = METRICS
        if unread := add_segmentation(asked, answers, scores, segmenter):
            logger.warning("%d clips could not be read for J&F and count 0, such as that of %s", len(unread), unread[0])
    return summarise(benchmark, data.items, scores, answers, rule, ref_compat=ref_compat, failed=len(failed), extra=extra), scores


def write_report(
    folder: Path,
    summary: Summary,
    scores: Mapping[str, Mapping[str, float]],
    data: Data,
    about: Mapping[str, Any] | None = None,
    *,
    predictions: Mapping[str, Prediction] | None = None,
) -> None:
    """Tables, metrics and numbers per item; every file beside and renamed, so that a reader never sees half of one.

    With the predictions of a reward benchmark, the lines of `items.jsonl` also have the ranks, and orders and scores of every pass.
    """
    by_id = {item.item_id: item for item in data.items.found}
    lines = [
        json.dumps(_line(by_id.get(item_id), item_id, numbers, (predictions or {}).get(item_id)), ensure_ascii=False)
        for item_id, numbers in sorted(scores.items())
    ]
    missing = [json.dumps({"item_id": each.item_id, "missing": each.reason, "detail": each.detail}) for each in data.items.missing]
    settings = manifest.read(folder)["settings"] if (folder / manifest.FILE).exists() else {}
    content = metrics_dict(summary) | {"settings": settings, "origin": data.origin, "library": __version__, **(about or {})}
    write_text_whole(folder / "items.jsonl", "\n".join([*lines, *missing]) + "\n")
    write_text_whole(folder / "metrics.json", json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    write_text_whole(folder / "table.md", markdown(summary))
    write_text_whole(folder / "table.csv", csv_text(summary))


def _line(item: Item | None, item_id: str, numbers: Mapping[str, float], prediction: Prediction | None) -> dict[str, Any]:
    line: dict[str, Any] = {"item_id": item_id, "cluster": item.cluster if item else "", "scores": numbers}
    if item is not None and prediction is not None and prediction.passes:
        line |= {"ranks": item.truth, "passes": [asdict(each) for each in prediction.passes]}
    return line


def _silent(done: int) -> None:
    """Reports to nobody."""
