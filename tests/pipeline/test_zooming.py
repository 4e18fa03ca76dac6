"""Looking again at native pixels: which parts, where their points lie, and what the answer is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import result_of
from PIL import Image
from toy_pointer import STEPS, toy_pointer
from toy_processor import frames, picture

import molmopoint
from molmopoint.backends.options import AnswerOptions
from molmopoint.errors import GroundingError, ProcessingError
from molmopoint.pipeline import Pointer, PointingResult
from molmopoint.pipeline.zooming import Part, heat_of, hottest_parts, merged_looks
from molmopoint.points import Points

LARGE, SMALL = picture(300, 400), picture(60, 70)
"""Beyond the four crops of the toy processor, and within one."""


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return toy_pointer()


def ask(pointer: Pointer, image, prompt: Any = "the cats", **options):
    return pointer.point(image, prompt, **{"max_new_tokens": STEPS, **options})


# Parts


heats = st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))


@given(heats, st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 1200), st.integers(1, 12))
def test_parts_lie_in_the_picture_and_hold_heat_of_their_own(shape, width, height, side, most):
    rows, cols, seed = shape
    heat = np.random.default_rng(seed).random((rows, cols)) ** 8
    parts = hottest_parts(heat, (width, height), side, most)
    assert 1 <= len(parts) <= most
    assert len(set(parts)) == len(parts)
    for part in parts:
        assert 0 <= part.left < part.right <= width and part.right - part.left == min(side, width)
        assert 0 <= part.top < part.bottom <= height and part.bottom - part.top == min(side, height)


def test_the_hottest_place_comes_first_and_in_the_middle():
    heat = np.zeros((40, 60))
    heat[10, 50], heat[30, 5] = 1.0, 0.4
    first, second = hottest_parts(heat, (600, 400), 100, 5)
    assert first == Part(455, 55, 555, 155)  # around (505, 105), the middle of its cell
    assert second == Part(5, 255, 105, 355)


def test_one_part_holds_what_lies_together():
    heat = np.zeros((40, 60))
    heat[10, 10], heat[12, 14] = 1.0, 0.9
    (part,) = hottest_parts(heat, (600, 400), 100, 5)
    assert part.left <= 100 and part.right >= 150 and part.top <= 100 and part.bottom >= 130


@given(st.integers(1, 200), st.integers(1, 150), st.data())
def test_points_of_a_part_lie_on_the_same_pixel_of_the_picture(width, height, data):
    pixels = np.arange(width * height, dtype=np.uint32).reshape(height, width)
    rgb = np.stack([pixels & 255, (pixels >> 8) & 255, (pixels >> 16) & 255], axis=2).astype(np.uint8)
    whole = Image.fromarray(rgb)
    side = data.draw(st.integers(1, 250))
    heat = np.zeros((height, width))
    heat[data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))] = 1.0
    (part,) = hottest_parts(heat, (width, height), side, 1)
    cut = whole.crop(part.box)
    x = data.draw(st.integers(0, cut.width - 1))
    y = data.draw(st.integers(0, cut.height - 1))
    ((there_x, there_y),) = part.in_picture(np.array([[x, y]]))
    assert whole.getpixel((int(there_x), int(there_y))) == cut.getpixel((x, y))


# Merging


def seen(xy, scores, size=(400, 300), absent=float("nan")) -> PointingResult:
    """A look that found these points."""
    xy = np.array(xy, dtype=np.float64).reshape(-1, 2)
    number = len(xy)
    points = Points(
        np.arange(1, number + 1),
        np.zeros(number, dtype=np.int64),
        xy[:, 0],
        xy[:, 1],
        np.array(scores, dtype=np.float64),
        image_sizes=[size],
        labels=["cups"] * number,
    )
    return replace(
        result_of([[1, 0, 0]], [size]), points=points, distributions=None, image_sizes=(size,), absent=absent
    )


LEFT, RIGHT = Part(0, 0, 220, 300), Part(180, 0, 400, 300)


def test_a_thing_in_two_parts_is_one_thing():
    first = seen([[50, 50], [200, 100], [350, 50]], [0.9, 0.9, 0.9])
    looks = [
        (LEFT, seen([[51, 52], [198, 101]], [0.8, 0.7], (220, 300))),
        (RIGHT, seen([[19, 102], [171, 48]], [0.6, 0.9], (220, 300))),
    ]
    merged = merged_looks(first, looks, AnswerOptions(zoom=True))
    assert merged.points.xy.tolist() == [[51, 52], [351, 48], [198, 101]]
    assert merged.points.object_id.tolist() == [1, 2, 3]
    assert merged.points.labels == ("cups",) * 3
    assert merged.looks == 3 and not merged.notes


def test_what_lies_outside_of_the_parts_stays():
    first = seen([[50, 50], [380, 290]], [0.9, 0.3])
    merged = merged_looks(
        first, [(Part(0, 0, 100, 100), seen([[48, 50]], [0.9], (100, 100)))], AnswerOptions()
    )
    assert merged.points.xy.tolist() == [[48, 50], [380, 290]]
    assert merged.points.score.tolist() == [0.9, 0.3]


def test_limits_hold_after_the_second_look():
    first = seen([[50, 50], [200, 100], [350, 50]], [0.9, 0.9, 0.9])
    looks = [(LEFT, seen([[51, 52], [150, 101]], [0.8, 0.7], (220, 300)))]
    merged = merged_looks(first, looks, AnswerOptions(max_points=2))
    assert len(merged.points) == 2
    assert "from 3 to 2" in merged.notes[0]


def test_parts_without_points_leave_the_first_look_as_it_was():
    first = seen([[50, 50]], [0.9])
    merged = merged_looks(first, [(LEFT, seen([], [], (220, 300)))], AnswerOptions())
    assert merged.points.xy.tolist() == [[50, 50]] and merged.looks == 2


def test_points_without_scores_are_merged_as_well():
    nan = float("nan")
    first = seen([[50, 50], [350, 50]], [nan, nan])
    merged = merged_looks(first, [(LEFT, seen([[48, 50]], [nan], (220, 300)))], AnswerOptions())
    assert merged.points.xy.tolist() == [[48, 50], [350, 50]]


# The whole way


@pytest.mark.parametrize("options", [{}, {"single": True}, {"max_points": 2}, {"min_score": 0.001}])
def test_a_picture_at_native_pixels_is_looked_at_once(pointer, options):
    for image in (SMALL, picture(32, 32), picture(1, 1)):
        once, zoomed = ask(pointer, image, **options), ask(pointer, image, zoom=True, **options)
        assert zoomed.to_dict() == once.to_dict() and zoomed.looks == 1
        assert zoomed.heatmap(0).shape == once.heatmap(0).shape if len(once) else True


def test_a_large_picture_is_looked_at_again(pointer):
    zoomed = ask(pointer, LARGE, zoom=True)
    assert 2 <= zoomed.looks <= 7
    assert zoomed.image_sizes == (LARGE.size,)
    assert ((zoomed.points.xy >= 0) & (zoomed.points.xy <= LARGE.size)).all()
    assert zoomed.to_dict()["looks"] == zoomed.looks
    zoomed.draw()
    with pytest.raises(GroundingError, match="without zoom"):
        zoomed.heatmap(0)


@pytest.mark.parametrize("looks", [1, 3])
def test_no_more_looks_than_asked_for(pointer, looks):
    zoomed = ask(pointer, LARGE, zoom=molmopoint.Zoom(looks=looks, size=80))
    assert zoomed.looks <= 1 + looks


def test_options_hold(pointer):
    single = ask(pointer, LARGE, zoom=True, single=True)
    assert len(single) == 1 and 0 <= single.absent <= 1
    assert len(ask(pointer, LARGE, zoom=True, max_points=2)) <= 2
    sure = ask(pointer, LARGE, zoom=True, min_score=0.9)
    assert (sure.points.score >= 0.9).all()
    assert sure.left_out + len(sure) == len(ask(pointer, LARGE, zoom=True))


def test_a_batch_of_mixed_sizes_equals_single_pictures(pointer):
    images = [LARGE, SMALL, picture(90, 500), LARGE]
    prompts = ["the cats", "dogs", "the birds", "dogs"]
    options = {"max_new_tokens": STEPS, "zoom": True}
    batch = list(pointer.point_batch(images, prompts, batch_size=3, **options))
    for image, prompt, result in zip(images, prompts, batch, strict=True):
        alone = ask(pointer, image, prompt, zoom=True)
        assert isinstance(result, PointingResult)
        assert result.looks == alone.looks
        assert result.points.xy == pytest.approx(alone.points.xy)


def test_several_prompts_and_encoded_pictures(pointer):
    both = ask(pointer, LARGE, ["the cats", "dogs"], zoom=True)
    encoded = pointer.encode(LARGE)
    for prompt, result in zip(["the cats", "dogs"], both, strict=True):
        assert result.points.xy == pytest.approx(ask(pointer, LARGE, prompt, zoom=True).points.xy)
        assert result.points.xy == pytest.approx(ask(pointer, encoded, prompt, zoom=True).points.xy)
    assert pointer.count(LARGE, "cats", zoom=True, max_new_tokens=STEPS) >= 0


@pytest.mark.parametrize("bad", [1, "yes", None, {"looks": 2}])
def test_zoom_is_yes_no_or_options(pointer, bad):
    with pytest.raises(ProcessingError, match="expected zoom to be True, False"):
        ask(pointer, LARGE, zoom=bad)


@pytest.mark.parametrize(
    "bad", [{"looks": 0}, {"looks": 65}, {"looks": 2.0}, {"looks": True}, {"size": 0}, {"size": "8"}]
)
def test_options_of_zoom_have_bounds(bad):
    with pytest.raises(ProcessingError, match=r"expected zoom\."):
        molmopoint.Zoom(**bad)


def test_what_cannot_be_looked_at_again_is_refused(pointer):
    with pytest.raises(ProcessingError, match="one picture with zoom=True, got 2"):
        ask(pointer, [LARGE, SMALL], zoom=True)
    with pytest.raises(ProcessingError, match="one picture with zoom=True, got 0"):
        ask(pointer, None, zoom=True)
    with pytest.raises(ProcessingError, match="zoom=False for a clip"):
        pointer.point_video(frames(3), "the cats", timestamps=[0, 1, 2], zoom=True)
    with pytest.raises(ProcessingError, match="zoom=False for a clip"):
        pointer.track(frames(3), "the cats", timestamps=[0, 1, 2], zoom=True)
    with pytest.raises(ProcessingError, match="zoom=False for a stream"):
        pointer.stream(LARGE, "the cats", zoom=True)
    with pytest.raises(ProcessingError, match="no history with zoom"):
        ask(pointer, LARGE, zoom=True, history=[("the dogs", "There are none.")])
    with pytest.raises(TypeError, match="zoom"):
        pointer.ask(LARGE, "What is this?", zoom=True)
    with pytest.raises(ProcessingError, match="both; calibrations"):
        ask(pointer, LARGE, zoom=True, calibrated=True)


def test_heat_is_that_of_the_first_look(pointer):
    once = ask(pointer, LARGE)
    heat = heat_of(once)
    assert heat.shape == (192, 256)
    assert 0 < heat.sum() <= len(once) + 0.01
