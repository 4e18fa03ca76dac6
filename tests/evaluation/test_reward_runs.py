"""Runs of reward benchmarks: killed, failing, in batches, of the wrong kind, from stored scores, and on the
page.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from reward_judges import FirstIsBetter, LongerIsBetter
from tiny_reward import random_reward
from typer.testing import CliRunner

from molmopoint.cli import app
from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmarks import find_benchmark
from molmopoint.eval.evaluation import predict
from molmopoint.eval.predictions.records import from_fields, read_folder, read_predictions, to_line
from molmopoint.eval.reports.gallery import write_gallery
from molmopoint.eval.runner.data import open_data
from molmopoint.eval.runner.reward_predictor import media_of
from molmopoint.eval.runner.scoring import score_predictions
from molmopoint.reward import load_reward

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from reward_judges import LongerIsBetter
from molmopoint.eval.runner.data import open_data
from molmopoint.eval.evaluation import predict
from molmopoint.eval.benchmarks import find_benchmark

class Killed(LongerIsBetter):
    def score(self, prompt, responses, images=None, videos=None):
        if len(self.calls) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(prompt, responses, images, videos)

work, benchmark = Path(sys.argv[1]), find_benchmark("vl_rewardbench")
data = open_data(benchmark, "fixture", work)
predict(Killed(), benchmark, data, work / "run", settings=benchmark.generation, identity={"model": "longer"}, batch_size=2)
"""


def scored(judge: LongerIsBetter, folder: Path, name: str = "vl_rewardbench", batch_size: int = 8) -> tuple:
    benchmark = find_benchmark(name)
    data = open_data(benchmark, "fixture", folder)
    predict(
        judge,
        benchmark,
        data,
        folder / "run",
        settings=benchmark.generation,
        identity={"model": "longer"},
        batch_size=batch_size,
    )
    predictions = read_folder(folder / "run")
    return benchmark, data, predictions, *score_predictions(benchmark, data, predictions, "each")


class Interrupted(LongerIsBetter):
    """Somebody presses Ctrl-C at the sixth call."""

    def score(self, prompt, responses, images=None, videos=None):
        if len(self.calls) == 5:
            raise KeyboardInterrupt
        return super().score(prompt, responses)


def test_interrupted_and_called_again_it_repeats_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        scored(Interrupted(), tmp_path, batch_size=2)
    judge = LongerIsBetter()
    *_, predictions, summary, _ = scored(judge, tmp_path)
    assert len(judge.calls) == 2 * 2 and len(predictions) == 4 and summary.headline.value == 1


@pytest.mark.slow
def test_killed_and_called_again_it_loses_and_repeats_nothing(tmp_path):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    file = tmp_path / "run" / "predictions.jsonl"
    assert len(list(read_predictions(file))) == 2
    with file.open("ab") as broken:
        broken.write(b'{"item_id": "half of a li')
    judge = LongerIsBetter()
    *_, predictions, summary, _ = scored(judge, tmp_path)
    assert len(judge.calls) == 2 * 2, "two of four items were left"
    assert len(list(read_predictions(file))) == len(predictions) == 4 and summary.headline.value == 1


class Batched(LongerIsBetter):
    """Takes several calls at once."""

    sizes: tuple[int, ...] = ()

    def score_batch(self, prompts, responses, images=None, videos=None):
        assert (
            images is not None
            and videos is not None
            and len(prompts) == len(responses) == len(images) == len(videos)
        )
        assert (
            len({(each is None, other is None) for each, other in zip(images, videos, strict=True)}) == 1
        ), "one kind of media"
        self.sizes += (len(prompts),)
        return [self.score(*call) for call in zip(prompts, responses, strict=True)]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("vl_rewardbench", (4, 4)), ("mm_rlhf_rewardbench", (4, 2, 2, 2)), ("mr2bench_image", (4, 4, 4, 4, 3))],
)
def test_passes_of_an_item_stay_together_in_batches(name, sizes, tmp_path):
    judge = Batched()
    *_, summary, _ = scored(judge, tmp_path, name, batch_size=4)
    assert judge.sizes == sizes and summary.headline.value == 1


class InOrders(LongerIsBetter):
    """Takes all orders of several items at once."""

    items: tuple[int, ...] = ()

    def score_orders_batch(self, prompts, responses, orders, images=None, videos=None):
        assert images is not None and videos is not None and len(prompts) == len(images) == len(videos)
        self.items += (len(prompts),)
        asked = zip(prompts, responses, orders, strict=True)
        return [
            [self.score(prompt, [answers[i] for i in order]) for order in given]
            for prompt, answers, given in asked
        ]


@pytest.mark.parametrize(("name", "items"), [("vl_rewardbench", (2, 2)), ("mr2bench_image", (1, 1, 1, 1, 1))])
def test_all_orders_of_an_item_are_asked_at_once(name, items, tmp_path):
    judge = InOrders()
    *_, predictions, summary, _ = scored(judge, tmp_path / "ours", name, batch_size=4)
    assert judge.items == items and summary.headline.value == 1
    *_, one_by_one, _, _ = scored(LongerIsBetter(), tmp_path / "theirs", name)
    assert {key: each.passes for key, each in predictions.items()} == {
        key: each.passes for key, each in one_by_one.items()
    }


class Failing(LongerIsBetter):
    """Fails on one question in a way of its own."""

    def __init__(self, fault) -> None:
        super().__init__()
        self.fault = fault

    def score(self, prompt, responses, images=None, videos=None):
        scores = super().score(prompt, responses)
        if prompt == self.calls[0][0]:
            return self.fault(scores)
        return scores


def _memory(scores):
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (_memory, "out of memory"),
        (lambda scores: scores[:-1], "one per response"),
        (lambda scores: [float("nan"), *scores[1:]], "finite"),
        (lambda scores: [float("inf"), *scores[1:]], "finite"),
    ],
)
def test_an_item_that_fails_is_wrong_and_the_others_are_scored(fault, message, tmp_path):
    _, data, predictions, summary, scores = scored(Failing(fault), tmp_path)
    errors = [each.error for each in predictions.values() if each.error]
    assert errors and all(message in error for error in errors)
    assert summary.coverage.failed == len(errors) and len(scores) == len(data.items.found)
    assert sum(numbers["correct"] for numbers in scores.values()) == len(scores) - len(errors)
    *_, summary, _ = scored(LongerIsBetter(), tmp_path)
    assert summary.coverage.failed == 0, "failed items are tried again"


def test_models_of_the_wrong_kind_are_refused(nano, tmp_path):
    for name, model in (("vl_rewardbench", nano), ("screenspot_v2", LongerIsBetter())):
        benchmark = find_benchmark(name)
        data = open_data(benchmark, "fixture", tmp_path)
        with pytest.raises(EvaluationError, match=f"expected a .* for {name}"):
            predict(model, benchmark, data, tmp_path / name, settings=benchmark.generation, identity={})
        assert not (tmp_path / name).exists()


def test_lines_come_back(tmp_path):
    *_, predictions, _, _ = scored(LongerIsBetter(), tmp_path)
    for prediction in predictions.values():
        assert from_fields(json.loads(to_line(prediction))) == prediction and len(prediction.passes) == 2
    fields = json.loads(to_line(prediction))
    for broken in (
        {"order": [0, 0], "scores": [1, 2]},
        {"order": [0, 1], "scores": [1, None]},
        {"order": [0, 1]},
    ):
        with pytest.raises(EvaluationError, match="stored prediction"):
            from_fields(fields | {"passes": [broken]})


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_stored_scores_are_judged_by_every_rule(tmp_path):
    scored(FirstIsBetter(), tmp_path)
    for rule in ("each", "mean", "every"):
        run(
            "score",
            "vl_rewardbench",
            tmp_path / "run",
            "--data",
            "fixture",
            "--rule",
            rule,
            "--out",
            tmp_path / rule,
            "--compare",
        )
        metrics = json.loads((tmp_path / rule / "vl_rewardbench" / "metrics.json").read_text())
        assert metrics["headline"]["value"] == (0.5 if rule == "each" else 0)
    assert "there are some by --rule each" in run(
        "score",
        "vl_rewardbench",
        tmp_path / "run",
        "--data",
        "fixture",
        "--rule",
        "mean",
        "--out",
        tmp_path / "again",
        "--compare",
    )


def test_scores_of_other_models(tmp_path):
    items = open_data(find_benchmark("vl_rewardbench"), "fixture", tmp_path).items.found
    lines = [{"item_id": item.item_id, "scores": [-rank for rank in item.truth]} for item in items]
    lines += [{"item_id": items[0].item_id, "scores": list(items[0].truth), "order": [1, 0]}]
    file = tmp_path / "judge.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("score", "vl_rewardbench", file, "--data", "fixture", "--out", tmp_path)
    run(*words, "--form", "scores")
    judged = {
        line["item_id"]: line["scores"]["correct"]
        for line in map(json.loads, (tmp_path / "vl_rewardbench" / "items.jsonl").read_text().splitlines())
        if "scores" in line
    }
    assert judged == {item.item_id: 0.5 if item is items[0] else 1 for item in items}
    for line, message in (
        ({"scores": [1, 2, 3]}, "expected 2 scores"),
        ({"scores": [1, None]}, "finite scores"),
        ({"scores": [1, 2], "order": [1, 1]}, "order of the responses"),
        ({"text": "the first"}, '"scores"'),
    ):
        file.write_text(json.dumps({"item_id": items[0].item_id, **line}) + "\n")
        assert message in run(*words, "--form", "scores", code=2)
    assert "--form ours or scores" in run(*words, "--form", "molmo2", code=2)
    assert "one of molmo" in run(
        "score", "screenspot_v2", file, "--data", "fixture", "--form", "scores", "--out", tmp_path, code=2
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("vl_rewardbench", "--max-crops", 8), "--orders for vl_rewardbench"),
        (("screenspot_v2", "--orders", 2), "got --orders"),
    ],
)
def test_settings_that_change_nothing_are_refused(words, message, tmp_path):
    assert message in run("eval", *words, "--data", "fixture", "--out", tmp_path, code=2)


def test_the_page_shows_responses(tmp_path):
    benchmark, data, predictions, summary, scores = scored(FirstIsBetter(), tmp_path, "mm_rlhf_rewardbench")
    write_gallery(tmp_path / "gallery.html", benchmark, data.items, scores, predictions, summary)
    page = (tmp_path / "gallery.html").read_text()
    assert page.count('<li class="') == 2 * len(scores) and "chosen in 1 of 2 orders" in page
    assert page.count('<span class="fault">order decides</span>') == len(scores)
    assert "near miss" not in page.split("<script")[0] and "farthest" not in page.split("<script")[0]
    assert page.count("<figure") == sum(len(item.images) or 3 for item in data.items.found), (
        "a clip is a strip of frames"
    )


@pytest.fixture(scope="module")
def reward_folder(tmp_path_factory) -> Path:
    """A tiny reward model with random weights, with its backbone."""
    model, processor = random_reward()
    folder = tmp_path_factory.mktemp("reward") / "model"
    model.save_pretrained(folder, processor, merged=True)
    return folder


def test_a_reward_model_through_the_command_line(reward_folder, tmp_path):
    words = ("eval", "mm_rlhf_rewardbench", "--model", reward_folder, "--data", "fixture", "--out", tmp_path)
    output = run(*words, "--compare")
    assert "correct" in output and "this run" in output
    folder = tmp_path / "mm_rlhf_rewardbench"
    manifest = json.loads((folder / "manifest.json").read_text())["settings"]
    assert (manifest["layout"], manifest["attention"]) == ("assistant", "causal")
    judge, benchmark = load_reward(reward_folder), find_benchmark("mm_rlhf_rewardbench")
    items = {item.item_id: item for item in open_data(benchmark, "fixture", tmp_path).items.found}
    for item_id, prediction in read_folder(folder).items():
        item = items[item_id]
        for each in prediction.passes:
            alone = judge.score(
                item.prompt, [item.responses[i] for i in each.order], **media_of(item, benchmark.generation)
            )
            assert [each.scores[i] for i in each.order] == pytest.approx(alone, abs=1e-4)
    run(*words)
    assert len(list(read_predictions(folder / "predictions.jsonl"))) == 5, "no item is asked twice"


def test_one_kind_of_model_at_a_time(reward_folder, tmp_path):
    common = ("--data", "fixture", "--out", tmp_path)
    assert "one kind of model" in run("eval", "vl_rewardbench", "screenspot_v2", *common, code=2)
    assert "could not be loaded" in run("eval", "vl_rewardbench", "--model", "nano", *common, code=3)
    authors = tmp_path / "authors"
    authors.mkdir()
    (authors / "reward_model_config.json").write_text("{}")
    for folder in (reward_folder, authors):
        assert "got the reward model in" in run("eval", "screenspot_v2", "--model", folder, *common, code=3)
