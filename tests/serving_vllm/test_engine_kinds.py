"""Engines of other models, and in half precision."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving_vllm.engines import answers, assert_equal, engine, questions

import molmopoint

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures"


@pytest.mark.parametrize("name", ["alpha", "beta", "edge"])
def test_tiny_models_in_released_layout_with_several_crops(name: str):
    """Their weights are random: answers are nonsense, and the same nonsense."""
    folder = FIXTURES / name / "model"
    if not folder.is_dir():
        pytest.skip("the fixtures are not beside the checkout")
    own = molmopoint.load(folder, device="cpu", dtype="float32")
    asked = []
    for (picture, prompt), size in zip(
        questions(4, seed=3), ((150, 90), (90, 150), (40, 40), (200, 60)), strict=True
    ):
        asked.append((picture.resize(size), prompt))
    with engine(str(folder), max_model_len=1024) as pointer:
        for options in ({"single": True}, {"max_points": 3}, {"max_crops": 2, "single": True}):
            wanted = answers(own, asked, max_new_tokens=24, **options)
            assert_equal(answers(pointer, asked, max_new_tokens=24, **options), wanted)


def test_in_bfloat16():
    own = molmopoint.load("nano", device="cpu", dtype="bfloat16")
    asked = questions(12)
    wanted = answers(own, asked, max_new_tokens=64)
    with engine(dtype="bfloat16") as pointer:
        found = answers(pointer, asked, max_new_tokens=64)
    # Rounding may turn a choice between two nearly equal ones; nearly all answers are the same.
    same = [number for number in range(len(asked)) if found[number].raw_text == wanted[number].raw_text]
    assert len(same) >= len(asked) - 2
    assert_equal([found[number] for number in same], [wanted[number] for number in same], "bfloat16")
