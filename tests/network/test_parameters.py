"""Groups of parameters, vocabulary tables in two parts, and residual dropout."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import Rows, batch_of, random_model, tiny_config
from tiny_molmo2 import random_molmo2
from tiny_training import ANSWER, conversation, row, training_batch

from molmopoint.errors import CheckpointError, RecipeError
from molmopoint.molmo2 import add_residual_dropout
from molmopoint.training.optimiser import freeze, group_of
from molmopoint.training.recipe import GROUPS, Lora, Recipe
from molmopoint.training.vocabulary_rows import join_output_rows, split_output_rows, tables_are_tied


def tied_model(seed=0):
    return random_model(
        seed, text_config={**tiny_config().text_config.to_dict(), "tie_word_embeddings": True}
    )


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def batch(config):
    samples = Rows(config, 3).prompts([["image"]], words=[0])
    return training_batch(
        config, [row(config, samples[0], [conversation(config, [20, 99, 30], ANSWER[0])])], samples
    )


@pytest.mark.parametrize("make", [random_model, tied_model, random_molmo2])
def test_every_parameter_has_one_group_and_all_but_the_base_table_train(make):
    model = make()
    split_output_rows(model)
    freeze(model, Recipe())
    groups = Counter(group_of(name) for name, _ in model.named_parameters())
    absent = {"value", "point"} if make is random_molmo2 else {"value"}
    assert set(groups) == {*GROUPS, "frozen"} - absent
    assert groups["frozen"] == 1
    names = {name for name, _ in model.named_parameters()}
    assert names - trained(model) == {"model.language_model.embed_tokens.base"}
    assert group_of("model.language_model.embed_tokens.added") == "connector"
    assert group_of("lm_head.added") == "connector"
    assert group_of("lm_head.base") == group_of("lm_head.weight") == "llm"


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("module.model.vision_tower.layers.0.mlp.fc1.weight", "vit"),
        ("base_model.model.model.language_model.layers.3.mlp.up_proj.lora_A.default.weight", "llm"),
        ("base_model.model.model.language_model.layers.3.mlp.up_proj.base_layer.weight", "llm"),
        ("base_model.model.model.language_model.embed_tokens.base", "frozen"),
        ("model.multi_modal_projector.image_projector.up_proj.weight", "connector"),
        ("model.build_vit_embedding._orig_mod.weight", "point"),
    ],
)
def test_groups_see_through_wrappers(name, group):
    assert group_of(name) == group


def test_an_unknown_parameter_is_refused():
    with pytest.raises(RecipeError, match=r"got 'decoder\.weight'"):
        group_of("decoder.weight")


def test_groups_without_a_peak_and_the_text_model_under_lora_stay():
    model = random_model()
    split_output_rows(model)
    recipe = Recipe(groups=replace(Recipe().groups, vit=replace(Recipe().groups.vit, peak=0)))
    freeze(model, recipe)
    assert not any("vision_tower" in name for name in trained(model))
    with pytest.raises(RecipeError, match="got one without"):
        freeze(model, replace(recipe, lora=Lora()))
    layer = model.model.language_model.layers[0].mlp
    layer.register_parameter("lora_A", torch.nn.Parameter(torch.zeros(2, 2)))
    freeze(model, replace(recipe, lora=Lora()))
    assert {name for name in trained(model) if group_of(name) == "llm"} == {
        "model.language_model.layers.0.mlp.lora_A"
    }
    assert {name for name in trained(model) if name.endswith(".added")} == {
        "lm_head.added",
        "model.language_model.embed_tokens.added",
    }


@pytest.mark.parametrize("make", [random_model, tied_model])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_split_tables_give_the_same_logits_and_gradients(make, checkpointing):
    whole, split = make(3).train(), make(3).train()
    before = split.state_dict()
    split_output_rows(split)
    split_output_rows(split)
    assert tables_are_tied(split) == tables_are_tied(whole) == (make is tied_model)
    if checkpointing:
        split.activation_checkpointing_enable({"use_reentrant": False})
    data = batch(whole.config)
    one, other = whole(**data), split(**data)
    assert torch.equal(one.logits, other.logits)
    one.loss.backward()
    other.loss.backward()
    table, parts = whole.model.language_model.embed_tokens, split.model.language_model.embed_tokens
    torch.testing.assert_close(torch.cat([parts.base.grad, parts.added.grad]), table.weight.grad)
    torch.testing.assert_close(
        torch.cat([split.lm_head.base.grad, split.lm_head.added.grad]), whole.lm_head.weight.grad
    )
    join_output_rows(split)
    after = split.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert tables_are_tied(split) == (make is tied_model)


@pytest.mark.parametrize("make", [random_model, tied_model])
def test_states_of_split_tables_are_read_back_and_joined_ones_exported(make, tmp_path):
    model, other = make(3), make(4)
    split_output_rows(model)
    split_output_rows(other)
    other.load_state_dict(model.state_dict())
    other.tie_weights()
    join_output_rows(other)
    other.save_pretrained(tmp_path)
    loaded = type(other).from_pretrained(tmp_path)
    ids = torch.tensor([[3, 99, 5, 127]])
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize(
    "wrap", [lambda model: model, lambda model: torch.nn.ModuleDict({"backbone": model})]
)
def test_a_tied_model_says_what_its_tied_parameters_are_called(wrap):
    model: Any = tied_model()
    whole = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    assert model.all_tied_weights_keys == whole
    split_output_rows(wrap(model))
    parts = {f"lm_head.{part}": f"model.language_model.embed_tokens.{part}" for part in ("base", "added")}
    assert model.all_tied_weights_keys == parts == model.get_expanded_tied_weights_keys(all_submodels=True)
    assert type(model)._tied_weights_keys == model._tied_weights_keys == whole, (
        "the declaration of the class stays"
    )
    model.lm_head.base = torch.nn.Parameter(model.lm_head.base.detach().clone())
    assert not tables_are_tied(model)
    model.tie_weights()
    assert tables_are_tied(model)
    join_output_rows(wrap(model))
    assert model.all_tied_weights_keys == whole
    assert tables_are_tied(model)


def test_an_untied_model_has_no_tied_parameters_in_parts_either():
    model: Any = random_model()
    split_output_rows(model)
    assert model.all_tied_weights_keys == {}
    model.tie_weights()
    assert not tables_are_tied(model)


def test_tables_are_sought_in_models_alone():
    with pytest.raises(CheckpointError, match="expected a model with a vocabulary, got Linear"):
        split_output_rows(torch.nn.Linear(2, 2))


def test_a_split_model_generates_the_same():
    model: Any = random_model(3)
    split: Any = random_model(3)
    split_output_rows(split)
    inputs = batch_of(Rows(model.config, 1).prompts([["image"]]), model.config)
    kwargs = {"max_new_tokens": 12, "pad_token_id": 0, "eos_token_id": None}
    assert torch.equal(model.generate(**inputs, **kwargs), split.generate(**inputs, **kwargs))


def test_tables_of_another_length_are_refused():
    model = random_model()
    model.config.text_config.additional_vocab_size = 5
    with pytest.raises(CheckpointError, match=r"96 \+ 5 rows, got 128"):
        split_output_rows(model)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_residual_dropout_is_for_training_alone_and_can_be_undone(checkpointing):
    model = random_model(3)
    ids = torch.randint(3, 90, (1, 12))
    expected = model(input_ids=ids).logits
    handles = add_residual_dropout(model, 0.3)
    assert len(handles) == 4
    assert torch.equal(model(input_ids=ids).logits, expected)
    model.train()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(1)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.manual_seed(1)
    assert torch.equal(model(input_ids=ids, labels=ids).loss, loss)
    assert not torch.equal(model(input_ids=ids).logits, expected)
    for handle in handles:
        handle.remove()
    assert torch.equal(model(input_ids=ids).logits, expected)
    assert add_residual_dropout(model, 0.0) == []
