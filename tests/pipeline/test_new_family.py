"""The made-up family of the examples: one module and one row, and all calls are there."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from safetensors.torch import save_file

import molmopoint
from molmopoint.backends import BACKENDS
from molmopoint.backends.table import check_family
from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.points import Point

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "new_family.py"


def example() -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("new_family", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["new_family"] = module
    spec.loader.exec_module(module)
    return module


family = example()


@pytest.fixture
def folder(tmp_path: Path):
    family.save(tmp_path)
    before = dict(BACKENDS)
    family.register()
    yield tmp_path
    BACKENDS.clear()
    BACKENDS.update(before)


def test_a_row_is_all_it_takes(folder: Path):
    check_family(str(folder))
    pointer = molmopoint.load(folder, device="cpu")
    picture = family.scene()
    red, blue = pointer.point(picture, ["the red disc", "the blue disc"])
    assert red.points[0].xy == pytest.approx((50, 60), abs=4)
    assert blue.points[0].xy == pytest.approx((180, 100), abs=4)
    assert blue.heatmap(0).shape == (160, 240)
    with pointer.stream(pointer.encode(picture), "blue") as stream:
        events = list(stream)
    assert events[0] == "blue" and isinstance(events[1], Point)
    assert events[1].xy == pytest.approx(blue.points[0].xy)
    batch = pointer.point_batch([picture, picture.rotate(180)], "red", batch_size=2)
    first, second = (result.points[0] for result in batch if isinstance(result, molmopoint.PointingResult))
    assert second.xy == pytest.approx((240 - first.x, 160 - first.y), abs=1)
    with pytest.raises(ProcessingError, match="places alone"):
        pointer.ask(picture, "What is this?")


def test_without_the_row_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(BACKENDS, "swatch", raising=False)  # another test may have run the example
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "swatch"}))
    with pytest.raises(CheckpointError, match="got model_type 'swatch'"):
        check_family(str(tmp_path))
    with pytest.raises(CheckpointError, match="got model_type 'swatch'"):
        molmopoint.load(tmp_path, device="cpu")


def test_nothing_is_filled_in_at_random(folder: Path):
    save_file({}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="colours missing"):
        molmopoint.load(folder, device="cpu")
