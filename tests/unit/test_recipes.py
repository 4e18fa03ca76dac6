"""Recipes: the published values, inheritance, changes from the command line, and what is refused."""

from __future__ import annotations

import json

import pytest

from molmopoint.errors import RecipeError
from molmopoint.training.recipe import GROUPS, Recipe
from molmopoint.training.recipe_files import load_recipe, recipe_from_dict, recipe_names, recipe_to_dict
from molmopoint.training.start import default_recipe

# Columns as in the published overview of the stages.
STAGES = {
    "pretrain": {
        "peaks": (6e-6, 2e-4, 2e-5, 1e-4), "warmups": (2000, 200, 2000, 200), "steps": 23_000, "batch": 128, "rows": 4,
        "tokens": 2536, "crops": 16, "crops_per_image": 8, "seed": 95_818, "pool": (48, 1), "saving": (4000, 1), "log": 20,
        "workers": 2, "stage": "pretraining",
    },
    "sft": {
        "peaks": (5e-6, 5e-6, 1e-5, 1e-4), "warmups": (200,) * 4, "steps": 22_000, "batch": 160, "rows": 2,
        "tokens": 16_384, "crops": 128, "crops_per_image": 8, "seed": 50_189, "pool": (48, 30), "saving": (2000, 1), "log": 20,
        "workers": 6, "stage": "fine_tuning",
    },
    "long_context": {
        "peaks": (5e-6, 5e-6, 1e-5, 1e-4), "warmups": (200,) * 4, "steps": 2000, "batch": 160, "rows": 1,
        "tokens": 37_376, "crops": 384, "crops_per_image": 8, "seed": 50_189, "pool": (48, 30), "saving": (2000, 1), "log": 20,
        "workers": 6, "stage": "long_context",
    },
    "gui": {
        "peaks": (5e-6, 5e-6, 1e-5, 1e-4), "warmups": (200,) * 4, "steps": 2000, "batch": 128, "rows": 4,
        "tokens": 12_288, "crops": 49, "crops_per_image": 48, "seed": 95_818, "pool": (32, 10), "saving": (500, 1), "log": 10,
        "workers": 2, "stage": "gui",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", STAGES)
def test_published_stages_have_their_values(name: str):
    recipe, wanted = load_recipe(name), STAGES[name]
    groups = [getattr(recipe.groups, group) for group in GROUPS if group != "value"]
    assert tuple(group.peak for group in groups) == wanted["peaks"]
    assert tuple(group.warmup for group in groups) == wanted["warmups"]
    assert {group.clip for group in groups} == {1.0}
    adam = recipe.optimiser
    assert (adam.betas, adam.eps, adam.weight_decay, adam.floor) == ((0.9, 0.95), 1e-6, 0, 0.1)
    assert (recipe.z_loss, recipe.residual_dropout, recipe.seed, recipe.dtype) == (1e-4, 0.1, 6198, "auto")
    assert (recipe.steps, recipe.epochs, recipe.lora) == (wanted["steps"], None, None)
    data = recipe.data
    assert (data.rows, data.rows * recipe.accumulation) == (wanted["rows"], wanted["batch"])
    assert (data.max_tokens, data.max_crops, data.crops_per_image) == (
        wanted["tokens"],
        wanted["crops"],
        wanted["crops_per_image"],
    )
    assert (data.seed, (data.pool, data.crop_weight), data.workers) == (
        wanted["seed"],
        wanted["pool"],
        wanted["workers"],
    )
    assert data.stage == wanted["stage"]
    assert ((recipe.saving.every, recipe.saving.keep), recipe.logging.every) == (
        wanted["saving"],
        wanted["log"],
    )


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_survives_json(name: str):
    recipe = load_recipe(name)
    assert recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe)))) == recipe


def test_inheritance():
    full, lora, qlora = (load_recipe(name) for name in ("full", "lora", "qlora"))
    assert full.lora is None and lora.lora is not None and qlora.lora is not None
    assert (lora.lora.bits, qlora.lora.bits, qlora.lora.rank) == (16, 4, lora.lora.rank)
    assert lora.groups.point == full.groups.point and lora.groups.llm.peak > full.groups.llm.peak
    assert load_recipe("lora", ["lora=false", "bf16_weights=false", "groups.llm.peak=1e-5"]) == full


def test_changes_from_the_command_line():
    recipe = load_recipe(
        "lora",
        ["groups.point.peak=2e-4", "lora.rank=16", 'lora.targets=["q_proj"]', "dtype=bfloat16", "steps=7"],
    )
    assert (recipe.groups.point.peak, recipe.groups.point.warmup, recipe.dtype) == (2e-4, 0.05, "bfloat16")
    assert recipe.lora is not None and (recipe.lora.rank, recipe.lora.targets) == (16, ("q_proj",))
    assert (recipe.steps, recipe.epochs) == (7, None), "steps take the place of epochs"
    assert load_recipe("sft", ["epochs=0.5"]).steps is None
    assert load_recipe("sft", ["data.crops_per_image=false"]).data.crops_per_image is None


def test_a_file_of_ones_own(tmp_path):
    (tmp_path / "base.toml").write_text('base = "full"\nsteps = 9\n[data]\nmax_tokens = 512\n')
    (tmp_path / "mine.toml").write_text('base = "base.toml"\n[groups]\nvit = { peak = 0.0 }\n')
    recipe = load_recipe(tmp_path / "mine.toml", ["data.rows=2"])
    assert (recipe.steps, recipe.data.max_tokens, recipe.data.rows, recipe.groups.vit.peak) == (
        9,
        512,
        2,
        0.0,
    )
    (tmp_path / "again.json").write_text(json.dumps(recipe_to_dict(recipe)))
    assert load_recipe(str(tmp_path / "again.json")) == recipe
    (tmp_path / "empty.toml").write_text("")
    assert load_recipe(tmp_path / "empty.toml") == Recipe()


def test_the_default_recipe_depends_on_the_model():
    assert default_recipe("allenai/MolmoPoint-8B") == default_recipe("some/folder") == "lora"
    assert default_recipe("nano") == ("nano" if "nano" in recipe_names() else "lora")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["data.max_token=5"],
            r"data\.max_token: expected one of max_tokens, .*got 'max_token'; did you mean max_tokens\?",
        ),
        (["grups.vit.peak=1e-5"], r"grups: expected one of .*did you mean groups\?"),
        (["steps=many"], r"steps: expected a whole number, got 'many'"),
        (["seed=1.5"], r"seed: expected a whole number, got 1\.5"),
        (["accumulation=true"], r"accumulation: expected a whole number, got True"),
        (["compile=1"], r"compile: expected true or false, got 1"),
        (["groups.vit.peak=high"], r"groups\.vit\.peak: expected a number, got 'high'"),
        (["groups.vit=5e-6"], r"groups\.vit: expected a table of settings, got 5e-06"),
        (["optimiser.betas=[0.9]"], r"optimiser\.betas: expected 2 values, got \[0\.9\]"),
        (["logging.to=[3]"], r"logging\.to\[0\]: expected text, got 3"),
        (["dtype=int8"], r"dtype: expected one of 'auto', 'bfloat16', 'float32', got 'int8'"),
        (["data.stage=sft"], r"data\.stage: expected one of 'pretraining'"),
        (["groups.vit.clip=0"], r"groups\.vit\.clip: expected a number above 0, got 0"),
        (["data.replay=1.0"], r"data\.replay: expected a part from 0 to below 1, got 1\.0"),
        (["data.held_out=-1"], r"data\.held_out: expected 0 or more, got -1"),
        (
            ["steps=5", "epochs=false", "steps=false"],
            r"expected steps or epochs, got steps None and epochs None",
        ),
        (["bf16_weights=true", "dtype=float32"], r"bf16_weights: expected dtype 'bfloat16'"),
        (["steps"], r"expected key=value such as groups\.point\.peak=2e-4, got 'steps'"),
    ],
)
def test_faulty_changes_are_refused(changes: list[str], message: str):
    with pytest.raises(RecipeError, match=message):
        load_recipe("full", changes)


def test_faulty_files_are_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"one of the recipes .*qlora.*, got 'loar'; did you mean lora\?"):
        load_recipe("loar")
    with pytest.raises(
        RecipeError,
        match=r"expected a recipe file, got no file .*missing\.toml; the recipes of the package are",
    ):
        load_recipe("missing.toml")
    (tmp_path / "broken.toml").write_text("steps = = 3")
    with pytest.raises(RecipeError, match=r"expected a TOML or JSON file at .*broken\.toml, got: "):
        load_recipe(tmp_path / "broken.toml")
    (tmp_path / "loop.toml").write_text('base = "loop.toml"')
    with pytest.raises(RecipeError, match=r"a recipe cannot be its own base"):
        load_recipe(tmp_path / "loop.toml")
    (tmp_path / "both.toml").write_text("steps = 3\nepochs = 2\n")
    with pytest.raises(RecipeError, match=r"expected steps or epochs, got steps 3 and epochs 2.0"):
        load_recipe(tmp_path / "both.toml")
