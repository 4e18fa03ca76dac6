"""Every benchmark of pictures from its made data to its report, on the embedded model."""

from __future__ import annotations

import json
import shutil

import pytest
from made_answers import points

from molmopoint.eval.benchmark import score_items
from molmopoint.eval.benchmarks import benchmark_names, find_benchmark
from molmopoint.eval.evaluation import predict
from molmopoint.eval.outlines import inside
from molmopoint.eval.predictions.records import read_folder
from molmopoint.eval.runner.data import open_data
from molmopoint.eval.runner.scoring import score_predictions, write_report

TASKS = {
    "countbench_qa": (3, 4),
    "osworld_g": (4, 5),
    "osworld_g_refined": (4, 5),
    "pixmo_count": (3, 4),
    "pixmo_count_validation": (3, 4),
    "pixmo_points": (4, 6),
    "point_bench": (5, 7),
    "screenspot_pro": (4, 5),
    "screenspot_v2": (4, 5),
}
"""How many of the made items can be asked, of how many."""


@pytest.mark.parametrize("name", TASKS)
def test_from_data_to_report(name, nano, tmp_path):
    assert name in benchmark_names()
    benchmark = find_benchmark(name)
    data = open_data(benchmark, "fixture", tmp_path)
    predict(
        nano,
        benchmark,
        data,
        tmp_path / name,
        settings=benchmark.generation,
        identity={"model": "nano"},
        batch_size=4,
    )
    predictions = read_folder(tmp_path / name)
    summary, scores = score_predictions(
        benchmark, data, predictions, benchmark.rules[0], ref_compat=bool(benchmark.flaws)
    )
    write_report(tmp_path / name, summary, scores, data)
    assert (summary.coverage.scored, summary.coverage.total) == TASKS[name] and not summary.coverage.failed
    assert all(each.text and each.image_sizes for each in predictions.values())
    metrics = json.loads((tmp_path / name / "metrics.json").read_text())
    assert metrics["coverage"]["total"] == TASKS[name][1]
    assert 0 <= summary.headline.value <= 1
    if benchmark.generation.single:
        assert all(len(each.points) == 1 for each in predictions.values())
    again = open_data(benchmark, tmp_path / "fixture" / name, tmp_path, with_media=False)
    assert again.digest == open_data(benchmark, "fixture", tmp_path, with_media=False).digest
    rescored, _ = score_predictions(benchmark, again, predictions, benchmark.rules[-1])
    assert rescored.coverage.missing.get("not asked", 0) == len(again.items.found) - len(predictions)


PICTURES = {
    "osworld_g": "benchmark/images",
    "osworld_g_refined": "benchmark/images",
    "pixmo_count": "images",
    "pixmo_count_validation": "images",
    "pixmo_points": "images",
    "screenspot_pro": "images",
    "screenspot_v2": "screenspotv2_image",
}
"""Where pictures lie on their own; the others have them inside the rows."""


@pytest.mark.parametrize("name", PICTURES)
def test_stored_answers_are_judged_without_pictures(name, tmp_path):
    benchmark = find_benchmark(name)
    with_pictures = open_data(benchmark, "fixture", tmp_path, with_media=False)
    shutil.rmtree(with_pictures.folder / PICTURES[name])
    (with_pictures.folder / f"{PICTURES[name]}.zip").unlink(missing_ok=True)
    without = open_data(benchmark, with_pictures.folder, tmp_path, with_media=False)
    assert (
        without.digest == with_pictures.digest
        and not open_data(benchmark, with_pictures.folder, tmp_path).items.found
    )
    answers = {each.item_id: points((20, 20), text="Here.") for each in without.items.found}
    for rule in benchmark.rules:
        before, after = (
            score_items(benchmark, data.items.found, answers, rule) for data in (with_pictures, without)
        )
        assert before == after


@pytest.mark.parametrize("name", TASKS)
def test_the_drawn_truth_agrees_with_the_judge(name, tmp_path):
    """A point that the gallery draws inside is right, and an item without targets wants none."""
    benchmark = find_benchmark(name)
    for item in open_data(benchmark, "fixture", tmp_path).items.found:
        shown = benchmark.shown_truth(item)
        assert shown is not None
        if shown.count is not None and not shown.targets:
            assert benchmark.headline[0] != "f1" or benchmark.score(item, points(), benchmark.rules[0])[
                "f1"
            ] == (shown.count == 0)
            continue
        middles = [
            next(xy for ring in target.rings for xy in _inner(target.rings, ring)) for target in shown.targets
        ]
        numbers = benchmark.score(item, points(*middles), benchmark.rules[0])
        assert numbers[benchmark.headline[0]] == 1


def _inner(rings, ring):
    """Places inside of an outline, the middle first."""
    low, high = ring.min(axis=0), ring.max(axis=0)
    for share in (0.5, 0.3, 0.7, 0.4, 0.6, 0.2, 0.8):
        xy = low + share * (high - low)
        if inside(rings, xy[None])[0]:
            yield tuple(xy)


@pytest.mark.parametrize("name", ["pixmo_count", "screenspot_v2"])
def test_a_picture_that_cannot_be_read_fails_and_is_counted(name, nano, tmp_path):
    benchmark = find_benchmark(name)
    data = open_data(benchmark, "fixture", tmp_path)
    broken = data.items.found[1].images[0]
    broken.write_bytes(broken.read_bytes()[:60])
    predict(
        nano,
        benchmark,
        data,
        tmp_path / name,
        settings=benchmark.generation,
        identity={"model": "nano"},
        batch_size=4,
    )
    summary, scores = score_predictions(benchmark, data, read_folder(tmp_path / name), benchmark.rules[0])
    unread = {each.item_id for each in data.items.found if each.images[0] == broken}
    assert summary.coverage.failed == len(unread) and len(scores) == len(data.items.found), (
        "no item disappears"
    )
    assert all(scores[item_id]["correct"] == 0 for item_id in unread)
