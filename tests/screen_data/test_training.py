"""The training of the model of screens: examples point where the elements are, losses fall, released files
load.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_screens import files_screen
from PIL import Image

import molmopoint
from molmopoint.geometry import triples_to_points
from molmopoint.tokens import NO_SELECTION

ROOT = Path(__file__).resolve().parents[2]
BOX = [100.0, 200.0, 160.0, 230.0]
BUTTON = {
    "kind": "button",
    "boxes": [BOX],
    "name": "Save",
    "text": "Save",
    "states": [],
    "colour": "blue",
    "icon": None,
}
ASKED = {
    "prompt": "the Save button",
    "label": "Save button",
    "kind": "name",
    "mentions": [["kind", "button"], ["name", "Save"]],
}
ROW = {
    "elements": [BUTTON],
    "letters": [["S", 110, 205, 120, 225]],
    "queries": [
        {**ASKED, "points": [[130.0, 215.0]], "boxes": [[BOX]]},
        {
            "prompt": "the tabs",
            "label": "tabs",
            "kind": "type",
            "mentions": [["kind", "tab"]],
            "points": [],
            "boxes": [],
        },
    ],
}


@pytest.fixture(scope="module")
def world() -> Iterator[Any]:
    """Modules of the training by their last name."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        names = (
            "alignment",
            "dense",
            "drawing",
            "files",
            "labels",
            "pointing",
            "release",
            "scoring",
            "settings",
        )
        yield SimpleNamespace(**{name: importlib.import_module(f"screens.{name}") for name in names})
    finally:
        sys.path.remove(str(ROOT / "examples"))


@pytest.fixture(scope="module")
def small(world: Any) -> Any:
    """Settings of a model of a few thousand weights."""
    sizes = {
        "vit_width": 64,
        "vit_mlp": 64,
        "vit_layers": 3,
        "text_width": 64,
        "text_mlp": 64,
        "text_layers": 1,
        "pointing_width": 32,
    }
    return replace(
        world.settings.ScreenSettings(),
        **sizes,
        vit_batch=2,
        point_batch=2,
        warmup=1,
        vit_frozen=0.5,
        first_lesson=0.0,
    )


@pytest.fixture(scope="module")
def run(world: Any, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one shard of small pages and the tokenizer."""
    folder = tmp_path_factory.mktemp("run")
    pages = [page_png(i) for i in range(8)]
    world.drawing.write_shard(folder / "small" / "shard_0000.safetensors", pages, [ROW] * len(pages))
    world.files.write_files(folder / "tokenizer", world.files.build_tokenizer(small))
    return folder


def page_png(seed: int, size: tuple[int, int] = (336, 336)) -> bytes:
    pixels = np.random.default_rng(seed).integers(200, 256, (size[1], size[0], 3), dtype=np.uint8)
    pixels[200:230, 100:160] = (13, 110, 253)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def test_shards_are_read_as_they_were_written(world: Any, run: Path):
    pages = list(world.drawing.read_shard(run / "small" / "shard_0000.safetensors"))
    assert len(pages) == 8 and pages[3] == (page_png(3), ROW)


def test_capital_letters_do_not_count_and_nothing_is_lost(world: Any, run: Path):
    tokenizer = world.pointing.Examples(run / "tokenizer", world.settings.ScreenSettings()).tokenizer
    assert tokenizer.encode("The SAVE button") == tokenizer.encode("the save button")
    assert (
        tokenizer.decode(tokenizer.encode("there are none. There are none."))
        == "there are none. There are none."
    )
    assert tokenizer.decode(tokenizer.encode("löschen 日本 ☃")) == "löschen 日本 ☃"


@pytest.mark.parametrize("size", [(336, 336), (700, 500)])
def test_examples_point_where_the_elements_are(world: Any, run: Path, size: tuple[int, int]):
    examples = world.pointing.Examples(run / "tokenizer", world.settings.ScreenSettings())
    for seed in range(4):
        page = examples.page(page_png(0, size), ROW, np.random.default_rng(seed), None)
        chosen = page.row.selection_ids[page.row.selection_ids != NO_SELECTION].tolist()
        assert len(chosen) == 4, "patch, subpatch, location, and no more points; the tabs have none"
        assert page.named.shape == (2, world.labels.SIZE) and (page.named[0] == page.named[1]).all()
        assert page.tokens.tolist() == [chosen[0]] and (page.there[0] >= page.named[0]).all()
        assert (page.labels is not None) == (size == (336, 336))
        media = examples.backend.requests.process_images(Image.open(io.BytesIO(page_png(0, size))))
        _, xy = triples_to_points(np.array([chosen[:3]]), media.metadata)
        reach = 15 if size == (336, 336) else 4  # small pages are moved by up to 14 pixels
        assert abs(xy[0, 0] - 130) <= reach + 3 and abs(xy[0, 1] - 215) <= reach + 3


def test_pages_are_moved_with_their_labels(world: Any):
    page = (page_png(0), ROW)
    for seed in range(5):
        pixels, labels, by = world.dense.load_page(page, np.random.default_rng(seed), 14)
        x, y = 130 + by[0], 215 + by[1]
        assert pixels[y, x].tolist() == [13, 110, 253]
        assert labels.owner.reshape(24, 24)[y // 14, x // 14] == 0


def test_both_stages_learn_resume_and_are_released(world: Any, small: Any, run: Path, tmp_path: Path):
    torch.set_num_threads(1)
    world.dense.train_dense(run, small, 4, log_every=2)
    world.dense.train_dense(run, small, 6, log_every=2)
    losses = [line["loss"] for line in map(json.loads, (run / "vit.jsonl").read_text().splitlines())]
    assert len(losses) == 3 and losses[-1] < losses[0]
    world.pointing.train_pointing(run, small, 4, log_every=2)
    world.pointing.train_pointing(run, small, 6, log_every=2)
    assert len((run / "point.jsonl").read_text().splitlines()) == 3
    progress = world.release.release(run, tmp_path / "model", small)
    assert progress["step"] == 6
    pointer = molmopoint.load(str(tmp_path / "model"))
    result = pointer.point(Image.open(io.BytesIO(page_png(0))), "the Save button", max_new_tokens=20)
    assert result.points.xy.shape[1] == 2


def test_test_pages_are_written_in_the_layout_of_drawn_data(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shown = dataclasses.replace(files_screen(), pixels=np.zeros((300, 400, 3), np.uint8))
    drawer = SimpleNamespace(draw=lambda *_: shown)
    monkeypatch.setattr(world.scoring, "Drawer", lambda _: contextlib.nullcontext(drawer))
    groups = [
        world.scoring.Group("seen kits", "seen", (336, 336), 12),
        world.scoring.Group("held-out kit", "kit", (336, 336), 2),
    ]
    rows = [
        json.loads(line)
        for line in world.scoring.draw_tests(tmp_path, tmp_path, groups).read_text().splitlines()
    ]
    assert {row["group"] for row in rows} == {"seen kits", "held-out kit"} and len(
        {row["image"] for row in rows}
    ) == 14
    assert all((tmp_path / row["image"]).is_file() for row in rows)
    named = [row for row in rows if row["kind"] == "name" and row["boxes"]]
    assert named and all(row["names"] in ("trained", "held out") for row in named)
    assert not [row for row in rows if "names" in row and not row["boxes"]]
    monkeypatch.setattr(world.scoring, "Drawer", None)
    assert world.scoring.draw_tests(tmp_path, tmp_path, groups), "what was drawn is kept"


def test_figures_are_written_between_the_marks_of_a_card(world: Any, tmp_path: Path):
    evaluate, card = importlib.import_module("evaluate_screens"), tmp_path / "README.md"
    numbers = {"f1": 0.5, "exact_count": 0.25, "click": None}
    found = [(["group"], ["seen kits"]), (["group", "kind"], ["seen kits", "icon"]), (["names"], ["trained"])]
    cells = [
        {"view": view, "group": group, "metric": metric, "value": value, "n": 8}
        for view, group in found
        for metric, value in numbers.items()
    ]
    tables = list(evaluate.tables(evaluate.cells_of({"cells": cells})))
    assert [table.splitlines()[2:] for table in tables] == [
        [f"| {name} | 8 | 0.500 | 0.250 | - |"] for name in ("seen kits", "icon", "trained")
    ]
    card.write_text(f"# nano\n\n{evaluate.BEGIN}\nold\n{evaluate.END}\n\nend\n")
    evaluate.write_figures(card, tables)
    assert card.read_text().startswith(
        "# nano\n\n<!-- scores -->\n\n| pages |"
    ) and card.read_text().endswith("-->\n\nend\n")
    assert "old" not in card.read_text()
    card.write_text("# nano\n")
    with pytest.raises(ValueError, match="without them"):
        evaluate.write_figures(card, tables)
