"""Every example runs on the embedded model, offline, and writes what it says."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
OTHERS = {
    "train_nano.py", "train_nano_reward.py", "grpo_with_reward.py", "evaluate_nano.py", "sample_efficiency.py", "own_data.py",
    "train_screens.py", "evaluate_screens.py", "make_page_images.py", "make_tour.py",
    "calibrate.py", "run_agent.py", "own_app.py", "graft_twin.py", "measure_vllm.py",
    "gradio_app.py", "fiftyone_folder.py", "datasets_folder.py", "ray_folder.py",
}  # fmt: skip
"""They train and score the embedded models, which takes longer than a test may, or need a browser or a GPU; or have
tests of their own, test_pipeline_examples.py.
"""

RUNS = {
    "point_in_image.py": "points.png",
    "count_objects.py": "counts/*.png",
    "several_images.py": "several/third_*.png",
    "point_in_video.py": None,
    "point_on_screen.py": None,
    "track_in_video.py": "tracked_strip.png",
    "export_tracks.py": None,
    "make_images.py": "pictures/shapes*.png",
    "write_a_benchmark.py": "shapes/*.png",
    "new_family.py": None,
}
"""What each example writes; None where that depends on whether the model finds anything."""

OUT = {"make_images.py": ["--out", "pictures"], "write_a_benchmark.py": ["shapes"]}


def run(name: str, *arguments: str) -> None:
    sys.argv = [name, *arguments]
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.parametrize("name", RUNS)
def test_the_example_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    run(name, *OUT.get(name, []))
    assert len(capsys.readouterr().out.splitlines()) >= 2
    written = RUNS[name]
    if written is not None:
        files = sorted(tmp_path.glob(written))
        assert files
        for file in files:
            with Image.open(file) as picture:
                assert min(picture.size) > 100


def test_no_example_is_forgotten():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(RUNS) | OTHERS


def test_the_picture_of_the_readme_is_what_its_script_draws():
    drawn = runpy.run_path(str(EXAMPLES / "make_images.py"))["draw_shapes"]()
    with Image.open(EXAMPLES / "images" / "shapes.png") as stored:
        assert stored.size == drawn.size
        difference = np.abs(np.asarray(stored.convert("RGB"), dtype=int) - np.asarray(drawn, dtype=int))
    assert difference.max() <= 2  # PIL's bicubic filter may round differently elsewhere
    for name in ("shapes_points.png", "shapes_heatmap.png"):
        with Image.open(EXAMPLES / "images" / name) as picture:
            assert picture.size == drawn.size


def test_the_answers_in_the_first_picture_of_the_readme_are_right():
    """Every box that a question means is pointed at once, and nothing else is."""
    script = runpy.run_path(str(EXAMPLES / "make_images.py"))
    answers = script["answer_screen"]("nano-screens")
    for question, boxes in script["SCREEN_TARGETS"].items():
        points = [point for point in answers if point.label == question]
        hit = []
        for point in points:
            for left, top, right, bottom in boxes:
                if left <= point.x <= right and top <= point.y <= bottom:
                    hit.append((left, top, right, bottom))
        assert sorted(hit) == sorted(boxes) and len(points) == len(boxes), question
