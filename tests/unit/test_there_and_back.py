"""Places become grounding triples and come back within half a location cell, whatever the shape and number of
the pictures.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_processor import frames, picture, toy_processor

from molmopoint.data.records import Record, RecordPoint
from molmopoint.geometry import triples_to_points
from molmopoint.training.formatting import triples_of
from molmopoint.training.trees import media_of

processor = functools.cache(toy_processor)
SHAPES = [
    (1, 1),
    (1, 900),
    (900, 1),
    (7, 2000),
    (2000, 7),
    (27, 28),
    (69, 71),
    (70, 70),
    (112, 700),
    (333, 50),
    (300, 310),
    (150, 260),
]
HALF_A_CELL = 0.5 * 0.33 + 0.01
"""Of a ViT patch: three cells are 0.33 wide, so the last one ends 0.01 before its patch does."""


@functools.cache
def seen(sizes, max_crops):
    """What the processor records about pictures of these (width, height)."""
    known = {"max_crops": max_crops, "return_pointing_metadata": True, "return_tensors": "pt"}
    text = processor().chat.media_text(*media_of(Record(1, tuple("abc"[: len(sizes)]))))
    return processor()(text=[text], images=[picture(h, w) for w, h in sizes], **known)["pointing_metadata"][0]


@functools.cache
def seen_clip(width, height):
    """The same about three frames, half a second apart."""
    clip = {"fps": 2.0, "frames_indices": [0, 1, 2], "total_num_frames": 3, "width": width, "height": height}
    known = {
        "video_metadata": [clip],
        "do_sample_frames": False,
        "return_pointing_metadata": True,
        "return_tensors": "pt",
    }
    return processor()(text=["<|video|>"], videos=[frames(3, height, width)], **known)["pointing_metadata"][0]


def there_and_back(record, metadata, sizes):
    """Groups as they come back, after a look at how far each point is from where it was."""
    group, back = triples_to_points(triples_of(record, metadata), metadata)
    xy = np.array([(point.x, point.y) for point in record.points])
    patches = np.array([shape[::-1] for shape in (m.shape for m in metadata.patch_maps)])
    of_point = (
        np.zeros(len(xy), dtype=int) if record.video else np.array([point.image for point in record.points])
    )
    patch = np.array(sizes)[of_point] / patches[of_point]
    assert (np.abs(back - xy) <= HALF_A_CELL * patch + 1e-6).all()
    return group.tolist()


def across(count):
    """From 0 to 1 every seam between `count` patches, both borders, and what is a hair before them."""
    seams = np.arange(count + 1) / count
    return np.unique(np.clip(np.concatenate([seams, seams - 1e-9]), 0, 1)).tolist()


@pytest.mark.parametrize("max_crops", [1, 2, 6])
@pytest.mark.parametrize("size", SHAPES)
def test_every_seam_and_border_of_every_shape(size, max_crops):
    metadata = seen((size,), max_crops)
    rows, cols = metadata.patch_maps[0].shape
    points = tuple(
        RecordPoint(min(x * size[0], size[0]), min(y * size[1], size[1]))
        for x in across(cols)
        for y in across(rows)
    )
    assert set(
        there_and_back(Record(1, ("a",), label="x", points=points, coords="pixel"), metadata, [size])
    ) == {0}


def test_the_shapes_are_cut_in_many_ways():
    grids = {seen((size,), max_crops).patch_maps[0].shape for size in SHAPES for max_crops in (1, 2, 6)}
    assert (
        len(grids) >= 6
        and any(rows > 2 * cols for rows, cols in grids)
        and any(cols > 2 * rows for rows, cols in grids)
    )


places = st.tuples(st.floats(0, 1), st.floats(0, 1))
pictures = st.lists(st.sampled_from(SHAPES), min_size=2, max_size=3).map(tuple)


@settings(max_examples=25)
@given(
    sizes=pictures,
    max_crops=st.sampled_from([1, 4]),
    at=st.lists(st.tuples(st.integers(0, 2), places), min_size=1, max_size=8),
)
def test_several_pictures(sizes, max_crops, at):
    numbered = [(i % len(sizes), share) for i, share in at]
    points = tuple(RecordPoint(x * sizes[i][0], y * sizes[i][1], image=i) for i, (x, y) in numbered)
    record = Record(1, tuple("abc"[: len(sizes)]), label="x", points=points, coords="pixel")
    assert there_and_back(record, seen(sizes, max_crops), sizes) == [i for i, _ in numbered]


@settings(max_examples=60)
@given(
    size=st.sampled_from([(120, 80), (20, 300), (300, 9)]),
    at=st.lists(st.tuples(st.integers(0, 2), places), min_size=1, max_size=8),
)
def test_clips(size, at):
    points = tuple(RecordPoint(x * size[0], y * size[1], t=frame / 2) for frame, (x, y) in at)
    record = Record(1, video="v", label="x", points=points, coords="pixel")
    assert there_and_back(record, seen_clip(*size), [size]) == [frame / 2 for frame, _ in at]
