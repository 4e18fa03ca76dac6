"""ScreenSpot-v2 and ScreenSpot-Pro: their layouts with their traps, and the first point in the box."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_answers import points

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item, score_items
from molmopoint.eval.benchmarks.screenspot_pro import ScreenSpotPro
from molmopoint.eval.benchmarks.screenspot_v2 import ScreenSpotV2
from molmopoint.eval.datasets.rows import REPEATED
from molmopoint.eval.protocols.clicks import REACHES_OUT, TURNED, ClickTarget
from molmopoint.eval.reports.summary import summarise
from molmopoint.eval.runner.data import open_data

BOX = Item("x", "?", truth=ClickTarget(np.array([10.0, 10, 20, 20]), size=(100, 100)))


def judged(answer, made=BOX) -> dict[str, float]:
    return ScreenSpotV2().score(made, answer, "official")


def middle(made: Item) -> tuple[float, float]:
    x1, y1, x2, y2 = made.truth.box
    return (x1 + x2) / 2, (y1 + y2) / 2


def test_c11_boxes_have_all_four_sides():
    assert judged(points((20, 20)))["correct"] == judged(points((10, 10)))["correct"] == 1
    assert judged(points((20.01, 20)))["correct"] == 0


def test_the_first_point_decides():
    assert judged(points((15, 15), (90, 90)))["correct"] == 1
    assert judged(points((90, 90), (15, 15))) == {"correct": 0, "wrong_format": 0, "rescaled": 0}
    assert judged(points()) == {"correct": 0, "wrong_format": 1, "rescaled": 0}


def test_points_belong_to_the_published_size():
    assert judged(points((30, 30), image_sizes=((200, 200),))) == {
        "correct": 1,
        "wrong_format": 0,
        "rescaled": 1,
    }


def test_one_point_is_forced_and_crops_are_the_models_own():
    for benchmark in (ScreenSpotV2, ScreenSpotPro):
        assert (
            benchmark.generation.single
            and benchmark.generation.max_new_tokens == 128
            and benchmark.generation.max_crops is None
        )


def test_t12_v2_layout(tmp_path):
    ScreenSpotV2().write_fixture(tmp_path, np.random.default_rng(0))
    asked = open_data(ScreenSpotV2(), tmp_path, tmp_path).items
    stored = open_data(ScreenSpotV2(), tmp_path, tmp_path, with_media=False).items
    assert len(stored.found) == 5 and stored.warnings == {REACHES_OUT: 1, REPEATED: 1}
    assert len(asked.found) == 4 and [each.reason for each in asked.missing] == ["no picture file"]
    published = json.loads((tmp_path / "screenspot_web_v2.json").read_text())[0]["bbox"]
    web = next(each for each in stored.found if each.categories["kind"] == "web")
    assert web.truth.box.tolist() == [
        *published[:2],
        published[0] + published[2],
        published[1] + published[3],
    ]
    assert all(judged(points(middle(each)), each)["correct"] for each in stored.found)


def test_t13_six_cells_three_kinds_and_the_mean_over_items(tmp_path):
    ScreenSpotV2().write_fixture(tmp_path, np.random.default_rng(0))
    benchmark, items = ScreenSpotV2(), ScreenSpotV2().read(tmp_path)
    answers = {
        each.item_id: points(middle(each)) for each in items.found if each.categories["kind"] == "mobile"
    }
    summary = summarise(
        benchmark, items, score_items(benchmark, items.found, answers, "official"), answers, "official"
    )
    cells = {
        (cell.view, cell.group): (cell.value, cell.n) for cell in summary.cells if cell.metric == "correct"
    }
    assert summary.headline.value == 2 / 5
    assert cells[("kind", "type"), ("mobile", "text")] == (1, 2)
    assert cells[("kind",), ("web",)] == (0, 2) and cells[("type",), ("icon",)] == (0, 2)
    assert summary.rates["without_points"] == 3 / 5


def test_v2_faults(tmp_path):
    ScreenSpotV2().write_fixture(tmp_path, np.random.default_rng(0))
    path = tmp_path / "screenspot_desktop_v2.json"
    row = json.loads(path.read_text())[0]
    path.write_text(
        json.dumps(
            [row, {**row, "bbox": None}, {**row, "instruction": None}, {**row, "img_filename": "broken.png"}]
        )
    )
    ScreenSpotV2().read(tmp_path)
    (tmp_path / "screenspotv2_image" / "screenspotv2_image" / "broken.png").write_bytes(b"no picture")
    items = ScreenSpotV2().read(tmp_path)
    assert [each.reason for each in items.missing] == ["no usable box", "no instruction"]
    assert any("broken.png" in each.item_id for each in items.found), (
        "the runner asks, and reports that it cannot be read"
    )
    path.unlink()
    with pytest.raises(EvaluationError, match=r"screenspot_desktop_v2\.json"):
        ScreenSpotV2().read(tmp_path)


def test_t12_pro_layout(tmp_path):
    ScreenSpotPro().write_fixture(tmp_path, np.random.default_rng(0))
    items = open_data(ScreenSpotPro(), tmp_path, tmp_path).items
    assert [each.item_id for each in items.found] == [
        "blender_windows_0",
        "blender_windows_0#2",
        "linux_common_linux_2",
        "word_macos_1",
    ]
    assert [(each.item_id, each.reason) for each in items.missing] == [("blender_9", "no usable box")]
    assert items.warnings == {TURNED: 1, REPEATED: 1}
    first, turned, _, smaller = items.found
    published = json.loads((tmp_path / "annotations" / "blender_windows.json").read_text())[0]["bbox"]
    assert first.truth.box.tolist() == turned.truth.box.tolist() == published
    assert first.categories == {
        "group": "Creative",
        "type": "text",
        "application": "blender",
        "platform": "windows",
    }
    width, height = smaller.truth.size
    x, y = middle(smaller)
    on_disk = points((x / 2, y / 2), image_sizes=((width // 2, height // 2),))
    assert ScreenSpotPro().score(smaller, on_disk, "official") == {
        "correct": 1,
        "wrong_format": 0,
        "rescaled": 1,
    }


def test_boxes_of_the_other_benchmark_are_refused(tmp_path):
    """Corner and size in a file of two corners would be silent garbage."""
    (tmp_path / "annotations").mkdir()
    rows = [
        {
            "id": f"a{i}",
            "img_filename": "a.png",
            "bbox": [500 + i, 400, 90, 30],
            "instruction": "ok",
            "img_size": [1000, 800],
        }
        for i in range(12)
    ]
    (tmp_path / "annotations" / "a_linux.json").write_text(json.dumps(rows))
    with pytest.raises(EvaluationError, match="x1, y1, x2, y2"):
        ScreenSpotPro().read(tmp_path)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match="annotations"):
        ScreenSpotPro().read(tmp_path)
