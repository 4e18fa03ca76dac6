"""The data of `examples/own_data.py`: really new to the embedded model, honest about its test part, the same
every time.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from molmopoint.data.drawing import COLOURS, SHAPES
from molmopoint.data.questions import PLURALS
from molmopoint.data.records import read_records
from molmopoint.data.synthetic import sample_scene
from molmopoint.training.templates import COUNT, COUNT_THEN_POINT, POINT_COUNT, POINTING

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEW = ("crescent", "arrow", "bolt")


@pytest.fixture(scope="module")
def modules() -> Any:
    """Modules of the example by their last name."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        names = ("new_shapes.drawing", "new_shapes.grounds", "new_shapes.pictures", "own_data")
        yield {name.split(".")[-1]: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.mark.parametrize("shape", NEW)
@pytest.mark.parametrize("part", ["train", "test"])
def test_points_lie_in_the_visible_mask_and_on_the_squares_of_the_part(modules, shape, part):
    pictures = modules["pictures"]
    numbers = []
    for index in range(25):
        picture = pictures.draw_picture(shape, part, index)
        numbers.append(len(picture.targets))
        for target in picture.targets:
            row, col = int(target.y), int(target.x)
            assert target.mask[row - 1 : row + 2, col - 1 : col + 2].all()
            assert (row // pictures.CELL + col // pictures.CELL) % 2 == pictures.PARTS[part]
            assert target.mask.shape == picture.image.size[::-1]
        total = sum((target.mask.astype(int) for target in picture.targets), np.zeros((1, 1), dtype=int))
        assert total.max() <= 1
    assert min(numbers) == 0
    assert max(numbers) >= 3


def test_test_pictures_have_grounds_and_places_of_their_own(modules):
    grounds, pictures = modules["grounds"], modules["pictures"]
    assert not set(grounds.PATTERNS["train"]) & set(grounds.PATTERNS["test"])
    apart = np.abs(np.array(grounds.TINTS["train"])[:, None] - np.array(grounds.TINTS["test"])[None]).max(
        axis=2
    )
    assert apart.min() >= 5
    seen = {part: set() for part in pictures.PARTS}
    for part in pictures.PARTS:
        for index in range(25):
            picture = pictures.draw_picture("arrow", part, index)
            assert picture.pattern in grounds.PATTERNS[part]
            seen[part] |= {(int(t.x) // pictures.CELL, int(t.y) // pictures.CELL) for t in picture.targets}
    assert not seen["train"] & seen["test"]


def test_the_words_are_in_no_text_the_embedded_model_was_trained_on(modules):
    words = {word.rstrip("s") for label in modules["drawing"].NEW_SHAPES.values() for word in label.split()}
    known = " ".join([*SHAPES, *COLOURS, *PLURALS.values()])
    for index in range(100):
        scene = sample_scene(np.random.default_rng([41, index]))
        known += " ".join(f" {query.prompt} {query.label}" for query in scene.queries)
    assert words == {"crescent", "arrow", "lightning", "bolt"}
    assert not any(word in known.lower() for word in words)
    assert set(modules["drawing"].NEW_SHAPES) == set(NEW)
    assert not set(NEW) & set(SHAPES)
    assert not any(
        word in template.lower()
        for word in words
        for template in (*POINTING, *POINT_COUNT, *COUNT_THEN_POINT, *COUNT)
    )


@pytest.mark.parametrize("shape", NEW)
def test_a_new_shape_turns_about_its_point_and_stays_within_reach(modules, shape):
    drawing = modules["drawing"]
    areas = []
    for quarters in range(4):
        for tilt in (-0.4, 0.0, 0.3):
            stamp = drawing.draw_new_shape(shape, 60.5, 61.25, 30, tilt, quarters)
            rows, cols = np.nonzero(stamp.coverage)
            away = np.hypot(cols + 0.5 + stamp.left - 60.5, rows + 0.5 + stamp.top - 61.25)
            assert away.max() <= drawing.REACH * 30 + 1
            assert stamp.coverage[61 - stamp.top, 60 - stamp.left] == 16
            areas.append(float(stamp.coverage.sum()) / 16)
    assert max(areas) < 1.02 * min(areas)
    upright, turned = (
        drawing.draw_new_shape(shape, 60, 60, 30, 0.0, quarters).coverage for quarters in (0, 1)
    )
    assert np.abs(np.rot90(upright, -1).astype(int) - turned).sum() <= 0.02 * upright.sum()


def test_pictures_are_the_same_on_every_machine(modules):
    digest = hashlib.sha256()
    for shape in NEW:
        for part in ("train", "test"):
            picture = modules["pictures"].draw_picture(shape, part, 3)
            digest.update(
                np.asarray(picture.image).tobytes() + b"".join(t.mask.tobytes() for t in picture.targets)
            )
    assert digest.hexdigest()[:16] == "85ac46d033f2ddbc"


def test_made_files_are_valid_rows_and_score(modules, tmp_path, capsys):
    own_data = modules["own_data"]
    own_data.make("bolt", tmp_path, {"train": 6, "test": 4})
    records = list(read_records(tmp_path / "train.jsonl"))
    assert [record.label for record in records] == ["lightning bolts"] * 6
    assert "lightning bolts" in capsys.readouterr().out
    for index, line in enumerate((tmp_path / "test.jsonl").read_text().splitlines()):
        row = json.loads(line)
        picture = modules["pictures"].draw_picture("bolt", "test", index)
        with Image.open(tmp_path / row["image"]) as stored:
            assert (np.asarray(stored) == np.asarray(picture.image)).all()
        assert [(point["x"], point["y"]) for point in row.get("points", [])] == [
            (t.x, t.y) for t in picture.targets
        ]
        levels = np.asarray(Image.open(tmp_path / row["image"].replace(".png", "_masks.png")))
        assert all(
            (mask == (levels == level + 1)).all()
            for level, mask in enumerate(t.mask for t in picture.targets)
        )
    sheet = own_data.compare({tmp_path: "nano"}, "nano", 0)
    above, below = np.split(np.asarray(sheet)[5:-5], 2)
    assert sheet.width > 300
    assert (above[30:] == below[30:]).all()  # the same model before and after
    scores = own_data.score(tmp_path, "nano", 4)
    assert scores["pictures"] == 4
    assert 0 <= scores["f1"] <= 1
