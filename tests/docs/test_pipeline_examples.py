"""The examples that put a model into other people's pipelines: what they write is what `Pointer` answers.

`datasets` is there wherever the tests run. Gradio, Ray and FiftyOne are not, and are skipped then; of FiftyOne the
samples are looked at, for its data sets need a database.
"""

from __future__ import annotations

import gc
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import molmopoint
from molmopoint.data.synthetic import sample_scene
from molmopoint.pipeline import Pointer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PHRASE = "the circles"
BROKEN = "broken.png"


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return molmopoint.load("nano", device_map="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures, two of which have circles, a file that is no picture, and one that is not for us."""
    made = tmp_path_factory.mktemp("pictures")
    for seed in range(5):
        sample_scene(np.random.default_rng([2, seed])).image.save(made / f"{seed}.png")
    (made / BROKEN).write_bytes(b"no picture")
    (made / "notes.txt").write_text("nothing")
    return made


def check_rows(rows: list[dict[str, Any]], folder: Path, pointer: Pointer) -> None:
    """One row per picture, with the points of `Pointer`, and one that says what is wrong with the broken one."""
    by_name = {Path(row["file"]).name: row for row in rows}
    assert len(rows) == 6 and sorted(by_name) == [*(f"{seed}.png" for seed in range(5)), BROKEN]
    assert "no known format" in by_name[BROKEN]["error"] and not by_name[BROKEN]["points"]
    found = 0
    for seed in range(5):
        row = by_name[f"{seed}.png"]
        expected = pointer.point(folder / f"{seed}.png", PHRASE)
        places = [(point["x"], point["y"]) for point in row["points"]]
        np.testing.assert_allclose(np.reshape(places, (-1, 2)), expected.points.xy, atol=1e-3)
        scores = [point["score"] for point in row["points"]]
        np.testing.assert_allclose(scores, expected.points.score, atol=1e-4)
        assert row["text"] == expected.text and row["error"] is None
        found += len(places)
    assert found, "some have points, and some have none"


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", [name])
    return runpy.run_path(str(EXAMPLES / name))


def lines_of(*files: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_datasets(
    folder: Path, pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    pytest.importorskip("datasets")
    out = tmp_path / "points.jsonl"
    run("datasets_folder.py", monkeypatch, str(folder), PHRASE, "--batch-size", "3", "--out", str(out))
    check_rows(lines_of(out), folder, pointer)
    assert f"3 points in 5 pictures, in {out}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what Ray is made of
def test_ray(folder: Path, pointer: Pointer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    out = tmp_path / "points"
    try:
        run("ray_folder.py", monkeypatch, str(folder), PHRASE, "--batch-size", "4", "--out", str(out))
    finally:
        ray.shutdown()
    check_rows(lines_of(*out.iterdir()), folder, pointer)
    assert f"6 answers in {out}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what Gradio is made of
def test_gradio(pointer: Pointer, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("gradio")
    gradio_client = pytest.importorskip("gradio_client")
    app = example("gradio_app.py", monkeypatch)
    page = app["page"](pointer)
    try:
        _, address, _ = page.launch(prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
        client = gradio_client.Client(address, verbose=False)
        picture = gradio_client.handle_file(str(app["PICTURE"]))
        _, document = client.predict(picture, "the red circles", 0.0, api_name="/point")
        points = document["points"]["points"]
        expected = pointer.point(app["PICTURE"], "the red circles").points.xy
        np.testing.assert_allclose([(point["x"], point["y"]) for point in points], expected, atol=0.01)
        with pytest.raises(Exception, match="Drop a picture first"):
            client.predict(None, "the red circles", 0.0, api_name="/point")
        with pytest.raises(Exception, match="got an empty one"):
            client.predict(picture, " ", 0.0, api_name="/point")
    finally:
        page.close()
        gc.collect()  # what Gradio leaves open is told now, and not at the end of all tests


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what FiftyOne is made of
def test_fiftyone(folder: Path, pointer: Pointer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIFTYONE_DISABLE_SERVICES", "1")  # no database
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "1")
    pytest.importorskip("fiftyone")
    rows = []
    for sample in example("fiftyone_folder.py", monkeypatch)["samples"](
        pointer, folder, PHRASE, batch_size=4
    ):
        row: dict[str, Any] = {"file": sample.filepath, "points": [], "text": None, "error": None}
        if sample.tags == ["broken"]:
            row["error"] = sample["error"]
        else:
            marks = sample["points"].keypoints
            assert sample["count"] == len(marks) and sample.has_field("least_score") == bool(marks)
            expected = pointer.point(folder / Path(sample.filepath).name, PHRASE)
            row["text"] = expected.text
            for mark in marks:
                (place,) = mark.points
                x, y = np.multiply(place, expected.image_sizes[0])
                row["points"].append({"x": x, "y": y, "score": mark.confidence[0]})
        rows.append(row)
    check_rows(rows, folder, pointer)
