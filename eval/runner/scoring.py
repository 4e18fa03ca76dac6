"""Scoring the predictions of a run and writing its report; needs neither the model nor the pictures."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from molmopoint.eval.benchmark import Benchmark, Item, ItemScores, Metric, score_items
from molmopoint.eval.predictions.records import Prediction
from molmopoint.eval.reports.summary import Summary, summarise
from molmopoint.eval.reports.tables import csv_text, markdown, metrics_dict
from molmopoint.eval.runner import run_folder
from molmopoint.eval.runner.data import BenchmarkData
from molmopoint.files import write_text_whole
from molmopoint.version import __version__

logger = logging.getLogger(__name__)


def score_predictions(
    benchmark: Benchmark,
    data: BenchmarkData,
    predictions: Mapping[str, Prediction],
    rule: str,
    *,
    ref_compat: bool = False,
    segmenter: Any = None,
) -> tuple[Summary, dict[str, ItemScores]]:
    """Scores answers.

    An item is scored if it was asked: failed ones are wrong by every metric, even where an empty answer would
    be right; those never asked are "not asked".

    Args:
        benchmark: the items'.
        data: the items.
        predictions: by item id.
        rule: of scoring.
        ref_compat: repeat the reference's flaws.
        segmenter: what `molmopoint.load_segmenter` returns, for J&F beside tracking scores; it needs the
            clips.

    Returns:
        The summary, and the numbers of every scored item.
    """
    asked = [item for item in data.items.found if item.item_id in predictions]
    answers, failed = {}, []
    for item in asked:
        prediction = predictions[item.item_id]
        if prediction.error is None:
            answers[item.item_id] = prediction.answer()
        else:
            failed.append(item.item_id)
    scores = score_items(benchmark, asked, answers, rule, ref_compat=ref_compat)
    for item_id in failed:
        scores[item_id] = dict.fromkeys(scores[item_id], 0.0)
    benchmark.score_together(asked, answers, scores, rule)
    extra: tuple[Metric, ...] = ()
    if segmenter is not None:
        from molmopoint.eval.runner.segmentation import METRICS, add_segmentation

        extra = METRICS
        unread = add_segmentation(asked, answers, scores, segmenter)
        if unread:
            logger.warning(
                "%d clips could not be read for J&F and count 0, such as that of %s", len(unread), unread[0]
            )
    summary = summarise(
        benchmark, data.items, scores, answers, rule, ref_compat=ref_compat, failed=len(failed), extra=extra
    )
    return summary, scores


def write_report(
    folder: Path,
    summary: Summary,
    scores: Mapping[str, ItemScores],
    data: BenchmarkData,
    about: Mapping[str, Any] | None = None,
    *,
    predictions: Mapping[str, Prediction] | None = None,
) -> None:
    """Tables, metrics and numbers per item; every file beside and renamed, so that a reader never sees half
    of one.

    With the predictions of a reward benchmark, the lines of `items.jsonl` also have the ranks, and orders and
    scores of every pass.
    """
    by_id = {item.item_id: item for item in data.items.found}
    lines = []
    for item_id, numbers in sorted(scores.items()):
        prediction = (predictions or {}).get(item_id)
        line = _line(by_id.get(item_id), item_id, numbers, prediction)
        lines.append(json.dumps(line, ensure_ascii=False))
    for missing in data.items.missing:
        lines.append(
            json.dumps({"item_id": missing.item_id, "missing": missing.reason, "detail": missing.detail})
        )
    settings = {}
    if (folder / run_folder.FILE).exists():
        settings = run_folder.read(folder)["settings"]
    content = {
        **metrics_dict(summary),
        "settings": settings,
        "origin": data.origin,
        "library": __version__,
        **(about or {}),
    }
    metrics = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_whole(folder / "items.jsonl", "\n".join(lines) + "\n")
    write_text_whole(folder / "metrics.json", metrics + "\n")
    write_text_whole(folder / "table.md", markdown(summary))
    write_text_whole(folder / "table.csv", csv_text(summary))


def _line(
    item: Item | None, item_id: str, numbers: ItemScores, prediction: Prediction | None
) -> dict[str, Any]:
    line: dict[str, Any] = {"item_id": item_id, "cluster": item.cluster if item else "", "scores": numbers}
    if item is not None and prediction is not None and prediction.passes:
        line["ranks"] = item.truth
        line["passes"] = [asdict(each) for each in prediction.passes]
    return line
