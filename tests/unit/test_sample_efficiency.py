"""The comparison of grounding tokens with text coordinates: same data for both, forms that say the same,
switches that switch.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from molmopoint.generation.rules import DecodingRules
from molmopoint.tokens import NO_MORE_POINTS, NO_SELECTION

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "examples"))


def example(name: str) -> Any:
    return importlib.import_module(name)


forms, arm = example("efficiency.answers"), example("efficiency.arm")
data, plan, report = example("efficiency.data"), example("efficiency.plan"), example("efficiency.report")
cache, dense, loop = example("nano.cache"), example("nano.dense"), example("nano.loop")
Examples = example("nano.pointing").Examples
command = example("sample_efficiency")

PLAN = replace(
    plan.Plan(),
    sizes=(4, 6),
    batch=2,
    steps=4,
    score_every=2,
    search_size=4,
    search_steps=1,
    warmup=1,
    vit_steps=1,
    questions=3,
)
PLAN = replace(PLAN, vit_shards=1, text_layers=1, search_scenes=2, val_scenes=2, many_scenes=1, seeds=(1, 2))
FIRST_STUDY = replace(plan.Plan(), search_steps=250, seeds=(1, 2), steps=500)
"""That of the results in the repository."""
FORMS = [("text", "none"), ("grounding", "none"), *(("grounding", name) for name in forms.ABLATIONS)]
TWO = {"prompt": "stars", "label": "stars", "style": "pointing", "points": [[0.8, 0.1], [0.2, 0.9]]}
"""The first point comes first in reading order, the second one is further left; both orders differ from each
other.
"""
THREE = TWO | {"points": [[0.2, 0.9], [0.8, 0.1], [0.5, 0.5]], "style": "point_count"}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(ROOT / "checkpoints" / "nano")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of drawn scenes and a vision transformer that was not trained."""
    path = tmp_path_factory.mktemp("efficiency")
    torch.set_num_threads(1)
    settings = PLAN.settings()
    cache.draw_shard(path / "scenes", 1, replace(settings, shard_scenes=6), most_objects=PLAN.most_objects)
    loop.save_checkpoint(path / "vit.safetensors", {"dense": dense.DenseModel(settings)}, {"step": 1})
    return path


@pytest.fixture(scope="module")
def shop(folder: Path, tokenizer: Any) -> Any:
    return arm.Workshop(folder, PLAN, Examples(tokenizer, PLAN.settings(), overview=False))


def written(form: Any, points: Any, style: str) -> tuple[torch.Tensor, str]:
    ids = form.write(TWO | {"points": points, "style": style}).ids
    return torch.from_numpy(ids), form.tokenizer.decode(ids)


@pytest.mark.parametrize("style", ["pointing", "point_count"])
def test_text_answers_there_and_back(style: str, tokenizer: Any) -> None:
    form, rng = forms.AnswerForm("text", "none", tokenizer), np.random.default_rng(0)
    for number in range(13):
        points = np.round(rng.random((number, 2)), 6) if number != 2 else np.array([[0.0, 1.0], [1.0, 0.0]])
        ids, _ = written(form, points, style)
        wanted = sorted(map(tuple, np.rint(1000 * points).astype(int).tolist()))
        read = form.read(ids, (200, 150), len(tokenizer) - 4096)
        np.testing.assert_allclose(read * [5, 1000 / 150], np.array(wanted).reshape(-1, 2), atol=1e-6)


def test_text_answers_are_those_of_molmo2(tokenizer: Any) -> None:
    form = forms.AnswerForm("text", "none", tokenizer)
    assert (
        written(form, [[0.5, 0.2], [0.1, 0.3]], "pointing")[1]
        == '<points coords="1 1 100 300 2 500 200">stars</points>'
    )
    counted = 'Counting the <points coords="1 1 000 1000">stars</points> shows a total of 1.'
    assert written(form, [[0.0, 1.0]], "point_count")[1] == counted
    assert written(form, [], "pointing")[1] == "There are none."


def test_every_digit_is_one_token(tokenizer: Any) -> None:
    encoded = forms.AnswerForm("text", "none", tokenizer).write(TWO)
    assert (encoded.selections == NO_SELECTION).all()
    pieces = [tokenizer.decode([i]) for i in encoded.ids]
    digits = [piece for piece in pieces if any(character.isdigit() for character in piece)]
    assert digits == list("1" + "1200900" + "2800100")


@pytest.mark.parametrize(("format", "ablation"), FORMS)
def test_every_form_says_the_same_points(format: str, ablation: str, tokenizer: Any) -> None:
    form = forms.AnswerForm(format, ablation, tokenizer)
    encoded = form.write(THREE)
    start_id = len(tokenizer) - 4096
    table = {"<|token_index|>": 0, "<|vit_index|>": 37, "<|vit_loc|>": 41}
    ids = encoded.ids.copy()
    for token, offset in table.items():
        mine = (ids == tokenizer.convert_tokens_to_ids(token)) & (encoded.selections != NO_SELECTION)
        ids[mine] = start_id + np.where(
            encoded.selections[mine] == NO_MORE_POINTS, 36, offset + encoded.selections[mine]
        )
    xy = form.read(torch.from_numpy(ids), (144, 144), start_id)
    wanted = np.array(THREE["points"]) * 144
    assert len(xy) == 3
    near = 0.1 if format == "text" else 144 / 12 / 3
    assert all(np.abs(xy - point).max(axis=1).min() < near for point in wanted)


def test_sorting_and_no_more_points_are_what_the_switches_change(tokenizer: Any) -> None:
    usual, unsorted, endless = (
        forms.AnswerForm("grounding", name, tokenizer).write(THREE) for name in FORMS_TO_COMPARE
    )
    chosen = [answer.selections[answer.selections != NO_SELECTION] for answer in (usual, unsorted, endless)]
    assert chosen[0][-1] == chosen[1][-1] == NO_MORE_POINTS and chosen[2][-1] != NO_MORE_POINTS
    patches = [picked[:9:3].tolist() for picked in chosen]
    assert patches[0] == sorted(patches[1]) == patches[2] != patches[1]
    assert len(endless) == len(usual) - 1
    with pytest.raises(ValueError, match="no ablation of text coordinates"):
        forms.AnswerForm("text", "no rotary", tokenizer)


FORMS_TO_COMPARE = ("none", "no sorting", "no no-more-points")


def test_switches_of_the_network_and_of_decoding(tokenizer: Any, folder: Path) -> None:
    usual = DecodingRules._first_patch
    model = arm.starting_model(folder / "vit.safetensors", PLAN.settings(), seed=1)
    patch = model.model.point_predictor.patch
    assert patch.rotary_theta and model.config.mask_patches == "always"
    forms.AnswerForm("grounding", "none", tokenizer).configure(model)
    assert patch.rotary_theta and model.config.mask_patches == "always"
    forms.AnswerForm("grounding", "no rotary", tokenizer).configure(model)
    forms.AnswerForm("grounding", "no sorting", tokenizer).configure(model)
    assert patch.rotary_theta is None and model.config.mask_patches == "inference"
    with forms.AnswerForm("grounding", "no rotary", tokenizer).decoding():
        assert DecodingRules._first_patch is usual
    with forms.AnswerForm("grounding", "no sorting", tokenizer).decoding():
        assert DecodingRules._first_patch is not usual
    assert DecodingRules._first_patch is usual


def test_both_formats_see_the_same_pictures_in_the_same_order() -> None:
    orders = [arm.order_of(10, 1, 7, 4).ravel() for _ in forms.FORMATS]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert np.bincount(orders[0]).tolist() == [2 + (i in orders[0][20:]) for i in range(10)]
    assert (arm.order_of(10, 2, 7, 4).ravel() != orders[0]).any()


def test_both_formats_start_from_the_same_network(folder: Path) -> None:
    first, second, other = (
        arm.starting_model(folder / "vit.safetensors", PLAN.settings(), seed) for seed in (1, 1, 2)
    )
    for (name, weight), same, different in zip(
        first.named_parameters(), second.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(weight, same), name
        if "vision_tower" in name:
            assert torch.equal(weight, different) and not weight.requires_grad, name


def test_smaller_sizes_are_parts_of_larger_ones(folder: Path, shop: Any) -> None:
    small, large = (data.load_training_data(folder / "scenes", shop.eyes, size) for size in PLAN.sizes)
    assert list(small.questions) == list(large.questions)[:4]
    torch.testing.assert_close(small.seen, large.seen[:4])
    assert all(len(asked) == PLAN.questions for asked in large.questions)
    with pytest.raises(ValueError, match="draw more shards"):
        data.load_training_data(folder / "scenes", shop.eyes, 7)


def test_scenes_are_small_and_some_are_asked_for_many(shop: Any) -> None:
    for unseen in (shop.search, shop.validation, shop.many):
        assert all(3 <= len(scene.objects) <= PLAN.most_objects for scene in unseen.scenes)
    assert shop.search.scenes[0].queries != shop.validation.scenes[0].queries
    assert all(len(query.targets) >= 4 for _, query in shop.many.asked)


def test_one_random_object_answers_few_questions() -> None:
    found = data.baselines(replace(plan.Plan(), val_scenes=60))
    assert found["one random object"] < 0.3 and found["one random object, something there"] < 0.33
    assert found["nothing, something there"] == 0


def test_the_trunk_is_the_tile_alone(shop: Any, tokenizer: Any) -> None:
    assert len(shop.examples.trunk_ids) == 45 and len(shop.examples.pooling) == 36
    form = forms.AnswerForm("grounding", "none", tokenizer)
    batch = arm.batch_of(shop.examples, form, shop.data.questions[:2])
    assert batch["branch_ids"].max() == PLAN.questions - 1
    chosen = batch["selection_ids"][batch["selection_ids"] >= 0]
    assert chosen.max() < 36


@pytest.mark.parametrize(("format", "ablation"), FORMS)
def test_a_few_steps_of_each_run(
    format: str, ablation: str, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arm, "MAX_NEW_TOKENS", 12)
    run = plan.Run(format, 4, 1, 1e-3, PLAN.steps, ablation)
    result = arm.run_once(run, shop)
    assert (
        0 <= result["scores"]["f1"] <= 1
        and "too_many_many" in result["scores"]
        and result["best_step"] in (2, 4)
    )
    monkeypatch.setattr(arm, "train", None)  # the second time, nothing is trained
    assert arm.run_once(run, shop) == result
    assert not list((shop.folder / "runs").glob("*.safetensors"))


def test_a_run_that_was_stopped_ends_like_one_that_was_not(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arm, "MAX_NEW_TOKENS", 4)
    run = plan.Run("text", 6, 2, 1e-3, PLAN.steps)

    def results() -> tuple[dict[str, Any], dict[str, Any]]:
        stage = arm.ArmStage(run, shop)
        loop.train(stage, shop.folder / "whole", PLAN.arm_settings(), PLAN.steps, seed=5)
        return stage.model.state_dict(), stage.best.state_dict()

    model, best = results()
    add_gradients = arm.ArmStage.add_gradients

    def stopped(self: Any, step: int, steps: int, rng: np.random.Generator) -> dict[str, float]:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return add_gradients(self, step, steps, rng)

    monkeypatch.setattr(arm.ArmStage, "add_gradients", stopped)
    assert arm.run_once(run, shop) is None
    monkeypatch.setattr(arm.ArmStage, "add_gradients", add_gradients)
    stage = arm.ArmStage(run, shop)
    loop.train(stage, shop.folder / "runs" / run.name, PLAN.arm_settings(), PLAN.steps, seed=5)
    assert all(torch.equal(weight, stage.model.state_dict()[name]) for name, weight in model.items())
    assert all(torch.equal(weight, stage.best.state_dict()[name]) for name, weight in best.items())
    (shop.folder / "runs" / f"{run.name}.safetensors").unlink()


def test_the_report_marks_what_was_not_run(tmp_path: Path) -> None:
    def result(format: str, size: int, seed: int, f1: float, **more: Any) -> dict[str, Any]:
        scores = {"f1": f1, "f1_present": f1, "exact_count": 0.5, "too_many": 0.1}
        return {
            "role": "arm",
            "format": format,
            "ablation": "none",
            "size": size,
            "seed": seed,
            "scores": scores,
        } | more

    results = [result("grounding", 4, 1, 0.25), result("grounding", 4, 2, 0.35), result("text", 6, 1, 0.1)]
    table = report.table_of(results, PLAN)
    assert "| 4 | grounding tokens | 0.300 (0.250, 0.350) |" in table
    assert table.count("| not run | not run | not run | not run | 0 |") == 2 + len(forms.ABLATIONS)
    assert "| 4 | not run | 0 |" in table
    paired = [*results, result("text", 4, 1, 0.15), result("text", 4, 2, 0.05)]
    assert report.leads_of(paired, 4) == pytest.approx(
        [0.1, 0.3]
    ) and "| 4 | 0.200 (-1.071 to 1.471) | 2 |" in report.table_of(paired, PLAN)
    searched = [
        result("text", 4, 99, 0.0, role="search", rate=rate, steps=1, search_f1=f1)
        for f1, rate in zip((0.1, 0.3, 0.3), PLAN.rates, strict=True)
    ]
    assert command.best_rate(searched, "text", PLAN) == PLAN.rates[1]
    with pytest.raises(ValueError, match="run the stage `search` first"):
        command.best_rate(searched, "grounding", PLAN)
    names = [run.name for format in forms.FORMATS for run in plan.arm_runs(format, 1e-3, PLAN)]
    assert len(set(names)) == len(names) == 2 * 4 + 2 * len(forms.ABLATIONS)
    words = ["arms", "--folder", "x", "--sizes", "64", "128", "--steps", "9"]
    assert command.plan_of(command.parse(words)) == replace(plan.Plan(), sizes=(64, 128), steps=9)
    assert command.plan_of(command.parse(words[:3])) == plan.Plan()
    pytest.importorskip("matplotlib")
    report.plot(results, PLAN, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size < 100_000


def test_the_page_shows_the_stored_results() -> None:
    results = json.loads((ROOT / "examples" / "efficiency" / "results.json").read_text())
    page = (ROOT / "docs" / "sample_efficiency.md").read_text()
    lines = report.table_of(results, FIRST_STUDY).splitlines()
    for line in lines[2 : lines.index("")]:
        assert line in page
    rates: list[str] = []
    for format in ("grounding", "text"):
        searched = [result for result in results if result["role"] == "search" and result["format"] == format]
        best = max(searched, key=lambda result: (result["scores"]["f1"], -result["rate"]))
        rates.append(f"{best['rate']:g}")
    assert f"{rates[0]} for grounding tokens, {rates[1]} for text coordinates" in page
