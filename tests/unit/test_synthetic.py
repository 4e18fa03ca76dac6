"""Synthetic scenes: the promises of the distribution, and the same bytes for the same seed."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmopoint.data import drawing
from molmopoint.data.questions import KINDS
from molmopoint.data.synthetic import HELD_OUT_PAIRS, MAX_COVERED, Scene, sample_scene

NUM_SCENES = 250


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(np.random.default_rng([5, i])) for i in range(NUM_SCENES)]


def test_same_seed_same_scene_everywhere() -> None:
    scene = sample_scene(np.random.default_rng([4711, 3]))
    pixels = hashlib.sha256(np.asarray(scene.image).tobytes()).hexdigest()
    assert pixels.startswith("313d40fd3ca7eacc")
    prompts = [query.prompt for query in scene.queries]
    assert prompts == [
        "all the white things",
        "red things",
        "the diamonds",
        "the lowest circle",
        "the yellow shapes",
    ]


def test_scenes_keep_their_promises(scenes: list[Scene]) -> None:
    for scene in scenes:
        width, height = scene.image.size
        assert scene.image.mode == "RGB" and 3 <= len(scene.objects) <= 12
        together = np.zeros((height, width), dtype=int)
        for item in scene.objects:
            assert item.mask.shape == (height, width) and item.mask.dtype == bool
            together += item.mask
        assert together.max() == 1, "a pixel shows one object"
        assert len({query.prompt for query in scene.queries}) == len(scene.queries)
        for query in scene.queries:
            for target in query.targets:
                assert target.mask[int(target.y), int(target.x)]


def test_shapes_are_large_enough_and_visible_enough() -> None:
    for shape in drawing.SHAPES:
        for upright in (False, True):
            picture = np.zeros((120, 120, 3), dtype=np.int32)
            mask = drawing.paint(
                picture, drawing.draw_shape(shape, 60.0, 60.0, 12.0, 0.1, upright), np.array([255, 0, 0])
            )
            rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            smallest = min(np.ptp(rows), np.ptp(cols)) + 1
            assert smallest >= 0.06 * 120, f"{shape} of the smallest size has a side of {smallest} pixels"


def test_objects_are_covered_at_most_as_promised(scenes: list[Scene]) -> None:
    lone: dict[tuple[str, float], int] = {}
    for scene in scenes[:80]:
        side = min(scene.image.size)
        for item in scene.objects:
            key = (item.shape, item.size * side)
            if key not in lone:
                stamp = drawing.draw_shape(item.shape, item.x, item.y, item.size * side)
                lone[key] = int((2 * stamp.coverage >= drawing.SAMPLES**2).sum())
            # Rotation moves the edge by a few pixels, hence the slack.
            assert item.mask.sum() >= (1 - MAX_COVERED) * lone[key] * 0.93 - 6


def test_questions_are_mixed_as_documented(scenes: list[Scene]) -> None:
    queries = [query for scene in scenes for query in scene.queries]
    shares = Counter(query.kind for query in queries)
    for kind, share in KINDS.items():
        assert abs(shares[kind] / len(queries) - share) < 0.04
    assert np.mean([not query.targets for query in queries]) >= 0.15
    assert 0.01 < np.mean([query.held_out for query in queries]) < 0.1


def test_answers_are_what_the_words_say(scenes: list[Scene]) -> None:
    singular = {plural: shape for shape in drawing.SHAPES for plural in (shape, f"{shape}s", f"{shape}es")}
    checked = 0
    for scene in scenes:
        for query in scene.queries:
            if query.kind not in ("colour", "shape", "both", "count"):
                continue
            words = query.prompt.rstrip("?.").split()
            colours = [word for word in words if word in drawing.COLOURS]
            shapes = [singular[word] for word in words if word in singular]
            expected = {
                (item.x, item.y)
                for item in scene.objects
                if (not colours or item.colour == colours[0]) and (not shapes or item.shape == shapes[0])
            }
            assert {(target.x, target.y) for target in query.targets} == expected, query.prompt
            checked += 1
    assert checked > 500


def test_superlatives_and_halves(scenes: list[Scene]) -> None:
    seen = Counter()
    for scene in scenes:
        middle = scene.image.size[0] / 2
        for query in scene.queries:
            if "largest" in query.prompt or "biggest" in query.prompt or "leftmost" in query.prompt:
                assert len(query.targets) <= 1
                seen["one"] += 1
            if "left half" in query.prompt:
                assert all(target.x < middle for target in query.targets)
                seen["half"] += 1
    assert min(seen.values()) > 5


def test_training_scenes_hide_the_held_out_pairs() -> None:
    words = [(colour, f"{colour} {shape}") for colour, shape in HELD_OUT_PAIRS]
    for i in range(120):
        scene = sample_scene(np.random.default_rng([6, i]), held_out=False, num_queries=8)
        assert len(scene.queries) == 8
        assert not {(item.colour, item.shape) for item in scene.objects} & HELD_OUT_PAIRS
        assert not any(phrase in query.prompt for query in scene.queries for _, phrase in words)
        assert not any(query.held_out for query in scene.queries)


def test_one_tenth_of_the_pairs_is_held_out() -> None:
    share = len(HELD_OUT_PAIRS) / (len(drawing.COLOURS) * len(drawing.SHAPES))
    assert 0.08 < share < 0.12


@settings(max_examples=40)
@given(
    shape=st.sampled_from(drawing.SHAPES),
    x=st.floats(20, 44),
    y=st.floats(20, 44),
    size=st.floats(8, 24),
    tilt=st.floats(-0.1, 0.1),
    upright=st.booleans(),
)
def test_a_shape_surrounds_its_point(
    shape: str, x: float, y: float, size: float, tilt: float, upright: bool
) -> None:
    stamp = drawing.draw_shape(shape, x, y, size, tilt, upright)
    coverage, window = drawing.clip_stamp(stamp, 64, 64)
    canvas = np.zeros((64, 64), dtype=int)
    canvas[window] = coverage
    assert canvas[int(y), int(x)] == drawing.SAMPLES**2
    assert 0.2 * size**2 < canvas.sum() / drawing.SAMPLES**2 < 1.1 * size**2
