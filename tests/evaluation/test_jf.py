"""J&F of masks, and of tracking tables with a SAM 2 of toy size."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_sam2 import tiny_sam2, tiny_sam2_processor

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item
from molmopoint.eval.benchmarks import find_benchmark
from molmopoint.eval.benchmarks.referring_video import Mevis
from molmopoint.eval.fixtures import moving_shapes
from molmopoint.eval.predictions.records import PredictedPoint, Prediction
from molmopoint.eval.runner.data import open_data
from molmopoint.eval.runner.scoring import score_predictions
from molmopoint.eval.runner.segmentation import segmentation_of, segmentation_scores, true_masks, united_masks
from molmopoint.metrics.run_lengths import MaskIndex
from molmopoint.metrics.tracking import TrueFrame, TrueTracks
from molmopoint.segmentation import Segmenter
from molmopoint.segmentation.sam2 import FrameMask


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(tiny_sam2(), tiny_sam2_processor())


def of_objects(masks: np.ndarray) -> dict[int, np.ndarray]:
    """United masks of (m, T, height, width), by frame."""
    found = (
        FrameMask(i, number, mask, 1.0) for i, each in enumerate(masks) for number, mask in enumerate(each)
    )
    return united_masks(found, range(masks.shape[1]))


def test_scores_of_given_masks():
    shapes = moving_shapes.make(np.random.default_rng(0), 2, seconds=1)
    both = dict(enumerate(np.any(shapes.masks, axis=0)))
    assert segmentation_scores(of_objects(shapes.masks), both) == (1, 1, 1)
    half = segmentation_scores(of_objects(shapes.masks[:1]), both)
    assert half.j == pytest.approx(0.5) and 0 < half.f < 1 and half.jf == (half.j + half.f) / 2
    assert segmentation_scores({}, both) == (0, 0, 0)
    assert segmentation_scores({}, {0: np.zeros((4, 4), dtype=bool)}) == (1, 1, 1)
    with pytest.raises(EvaluationError, match="at least one frame"):
        segmentation_scores({}, {})
    with pytest.raises(EvaluationError, match="original size"):
        segmentation_scores({0: shapes.masks[0, 0]}, {0: np.zeros((4, 4), dtype=bool)})


def test_true_masks_in_the_size_of_the_video():
    masks = np.zeros((2, 2, 2), dtype=bool)
    masks[0, 0, 0] = masks[1, 1, 1] = True
    frame = TrueFrame(("a", "b"), np.zeros((2, 2)), {"a": 0, "b": 1, "c": -1})
    united = true_masks(TrueTracks(MaskIndex.build(masks), (4, 4), 6.0, 1.0, {6: frame}))
    assert (
        list(united) == [6]
        and united[6].tolist() == np.kron(np.eye(2, dtype=bool), np.ones((2, 2), dtype=bool)).tolist()
    )


def test_only_the_wanted_frames_are_kept():
    masks = moving_shapes.make(np.random.default_rng(0), 2, seconds=1).masks
    found = [
        FrameMask(i, number, mask, 1.0) for i, each in enumerate(masks) for number, mask in enumerate(each)
    ]
    united = united_masks(found, {3})
    assert list(united) == [3] and np.array_equal(united[3], masks[:, 3].any(axis=0))
    assert np.array_equal(found[3].mask, masks[0, 3]), "what was found is not written into"


def test_tracking_tables_get_jf(segmenter, tmp_path):
    Mevis().write_fixture(tmp_path, np.random.default_rng(0))
    benchmark = find_benchmark("mevis")
    data = open_data(benchmark, tmp_path, tmp_path)
    first, second = data.items.found[:2]
    (number, frame), *_ = first.truth.frames.items()
    point = PredictedPoint(1, number / first.truth.fps, *map(float, frame.xy[0]))
    stored = {
        first.item_id: Prediction(
            first.item_id, "mevis", 1, "?", points=(point,), image_sizes=(first.truth.size,)
        ),
        second.item_id: Prediction(second.item_id, "mevis", 1, "?", error="broken", finish_reason="error"),
    }
    summary, scores = score_predictions(benchmark, data, stored, "grid", segmenter=segmenter)
    assert scores[first.item_id]["f1"] > 0 and 0 <= scores[first.item_id]["jf_when_asked"] <= 1
    # The clip can be read at its own rate.
    alone = segmentation_of(first, stored[first.item_id].answer(), segmenter)
    assert alone["jf_when_asked"] == scores[first.item_id]["jf_when_asked"]
    assert scores[second.item_id]["jf_when_asked"] == 0, "a failed item is wrong by every metric"
    cell = next(cell for cell in summary.cells if cell.metric == "jf_when_asked")
    assert cell.n == 2 and cell.value == pytest.approx(scores[first.item_id]["jf_when_asked"] / 2)
    plain, _ = score_predictions(benchmark, data, stored, "grid")
    assert not any(cell.metric.startswith("j") for cell in plain.cells)
    with pytest.raises(EvaluationError, match="moving objects"):
        segmentation_of(Item("x", "?"), stored[first.item_id].answer(), segmenter)
