"""The world of screens of `examples/screens`: what is held out is in no trained page."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from molmopoint.screens.icons import STEMS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def world() -> Iterator[Any]:
    """Modules of the world of screens by their last name."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        names = ("drawing", "icon_sets", "kits", "labels", "pages", "words")
        yield SimpleNamespace(**{name: importlib.import_module(f"screens.{name}") for name in names})
    finally:
        sys.path.remove(str(ROOT / "examples"))


@pytest.fixture(scope="module")
def modules(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the packages: every icon of every set, as a square."""
    root, sets = tmp_path_factory.mktemp("node_modules"), world.icon_sets
    for icon_set in (*sets.TRAINED, sets.HELD_OUT_SET, sets.HELD_OUT_STYLE):
        folder = root / icon_set.folder
        folder.mkdir(parents=True, exist_ok=True)
        for stems in STEMS.values():
            name = stems[0].replace("-", icon_set.separator) + icon_set.ending[0]
            (folder / f"{name}.svg").write_text('<svg viewBox="0 0 1 1"><rect width="1" height="1"/></svg>')
    return root


def test_trained_pages_hold_nothing_of_the_held_out_parts(world: Any):

    specs = [world.drawing.sample_spec(np.random.default_rng([1, i])) for i in range(1500)]
    assert {spec.kit.name for spec in specs} == {kit.name for kit in world.kits.TRAINED} | {"drawn"}
    assert world.kits.HELD_OUT.name not in {spec.kit.name for spec in specs}
    sets = {spec.icon_set.name for spec in specs}
    assert sets == {icon_set.name for icon_set in world.icon_sets.TRAINED}
    assert not sets & {world.icon_sets.HELD_OUT_SET.name, world.icon_sets.HELD_OUT_STYLE.name}
    assert {spec.kind for spec in specs} == set(world.pages.TRAINED) and not set(world.pages.TRAINED) & set(
        world.pages.HELD_OUT
    )
    assert not any(spec.held_out_names for spec in specs)
    folders = {icon_set.folder for icon_set in world.icon_sets.TRAINED}
    assert (
        world.icon_sets.HELD_OUT_SET.folder not in folders
        and world.icon_sets.HELD_OUT_STYLE.folder not in folders
    )
    held_sheets = set(world.kits.HELD_OUT.sheets)
    assert not held_sheets & {sheet for kit in world.kits.TRAINED for sheet in kit.sheets}


@pytest.mark.parametrize("part", ["kit", "icons", "style", "page"])
def test_each_part_of_the_test_differs_in_one_thing(world: Any, part: str):

    specs = [world.drawing.sample_spec(np.random.default_rng([2, i]), part) for i in range(60)]
    assert {spec.kit.name == world.kits.HELD_OUT.name for spec in specs} == {part == "kit"}
    held = {"icons": world.icon_sets.HELD_OUT_SET.name, "style": world.icon_sets.HELD_OUT_STYLE.name}
    assert (
        ({spec.icon_set.name for spec in specs} == {held[part]})
        if part in held
        else not {spec.icon_set.name for spec in specs} & set(held.values())
    )
    assert {spec.kind in world.pages.HELD_OUT for spec in specs} == {part == "page"}


def test_no_held_out_name_is_written_on_a_trained_page(world: Any, modules: Path):

    written: list[str] = []
    original = world.words.Names.of

    def noted(self: Any, *arguments: object) -> str:
        name = original(self, *arguments)
        written.append(name)
        return name

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.words.Names, "of", noted)
        for i in range(60):
            rng = np.random.default_rng([3, i])
            spec = world.drawing.sample_spec(rng)
            world.pages.write_page(
                rng,
                spec.kind,
                world.pages.Look(spec.kit, world.icon_sets.Icons(spec.icon_set, modules)),
                spec.held_out_names,
                (336, 336),
            )
    assert len(written) > 500
    lists = {
        name
        for names in (
            world.words.ACTIONS,
            world.words.FIELDS,
            world.words.OPTIONS,
            world.words.SECTIONS,
            world.words.CHOICES,
            world.words.LEVELS,
        )
        for name in names
    }
    assert not [name for name in written if world.words.is_held_out(name)]
    held = {name for name in lists if world.words.is_held_out(name)}
    assert (
        20 <= len(held) <= 0.25 * len(lists)
        and not held & set(world.drawing.absent_names(False))
        and held & set(world.drawing.absent_names(True))
    )


def test_every_kind_of_page_can_be_written_in_every_kit(world: Any, modules: Path):

    for kit in (*world.kits.TRAINED, world.kits.HELD_OUT, world.kits.drawn_kit(np.random.default_rng(0))):
        for kind in (*world.pages.TRAINED, *world.pages.HELD_OUT):
            for room in ((336, 336), (1280, 800)):
                look = world.pages.Look(kit, world.icon_sets.Icons(world.icon_sets.TRAINED[0], modules))
                text = world.pages.write_page(np.random.default_rng([4, room[0]]), kind, look, False, room)
                assert "<button" in text or "<a " in text
                assert "{" not in text.replace("{}", ""), (kit.name, kind)


def test_the_same_seed_writes_the_same_page(world: Any, modules: Path):

    look = world.pages.Look(world.kits.BOOTSTRAP, world.icon_sets.Icons(world.icon_sets.TRAINED[0], modules))
    first, second = (
        world.pages.write_page(np.random.default_rng(5), "form", look, False, (336, 336)) for _ in range(2)
    )
    assert first == second


def test_nothing_of_the_kits_is_in_the_package():
    text = (ROOT / "setup.py").read_text()
    assert "node_modules" not in text and re.search(r'"molmopoint.screens": \["\*\.js"\]', text)
    assert [
        path.name
        for path in (ROOT / "molmopoint" / "screens").iterdir()
        if path.suffix not in (".py", ".js") and path.is_file()
    ] == []


def test_questions_and_elements_meet_in_one_vector(world: Any):
    save = {
        "kind": "button",
        "text": "Save as",
        "name": "Save as",
        "colour": "blue",
        "icon": "floppy disk",
        "states": ["disabled"],
    }
    vector = world.labels.element_vector(save)
    for mentions in (
        [("kind", "button")],
        [("colour", "blue"), ("kind", "button")],
        [("icon", "floppy disk")],
        [("name", "SAVE AS")],
    ):
        asked = world.labels.vector_of(mentions)
        assert asked.sum() > 0 and (asked <= vector).all(), mentions
    for mentions in ([("kind", "link")], [("colour", "red")], [("icon", "star")], [("name", "Send")]):
        assert not (world.labels.vector_of(mentions) <= vector).all(), mentions
    assert world.labels.vector_of([("name", "日本")]).sum() == 0


def test_patches_know_what_stands_on_them(world: Any):
    card = {
        "kind": "text",
        "boxes": [[0, 0, 140, 140]],
        "text": "a",
        "name": "",
        "states": [],
        "colour": None,
        "icon": None,
    }
    button = {**card, "kind": "button", "boxes": [[28, 28, 70, 56]], "text": "Go"}
    labels = world.labels.PageLabels([button, card], [["G", 30, 30, 40, 50]], (14, 0))
    grid = labels.owner.reshape(24, 24)
    assert (grid[2:4, 3:6] == 0).all() and grid[0, 1] == 1 and grid[0, 0] == -1 and grid[20, 20] == -1
    assert labels.centre.reshape(24, 24)[3, 4] == 0 and (labels.cell >= 0).sum() == 2
    assert labels.letters.reshape(24, 24, -1)[2, 3].sum() == 1
