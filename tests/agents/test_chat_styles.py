"""Answers in the styles of agents, read by the expressions with which their own parsers read them."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from made_results import metadata_of

from molmopoint.backends.result import PointingResult
from molmopoint.points import Points
from molmopoint.serving.styles import name_asked_for, uitars_size, write_points

SIZES = [(1280, 800), (1920, 1080), (390, 844), (453, 450), (64, 64), (5000, 4000)]


def made(size: tuple[int, int], *xy: tuple[float, float], text: str = "save 2 files") -> PointingResult:
    places = np.array(xy, dtype=float).reshape(-1, 2)
    zeros = np.zeros(len(places), dtype=int)
    points = Points(zeros + 1, zeros, places[:, 0], places[:, 1], image_sizes=(size,))
    return PointingResult(points, text, text, text, False, 0, (size,), metadata_of([size]))


def agent_s(text: str) -> tuple[int, int]:
    """`generate_coords` of gui_agents/s3/agents/grounding.py (simular-ai/Agent-S): the first two integers."""
    numbers = re.findall(r"\d+", text)
    assert len(numbers) >= 2
    return int(numbers[0]), int(numbers[1])


def ui_tars(text: str, size: tuple[int, int]) -> list[tuple[float, float]]:
    """What packages/ui-tars/action-parser/src/actionParser.ts (bytedance/UI-TARS-desktop) does for version 1.5:
    actions end at empty lines, are read by two expressions, and numbers are divided by the resized picture.
    """
    places = []
    for action in [piece.strip() for piece in text.split("\n\n") if piece.strip()]:
        call = re.match(r"^(\w+)\((.*)\)$", action.replace("\n", r"\n"))
        assert call is not None and call[1] == "click"
        (pair,) = [found[0] for found in re.finditer(r"([^,']|'[^']*')+", call[2])]
        name, _, value = pair.partition("=")
        assert name == "start_box"
        numbers = re.sub(r"[()\[\]]", "", re.sub(r"^['\"]|['\"]$", "", value)).split(",")
        across, down = uitars_size(*size)
        places.append((float(numbers[0]) / across * size[0], float(numbers[1]) / down * size[1]))
    return places


def midscene(text: str, size: tuple[int, int]) -> tuple[float, float] | None:
    """What packages/core/src/ai-model (web-infra-dev/midscene) does for the family qwen3-vl: the object in the
    text, its `bbox` on 0..1000, and the middle of it.
    """
    found = re.match(r"^\s*(\{[\s\S]*\})\s*$", text)
    assert found is not None
    box = json.loads(found[1])["bbox"]
    if not box:
        return None
    left, top, right, bottom = box
    assert 0 <= left <= right <= 1000 and 0 <= top <= bottom <= 1000
    return (left + right) / 2000 * size[0], (top + bottom) / 2000 * size[1]


@pytest.mark.parametrize("size", SIZES)
def test_parsers_of_agents_read_the_place_that_was_meant(size: tuple[int, int]):
    rng = np.random.default_rng(size)
    for _ in range(40):
        one, other = rng.uniform(0, 1, (2, 2)) * size
        result = made(size, tuple(one), tuple(other))
        np.testing.assert_allclose(agent_s(write_points(result, "pixel")), one, atol=0.51)
        step = max(1.0, *(side / resized for side, resized in zip(size, uitars_size(*size), strict=True)))
        read = ui_tars(write_points(result, "uitars"), size)
        np.testing.assert_allclose(read, [one, other], atol=0.51 * step)
        middle: Any = midscene(write_points(result, "midscene"), size)
        np.testing.assert_allclose(middle, one, atol=0.00051 * max(size))


def test_nothing_is_read_where_nothing_is_there():
    result = made((100, 80), text="There are none of report-3 in 2026.")
    assert re.findall(r"\d+", write_points(result, "pixel")) == []
    assert midscene(write_points(result, "midscene"), (100, 80)) is None
    assert re.match(r"^(\w+)\((.*)\)$", write_points(result, "uitars")) is None


def test_pictures_are_resized_as_ui_tars_does():
    for size in SIZES:
        across, down = uitars_size(*size)
        assert across % 28 == 0 and down % 28 == 0
        assert 100 * 784 <= across * down <= 16_384 * 784
        assert math.isclose(across / down, size[0] / size[1], rel_tol=0.15)


ASKED: list[tuple[Any, str]] = [
    ("Query:the Save button\nOutput only the coordinate of one point in your response.\n", "the Save button"),
    ("Find: the Save button", "the Save button"),
    ("the Save button", "the Save button"),
    ("Query: something else", "Query: something else"),
]


@pytest.mark.parametrize(("prompt", "name"), ASKED)
def test_sentences_of_agents_around_a_name_are_left_out(prompt: str, name: str):
    assert name_asked_for(prompt) == name
