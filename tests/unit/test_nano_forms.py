"""Forms without names, which the vision transformer of the embedded model learns to tell apart."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "checkpoints" / "nano"


@pytest.fixture(scope="module")
def nano() -> Any:
    """Modules of the training by their last name."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        names = ("cache", "cells", "forms", "form_training", "settings", "release")
        yield SimpleNamespace(**{name: importlib.import_module(f"nano.{name}") for name in names})
    finally:
        sys.path.remove(str(ROOT / "examples"))


def test_forms_are_unlike_the_shapes_kept_for_the_trial(nano: Any) -> None:
    forms = nano.forms
    for shape in forms.NEW_SHAPES:
        own = forms.draw_new_shape(shape, 64, 64, 60, 0.2, 1).coverage > 8
        form = np.zeros((forms.TEMPLATE, forms.TEMPLATE), dtype=bool)
        form[: own.shape[0], : own.shape[1]] = own
        # Turned, moved and of another size: the measure sees through that.
        assert forms.likeness(form, shape) > 0.9
        assert max(forms.likeness(forms.template(index), shape) for index in range(40)) < 0.8


def test_a_form_is_one_piece_around_its_point(nano: Any) -> None:
    middle = nano.forms.TEMPLATE // 2
    for index in range(40):
        form = nano.forms.template(index)
        assert form[middle - 1 : middle + 1, middle - 1 : middle + 1].all()
        assert not form[[0, -1]].any() and not form[:, [0, -1]].any()


def test_pictures_are_the_same_every_time_and_know_their_points(nano: Any) -> None:
    picture, owners, labels = nano.forms.draw_forms(np.random.default_rng([1, 2]), 20)
    again, _, _ = nano.forms.draw_forms(np.random.default_rng([1, 2]), 20)
    assert np.array_equal(picture, again)
    assert picture.shape == (168, 168, 3) and labels.shape == (144, 3)
    assert set(np.unique(owners)) == set(range(owners.max() + 1))
    points = labels[:, 1] >= 0
    assert points.any() and (labels[points, 0] > 0).all()
    assert labels[:, 0].max() <= 20 + 8


def test_no_known_shape_has_the_colour_of_a_held_out_pair(nano: Any) -> None:
    pictures = nano.forms
    seen = 0
    for index in range(60):
        picture, owners, labels = pictures.draw_forms(np.random.default_rng([3, index]), 10)
        for form, _, number in {
            tuple(row) for row in labels[labels[:, 0] > 10].tolist() if (owners == row[2]).sum() > 20
        }:
            colour = np.median(picture[owners == number], axis=0)
            assert (
                pictures.nearest_colour(colour),
                pictures.SHAPES[form - 11],
            ) not in pictures.HELD_OUT_PAIRS
            seen += 1
    assert seen > 60


@pytest.mark.parametrize("way", range(8))
def test_turned_pictures_keep_their_points(nano: Any, way: int) -> None:
    """One bright location cell stays under its label, whatever way a picture is turned."""
    row, col, cell_x, cell_y = 2, 7, 0, 2
    pixels = torch.zeros(1, 168, 168, 3)
    top, left = 14 * row + round(14 * cell_y / 3), 14 * col + round(14 * cell_x / 3)
    pixels[0, top + 1 : top + 4, left + 1 : left + 4] = 1
    labels = torch.zeros(1, 144, 3, dtype=torch.int16)
    labels[..., 1] = -1
    labels[0, 12 * row + col] = torch.tensor([5, 3 * cell_x + cell_y, 1])
    turned, moved = nano.cells.turn_pictures(pixels, labels, way, nano.forms.CELLS)
    down, across = (axis.float().mean().item() + 0.5 for axis in turned[0, ..., 0].nonzero(as_tuple=True))
    place = 12 * int(down / 14) + int(across / 14)
    assert moved[0, place].tolist() == [5, 3 * int(across % 14 / 14 * 3) + int(down % 14 / 14 * 3), 1]
    assert (moved[0, :, 1] >= 0).sum() == 1


def test_the_stage_learns_resumes_and_is_released(nano: Any, tmp_path: Path) -> None:
    """A few steps lower the loss, a second call goes on, and the release holds what was learned."""
    few = replace(
        nano.settings.Settings(),
        form_batch=4,
        form_replayed=2,
        shard_scenes=6,
        cached_queries=1,
        warmup=1,
        num_forms=30,
    )
    nano.cache.draw_shard(tmp_path / "cache", 0, few)
    nano.forms.draw_form_shard(tmp_path / "cache", 0, few)
    train = nano.form_training.train_forms
    train(tmp_path, NANO, few, 6, lambda model: {"seen": 1.0}, log_every=3)
    train(tmp_path, NANO, few, 12, lambda model: {"seen": 1.0}, log_every=3)
    lines = [
        line
        for line in map(json.loads, (tmp_path / "forms.jsonl").read_text().splitlines())
        if "loss" in line
    ]
    assert [line["step"] for line in lines] == [3, 6, 9, 12]
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(NANO)
    assert nano.release.release(tmp_path, NANO, tmp_path / "out", few, tokenizer)["step"] == 12
    before, after = (load_file(folder / "model.safetensors") for folder in (NANO, tmp_path / "out"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith(("model.vit", "model.connector")) for name in changed), sorted(
        changed
    )[:5]


def test_an_outline_is_the_object_around_its_patch(nano: Any) -> None:
    """A square of 28 pixels around the middle of patch (4, 5) fills 7 by 7 samples there, and nothing in the
    window of another object.
    """
    owners = torch.zeros(1, 168, 168, dtype=torch.uint8)
    middle_row, middle_col = 14 * 4 + 7, 14 * 5 + 7
    owners[0, middle_row - 14 : middle_row + 14, middle_col - 14 : middle_col + 14] = 3
    labels = torch.zeros(1, 144, 3, dtype=torch.int16)
    labels[0, 12 * 4 + 5, 2], labels[0, 12 * 4 + 6, 2] = 3, 2
    outlines = nano.form_training.outlines(owners, labels).view(12, 12, 16, 16)
    rows, cols = outlines[4, 5].nonzero(as_tuple=True)
    assert (
        len(rows) in (36, 49)
        and (rows.float().mean() - 7.5).abs() <= 0.5
        and (cols.float().mean() - 7.5).abs() <= 0.5
    )
    assert not outlines[4, 6].any()
