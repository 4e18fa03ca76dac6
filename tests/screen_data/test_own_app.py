"""The app of `examples/own_app.py`: a tiny slice of it is drawn, and `nano-screens` learns its first steps."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.start import default_recipe

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / "own_app.py"))


def test_the_recipe_is_that_of_the_model():
    assert default_recipe("nano-screens") == "nano-screens"
    recipe = load_recipe("nano-screens")
    assert recipe.augmentation.mirror == 0 and recipe.augmentation.turn == 0
    assert recipe.lora is None


def test_pages_and_days_of_the_test_are_kept_from_the_training(script: dict[str, Any]):
    parts = script["parts"](20, 5)
    trained, days = parts["train"]
    assert not set(trained) & set(parts["new-pages"][0])
    for part in ("new-pages", "new-days"):
        assert not set(days) & set(parts[part][1])
    everything = {*trained, *parts["new-pages"][0]}
    app = (script["APP"] / "panel.js").read_text(encoding="utf-8")
    assert all(f"  {page}: () =>" in app for page in everything)
    assert script["addresses"]("http://a/", ["beds"], range(1, 3)) == [
        "http://a/?page=beds&day=1",
        "http://a/?page=beds&day=2",
    ]


def test_the_app_is_served_to_this_machine(script: dict[str, Any]):
    with script["serving"](script["APP"]) as address:
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address) as page:
            assert b"panel.js" in page.read()


@pytest.mark.browser
def test_a_slice_is_drawn_learnt_and_scored(
    script: dict[str, Any], tmp_path: Path, monkeypatch: Any, capfd: Any
):
    pytest.importorskip("playwright.async_api", reason="no browser driver: pip install playwright")
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))):
        pytest.skip("no browser is installed: apt install chromium")
    script["draw"](tmp_path, 1, 1, 3, None)
    rows = (tmp_path / "train" / "data.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(rows) > 20
    assert len(list((tmp_path / "new-pages" / "images").glob("*.png"))) == 4
    from molmopoint.training.finetune import finetune

    learned = finetune(
        tmp_path / "train" / "data.jsonl",
        "nano-screens",
        tmp_path / "learned",
        overrides=["steps=2", "scoring.examples=2", "data.workers=0"],
    )
    assert learned is not None
    arguments = ["own_app.py", "score", "--folder", str(tmp_path), "--limit", "3"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--model", str(tmp_path / "learned" / "model")])
    capfd.readouterr()
    script["main"]()
    last = capfd.readouterr().out.strip().splitlines()[-1]
    scores = json.loads(last)
    assert set(scores) == {"model", "new-pages", "new-days"}
    assert 0 <= scores["new-pages"]["f1"] <= 1
