"""Rates by hand, a limit for every group, and what decays."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import random_model

from molmopoint.training.optimiser import (
    build_optimiser,
    build_schedule,
    clip_groups,
    freeze,
    group_of,
    parameter_groups,
)
from molmopoint.training.recipe import Groups, GroupSettings, Optimiser, Recipe
from molmopoint.training.vocabulary_rows import split_output_rows

RECIPE = Recipe(
    groups=Groups(
        GroupSettings(1.0, 4, 1.0),
        GroupSettings(2.0, 0, 0.5),
        GroupSettings(3.0, 0.2, 2.0),
        GroupSettings(4.0, 50, 1e9),
    ),
    optimiser=Optimiser(weight_decay=0.1),
)


def prepared(recipe=RECIPE):
    model = random_model()
    split_output_rows(model)
    freeze(model, recipe)
    return model


def test_every_trained_parameter_is_in_one_group_and_only_matrices_decay():
    model = prepared()
    groups = parameter_groups(model, RECIPE)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    placed = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(placed) == len(set(placed)) == sum(parameter.requires_grad for parameter in model.parameters())
    for group in groups:
        for parameter in group["params"]:
            assert group_of(names[id(parameter)]) == group["name"]
    decayed = {
        names[id(parameter)] for group in groups if group["weight_decay"] for parameter in group["params"]
    }
    assert {"model.build_vit_embedding.weight", "lm_head.base"} & decayed == {
        "model.build_vit_embedding.weight"
    }
    assert not any(
        part in name
        for name in decayed
        for part in ("norm", "bias", "embed_tokens", "position", "patch_embedding", "no_more")
    )
    assert sum("layers" in name for name in decayed) == 7 * 2 + 6 * 3


def test_schedule_by_hand():
    optimiser = build_optimiser(prepared(), RECIPE)
    schedule = build_schedule(optimiser, RECIPE, steps=10)
    rates = {name: [] for name in ("vit", "connector", "llm", "point")}
    for _ in range(12):
        for name in rates:
            rates[name].append(next(group["lr"] for group in optimiser.param_groups if group["name"] == name))
        optimiser.step()
        schedule.step()
    assert rates["vit"][:4] == [0.25, 0.5, 0.75, 1.0]
    # A quarter, a half and the whole of the way from step 4 to step 10.
    assert rates["vit"][6] == pytest.approx(0.1 + 0.9 * 0.5)
    assert rates["vit"][9:] == [0.1, 0.1, 0.1]
    assert rates["connector"][4] == pytest.approx(2 * (0.1 + 0.9 * 0.5))
    assert rates["llm"][:2] == [1.5, 3.0] and rates["llm"][5] == pytest.approx(3 * (0.1 + 0.9 * 0.5))
    assert rates["point"][:10] == pytest.approx([4 * step / 50 for step in range(1, 11)])


def test_every_group_is_clipped_by_its_own_norm():
    model = prepared()
    optimiser = build_optimiser(model, RECIPE)
    torch.manual_seed(0)
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
            gradients.setdefault(group_of(name), []).append(parameter.grad.clone())
    expected = {
        name: torch.cat([part.flatten() for part in parts]).norm() for name, parts in gradients.items()
    }
    norms = clip_groups(optimiser)
    limits = {"vit": 1.0, "connector": 0.5, "llm": 2.0, "point": float(expected["point"])}
    for name, norm in norms.items():
        torch.testing.assert_close(norm, expected[name])
        left = [
            p.grad.flatten()
            for n, p in model.named_parameters()
            if p.grad is not None and group_of(n) == name
        ]
        assert float(torch.cat(left).norm()) == pytest.approx(limits[name], rel=1e-4)


def test_a_group_without_gradients_has_norm_zero():
    model = prepared()
    optimiser = build_optimiser(model, RECIPE)
    assert {name: float(norm) for name, norm in clip_groups(optimiser).items()} == dict.fromkeys(
        ("vit", "connector", "llm", "point"), 0.0
    )


def test_frozen_groups_are_left_out():
    recipe = replace(RECIPE, groups=replace(RECIPE.groups, vit=GroupSettings(0)))
    assert {group["name"] for group in parameter_groups(prepared(recipe), recipe)} == {
        "connector",
        "llm",
        "point",
    }
