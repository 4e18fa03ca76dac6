"""From a result to masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny_sam2 import points, tiny_sam2, tiny_sam2_processor
from toy_pointer import STEPS, toy_pointer

from molmopoint.errors import ProcessingError
from molmopoint.eval.fixtures import moving_shapes
from molmopoint.pipeline import Pointer, PointingResult
from molmopoint.points import Points
from molmopoint.segmentation import Segmenter
from molmopoint.tracks import Tracks


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(tiny_sam2(), tiny_sam2_processor())


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return toy_pointer()


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    moving_shapes.write_video(path, moving_shapes.make(np.random.default_rng(0), 2, seconds=2).frames)
    return str(path)


def with_points(result: PointingResult, points: Points) -> PointingResult:
    """The toy model points where it likes; these are points where we like."""
    return replace(result, points=points)


def test_masks_of_a_picture(pointer, segmenter):
    result = pointer.point(noise(90, 60), "dots", max_new_tokens=STEPS)
    assert len(result.points)
    masks = result.masks(segmenter)
    assert len(masks) == len(result.points) and masks.object_id.tolist() == result.points.object_id.tolist()
    drawn = masks.draw()
    assert isinstance(drawn, Image.Image) and drawn.size == (90, 60) and masks[0].mask.shape == (60, 90)
    assert result.masks(segmenter, negative_others=True, multimask=False).image_sizes == ((90, 60),)


def test_masks_of_several_pictures(pointer, segmenter):
    result = with_points(
        pointer.point([noise(90, 60), noise(40, 50)], "dots", max_new_tokens=STEPS),
        points((1, 1, 5, 5), (1, 0, 5, 5)),
    )
    masks = result.masks(segmenter)
    assert [each.mask.shape for each in masks] == [(50, 40), (60, 90)]
    drawn = masks.draw()
    assert isinstance(drawn, list) and [picture.size for picture in drawn] == [(90, 60), (40, 50)]


def test_masks_of_a_clip(pointer, segmenter, clip):
    asked = pointer.point_video(clip, "dots", max_new_tokens=STEPS)
    times = asked.metadata.timestamps
    result = with_points(
        asked,
        points((4, float(times[1]), 20, 20), (4, float(times[2]), 30, 20), (6, float(times[0]), 60, 50)),
    )
    masks = result.masks(segmenter)
    assert masks.object_id.tolist() == [4] * len(times) + [6] * len(times) and masks.at(
        times[0]
    ).object_id.tolist() == [4, 6]
    assert masks[0].mask.shape == (64, 96) and len(list(masks.drawn())) == len(times)
    every_frame = result.masks(segmenter, fps=moving_shapes.FPS)
    assert 12 <= len(every_frame.of_object(4)) <= 12 + len(times) and set(result.points.group) <= set(
        every_frame.group
    )
    assert len(np.unique(every_frame.group)) == len(every_frame.of_object(6))


def test_masks_of_frames(pointer, segmenter):
    frames, times = (
        moving_shapes.make(np.random.default_rng(0), 1, seconds=1).frames,
        [0.0, 0.2, 0.3, 0.7, 0.8, 0.9],
    )
    asked = pointer.point_video(frames, "dots", timestamps=times, max_new_tokens=STEPS)
    result = with_points(asked, points((1, 0.3, 20, 20)))
    assert result.masks(segmenter).group.tolist() == times
    with pytest.raises(ProcessingError, match="frames in memory"):
        result.masks(segmenter, fps=2)


def test_masks_of_tracks(pointer, segmenter, clip):
    asked = pointer.track(clip, "dots", max_new_tokens=STEPS)
    times = np.asarray(asked.displayed.timestamps)
    x, y = np.array([[20.0, 30.0, 60.0], [20.0, 20.0, 50.0]])
    tracks = Tracks(np.array([4, 4, 6]), times[[0, 2, 1]], x, y, np.array([True, True, False]), size=(96, 64))
    masks = replace(asked, tracks=tracks).masks(segmenter)
    assert masks.object_id.tolist() == [4] * len(times), "a place that is only inferred is no click"
    assert masks.group.tolist() == list(times) and masks[0].mask.shape == (64, 96)
    same = tracks.masks(segmenter, clip, timestamps=times)
    assert all(np.array_equal(one.mask, other.mask) for one, other in zip(masks, same, strict=True))
    filled = replace(asked, tracks=tracks.interpolated(12)).masks(segmenter)
    assert filled.of_object(4).group.tolist() == list(times)
    assert len(replace(asked, tracks=tracks).masks(segmenter, fps=moving_shapes.FPS)) > len(masks)
    none = replace(asked, tracks=Tracks.empty(size=(96, 64)))
    assert len(none.masks(segmenter)) == len(none.masks(segmenter, fps=4)) == 0
    with pytest.raises(ProcessingError, match="load_segmenter"):
        asked.masks("facebook/sam2.1-hiera-large")  # type: ignore[arg-type]


def test_no_points_no_masks(pointer, segmenter, clip):
    for asked in (
        pointer.point(noise(90, 60), "dots", max_new_tokens=1),
        pointer.point_video(clip, "dots", max_new_tokens=1),
    ):
        result = with_points(asked, Points.empty(video=asked.points.is_video))
        masks = result.masks(segmenter)
        assert (
            len(masks) == 0
            and masks.image_sizes == result.image_sizes
            and masks.to_coco()["annotations"] == []
        )


def test_requests_and_options_without_masks(pointer, segmenter, clip):
    asked = pointer.point(noise(90, 60), "dots", max_new_tokens=1)
    with pytest.raises(ProcessingError, match="load_segmenter"):
        asked.masks("facebook/sam2.1-hiera-large")
    with pytest.raises(ProcessingError, match="for clips"):
        asked.masks(segmenter, fps=2)
    with pytest.raises(ProcessingError, match="text alone"):
        pointer.point(None, "dots", max_new_tokens=1).masks(segmenter)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ProcessingError, match="fps above 0"):
            pointer.point_video(clip, "dots", max_new_tokens=1).masks(segmenter, fps=fps)
