"""`molmopoint eval` and `score` on the embedded model: killed, shared among processes, refused, judged again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from molmopoint.cli import app
from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmarks.screenspot_v2 import ScreenSpotV2
from molmopoint.eval.benchmarks.synthetic import write_scenes
from molmopoint.eval.datasets.archives import unpacked
from molmopoint.eval.predictions.records import from_fields, read_predictions
from molmopoint.eval.runner.data import open_data
from molmopoint.eval.runner.settings import with_crops

ROOT = Path(__file__).resolve().parents[2]
SCENES = 6


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, SCENES)
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
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_run_writes_everything(whole):
    names = {file.name for file in whole.iterdir()}
    assert names >= {
        "manifest.json",
        "predictions.jsonl",
        "items.jsonl",
        "metrics.json",
        "table.md",
        "table.csv",
        "gallery.html",
    }
    metrics = json.loads((whole / "metrics.json").read_text())
    assert (
        metrics["settings"]["model"] == "nano"
        and metrics["rule"] == "mask"
        and metrics["coverage"]["scored"] == metrics["headline"]["n"]
    )
    assert metrics["headline"]["value"] > 0.6, "the embedded model points"
    assert "of 30 items" in (whole / "table.md").read_text()


@pytest.mark.slow
def test_killed_and_called_again_it_loses_and_repeats_nothing(scenes, whole, tmp_path):
    words = ("eval", "synthetic", "--data", scenes, "--out", tmp_path, "--batch-size", "1")
    file = tmp_path / "synthetic" / "predictions.jsonl"
    process = started(*words)
    deadline = time.monotonic() + 120
    while (
        time.monotonic() < deadline
        and process.poll() is None
        and (not file.exists() or file.read_bytes().count(b"\n") < 3)
    ):
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
    process = started(
        "eval", "synthetic", "--data", scenes, "--out", tmp_path, "--batch-size", "4", launcher=launcher
    )
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
    assert json.loads((tmp_path / "synthetic" / "metrics.json").read_text())["coverage"]["missing"] == {
        "not asked": 24
    }


def test_broken_pictures_fail_alone_and_are_tried_again(tmp_path):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    write_scenes(scenes, 2)
    whole = (scenes / "pictures" / "001.png").read_bytes()
    (scenes / "pictures" / "001.png").write_bytes(whole[:100])
    output = run("eval", "synthetic", "--data", scenes, "--out", tmp_path / "out", code=1)
    assert "5 failed and count as wrong" in " ".join(output.split())
    (scenes / "pictures" / "001.png").write_bytes(whole)
    run("eval", "synthetic", "--data", scenes, "--out", tmp_path / "out")
    assert (
        json.loads((tmp_path / "out" / "synthetic" / "metrics.json").read_text())["coverage"]["failed"] == 0
    )


def test_missing_pictures_are_told(tmp_path):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    write_scenes(scenes, 2)
    (scenes / "pictures" / "000.png").unlink()
    output = run("eval", "synthetic", "--data", scenes, "--out", tmp_path / "out")
    assert "5 of 10 (5 no picture file)" in " ".join(output.split())


def test_stored_answers_are_judged_without_model_and_pictures(scenes, whole, tmp_path):
    for source in (whole, whole / "predictions.jsonl"):
        run("score", "synthetic", source, "--data", scenes, "--out", tmp_path / "again")
        assert table_of(tmp_path / "again" / "synthetic") == table_of(whole)
    output = run(
        "score", "synthetic", whole, "--data", scenes, "--out", tmp_path / "third", "--baseline", whole
    )
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


def test_settings_of_one_benchmark_are_refused_elsewhere(tmp_path):
    for words in (
        ("screenspot_v2", "--steerable", "text"),
        ("point_bench", "--steerable", "shouted"),
        ("screenspot_v2", "--template", "Find {}"),
        ("pixmo_points", "--template", "Find it"),
    ):
        output = run("eval", *words, "--data", "fixture", "--out", tmp_path, code=2)
        assert ("expected" in output and "--" in output) or "template" in output


def test_a_run_with_zoom_tells_its_cost(scenes, whole, tmp_path):
    output = run("eval", "synthetic", "--data", scenes, "--out", tmp_path, "--limit", 2, "--zoom")
    assert "looks and" in output and "s an answer" in output
    folder = tmp_path / "synthetic"
    assert json.loads((folder / "manifest.json").read_text())["settings"]["asking"]["zoom"] is True
    assert "zoom" not in json.loads((whole / "manifest.json").read_text())["settings"]["asking"]
    answers = list(read_predictions(folder / "predictions.jsonl"))
    assert len(answers) == 2 and all(each.looks >= 1 and each.error is None for each in answers)
    run("eval", "synthetic", "--data", scenes, "--out", tmp_path, "--limit", 2, code=2)


def test_clips_are_not_looked_at_again(tmp_path):
    output = run("eval", "molmo2_video_point", "--data", "fixture", "--out", tmp_path, "--zoom", code=2)
    assert "a clip" in output


def test_a_run_says_how_it_asked(tmp_path):
    run("eval", "pixmo_points", "--data", "fixture", "--out", tmp_path, "--limit", 1, "--template", "absence")
    manifest = json.loads((tmp_path / "pixmo_points" / "manifest.json").read_text())
    assert manifest["settings"]["asking"]["template"].endswith(
        "Please say 'There are none.' if it is not in the image."
    )
    assert manifest["settings"]["asking"]["max_crops"] == 24, "the embedded model has fewer"
    run("eval", "screenspot_v2", "--data", "fixture", "--out", tmp_path, "--limit", 1)
    asking = json.loads((tmp_path / "screenspot_v2" / "manifest.json").read_text())["settings"]["asking"]
    assert asking["max_crops"] == 24 and "min_crops" not in asking
    run(
        "eval",
        "screenspot_v2",
        "--data",
        "fixture",
        "--out",
        tmp_path / "few",
        "--limit",
        1,
        "--max-crops",
        4,
    )
    few = json.loads((tmp_path / "few" / "screenspot_v2" / "manifest.json").read_text())["settings"]["asking"]
    assert few["max_crops"] == 4


def test_a_model_made_for_more_crops_gets_them():
    settings = ScreenSpotV2.generation
    processor = SimpleNamespace(image_processor=SimpleNamespace(max_crops=48))
    assert with_crops(settings, SimpleNamespace(processor=processor)).max_crops == 48
    assert with_crops(settings, SimpleNamespace()).max_crops == 24
    assert with_crops(replace(settings, max_crops=64), SimpleNamespace(processor=processor)).max_crops == 64


def test_answers_about_an_unusable_row_are_left_out(tmp_path):
    """A row whose picture nobody can open is missing; the answers to all rows are judged all the same."""
    data = tmp_path / "data"
    data.mkdir()
    ScreenSpotV2().write_fixture(data, np.random.default_rng(0))
    file = data / "screenspot_web_v2.json"
    rows = json.loads(file.read_text())
    rows += [
        {**rows[0], "img_filename": name}
        for name in ("../../../etc/passwd", "/etc/passwd", "\ud800.png", "x" * 300)
    ]
    file.write_text(json.dumps(rows))
    items = open_data(ScreenSpotV2(), data, tmp_path, with_media=False).items
    ids = [each.item_id for each in (*items.found, *items.missing)]
    lines = [json.dumps({"item_id": each, "text": "(1, 1)", "image_sizes": [[10, 10]]}) for each in ids]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines) + "\n")
    words = (
        "score",
        "screenspot_v2",
        tmp_path / "answers.jsonl",
        "--form",
        "plain",
        "--coords",
        "pixel",
        "--data",
        data,
        "--out",
        tmp_path,
    )
    run(*words)
    metrics = json.loads((tmp_path / "screenspot_v2" / "metrics.json").read_text())
    assert metrics["coverage"]["scored"] == len(items.found)
    run("eval", "screenspot_v2", "--data", data, "--out", tmp_path / "asked")
    asked = json.loads((tmp_path / "asked" / "screenspot_v2" / "metrics.json").read_text())
    assert asked["coverage"]["failed"] == 0 and asked["coverage"]["scored"] < len(ids)


def test_names_of_windows_are_found(tmp_path):
    ScreenSpotV2().write_fixture(tmp_path, np.random.default_rng(0))
    unpacked(tmp_path, "screenspotv2_image.zip")
    file = tmp_path / "screenspot_web_v2.json"
    rows = json.loads(file.read_text())
    folder = tmp_path / "screenspotv2_image"
    original = next(path for path in folder.rglob(rows[0]["img_filename"]))
    (original.parent / "row").mkdir()
    original.rename(original.parent / "row" / original.name)
    rows[0]["img_filename"] = f"row\\{original.name}"
    file.write_text(json.dumps(rows[:1]))
    assert any(
        "row" in each.images[0].parts and each.images[0].is_file()
        for each in ScreenSpotV2().read(tmp_path).found
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"item_id": "a", "text": "(1, 1)", "image_sizes": 3}', "image_sizes as"),
        ('{"item_id": "a", "text": "(1, 1)", "image_sizes": [["x", 1]]}', "image_sizes as"),
        ('{"item_id": "a", "text": "(1, 1)", "image_sizes": [[1e400, 1]]}', "image_sizes as"),
        ('{"item_id": "a", "text": "(1, 1)", "image_sizes": [[-1, 1]]}', "image_sizes as"),
        ('{"item_id": "a", "text": ' + "[" * 100000, "expected JSON"),
        ('{"item_id": "a", "text": "' + "\udcff" + '"}', "expected UTF-8"),
        ('{"item_id": "a", "text": ' + "9" * 5000 + "}", "expected JSON"),
        ('{"item_id": 3, "text": "a"}', '"item_id": ...'),
    ],
)
def test_lines_that_are_no_answers_are_refused(tmp_path, line, said):
    file = tmp_path / "answers.jsonl"
    file.write_bytes((line + "\n").encode("utf-8", "surrogateescape"))
    words = (
        "score",
        "screenspot_v2",
        file,
        "--form",
        "plain",
        "--coords",
        "pixel",
        "--data",
        "fixture",
        "--out",
        tmp_path,
    )
    assert said in " ".join(run(*words, code=2).split())


@pytest.mark.parametrize(
    "fault", [{"id": "9"}, {"id": 10**30}, {"id": 1.5}, {"x": 10**400}, {"group": "a"}, {"x": [1]}]
)
def test_stored_points_of_other_types_are_refused(fault):
    point = {"id": 1, "group": 0, "x": 1, "y": 1, "score": None} | fault
    fields = {"item_id": "a", "task": "synthetic", "task_version": 1, "prompt": "?", "points": [point]}
    with pytest.raises(EvaluationError, match="stored prediction"):
        from_fields(fields)
