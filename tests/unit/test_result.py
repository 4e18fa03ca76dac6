"""Results made by hand: texts, drawing, heatmaps."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import result_of
from PIL import Image

from molmopoint.backends.result import count_of
from molmopoint.errors import GroundingError, ProcessingError
from molmopoint.geometry import PointingMetadata
from molmopoint.pipeline import PointingResult
from molmopoint.points import Points


def test_it_cannot_be_changed_and_reads_well():
    result = result_of([[1, 0, 4]])
    assert "1 point," in repr(result) and "cups" in repr(result)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.text = "other"


def test_it_becomes_strict_json():
    document = json.loads(json.dumps(result_of([[1, 0, 4], [2, 3, 0]]).to_dict(), allow_nan=False))
    assert Points.from_dict(document["points"]).xy.shape == (2, 2)
    assert document["text"] == "cups" and document["truncated"] is False and document["invalid"] == 0


def test_draw_gives_what_came_in():
    assert isinstance(result_of([[1, 0, 4]]).draw(), Image.Image)
    assert [picture.size for picture in result_of([], as_list=True).draw()] == [(40, 20)]
    drawn = result_of([[4, 0, 4]], sizes=[(40, 20), (60, 30)], as_list=True).draw(heatmap=True)
    blank = Image.new("RGB", (40, 20), "teal")
    assert (
        drawn[0].tobytes() == blank.tobytes()
        and drawn[1].size == (60, 30)
        and drawn[1].tobytes() != Image.new("RGB", (60, 30), "teal").tobytes()
    )


def test_a_clip_draws_the_frames_with_points():
    result = result_of([[1, 0, 4], [7, 0, 4]], timestamps=[0.0, 0.5, 1.0])
    assert (
        result.points.group.tolist() == [0.0, 1.0]
        and [picture.size for picture in result.draw(heatmap=True)] == [(40, 20)] * 2
    )
    assert result_of([], timestamps=[0.0, 0.5]).draw() == []


def test_without_a_picture_there_is_nothing_to_draw_on():
    none = PointingMetadata(np.empty((0, 0)), np.empty(0), [], [])
    result = PointingResult(Points.empty(), "hello", "hello", "Hi.", False, 0, (), none)
    with pytest.raises(ProcessingError, match="picture"):
        result.draw()
    with pytest.raises(GroundingError, match="distributions"):
        result.heatmap(0)


def test_heatmap_of_a_certain_point_is_its_vit_patch():
    # Second image token, lower right slot: row 1, column 3 of 2 by 4.
    heat = result_of([[2, 3, 4]]).heatmap(0)
    assert heat.shape == (20, 40) and heat.sum() == pytest.approx(1)
    assert (heat[10:, 30:] > 0).all() and heat[10:, 30:].sum() == pytest.approx(1)


def test_heatmap_splits_the_chosen_patch_by_slots_and_others_evenly():
    heat = result_of([[1, 0, 4]], patch=[[0, 0.5, 0.25]], subpatch=[[0.75, 0.25, 0, 0]]).heatmap(-1)
    quarters = heat.reshape(2, 10, 4, 10).sum(axis=(1, 3))
    np.testing.assert_allclose(quarters, [[0.375, 0.125, 0.0625, 0.0625], [0, 0, 0.0625, 0.0625]], atol=1e-3)
    assert heat.sum() == pytest.approx(0.75, abs=1e-3)  # the rest went to no-more-points


def test_min_score_leaves_points_out_with_their_choices():
    result = dataclasses.replace(result_of([[1, 0, 4], [2, 3, 4]]), absent=0.25)
    scored = dataclasses.replace(result, points=result.points.with_scores(np.array([0.9, 0.2])))
    few = scored.at_least(0.5)
    assert (
        [point.object_id for point in few] == [1]
        and few.left_out == 1
        and few.heatmap(0).argmax() == scored.heatmap(0).argmax()
    )
    assert scored.at_least(None) is scored and scored.at_least(0.1) is scored
    none = scored.at_least(1.0)
    assert count_of(dataclasses.replace(none, text="7")) == 0, (
        "a number in words says nothing about points that were left out"
    )
    document = none.to_dict()
    assert (
        document["absent"] == 0.25 and document["left_out"] == 2 and result_of([]).to_dict()["absent"] is None
    )


def test_numbers_are_written_short():
    result = result_of([[1, 0, 4]])
    points = dataclasses.replace(result.points, x=np.array([10 / 3]), score=np.array([2 / 3]))
    (row,) = dataclasses.replace(result, points=points).to_dict()["points"]["points"]
    assert row["x"] == 3.33 and row["score"] == 0.6667 and points.to_dict()["points"][0]["x"] == 10 / 3
    (point,) = result
    assert point.xy == (point.x, point.y)


def test_large_pictures_have_coarse_heatmaps_where_they_are_drawn():
    result = result_of([[1, 0, 4]], sizes=[(4000, 2000)])
    assert result._heat(0, 768).shape == (384, 768)
    small, drawn = (
        np.asarray(result.displayed.pictures[0]).astype(int),
        np.asarray(result.draw(heatmap=True)).astype(int),
    )
    places = np.abs(small - drawn).max(axis=-1) > 20
    assert places[:1000, :1000].mean() > 0.9 and not places[1100:].any(), "the upper left of 2 by 4 cells"


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_heatmap_keeps_the_probability_of_its_picture(width, height, seed):
    rng = np.random.default_rng(seed)
    patch = rng.dirichlet(np.ones(4))[None, :4] * np.array([0, 1, 1, 0])[None]
    result = result_of(
        [[1, 2, 0]], sizes=[(width, height)], patch=patch[:, :3], subpatch=rng.dirichlet(np.ones(4))[None]
    )
    heat = result.heatmap(0)
    assert heat.shape == (height, width) and heat.min() >= 0 and heat.max() > 0
    assert heat.sum() == pytest.approx(patch[:, :3].sum(), rel=0.02)


@pytest.mark.parametrize("index", [1, -2, 99])
def test_heatmap_of_no_point(index):
    with pytest.raises(GroundingError, match="index"):
        result_of([[1, 0, 4]]).heatmap(index)
