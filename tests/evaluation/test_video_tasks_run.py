"""Every benchmark of videos from its made data to its report, on the embedded model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from molmopoint.eval.benchmarks import benchmark_names, find_benchmark
from molmopoint.eval.evaluation import predict
from molmopoint.eval.predictions.records import read_folder
from molmopoint.eval.runner.data import open_data
from molmopoint.eval.runner.scoring import score_predictions, write_report

TASKS = {
    "mevis": (5, 5),
    "molmo2_track": (4, 6),
    "molmo2_video_count": (5, 8),
    "molmo2_video_point": (4, 6),
    "reasonvos": (4, 6),
    "ref_davis17": (4, 5),
    "ref_yt_vos": (4, 6),
}
"""How many of the made items can be asked, of how many."""


@pytest.mark.parametrize("name", TASKS)
def test_from_data_to_report(name, nano, tmp_path):
    assert name in benchmark_names()
    benchmark = find_benchmark(name)
    data = open_data(benchmark, "fixture", tmp_path)
    # The embedded model was not made for videos and talks until the limit.
    settings = replace(benchmark.generation, max_new_tokens=32)
    predict(nano, benchmark, data, tmp_path / name, settings=settings, identity={"model": "nano"}, limit=1)
    predictions = read_folder(tmp_path / name)
    summary, scores = score_predictions(
        benchmark, data, predictions, benchmark.rules[0], ref_compat=bool(benchmark.flaws)
    )
    write_report(tmp_path / name, summary, scores, data)
    assert (len(data.items.found), summary.coverage.total) == TASKS[name] and not summary.coverage.failed
    assert summary.coverage.scored == 1 and 0 <= summary.headline.value <= 1
    assert all(each.timestamps and each.timestamps[0] == 0 for each in predictions.values())
    table = (tmp_path / name / "table.md").read_text()
    assert "nan" not in table.lower() and benchmark.title in table
    again = open_data(benchmark, tmp_path / "fixture" / name, tmp_path, with_media=False)
    rescored, _ = score_predictions(benchmark, again, predictions, benchmark.rules[-1])
    assert rescored.coverage.scored == 1
