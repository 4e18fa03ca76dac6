"""Low-rank adapters: where they go, what they change, and merging without a trace."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from safetensors.torch import load_file
from tiny import Rows, batch_of, random_model

from molmopoint.adapters import merge_adapters, save_adapters
from molmopoint.errors import RecipeError
from molmopoint.training.finetune import make_trainable
from molmopoint.training.optimiser import group_of, is_adapter
from molmopoint.training.recipe import Lora
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.run import copy_trained, gather_trained
from molmopoint.training.start import add_adapters, check_bits
from molmopoint.training.vocabulary_rows import join_output_rows

RECIPE = load_recipe("lora", ["lora.rank=3", "bf16_weights=false", "lora.dropout=0.0"])


def moved(model):
    """The model with adapters that do something."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                parameter.normal_(std=0.3)
    return model


def logits_of(model) -> torch.Tensor:
    samples = Rows(model.config).prompts([["image"], ["clip"]])
    with torch.no_grad():
        return model.eval()(**batch_of(samples, model.config)).logits


def test_adapters_sit_in_the_text_model_alone_and_change_nothing_at_first():
    model = random_model()
    before, kind = logits_of(model), type(model)
    make_trainable(model, RECIPE)
    adapted = [name for name, _ in model.named_parameters() if is_adapter(name)]
    assert len(adapted) == 2 * 7 * model.config.text_config.num_hidden_layers
    assert all("language_model" in name for name in adapted) and type(model) is kind
    assert torch.equal(logits_of(model), before)
    trains = {
        group_of(name)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not is_adapter(name)
    }
    assert trains == {"vit", "connector", "point"}
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if is_adapter(name))


def test_merging_keeps_the_logits_and_leaves_nothing_behind():
    plain = random_model()
    names = {name for name, _ in plain.named_parameters()}
    model = random_model()
    make_trainable(model, RECIPE)
    wanted = logits_of(moved(model))
    merge_adapters(model)
    join_output_rows(model)
    assert {name for name, _ in model.named_parameters()} == names and not hasattr(model, "peft_config")
    torch.testing.assert_close(logits_of(model), wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits_of(plain), wanted)


def test_what_trained_can_be_carried_to_a_whole_model():
    trained, fresh = random_model(), random_model()
    make_trainable(trained, load_recipe("lora", ["lora.rank=3"]))
    make_trainable(fresh, RECIPE)
    assert any(parameter.dtype == torch.bfloat16 for parameter in trained.parameters())
    moved(trained)
    copy_trained(gather_trained(trained), fresh)
    frozen = dict(random_model().named_parameters())
    for name, parameter in fresh.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter, trained.get_parameter(name))
        elif (whole := name.replace(".base_layer", "")) in frozen:
            assert torch.equal(parameter, frozen[whole]), "frozen weights are those from before rounding"


def test_adapters_are_saved_in_the_form_of_peft(tmp_path):
    model = random_model()
    add_adapters(model, Lora(rank=2, targets=("q_proj", "o_proj")))
    save_adapters(model, tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * model.config.text_config.num_hidden_layers
    assert all(
        name.startswith("base_model.model.model.language_model.") and "default" not in name
        for name in tensors
    )


def test_what_cannot_be_adapted_is_refused():
    with pytest.raises(
        RecipeError, match=r"lora\.targets: expected layers of the text model \(.*q_proj.*\), got 'query'"
    ):
        add_adapters(random_model(), Lora(targets=("q_proj", "query")))
    check_bits(RECIPE)
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(
            RecipeError,
            match=r"expected bitsandbytes for lora\.bits=4, got no such package; pip install .*quantize",
        ):
            check_bits(load_recipe("qlora"))
