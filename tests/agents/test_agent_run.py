"""The agent of `examples/agent`: apps react, tasks can be done, and some are done by names alone."""

from __future__ import annotations

import importlib
import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import molmopoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example() -> Iterator[Any]:
    """Modules of the example by their last name."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        yield SimpleNamespace(
            **{name: importlib.import_module(f"agent.{name}") for name in ("apps", "running")}
        )
    finally:
        sys.path.remove(str(ROOT / "examples"))


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    pytest.importorskip(
        "playwright.sync_api", reason="no browser driver is installed: pip install playwright"
    )
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no browser is installed: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser.new_page(viewport={"width": 336, "height": 336})
        browser.close()


def test_tasks_have_three_to_six_clicks_with_names_of_their_own(example: Any):
    for kind in example.apps.KINDS:
        for seed in range(20):
            kit = importlib.import_module("screens.kits").drawn_kit(np.random.default_rng(seed))
            rng = np.random.default_rng([seed, 1])
            task = example.apps.make_task(rng, kind, kit, example.running.OwnIcons(), Path())
            instructions = [click.instruction for click in task.clicks]
            assert 3 <= len(instructions) <= 6
            assert len(set(instructions)) == len(instructions)
            assert all(len(example.running.wordings(instruction)) == 3 for instruction in instructions)
            states = [click.state for click in task.clicks]
            assert all(before != after for before, after in itertools.pairwise(states))


@pytest.mark.browser
def test_tasks_are_done_by_names_alone(example: Any, page: Any):
    pointer = molmopoint.load("nano-screens", device_map="cpu")
    tasks = list(example.running.draw_tasks(page, 12, 3, None))
    options = {"settle": 0, "min_score": 0.0, "max_absent": 1.0}
    outcomes = [
        example.running.do_task(page, number, task, pointer, **options) for number, task in enumerate(tasks)
    ]
    assert sum(outcome.done for outcome in outcomes) >= 1
    for outcome in outcomes:
        assert outcome.done == (outcome.clicks[-1].right and len(outcome.clicks) == outcome.length)


@pytest.mark.browser
def test_a_wrong_click_is_no_success(example: Any, page: Any):
    class Corner:
        """Points at the upper left corner, whatever is asked."""

        def __init__(self) -> None:
            self.pointer = molmopoint.load("nano-screens", device_map="cpu")

        def point(self, image: Any, prompt: str, **options: Any) -> Any:
            result = self.pointer.point(image, prompt, **options)
            result.points.x[:] = result.points.y[:] = 1.0
            return result

    (task,) = example.running.draw_tasks(page, 12, 1, None)
    outcome = example.running.do_task(page, 0, task, Corner(), settle=0, min_score=0.0, max_absent=1.0)
    assert not outcome.done and len(outcome.clicks) == 1 and not outcome.clicks[0].right
