"""PixMo-Points: its layout with all its traps, and matching."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from made_answers import points

from molmopoint.eval.benchmark import Item, ParsedAnswer
from molmopoint.eval.benchmarks.pixmo_points import MASK_OF_NOTHING, NOT_PERCENT, PixmoPoints, _Truth
from molmopoint.eval.datasets.files import DIFFERS
from molmopoint.eval.datasets.rows import REPEATED, write_parquet
from molmopoint.eval.predictions.records import PredictedPoint, Prediction
from molmopoint.eval.runner.data import open_data
from molmopoint.metrics.run_lengths import MaskIndex


def item(masks: list[np.ndarray], xy: list[tuple[float, float]], size: tuple[int, int] = (10, 10)) -> Item:
    truth = _Truth(
        MaskIndex.build(masks), np.arange(len(masks)), np.array(xy, dtype=float).reshape(-1, 2), size
    )
    return Item("x", "cups", truth=truth)


def judged(made: Item, answer: ParsedAnswer) -> dict[str, float]:
    return PixmoPoints().score(made, answer, "matched")


def block(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((20, 20), dtype=bool)
    mask[rows, columns] = True
    return mask


def test_c1_c2_nothing_to_point_at():
    assert judged(item([], []), points())["f1"] == 1
    assert judged(item([], []), points((1, 1)))["f1"] == 0


def test_c6_the_headline_may_swap_neighbours_and_the_other_may_not():
    low, high = block(slice(0, 3), slice(0, 13)), block(slice(5, 8), slice(0, 13))
    scores = judged(item([low, high], [(0, 1), (12, 6)], (20, 20)), points((12, 1), (0, 6)))
    assert scores["f1"] == 0 and scores["max_hit_f1"] == 1 and scores["exact_count"] == 1


def test_c8_points_are_rounded():
    column = np.zeros((10, 10), dtype=bool)
    column[:, 5] = True
    assert judged(item([column], [(5, 5)]), points((4.6, 3)))["f1"] == 1
    assert judged(item([column], [(5, 5)]), points((4.4, 3)))["f1"] == 0


def test_t7_a_picture_of_another_size_is_rescaled_and_flagged():
    made = item([block(slice(0, 20), slice(0, 20))], [(10, 10)], (20, 20))
    scores = judged(made, points((35, 35), image_sizes=((40, 40),)))
    assert scores["f1"] == 1 and scores["rescaled"] == 1
    assert judged(made, points((35, 35), image_sizes=((20, 20),))) == {
        **scores,
        "f1": 0,
        "precision": 0,
        "recall": 0,
        "max_hit_f1": 0,
    } | {"rescaled": 0}


def test_nan_points_and_cut_answers_are_judged_by_what_is_whole():
    made = item([block(slice(0, 5), slice(0, 5))], [(2, 2)])
    prediction = Prediction(
        "x",
        "pixmo_points",
        1,
        "cups",
        points=(PredictedPoint(1, 0, 2, 2), PredictedPoint(2, 0, float("nan"), 1)),
        finish_reason="length",
    )
    answer = prediction.answer()
    assert judged(made, answer)["f1"] == 1 and answer.invalid == 1 and answer.truncated


def test_layout_with_its_traps(tmp_path):
    PixmoPoints().write_fixture(tmp_path, np.random.default_rng(0))
    asked = open_data(PixmoPoints(), tmp_path, tmp_path).items
    stored = open_data(PixmoPoints(), tmp_path, tmp_path, with_media=False).items
    assert len(asked.found) == 4 and [each.reason for each in asked.missing] == ["no picture file"] * 2
    assert len(stored.found) == 6 and not stored.missing
    assert stored.warnings == {MASK_OF_NOTHING: 1, DIFFERS: 1}
    for each in stored.found:
        assert each.prompt == each.prompt.lower()
        width, height = each.truth.size
        perfect = points(*map(tuple, each.truth.xy), image_sizes=((width, height),))
        assert judged(each, perfect)["f1"] == judged(each, perfect)["max_hit_f1"] == 1
        assert bool(judged(each, points())["f1"]) == (each.categories["objects"] == "0")
    larger = stored.found[2]
    twice = points(
        *map(tuple, larger.truth.xy * 2), image_sizes=(tuple(2 * side for side in larger.truth.size),)
    )
    assert judged(larger, twice)["f1"] == judged(larger, twice)["rescaled"] == 1
    again = PixmoPoints().read(tmp_path)
    assert [each.item_id for each in again.found] == [each.item_id for each in stored.found], (
        "from the kept index"
    )
    assert again.warnings == stored.warnings


SQUARE = [[True, False], [False, False]]
HERE = [{"x": 0.0, "y": 0.0}]


@pytest.mark.parametrize(
    ("row", "missing", "warned"),
    [
        ({}, None, None),
        ({"label": " "}, "no label", None),
        ({"points": [{"x": 1.0, "y": None}]}, "ground truth without a place", None),
        ({"points": [{"x": float("nan"), "y": 1.0}]}, "ground truth without a place", None),
        ({"points": HERE * 2}, "masks that do not fit the points", None),
        ({"masks": None}, "masks that do not fit the points", None),
        ({"masks": [[[True], [True, False]]]}, "masks that do not fit the points", None),
        ({"points": HERE * 2, "masks": [SQUARE, [[True]]]}, "masks that do not fit the points", None),
        ({"points": [{"x": 320.0, "y": 5.0}]}, None, NOT_PERCENT),  # pixels, as the card says
        ({"points": [], "masks": None}, None, None),
        ({"points": None, "masks": [SQUARE]}, None, MASK_OF_NOTHING),
    ],
)
def test_bad_rows_are_counted(tmp_path, row, missing, warned):
    good = {
        "image_url": "https://a.b/c.png",
        "image_sha256": "00",
        "label": "Cups",
        "points": HERE,
        "masks": [SQUARE],
    }
    point = pa.struct([("x", pa.float64()), ("y", pa.float64())])
    types = {name: pa.string() for name in ("image_url", "image_sha256", "label")}
    types |= {"points": pa.list_(point), "masks": pa.list_(pa.list_(pa.list_(pa.bool_())))}
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [good, {**good, **row}, good], types)
    items = PixmoPoints().read(tmp_path)
    assert len(items.found) + len(items.missing) == 3, "no item disappears"
    assert [each.reason for each in items.missing] == ([missing] if missing else [])
    assert set(items.warnings) - {REPEATED} == ({warned} if warned else set())
    assert items.found[0].item_id == "00/cups" and items.found[-1].item_id.startswith("00/cups#")
