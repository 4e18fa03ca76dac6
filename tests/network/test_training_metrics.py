"""Figures of a run against the same figures counted by hand."""

from __future__ import annotations

import pytest
import torch
from tiny import Rows, random_model
from tiny_training import ANSWER, conversation, row, training_batch

from molmopoint.training.metrics import StepFlops, TrainingMetrics, peak_flops, weight_of
from molmopoint.training.vocabulary_rows import split_output_rows


@pytest.fixture(scope="module")
def model():
    return random_model(11)


def batch(config, count=2):
    samples = Rows(config, 3).prompts([["image"]] * count, words=[0] * count)
    return training_batch(
        config,
        [row(config, samples[i], [conversation(config, [20, 30 + i], ANSWER[i])]) for i in range(count)],
        samples,
    )


@torch.no_grad()
def test_losses_by_source_are_those_of_their_rows(model):
    both = batch(model.config)
    output = model(**both)
    metrics = TrainingMetrics(("a", "b"), torch.device("cpu"), 200, 8)
    metrics.count(both, 1e9)
    metrics.add(output, weight_of(both))
    sources = torch.tensor([[0], [1]]).expand_as(both["input_ids"])
    metrics.add_details(output, both, sources, model.config, weighted=False)
    line = metrics.line(1, lambda values: values)
    for i, name in enumerate(("a", "b")):
        silent = both["loss_weights"].clone()
        silent[1 - i] = 0
        alone = model(**{**both, "loss_weights": silent})
        assert line[f"loss/source/{name}"] == pytest.approx(float(alone.loss), rel=1e-4)
    assert line["loss"] == pytest.approx(float(output.loss), rel=1e-5)
    assert line["loss/text"] == pytest.approx(float(output.loss_sums["text"] / output.weight_sum), rel=1e-5)
    assert line["loss/patch"] == pytest.approx(float(output.loss_sums["patch"]) / 6, rel=1e-5)
    tokens = int((both["example_ids"] >= 0).sum())
    assert line["fill/tokens"] == pytest.approx(tokens / 400) and line["fill/crops"] == pytest.approx(4 / 16)
    assert line["bad"] == 0 and "loss/z" not in line
    assert line["flops_per_s"] / line["tokens_per_s"] == pytest.approx(1e9 / tokens, rel=1e-4)


@torch.no_grad()
def test_accuracies_count_right_choices(model):
    both = batch(model.config)
    output = model(**both)
    told = TrainingMetrics(("a",), torch.device("cpu"), 200, 8)
    told.add_details(output, both, torch.zeros_like(both["input_ids"]), model.config, weighted=True)
    wrong = told.line(1, lambda values: values)["accuracy/location"]
    targets = torch.tensor([location for answer in ANSWER[:2] for _, _, location in answer])
    assert wrong == pytest.approx(float((output.location_logits.argmax(-1) == targets).float().mean()))
    output.location_logits = torch.nn.functional.one_hot(targets, 9).float()
    told.add_details(output, both, torch.zeros_like(both["input_ids"]), model.config, weighted=True)
    assert told.line(1, lambda values: values)["accuracy/location"] == 1.0


def test_a_line_starts_anew_and_sums_over_processes(model):
    both = batch(model.config)
    told = TrainingMetrics(("a",), torch.device("cpu"), 200, 8)
    told.count(both)
    one = told.line(1, lambda values: values * 2)
    assert one["fill/tokens"] == pytest.approx(int((both["example_ids"] >= 0).sum()) / 400)
    assert told.line(1, lambda values: values)["tokens_per_s"] == 0


def test_operations_by_hand():
    model = random_model()
    split_output_rows(model)
    both = batch(model.config)
    full = StepFlops(model)(both)
    rows, length = both["input_ids"].shape
    text = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32) + 16 * 32 * 2 + 32 * 48 + 16 * 32 + 16 * 48 + 9 * 32
    vit = 3 * (4 * 24 * 24 + 2 * 24 * 32) + 24 * 588
    connector = 3 * 24 * 48 + 2 * 40 * 24 + 32 * 40
    supervised = int((both["loss_weights"] > 0).sum())
    expected = rows * length * (6 * text + 12 * 2 * 32 * length) + 6 * supervised * 128 * 32
    expected += 4 * 25 * (6 * vit + 12 * 3 * 24 * 25) + 6 * connector * len(both["image_token_pooling"])
    assert full == pytest.approx(expected)
    model.model.vision_tower.requires_grad_(False)
    assert full - StepFlops(model)(both) == pytest.approx(4 * 25 * 4 * vit)
    assert peak_flops(torch.device("cpu")) is None
