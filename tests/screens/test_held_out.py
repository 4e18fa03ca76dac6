"""The world of screens of `examples/screens`: what is held out is in no trained page."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _examples_on_the_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield
    for name in [name for name in sys.modules if name == "screens" or name.startswith("screens.")]:
        del sys.modules[name]


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A stand-in for the packages: every icon of every set, drawn as a square that names its set."""
    from screens import icon_sets

    from molmopoint.screens.icons import STEMS

    for icon_set in (*icon_sets.TRAINED, icon_sets.HELD_OUT_SET, icon_sets.HELD_OUT_STYLE):
        folder = tmp_path / icon_set.folder
        folder.mkdir(parents=True, exist_ok=True)
        for stems in STEMS.values():
            name = stems[0].replace("-", icon_set.separator) + icon_set.ending[0]
            (folder / f"{name}.svg").write_text(f'<svg viewBox="0 0 1 1"><title>{icon_set.folder}</title><rect width="1" height="1"/></svg>')
    return tmp_path


def test_trained_pages_hold_nothing_of_the_held_out_parts():
    from screens import icon_sets, kits, pages
    from screens.drawing import sample_spec

    specs = [sample_spec(np.random.default_rng([1, i])) for i in range(1500)]
    assert {spec.kit.name for spec in specs} == {kit.name for kit in kits.TRAINED} | {"drawn"}
    assert kits.HELD_OUT.name not in {spec.kit.name for spec in specs}
    sets = {spec.icon_set.name for spec in specs}
    assert sets == {icon_set.name for icon_set in icon_sets.TRAINED}
    assert not sets & {icon_sets.HELD_OUT_SET.name, icon_sets.HELD_OUT_STYLE.name}
    assert {spec.kind for spec in specs} == set(pages.TRAINED) and not set(pages.TRAINED) & set(pages.HELD_OUT)
    assert not any(spec.held_out_names for spec in specs)
    folders = {icon_set.folder for icon_set in icon_sets.TRAINED}
    assert icon_sets.HELD_OUT_SET.folder not in folders and icon_sets.HELD_OUT_STYLE.folder not in folders
    held_sheets = set(kits.HELD_OUT.sheets)
    assert not held_sheets & {sheet for kit in kits.TRAINED for sheet in kit.sheets}


@pytest.mark.parametrize("part", ["kit", "icons", "style", "page"])
def test_each_part_of_the_test_differs_in_one_thing(part: str):
    from screens import icon_sets, kits, pages
    from screens.drawing import sample_spec

    specs = [sample_spec(np.random.default_rng([2, i]), part) for i in range(60)]
    assert {spec.kit.name == kits.HELD_OUT.name for spec in specs} == {part == "kit"}
    held = {"icons": icon_sets.HELD_OUT_SET.name, "style": icon_sets.HELD_OUT_STYLE.name}
    assert ({spec.icon_set.name for spec in specs} == {held[part]}) if part in held else not {spec.icon_set.name for spec in specs} & set(held.values())
    assert {spec.kind in pages.HELD_OUT for spec in specs} == {part == "page"}


def test_no_held_out_name_is_written_on_a_trained_page(modules: Path):
    from screens import words
    from screens.drawing import absent_names, sample_spec
    from screens.icon_sets import Icons
    from screens.pages import Look, Maker, write_page

    written: list[str] = []
    original = words.Names.of

    def noted(self: words.Names, *arguments: object) -> str:
        name = original(self, *arguments)  # type: ignore[arg-type]
        written.append(name)
        return name

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words.Names, "of", noted)
        for i in range(60):
            rng = np.random.default_rng([3, i])
            spec = sample_spec(rng)
            write_page(rng, spec.kind, Look(spec.kit, Icons(spec.icon_set, modules)), spec.held_out_names, (336, 336))
    assert len(written) > 500 and Maker is not None
    lists = {name for names in (words.ACTIONS, words.FIELDS, words.OPTIONS, words.SECTIONS, words.CHOICES, words.LEVELS) for name in names}
    assert not [name for name in written if words.is_held_out(name)]
    held = {name for name in lists if words.is_held_out(name)}
    assert 20 <= len(held) <= 0.25 * len(lists) and not held & set(absent_names(False)) and held & set(absent_names(True))


def test_every_kind_of_page_can_be_written_in_every_kit(modules: Path):
    from screens import icon_sets, kits, pages

    for kit in (*kits.TRAINED, kits.HELD_OUT, kits.drawn_kit(np.random.default_rng(0))):
        for kind in (*pages.TRAINED, *pages.HELD_OUT):
            for room in ((336, 336), (1280, 800)):
                look = pages.Look(kit, icon_sets.Icons(icon_sets.TRAINED[0], modules))
                text = pages.write_page(np.random.default_rng([4, room[0]]), kind, look, False, room)
                assert "<button" in text or "<a " in text
                assert "{" not in text.replace("{}", ""), (kit.name, kind)


def test_the_same_seed_writes_the_same_page(modules: Path):
    from screens import icon_sets, kits, pages

    look = pages.Look(kits.BOOTSTRAP, icon_sets.Icons(icon_sets.TRAINED[0], modules))
    first, second = (pages.write_page(np.random.default_rng(5), "form", look, False, (336, 336)) for _ in range(2))
    assert first == second


def test_nothing_of_the_kits_is_in_the_package():
    import re

    text = (ROOT / "setup.py").read_text()
    assert "node_modules" not in text and re.search(r'"molmopoint.screens": \["\*\.js"\]', text)
    assert [path.name for path in (ROOT / "molmopoint" / "screens").iterdir() if path.suffix not in (".py", ".js") and path.is_file()] == []
