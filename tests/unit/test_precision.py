"""Which precision training computes in, on processors that know bfloat16 and on those that imitate it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from molmopoint.errors import RecipeError
from molmopoint.training import precision
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.trainer import training_arguments


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What was measured is not remembered from test to test."""
    precision._fastest_of_kind.cache_clear()
    yield
    precision._fastest_of_kind.cache_clear()


@pytest.mark.parametrize(
    ("speedup", "expected"), [(4.2, torch.bfloat16), (0.2, torch.float32), (0.0, torch.float32)]
)
def test_a_processor_computes_in_what_is_quicker_there(
    speedup: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda: speedup)
    assert precision.fastest_dtype("cpu") == precision.resolve_precision("auto", "cpu") == expected
    with precision.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == expected


def test_it_is_measured_once_and_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda: calls.append(1) or 2.0)
    assert precision.fastest_dtype("cpu") == precision.fastest_dtype(torch.device("cpu", 0)) == torch.bfloat16
    assert len(calls) == 1


def test_the_measurement_is_a_positive_number_and_survives_a_missing_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert precision.bfloat16_speedup() > 0

    def fail(*_: object) -> float:
        raise RuntimeError('"addmm_impl_cpu_" not implemented for BFloat16')

    monkeypatch.setattr(precision, "_seconds", fail)
    assert precision.bfloat16_speedup() == 0.0


@pytest.mark.parametrize("known", [True, False])
def test_a_gpu_is_asked_and_not_measured(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: known and not including_emulation
    )
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda: pytest.fail("measured on the processor"))
    assert precision.fastest_dtype("cuda:1") == (torch.bfloat16 if known else torch.float32)
    assert precision.fastest_dtype("mps") == torch.float32


def test_a_named_precision_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda: 0.2)
    assert precision.resolve_precision("bfloat16", "cpu") == torch.bfloat16
    assert precision.resolve_precision("float32", "cpu") == torch.float32
    with precision.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="expected one of 'auto', 'bfloat16', 'float32', got 'half'"):
        precision.resolve_precision("half", "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(("speedup", "expected"), [(4.2, "bfloat16"), (0.2, "float32")])
def test_recipes_settle_on_what_is_quicker(
    speedup: float, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(precision, "_default_kind", lambda: "cpu")
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda: speedup)
    recipe = load_recipe("nano")
    assert recipe.dtype == "auto" and precision.settle_precision(recipe).dtype == expected
    assert training_arguments(recipe, tmp_path, 3).bf16 == (expected == "bfloat16")
    named = load_recipe("nano", ["dtype=float32"])
    assert precision.settle_precision(named) is named
    # Weights that are kept in bfloat16 cannot be multiplied in float32.
    assert precision.settle_precision(load_recipe("lora")).dtype == "bfloat16"
    with pytest.raises(RecipeError, match="bf16_weights"):
        load_recipe("lora", ["dtype=float32"])
