"""Molmo2-VideoPoint: matching in time and space, its layout with its faults, and COCO's run-lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item, ParsedAnswer
from molmopoint.eval.benchmarks.molmo2_video_point import OTHER_SIZE, UNREADABLE, Molmo2VideoPoint, _Truth
from molmopoint.eval.fixtures import moving_shapes
from molmopoint.eval.runner.data import open_data
from molmopoint.metrics.run_lengths import MaskIndex, decode_mask, fingerprint

WHOLE = np.ones((10, 10), dtype=bool)


def answer(*rows: tuple[float, float, float], size: tuple[int, int] | None = None) -> ParsedAnswer:
    """Of (seconds, x, y)."""
    table = np.array(rows, dtype=float).reshape(-1, 3)
    return ParsedAnswer(
        table[:, 1:], table[:, 0], np.full(len(rows), -1), image_sizes=(size,) if size else ()
    )


def item(
    places: list[tuple[float, float, float]], masks: list[dict[int, int]], pictures: list[np.ndarray]
) -> Item:
    truth = _Truth(
        MaskIndex.build(pictures), np.array(places, dtype=float).reshape(-1, 3), tuple(masks), (10, 10), 10.0
    )
    return Item("x", "?", truth=truth)


def f1(made: Item, given: ParsedAnswer, rule: str = "exact") -> float:
    return Molmo2VideoPoint().score(made, given, rule)["f1"]


def test_c17_time_must_be_a_mask_time():
    made = item([(3.5, 5, 5)], [{6: 0, 7: 0, 8: 0}], [WHOLE])
    assert f1(made, answer((3.4, 5, 5))) == 0 and f1(made, answer((3.4, 5, 5)), "snap") == 1
    assert f1(made, answer((3.0, 5, 5))) == 1 and f1(made, answer((4.5, 5, 5)), "snap") == 0
    assert f1(made, answer((3.5, 9.4, 5))) == 1 and f1(made, answer((3.5, 9.6, 5))) == 0, (
        "points become pixels by rounding"
    )


def test_time_and_space_weigh_the_same():
    left = np.pad(np.ones((10, 5), dtype=bool), ((0, 0), (0, 5)))
    # Same place at 1 and 9 seconds: only time tells which object is meant.
    made = item([(1, 2, 5), (9, 2, 5)], [{2: 0}, {18: 0}], [left])
    assert f1(made, answer((9, 2, 5), (1, 2, 5))) == 1
    swapped = Molmo2VideoPoint().score(
        item([(1, 2, 5), (1, 7, 5)], [{2: 0}, {2: 1}], [left, ~left]), answer((1, 1, 5)), "exact"
    )
    assert swapped == {
        "precision": 1,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "max_hit_f1": pytest.approx(2 / 3),
        "valid": 1,
    }


def test_nothing_there_and_nothing_said():
    nothing, something = item([], [], []), item([(1, 1, 1)], [{2: 0}], [WHOLE])
    assert Molmo2VideoPoint().score(nothing, answer(), "exact") == {
        "precision": 1,
        "recall": 1,
        "f1": 1,
        "max_hit_f1": 1,
        "valid": 0,
    }
    assert f1(nothing, answer((1, 1, 1))) == 0 and f1(something, answer()) == 0


def test_pixels_of_another_size_are_rescaled():
    made = item([(1, 8, 8)], [{2: 0}], [np.pad(np.ones((2, 2), dtype=bool), ((8, 0), (8, 0)))])
    assert f1(made, answer((1, 16, 16), size=(20, 20))) == 1 and f1(made, answer((1, 16, 16))) == 0


def test_layout_with_its_faults(tmp_path):
    Molmo2VideoPoint().write_fixture(tmp_path, np.random.default_rng(0))
    data = open_data(Molmo2VideoPoint(), tmp_path, tmp_path)
    assert [each.item_id for each in data.items.found] == [
        "-a_1/disc",
        "été/disc",
        "gen0/disc",
        "-a_1/nothing of the kind",
    ]
    assert sorted(each.reason for each in data.items.missing) == [
        "no size or duration of the video",
        "points, times and masks that do not fit each other",
    ]
    assert data.items.warnings[UNREADABLE] == 1 and data.items.warnings[OTHER_SIZE] > 0
    first = data.items.found[0]
    assert first.prompt == 'How many "disc" are there in the video?' and first.image_sizes == (
        moving_shapes.SIZE,
    )
    assert all(each.clip is not None and each.clip.path.is_file() for each in data.items.found)
    for each in data.items.found:
        assert f1(each, answer(*each.truth.places)) == 1, each.item_id
        later = answer(*(each.truth.places + np.array([0.5, 0, 0])))
        assert f1(each, later) == pytest.approx(1) or not each.truth.masks, "the masks follow the disc"


def test_missing_videos_are_missing_items_unless_answers_are_stored(tmp_path):
    Molmo2VideoPoint().write_fixture(tmp_path, np.random.default_rng(0))
    (tmp_path / "videos" / "youtube" / "-a_1.mp4").unlink()
    asked = open_data(Molmo2VideoPoint(), tmp_path, tmp_path)
    stored = open_data(Molmo2VideoPoint(), tmp_path, tmp_path, with_media=False)
    assert (
        len(asked.items.found) == 2
        and sum(each.reason == "no video file" for each in asked.items.missing) == 2
    )
    assert len(stored.items.found) == 4 and asked.digest == stored.digest
    assert np.array_equal(
        stored.items.found[0].truth.index.starts, asked.items.found[0].truth.index.starts
    ), "from the kept index"


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match="val-"):
        Molmo2VideoPoint().read(tmp_path)


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.03, 0.5, 1.0]), st.integers(0, 1000))
def test_run_lengths_as_pycocotools_writes_them(height, width, share, seed):
    mask = np.random.default_rng(seed).random((height, width)) < share
    decoded = decode_mask(moving_shapes.run_lengths(mask))
    assert decoded is not None and np.array_equal(decoded, mask)


@pytest.mark.parametrize(
    "counts", ["", "!!!", "044é", "04", "o", "o" * 20 + "0", None, 7, [4, -4, 16], [3], [], [[16]], ["a"]]
)
def test_broken_run_lengths_are_no_mask(counts):
    assert decode_mask({"size": [4, 4], "counts": counts}) is None
    whole = decode_mask({"size": [4, 4], "counts": [4, 4, 8]})
    assert whole is not None and whole.sum() == 4


def test_broken_sizes_are_no_mask():
    for size in (None, [4], [4, 0], [4, 1.5], [1 << 20, 1 << 20]):
        assert decode_mask({"size": size, "counts": [16]}) is None
    assert decode_mask(None) is None
    assert fingerprint([{"counts": "a"}, None]) != fingerprint([{"counts": "b"}, None])
