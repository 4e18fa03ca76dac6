"""OSWorld-G and its refined set: boxes, polygons, refusals, and the reference's reading of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_answers import points

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item, ParsedAnswer
from molmopoint.eval.benchmarks.osworld_g import UNSORTED, OSWorldG, OSWorldGRefined, _add, write_as_on_hub
from molmopoint.eval.datasets.rows import ItemCollector, displayed_size
from molmopoint.eval.protocols.clicks import ClickTarget, TargetReader
from molmopoint.eval.runner.data import open_data

REFUSAL = Item("r", "?", truth=ClickTarget())
CORNERS = np.array([[0.0, 0], [10, 0], [0, 10]])
TRIANGLE = Item("t", "?", truth=ClickTarget(polygon=CORNERS, published=(0, 0, 10, 0)))
BOX = Item("b", "?", truth=ClickTarget(box=np.array([10.0, 10, 20, 20]), published=(10, 10, 10, 10)))


def correct(made: Item, answer: ParsedAnswer) -> tuple[float, ...]:
    """By the official rule, and as the reference has it."""
    return tuple(
        OSWorldG().score(made, answer, "official", ref_compat=flaw)["correct"] for flaw in (False, True)
    )


def test_c12_refusal():
    assert correct(REFUSAL, points()) == (1, 0)
    assert correct(REFUSAL, points((5, 5))) == (0, 0)


def test_refusals_of_models_that_must_write_a_point_are_negative():
    assert correct(REFUSAL, points((-1, -1))) == (1, 0)
    assert correct(REFUSAL, points((-1, 5))) == (0, 0)


def test_a_cut_answer_or_one_without_a_place_is_no_refusal():
    assert correct(REFUSAL, points(truncated=True)) == (0, 0)
    assert correct(REFUSAL, points(invalid=1)) == (0, 0)


def test_c13_polygon():
    assert correct(TRIANGLE, points((3, 3))) == (1, 0)
    assert correct(TRIANGLE, points((8, 8))) == (0, 0)
    assert correct(TRIANGLE, points((5, 0))) == (1, 1), "on the flat box"


def test_a_polygon_of_four_numbers_is_a_box_of_two_corners():
    """The hub has such entries; the reference reads them as x, y, width and height."""
    row = {
        "id": "p",
        "instruction": "the button",
        "box_type": "polygon",
        "box_coordinates": [100, 50, 120, 60],
        "image_size": [400, 300],
    }
    collected = ItemCollector()
    _add(row, Path("a.png"), {}, TargetReader("xywh", collected.warnings), collected)
    (made,) = collected.found
    assert made.categories["shape"] == "polygon" and made.truth.box.tolist() == [100, 50, 120, 60]
    assert correct(made, points((110, 55))) == (1, 1)
    assert correct(made, points((121, 55))) == (0, 1), "the reference's box reaches to (220, 110)"
    assert correct(made, points((100, 60))) == (1, 1) and correct(made, points((99, 55))) == (0, 0)


def test_c11_boxes_are_read_alike():
    for xy, hit in [((20, 20), 1), ((20.5, 20), 0)]:
        assert correct(BOX, points(xy)) == (hit, hit)
    assert correct(BOX, points()) == (0, 0)
    assert OSWorldG().score(BOX, points(), "official")["wrong_format"] == 1
    assert OSWorldG().score(REFUSAL, points(), "official")["wrong_format"] == 0


def test_the_model_may_decline():
    assert not OSWorldG.generation.single and OSWorldG.generation.max_new_tokens == 128 and OSWorldG.flaws


def test_layout_with_its_traps(tmp_path):
    OSWorldG().write_fixture(tmp_path, np.random.default_rng(0))
    items = open_data(OSWorldG(), tmp_path, tmp_path).items
    assert [each.item_id for each in items.found] == ["made-0", "made-1", "made-2", "made-3"]
    assert [(each.item_id, each.reason) for each in items.missing] == [("made-4", "no usable polygon")]
    assert items.warnings == {UNSORTED: 1}
    box, polygon, refusal, _ = items.found
    assert box.categories == {
        "skill": ("text matching", "element recognition"),
        "target": "there",
        "shape": "bbox",
    }
    assert refusal.categories == {"skill": ("refusal",), "target": "refusal", "shape": "refusal"}
    x, y, width, height = json.loads((tmp_path / "benchmark" / "OSWorld-G.json").read_text())[0][
        "box_coordinates"
    ]
    assert box.truth.box.tolist() == [x, y, x + width, y + height]
    assert correct(box, points((x + width, y + height))) == (1, 1)
    assert correct(polygon, points(tuple(polygon.truth.polygon.mean(axis=0))))[0] == 1
    (tmp_path / "benchmark" / "classification_result.json").unlink()
    assert OSWorldG().read(tmp_path).warnings == {UNSORTED: 3}, "a refusal is one by its target"


def test_t11_refined_instructions_are_another_benchmark(tmp_path):
    OSWorldG().write_fixture(tmp_path, np.random.default_rng(0))
    plain, refined = OSWorldG().read(tmp_path).found, OSWorldGRefined().read(tmp_path).found
    assert [each.item_id for each in plain] == [each.item_id for each in refined]
    assert all(a.prompt != b.prompt for a, b in zip(plain, refined, strict=True))
    assert OSWorldG.name != OSWorldGRefined.name
    assert len(OSWorldG().read(tmp_path / "benchmark").found) == 4, "the inner folder will do"


def test_the_hubs_rows_are_the_same_items(tmp_path):
    hub, folder = tmp_path / "hub", tmp_path / "folder"
    hub.mkdir()
    folder.mkdir()
    write_as_on_hub(hub, np.random.default_rng(0))
    OSWorldG().write_fixture(folder, np.random.default_rng(0))
    ours, theirs = OSWorldG().read(folder), OSWorldG().read(hub)
    for a, b in zip(ours.found, theirs.found, strict=True):
        assert (a.item_id, a.prompt, a.truth.published, a.truth.size) == (
            b.item_id,
            b.prompt,
            b.truth.published,
            b.truth.size,
        )
        assert displayed_size(b.images[0]) == b.truth.size
    assert [(each.item_id, each.reason) for each in theirs.missing] == [
        (each.item_id, each.reason) for each in ours.missing
    ]
    with pytest.raises(EvaluationError, match=r"OSWorld-G_refined\.json"):
        OSWorldGRefined().read(hub)


def test_faults(tmp_path):
    OSWorldG().write_fixture(tmp_path, np.random.default_rng(0))
    path = tmp_path / "benchmark" / "OSWorld-G.json"
    row = json.loads(path.read_text())[0]
    bad = [
        {"instruction": ""},
        {"box_type": "circle"},
        {"box_coordinates": None},
        {"box_coordinates": ["a", 1, 2, 3]},
        {"id": None},
    ]
    path.write_text(json.dumps([row, *({**row, **fault} for fault in bad)]))
    items = OSWorldG().read(tmp_path)
    assert [each.reason for each in items.missing] == [
        "no instruction",
        "no usable circle",
        "no usable bbox",
        "no usable bbox",
    ]
    assert items.found[1].item_id.startswith("screen 0.png/")
    (tmp_path / "benchmark" / "classification_result.json").write_text('{"classified": [1]}')
    with pytest.raises(EvaluationError, match="classified"):
        OSWorldG().read(tmp_path)
