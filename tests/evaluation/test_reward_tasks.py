"""Every reward benchmark from its made data to its report, by judges whose scores are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from reward_judges import AllEqual, FirstIsBetter, LongerIsBetter

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import GenerationSettings, Item, ParsedAnswer, ScoredPass
from molmopoint.eval.benchmarks import benchmark_names, find_benchmark
from molmopoint.eval.benchmarks.mm_rlhf_rewardbench import all_correct
from molmopoint.eval.benchmarks.video_rewardbench import dimension_of
from molmopoint.eval.benchmarks.vl_rewardbench import group_of
from molmopoint.eval.datasets.preference_rows import Columns, ranks_in
from molmopoint.eval.evaluation import predict
from molmopoint.eval.predictions.records import read_folder
from molmopoint.eval.reports.summary import Summary
from molmopoint.eval.runner.data import open_data
from molmopoint.eval.runner.reward_predictor import orders_of
from molmopoint.eval.runner.scoring import score_predictions, write_report

TASKS = {
    "mm_rlhf_rewardbench": (5, 7),
    "mr2bench_image": (5, 10),
    "mr2bench_video": (3, 4),
    "multimodal_rewardbench": (5, 7),
    "video_rewardbench": (5, 6),
    "vl_rewardbench": (4, 6),
}
"""How many of the made items can be scored, of how many."""


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("rewards")


def run(
    name: str, judge: LongerIsBetter, work: Path, rule: str = "each", **changes
) -> tuple[Summary, dict[str, dict[str, float]]]:
    benchmark = find_benchmark(name)
    data = open_data(benchmark, "fixture", work)
    folder = work / "-".join((name, type(judge).__name__, *map(str, changes.values())))
    settings = GenerationSettings(0, **changes)
    predict(judge, benchmark, data, folder, settings=settings, identity={"model": type(judge).__name__})
    summary, scores = score_predictions(benchmark, data, read_folder(folder), rule)
    write_report(folder, summary, scores, data, predictions=read_folder(folder))
    return summary, scores


def cell(summary: Summary, metric: str, group: tuple[str, ...] = ()) -> float:
    return next(
        each.value
        for each in summary.cells
        if each.metric == metric and each.group == group and (group or not each.view)
    )


@pytest.mark.parametrize(("name", "rule"), [*zip(TASKS, ["each", "mean", "every"] * 2, strict=True)])
def test_a_right_judge_is_right_by_every_rule(name, rule, work):
    assert name in benchmark_names()
    summary, _ = run(name, LongerIsBetter(), work, rule)
    assert (summary.coverage.scored, summary.coverage.total) == TASKS[name] and not summary.coverage.failed
    assert summary.headline.value == 1 and cell(summary, "same_choice") == 1 and cell(summary, "tie") == 0
    size = 2 if find_benchmark(name).headline[0] == "correct" else 4
    if name != "mr2bench_image":  # which has an item of three responses
        assert [summary.rates[f"chose_slot_{i + 1}"] for i in range(size)] == pytest.approx([1 / size] * size)
    lines = [
        json.loads(line)
        for line in (work / f"{name}-LongerIsBetter" / "items.jsonl").read_text().splitlines()
    ]
    judged = [line for line in lines if "scores" in line]
    assert len(judged) == TASKS[name][0] and len(lines) == TASKS[name][1], "no item disappears"
    for line in judged:
        assert len(line["passes"]) == len(line["ranks"])
        assert {each["order"][0] for each in line["passes"]} == set(range(len(line["ranks"]))), (
            "every response stands first once"
        )


@pytest.mark.parametrize("name", TASKS)
def test_a_judge_of_places_is_found_out(name, work):
    summary, _ = run(name, FirstIsBetter(), work)
    is_pair = find_benchmark(name).headline[0] == "correct"
    assert summary.rates["chose_slot_1"] == 1 and cell(summary, "same_choice") == 0
    if is_pair:
        assert cell(summary, "correct") == 0.5
        assert cell(summary, "correct_when_first") == 1 and cell(summary, "correct_when_second") == 0
    benchmark, data = find_benchmark(name), open_data(find_benchmark(name), "fixture", work)
    for item in data.items.found:
        answer = read_folder(work / f"{name}-FirstIsBetter")[item.item_id].answer()
        value = {rule: benchmark.score(item, answer, rule)[benchmark.headline[0]] for rule in benchmark.rules}
        best = item.truth.count(1) / len(item.truth)
        # Its means are all equal: no pair is right, and the best of n is chance.
        assert value == pytest.approx({"each": best, "mean": 0 if is_pair else best, "every": 0})


@pytest.mark.parametrize("name", TASKS)
def test_ties_are_wrong_in_pairs_and_shared_in_lists(name, work):
    summary, scores = run(name, AllEqual(), work)
    assert cell(summary, "tie") == 1
    if find_benchmark(name).headline[0] == "correct":
        assert cell(summary, "correct") == 0
    else:
        assert cell(summary, "pairs") == cell(summary, "kendall") == cell(summary, "spearman") == 0
        assert {round(numbers["best_of_n"], 3) for numbers in scores.values()} <= {0.25, 0.333, 0.5}


def test_one_order_only(work):
    judge = LongerIsBetter()
    summary, scores = run("vl_rewardbench", judge, work, orders=1)
    assert len(judge.calls) == 4 and all("same_choice" not in numbers for numbers in scores.values())
    assert summary.headline.value == 1 and np.isnan(cell(summary, "same_choice"))


def test_groups_of_vl_rewardbench(work):
    summary, _ = run("vl_rewardbench", LongerIsBetter(), work)
    assert summary.headline.view == ("group",) and summary.headline.is_macro
    assert {
        each.group: each.n
        for each in summary.cells
        if each.metric == "correct" and each.view == ("group",) and each.group
    } == {
        ("general",): 1,
        ("hallucination",): 2,
        ("reasoning",): 1,
    }
    for key, source, group in (
        ("mmmu_pro_3", "", "reasoning"),
        ("RLHF-V-1", "RLHF-V", "hallucination"),
        ("17", "POVID", "hallucination"),
        ("VLFeedback-2", "VLFeedback", "general"),
        ("wildvision-battle", "WildVision", "general"),
        ("mathverse_hallucination", "", "reasoning"),
    ):
        assert group_of(key, source) == group


def test_parts_of_multimodal_rewardbench(work):
    summary, _ = run("multimodal_rewardbench", LongerIsBetter(), work)
    parts = [each.group[0] for each in summary.cells if each.metric == "correct" and each.view == ("part",)]
    assert parts == ["reasoning, math", "reasoning, coding", "safety, bias"]


def test_dimensions_of_video_rewardbench(work):
    summary, _ = run("video_rewardbench", LongerIsBetter(), work)
    groups = [each.group[0] for each in summary.cells if each.metric == "correct" and each.group]
    assert groups == ["long-form perception", "short-form perception", "knowledge", "reasoning", "safety"]
    assert (
        dimension_of("perception_long") == "long-form perception"
        and dimension_of("Short") == "short-form perception"
    )
    assert dimension_of("video safety") == "safety" and dimension_of("Other Things") == "other things"


def answer(*passes: tuple[float, float]) -> ParsedAnswer:
    nothing = np.empty((0, 2)), np.empty(0), np.empty(0, dtype=np.int64)
    return ParsedAnswer(
        *nothing, passes=tuple(ScoredPass((i % 2, 1 - i % 2), scores) for i, scores in enumerate(passes))
    )


def test_all_pairs_of_a_question():
    pairs = [Item(str(i), "?", truth=(1, 2), responses=("a", "b"), cluster="q") for i in range(2)]
    right, half, other_half = answer((2, 1), (2, 1)), answer((2, 1), (1, 2)), answer((1, 2), (2, 1))
    for answers, each, mean, every in (
        ([right, right], 1, 1, 1),
        ([right, half], 0.5, 0, 0),  # the means of `half` are tied
        ([half, half], 0.5, 0, 0),
        ([half, other_half], 0, 0, 0),  # never both in one pass
        ([right, None], 0, 0, 0),
    ):
        assert [all_correct(answers, pairs, rule) for rule in ("each", "mean", "every")] == [
            each,
            mean,
            every,
        ]


def test_acc_plus_counts_every_question_once(work):
    summary, scores = run("mm_rlhf_rewardbench", LongerIsBetter(), work)
    plus = next(each for each in summary.cells if each.metric == "all_correct" and not each.view)
    assert (plus.n, plus.value) == (3, 1) and sum(
        "all_correct" in numbers for numbers in scores.values()
    ) == 3


def test_orders_are_by_chance_and_go_round():
    for n in range(2, 6):
        orders = orders_of("an item", n)
        assert orders == orders_of("an item", n) and len(orders) == n
        assert all({order[slot] for order in orders} == set(range(n)) for slot in range(n))
    assert {orders_of(str(i), 2)[0] for i in range(20)} == {(0, 1), (1, 0)}
    assert len(orders_of("x", 2, 9)) == 2 and len(set(orders_of("x", 3, 9))) == 6, "no order twice"
    assert len(orders_of("x", 4, 1)) == 1 and len(set(orders_of("x", 4, 10))) == 10


@pytest.mark.parametrize("name", TASKS)
def test_missing_media_are_told_and_scores_are_judged_without_them(name, work, tmp_path):
    benchmark = find_benchmark(name)
    data = open_data(benchmark, "fixture", tmp_path)
    predict(
        LongerIsBetter(),
        benchmark,
        data,
        tmp_path / "run",
        settings=benchmark.generation,
        identity={"model": "longer"},
    )
    before, _ = score_predictions(benchmark, data, read_folder(tmp_path / "run"), "each")
    for path in {
        path for item in data.items.found for path in (*item.images, *([item.clip.path] if item.clip else ()))
    }:
        path.rename(path.with_name(f"not-{path.name}"))
    gone = open_data(benchmark, data.folder, tmp_path)
    if name != "vl_rewardbench":  # whose pictures are unpacked again
        assert not gone.items.found and {each.reason for each in gone.items.missing} >= {
            "no video file" if "video" in name else "no picture file"
        }
    without = open_data(benchmark, data.folder, tmp_path, with_media=False)
    after, _ = score_predictions(benchmark, without, read_folder(tmp_path / "run"), "each")
    assert (
        after.headline.value == before.headline.value
        and without.digest == open_data(benchmark, "fixture", work).digest
    )


def test_faults_of_rows_are_named(work):
    data = open_data(find_benchmark("mr2bench_image"), "fixture", work)
    assert {each.item_id: each.reason for each in data.items.missing} == {
        "gone": "no picture file",
        "alone": "fewer than two responses",
        "equal": "no response is better than another",
        "from zero": "no usable ranks",
        "no picture": "names no image",
    }
    by_id = {item.item_id: item for item in data.items.found}
    assert len(by_id["i3"].responses) == 3 and sum(data.items.warnings.values()) == 1
    assert sorted(by_id["i1"].truth) == [1, 1, 3, 4]


@pytest.mark.parametrize(
    ("value", "best", "ranks"),
    [
        ([1, 2, 2, 4], 1, [1, 2, 2, 4]),
        ([0, 1], 0, [1, 2]),
        ([1.0, 2.0], 1, [1, 2]),
        ([0, 1], 1, None),  # ranks from 0, or the places of the best ones?
        ([2, 3], 1, None),
        ([1, 1.5], 1, None),
        ([True, 2], 1, None),
        (["1", "2"], 1, None),
        ([], 1, None),
        ("12", 1, None),
        (None, 1, None),
    ],
)
def test_ranks(value, best, ranks):
    assert ranks_in(value, best) == ranks


def test_a_missing_column_is_named_with_the_names_tried():
    with pytest.raises(EvaluationError, match=r"'rankings'.*rankings, ranking, ranks.*got prompt, reply"):
        Columns(["prompt", "reply"], Path("x.jsonl"), ("prompt", "rankings"))


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("mr2bench_image", None, "", "*.jsonl"),
        ("mr2bench_image", "a.jsonl", '{"prompt": "?", "rankings": [1], "image": "a"}\n', "'responses'"),
        (
            "mr2bench_video",
            "video.jsonl",
            '{"prompt": "?", "responses": [], "rankings": [], "image": "a"}\n',
            "'video'",
        ),
        ("mr2bench_image", "a.jsonl", "[1]\n", "line 1"),
        ("mr2bench_image", "a.jsonl", "{\n", "line 1"),
        ("video_rewardbench", "a.jsonl", '{"prompt": "?", "chosen": "a", "rejected": "b"}\n', "'video'"),
        ("mm_rlhf_rewardbench", "a.jsonl", "", "mm_reward_bench.jsonl"),
        ("multimodal_rewardbench", "all_data.json", '[{"ID": "1"}]', "Text, Image"),
        ("vl_rewardbench", None, "", "test-*.parquet"),
    ],
)
def test_other_data_is_refused(name, file, content, message, tmp_path):
    if file:
        (tmp_path / file).write_text(content)
    with pytest.raises(EvaluationError) as error:
        open_data(find_benchmark(name), tmp_path, tmp_path)
    assert message in str(error.value)


def test_data_that_is_not_on_the_hub_is_never_made_up(tmp_path):
    with pytest.raises(EvaluationError, match="facebookresearch/multimodal_rewardbench"):
        open_data(find_benchmark("multimodal_rewardbench"), None, tmp_path)
