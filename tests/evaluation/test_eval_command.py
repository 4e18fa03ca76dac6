"""`molmopoint eval` and `score` on the embedded model: killed, shared among processes, refused, judged again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from molmopoint.cli import app
from molmopoint.eval.fixtures import synthetic
from molmopoint.eval.runner.records import read_predictions

ROOT = Path(__file__).resolve().parents[2]
SCENES = 6


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    synthetic.write(folder, np.random.default_rng(0), SCENES)
    return folder


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


def points_of(folder: Path) -> dict[str, tuple]:
    found = [each for file in sorted(folder.glob("predictions*.jsonl")) for each in read_predictions(file)]
    assert len({each.item_id for each in found}) == len(found), "no item is asked twice"
    return {each.item_id: tuple((p.x, p.y) for p in each.points) for each in found}


def table_of(folder: Path) -> dict:
    metrics = json.loads((folder / "metrics.json").read_text())
    return {key: metrics[key] for key in ("headline", "cells", "coverage", "rates")}


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory) -> Path:
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole")
    output = run("eval", "synthetic", "--data", scenes, "--out", out, "--batch-size", 4, "--profile")
    assert "f1" in output and "answer" in output
    return out / "synthetic"


def started(*words: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launcher, "-m", "molmopoint", *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_run_writes_everything(whole):
    names = {file.name for file in whole.iterdir()}
    assert names >= {"manifest.json", "predictions.jsonl", "items.jsonl", "metrics.json", "table.md", "table.csv", "gallery.html"}
    metrics = json.loads((whole / "metrics.json").read_text())
    assert (
        metrics["settings"]["model"] == "nano" and metrics["rule"] == "mask" and metrics["coverage"]["scored"] == metrics["headline"]["n"]
    )
    assert metrics["headline"]["value"] > 0.6, "the embedded model points"
    assert "of 30 items" in (whole / "table.md").read_text()


@pytest.mark.slow
def test_killed_and_called_again_it_loses_and_repeats_nothing(scenes, whole, tmp_path):
    words = ("eval", "synthetic", "--data", scenes, "--out", tmp_path, "--batch-size", "1")
    file = tmp_path / "synthetic" / "predictions.jsonl"
    process = started(*words)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and (not file.exists() or file.read_bytes().count(b"\n") < 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with file.open("ab") as broken:
        broken.write(b'{"item_id": "half of a li')
    done = file.read_bytes().count(b"\n")
    assert 0 < done < 5 * SCENES
    run(*words)
    assert points_of(tmp_path / "synthetic") == points_of(whole)
    assert table_of(tmp_path / "synthetic") == table_of(whole)


@pytest.mark.slow
def test_two_processes_share_the_items(scenes, whole, tmp_path):
    launcher = (
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "0",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
    )
    process = started("eval", "synthetic", "--data", scenes, "--out", tmp_path, "--batch-size", "4", launcher=launcher)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert len(list((tmp_path / "synthetic").glob("predictions.*.jsonl"))) == 2
    assert points_of(tmp_path / "synthetic") == points_of(whole)
    assert table_of(tmp_path / "synthetic") == table_of(whole)


def test_other_settings_need_another_folder(scenes, whole):
    output = run("eval", "synthetic", "--data", scenes, "--out", whole.parent, "--max-new-tokens", 8, code=2)
    assert "max_new_tokens" in output and "another --out" in output


def test_a_limit_takes_the_same_items_and_goes_on(scenes, tmp_path):
    words = ("eval", "synthetic", "--data", scenes, "--out", tmp_path)
    run(*words, "--limit", 4)
    few = points_of(tmp_path / "synthetic")
    run(*words, "--limit", 6)
    more = points_of(tmp_path / "synthetic")
    assert len(few) == 4 and len(more) == 6 and few.items() <= more.items()
    assert json.loads((tmp_path / "synthetic" / "metrics.json").read_text())["coverage"]["missing"] == {"not asked": 24}


def test_broken_pictures_fail_alone_and_are_tried_again(tmp_path):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    synthetic.write(scenes, np.random.default_rng(0), 2)
    whole = (scenes / "pictures" / "001.png").read_bytes()
    (scenes / "pictures" / "001.png").write_bytes(whole[:100])
    output = run("eval", "synthetic", "--data", scenes, "--out", tmp_path / "out", code=1)
    assert "5 failed and count as wrong" in " ".join(output.split())
    (scenes / "pictures" / "001.png").write_bytes(whole)
    run("eval", "synthetic", "--data", scenes, "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "synthetic" / "metrics.json").read_text())["coverage"]["failed"] == 0


def test_missing_pictures_are_told(tmp_path):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    synthetic.write(scenes, np.random.default_rng(0), 2)
    (scenes / "pictures" / "000.png").unlink()
    output = run("eval", "synthetic", "--data", scenes, "--out", tmp_path / "out")
    assert "5 of 10 (5 no picture file)" in " ".join(output.split())


def test_stored_answers_are_judged_without_model_and_pictures(scenes, whole, tmp_path):
    for source in (whole, whole / "predictions.jsonl"):
        run("score", "synthetic", source, "--data", scenes, "--out", tmp_path / "again")
        assert table_of(tmp_path / "again" / "synthetic") == table_of(whole)
    output = run("score", "synthetic", whole, "--data", scenes, "--out", tmp_path / "third", "--baseline", whole)
    assert "only there" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval"], "TASK"),
        (["eval", "sinthetic"], "did you mean 'synthetic'"),
        (["eval", "synthetic", "--rule", "loose"], "rules of synthetic"),
        (["eval", "synthetic", "--data", "nowhere"], "nowhere"),
        (["score", "synthetic", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_wrong_usage(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in " ".join(run(*words, code=2).split())


def test_the_list_names_every_benchmark():
    output = run("eval", "--list")
    assert "synthetic" in output and "point_bench" in output and "official" in output
