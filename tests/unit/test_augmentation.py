"""Augmented pictures: points follow what they point at, nothing pointed at is lost, and words of place forbid
moving.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from molmopoint.data.records import Record, RecordPoint
from molmopoint.training.augmentation import MARGIN, AugmentedSource, augment
from molmopoint.training.recipe import Augmentation
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.sources import Example

GEOMETRY = Augmentation(mirror=0.5, crop=0.5)
TURNED = Augmentation(turn=180.0)
LIGHT = Augmentation(light=0.3)


def marked(width: int, height: int, xy: list[tuple[int, int]], **fields: Any) -> Example:
    """A black picture with a white pixel at every point, which is its middle."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for x, y in xy:
        pixels[y, x] = 255
    points = tuple(RecordPoint((x + 0.5) / width, (y + 0.5) / height) for x, y in xy)
    target: dict[str, Any] = {"points": points, "coords": "norm1"} if points else {"no_points": True}
    columns: dict[str, Any] = {"label": "dots"} | target | fields
    return Example((Record(1, images=("a.png",), **columns),), (Image.fromarray(pixels),))


def points_of(example: Example) -> tuple[RecordPoint, ...]:
    return example.records[0].points or ()


@st.composite
def scenes(draw):
    width, height = draw(st.integers(20, 70)), draw(st.integers(20, 70))
    places = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    return marked(width, height, draw(st.lists(places, max_size=5, unique=True)))


@settings(max_examples=80)
@given(example=scenes(), seed=st.integers(0, 10_000))
def test_points_stay_on_what_they_point_at(example, seed):
    changed = augment(example, GEOMETRY, np.random.default_rng(seed))
    picture, record = changed.pictures[0], changed.records[0]
    white = {(int(x), int(y)) for y, x in np.argwhere(np.asarray(picture)[..., 0] == 255)}
    assert {(int(point.x), int(point.y)) for point in points_of(changed)} == white
    assert len(points_of(changed)) == len(points_of(example))
    assert record.no_points == example.records[0].no_points
    before = example.pictures[0].size
    assert sorted(picture.size) <= sorted(before)
    assert min(picture.size) >= 0.5 * min(before) - 1


def test_points_turn_with_the_picture():
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    pixels[17:24, 47:54] = 255  # its middle is (50.5, 20.5)
    record = Record(1, images=("a.png",), label="squares", points=(RecordPoint(50.5, 20.5),), coords="pixel")
    places = set()
    for seed in range(40):
        changed = augment(Example((record,), (Image.fromarray(pixels),)), TURNED, np.random.default_rng(seed))
        bright = np.argwhere(np.asarray(changed.pictures[0])[..., 0] > 127) + 0.5
        point = points_of(changed)[0]
        assert np.abs(bright.mean(axis=0) - (point.y, point.x)).max() < 0.5
        assert changed.pictures[0].size == (80, 60)
        places.add((round(point.x), round(point.y)))
    assert len(places) > 20


def test_space_is_kept_around_points():
    example = marked(100, 100, [(50, 50)])
    for seed in range(50):
        changed = augment(example, replace(GEOMETRY, crop=0.99), np.random.default_rng(seed))
        point, (width, height) = points_of(changed)[0], changed.pictures[0].size
        assert min(point.x, point.y, width - point.x, height - point.y) >= 100 * MARGIN


@pytest.mark.parametrize(
    "words",
    [{"label": "leftmost dots"}, {"prompt": "Point to the dot below the line"}, {"label": "Dots at the top"}],
)
def test_words_of_place_leave_the_picture_as_it_lies(words):
    example = marked(40, 30, [(3, 4)], **words)
    for seed in range(20):
        changed = augment(example, replace(GEOMETRY, turn=180.0), np.random.default_rng(seed))
        assert (np.asarray(changed.pictures[0]) == np.asarray(example.pictures[0])).all()
        assert (points_of(changed)[0].x, points_of(changed)[0].y) == (3.5, 4.5)


def test_questions_on_the_picture_leave_it_as_it_lies_too():
    example = marked(40, 30, [(3, 4)])
    question = Record(2, images=("a.png",), prompt="What is this?", answer="A dot.")
    changed = augment(
        replace(example, records=(*example.records, question)), GEOMETRY, np.random.default_rng(1)
    )
    assert changed.pictures[0].size == (40, 30)
    assert changed.records[1] == question


def test_several_pictures_move_on_their_own():
    first, second = marked(40, 30, [(3, 4)]), marked(25, 50, [(20, 7)])
    points = (points_of(first)[0], replace(points_of(second)[0], image=1))
    both = Example(
        (replace(first.records[0], images=("a", "b"), points=points),), first.pictures + second.pictures
    )
    for seed in range(20):
        changed = augment(both, GEOMETRY, np.random.default_rng(seed))
        for point, picture in zip(points_of(changed), changed.pictures, strict=True):
            assert np.asarray(picture)[int(point.y), int(point.x), 0] == 255


def test_light_changes_pixels_only():
    example = marked(40, 30, [(3, 4)])
    grey = Example(example.records, (Image.new("RGB", (40, 30), (100, 120, 140)),))
    means = {
        np.asarray(augment(grey, LIGHT, np.random.default_rng(seed)).pictures[0]).mean() for seed in range(20)
    }
    assert len(means) > 10
    assert 120 / 1.31 < min(means) < max(means) < 120 * 1.31
    assert augment(grey, LIGHT, np.random.default_rng(0)).pictures[0].size == (40, 30)


def test_nothing_changes_by_default():
    example = marked(40, 30, [(3, 4)])
    assert augment(example, Augmentation(), np.random.default_rng(0)) is example
    assert load_recipe("lora").augmentation == Augmentation()
    assert load_recipe("nano").augmentation != Augmentation()


def test_a_view_depends_on_number_and_epoch_alone():
    class Source:
        name = "data"

        def __len__(self):
            return 3

        def example(self, index, epoch=0):
            return marked(60, 60, [(5, 9), (40, 30)])

    source = AugmentedSource(Source(), replace(GEOMETRY, light=0.2), seed=4)
    views = [source.example(1, epoch) for epoch in range(6)]
    again = [source.example(1, epoch) for epoch in range(6)]
    assert [view.records for view in views] == [view.records for view in again]
    assert len({view.pictures[0].tobytes() for view in views}) == 6
    assert (len(source), source.name) == (3, "data")
