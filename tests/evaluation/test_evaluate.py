"""`molmopoint.evaluate`: the path of the command line, from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from reward_judges import LongerIsBetter
from typer.testing import CliRunner

import molmopoint
from molmopoint.backends.options import complete_prompt
from molmopoint.cli import app
from molmopoint.errors import CheckpointError, EvaluationError
from molmopoint.eval.benchmarks.synthetic import Synthetic, write_scenes
from molmopoint.pipeline import load

LIMIT = 4


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 3)
    return folder


def test_it_comes_to_what_the_command_line_writes(scenes, tmp_path, nano):
    done = CliRunner().invoke(
        app, ["eval", "synthetic", "--data", str(scenes), "--limit", str(LIMIT), "--out", str(tmp_path / "a")]
    )
    assert done.exit_code == 0, done.output
    steps: list[int] = []
    result = molmopoint.evaluate(
        nano, "synthetic", data=scenes, limit=LIMIT, out=tmp_path / "b", on_progress=steps.append
    )
    theirs, ours = tmp_path / "a" / "synthetic", tmp_path / "b" / "synthetic"
    for name in ("items.jsonl", "table.md", "table.csv", "gallery.html"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    metrics = json.loads((theirs / "metrics.json").read_text())
    assert result.folder == ours and result.score == metrics["headline"]["value"] > 0.5
    whole = {cell["metric"]: cell["value"] for cell in metrics["cells"] if not cell["view"]}
    assert result.scores == whole and set(whole) == {"f1", "precision", "recall", "exact_count"}
    assert len(result.item_scores) == len(result.predictions) == sum(steps) == LIMIT
    assert result.table() == (theirs / "table.md").read_text() and "rule `mask`" in str(result)


def test_nothing_is_kept_without_a_folder(scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = molmopoint.evaluate("nano", Synthetic(), data=scenes, limit=1, settings={"max_crops": 1})
    assert result.folder is None and result.summary.coverage.scored == 1 and not list(tmp_path.iterdir())


def test_it_goes_on_where_it_was(tmp_path):
    first, second = LongerIsBetter(), LongerIsBetter()
    results = [
        molmopoint.evaluate(each, "vl_rewardbench", data="fixture", out=tmp_path) for each in (first, second)
    ]
    assert first.calls and not second.calls, "every answer was there"
    assert results[0].score == results[1].score == 1


def test_other_weights_need_another_folder(scenes, tmp_path):
    """The name of a model that was trained since it was loaded tells nothing."""
    pointer = load("nano")
    molmopoint.evaluate(pointer, "synthetic", data=scenes, limit=1, out=tmp_path)
    molmopoint.evaluate(pointer, "synthetic", data=scenes, limit=2, out=tmp_path)
    with torch.no_grad():
        pointer.model.lm_head.weight.mul_(1.001)
    with pytest.raises(EvaluationError, match=r"weights.*another --out"):
        molmopoint.evaluate(pointer, "synthetic", data=scenes, limit=2, out=tmp_path)


def test_what_cannot_be_is_refused(scenes, nano, monkeypatch):
    with pytest.raises(EvaluationError, match="did you mean 'synthetic'"):
        molmopoint.evaluate(nano, "sinthetic")
    with pytest.raises(EvaluationError, match="rules of synthetic"):
        molmopoint.evaluate(nano, "synthetic", data=scenes, rule="loose")
    with pytest.raises(EvaluationError, match=r"expected of max_crops, .*, zoom for synthetic.*got orders"):
        molmopoint.evaluate(nano, "synthetic", data=scenes, settings={"orders": 2})
    with pytest.raises(EvaluationError, match="model that points for synthetic"):
        molmopoint.evaluate(LongerIsBetter(), "synthetic", data=scenes)
    with pytest.raises(CheckpointError, match="nono"):
        molmopoint.evaluate("nono", "synthetic", data=scenes)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(EvaluationError, match="all processes share"):
        molmopoint.evaluate(nano, "synthetic", data=scenes)


def test_models_in_the_form_of_molmo_are_asked_as_before(scenes, nano):
    """The digest is that of prompts in this form, so folders of earlier versions go on."""
    result = molmopoint.evaluate(nano, "synthetic", data=scenes, limit=2)
    items = {item.item_id: item for item in result.data.items.found}
    for item_id, answer in result.predictions.items():
        item = items[item_id]
        assert item.phrase is not None
        assert answer.prompt == item.prompt == complete_prompt(item.phrase)
