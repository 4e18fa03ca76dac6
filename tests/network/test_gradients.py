"""Gradients: the same with and without checkpointing, packed and separate, and none of them missing."""

from __future__ import annotations

import pytest
import torch
from tiny import Rows, batch_of, random_model
from tiny_training import ANSWER, conversation, row, training_batch

from molmopoint.attention import flash_in_steps


def batches(config):
    """Two examples as rows of their own, and packed into one row."""
    samples = Rows(config, 3).prompts([["image"], ["image"]], words=[0, 0])
    spoken = [conversation(config, [20 + i, 30, 40], ANSWER[i]) for i in range(2)]
    singles = [row(config, sample, [words]) for sample, words in zip(samples, spoken, strict=True)]
    second = row(config, samples[1], [spoken[1]], example=1, first_patch=18)
    packed = {name: singles[0][name] + second[name] for name in second}
    separate = [
        training_batch(config, [single], [sample]) for single, sample in zip(singles, samples, strict=True)
    ]
    return separate, training_batch(config, [packed], samples)


def calm_model(seed=0, **overrides):
    """Smaller weights: gradients of comparable size, so that a tolerance means something."""
    model = random_model(seed, **overrides).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(0.3)
    return model


def gradients(model, *batches, **kwargs):
    """Sum of the gradients of the undivided losses."""
    model.zero_grad()
    for batch in batches:
        model(**batch, num_items_in_batch=1.0, **kwargs).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_close(a, b, tolerance=1e-4):
    assert a.keys() == b.keys()
    total = sum(float(gradient.norm()) ** 2 for gradient in a.values()) ** 0.5
    for name in a:
        assert float((a[name] - b[name]).norm()) < tolerance * max(float(a[name].norm()), 1e-3 * total), name


@pytest.fixture(scope="module")
def model():
    return calm_model()


@pytest.mark.parametrize("scale", ["keys", "dim"])
def test_packed_gradients_are_the_sum_of_separate_ones(scale):
    model = calm_model(patch_logit_scale=scale)
    separate, packed = batches(model.config)
    assert_close(gradients(model, *separate), gradients(model, packed))


def test_a_larger_batch_gives_the_sum_of_its_rows(model):
    samples = Rows(model.config, 3).prompts([["image"], ["image"]], words=[0, 0])
    spoken = [
        conversation(model.config, words, answer)
        for words, answer in zip(([20, 30], [20] * 9), ANSWER, strict=True)
    ]
    rows = [row(model.config, sample, [words]) for sample, words in zip(samples, spoken, strict=True)]
    alone = [training_batch(model.config, [r], [s]) for r, s in zip(rows, samples, strict=True)]
    assert_close(gradients(model, *alone), gradients(model, training_batch(model.config, rows, samples)))


@pytest.mark.parametrize("backend", ["sdpa", "flash_attention_2"])
def test_checkpointed_gradients_are_the_plain_ones(model, backend):
    """Layers run again in the backward pass: with the backend of the forward pass, which is never flash
    attention.
    """
    _, packed = batches(model.config)
    expected = gradients(model, packed)
    twin = calm_model()
    twin.gradient_checkpointing_enable()
    twin.train().model.language_model.config._attn_implementation = flash_in_steps(backend)
    runs = []
    layers = [*twin.model.language_model.layers, *twin.model.vision_tower.layers]
    for layer in layers:
        layer.mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    assert_close(expected, gradients(twin, packed))
    assert len(runs) == 2 * len(layers), "both towers were checkpointed"


def test_nothing_is_frozen_and_every_weight_of_a_pointing_batch_learns(model):
    assert all(parameter.requires_grad for parameter in model.parameters())
    separate, _ = batches(model.config)
    found = gradients(model, *separate)
    silent = {name for name, gradient in found.items() if not gradient.any()}
    assert silent <= {name for name in found if name.endswith("k_proj.bias")}, (
        "a bias of the keys moves no softmax"
    )


@pytest.mark.parametrize("kind", ["image", "clip", None])
def test_batches_without_points_or_pictures_reach_every_weight(model, kind):
    """Sharded ranks would wait for a gradient that never comes."""
    inputs = batch_of(Rows(model.config, 0).prompts([[kind] if kind else []]), model.config)
    found = gradients(model, inputs | {"labels": inputs["input_ids"]})
    assert found["model.language_model.layers.0.mlp.up_proj.weight"].any()
    assert not found["model.point_predictor.location.projection.weight"].any()


def test_a_frozen_part_stays_frozen_under_checkpointing():
    model = calm_model()
    model.model.vision_tower.requires_grad_(False)
    model.model.language_model.embed_tokens.requires_grad_(False)
    model.gradient_checkpointing_enable()
    separate, _ = batches(model.config)
    model(**separate[0]).loss.backward()
    assert model.get_parameter("model.connector.image_projector.down_proj.weight").grad is not None
    assert all(parameter.grad is None for parameter in model.model.vision_tower.parameters())


def test_autocast_gradients_are_close(model):
    separate, _ = batches(model.config)
    expected = gradients(model, separate[0])
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(**separate[0], num_items_in_batch=1.0)
    assert all(total.dtype == torch.float32 for total in out.loss_sums.values())
    out.loss.backward()
    for name in (
        "model.point_predictor.patch.query.weight",
        "model.point_predictor.subpatch.key.weight",
        "lm_head.weight",
    ):
        found = model.get_parameter(name).grad
        assert torch.nn.functional.cosine_similarity(found.flatten(), expected[name].flatten(), 0) > 0.98
