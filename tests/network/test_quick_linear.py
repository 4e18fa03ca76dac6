"""Products of oneDNN are those of torch, where it may be asked; elsewhere torch is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny import Rows, batch_of, random_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from molmopoint import quick_linear
from molmopoint.quick_linear import Linear, multiply_faster

needs_onednn = pytest.mark.skipif(quick_linear._product is None, reason="this torch has no such product")


class Calls(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))

    @property
    def asks_onednn(self) -> bool:
        return any("mkldnn" in name for name in self.names)


def called(layer: Any, x: torch.Tensor) -> Calls:
    with Calls() as calls:
        layer(x)
    return calls


def a_layer(bias: bool = True) -> Linear:
    torch.manual_seed(0)
    layer: Any = nn.Linear(48, 80, bias=bias)
    multiply_faster(layer)
    return layer


@needs_onednn
@pytest.mark.parametrize("shape", [(48,), (1, 48), (3, 48), (16, 48), (2, 5, 48), (2, 1, 3, 48)])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_a_product_is_that_of_torch(shape, bias):
    layer, x = a_layer(bias), torch.randn(*shape)
    assert called(layer, x).asks_onednn
    expected = nn.functional.linear(x, layer.weight, layer.bias)
    assert layer(x).shape == expected.shape
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@needs_onednn
@torch.no_grad()
def test_inputs_may_lie_in_memory_in_any_way():
    layer, wide = a_layer(), torch.randn(7, 2, 96)
    for x in (wide[..., ::2], wide[..., 48:], wide.transpose(0, 1)[..., :48], wide[:, 0, :48]):
        expected = nn.functional.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_training_other_dtypes_and_empty_inputs_are_left_to_torch():
    layer, x = a_layer(), torch.randn(3, 48)
    assert not called(layer, x).asks_onednn  # gradients are wanted
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        assert not called(layer, x[:0]).asks_onednn and layer(x[:0]).shape == (0, 80)
        assert not called(copy.deepcopy(layer).double(), x.double()).asks_onednn
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            assert not called(layer, x).asks_onednn


class Stored(torch.Tensor):
    """A weight of another kind, such as one in fewer bits."""


@torch.no_grad()
def test_weights_of_other_kinds_are_left_to_torch():
    layer = a_layer()
    expected = layer(torch.ones(2, 48))
    layer.weight = nn.Parameter(layer.weight.data.as_subclass(Stored))
    assert not called(layer, torch.ones(2, 48)).asks_onednn
    torch.testing.assert_close(layer(torch.ones(2, 48)).as_subclass(torch.Tensor), expected)


def test_a_torch_without_it_multiplies_itself(monkeypatch):
    monkeypatch.setattr(quick_linear, "_product", None)
    layer, x = a_layer(), torch.randn(2, 48)
    with torch.no_grad():
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


@torch.no_grad()
def test_a_model_answers_as_with_the_products_of_torch(monkeypatch):
    model: Any = random_model(5)
    assert type(model.lm_head) is Linear
    assert list(model.state_dict()) == list(copy.deepcopy(model).state_dict())
    inputs = batch_of(Rows(model.config, 5).prompts([["image"], ["clip"], []], words=[3, 8, 4]), model.config)
    limits = {"max_new_tokens": 12, "pad_token_id": 0, "eos_token_id": None}
    logits, answers = model(**inputs).logits, model.generate(**inputs, **limits)
    monkeypatch.setattr(quick_linear, "_product", None)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(model(**inputs).logits[real], logits[real], atol=1e-4, rtol=1e-4)
    assert torch.equal(model.generate(**inputs, **limits), answers)
