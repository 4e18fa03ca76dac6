"""Masks of objects through a clip, with a SAM 2 of toy size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_sam2 import points, tiny_sam2, tiny_sam2_processor

from molmopoint.errors import GroundingError, ProcessingError
from molmopoint.eval.fixtures import moving_shapes
from molmopoint.metrics.tracking import PredictedTracks
from molmopoint.points import Points
from molmopoint.segmentation import Segmenter
from molmopoint.segmentation.media import ClipFrames
from molmopoint.segmentation.sam2 import follow_objects
from molmopoint.tracks import Tracks


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(tiny_sam2(), tiny_sam2_processor())


@pytest.fixture(scope="module")
def shapes() -> moving_shapes.MovingShapes:
    return moving_shapes.make(np.random.default_rng(0), 2, seconds=1)


TIMES = np.arange(6) / moving_shapes.FPS


def tracks(*rows: tuple[int, int, float, float]) -> PredictedTracks:
    """Of (frame, id, x, y)."""
    table = np.array(rows, dtype=float).reshape(-1, 4)
    return PredictedTracks(table[:, 2:], table[:, 0].astype(np.int64), table[:, 1].astype(np.int64))


def drawn(segmenter: Segmenter, frames: np.ndarray, clicks: PredictedTracks) -> dict[int, np.ndarray]:
    """(T, height, width) bool by object."""
    found: dict[int, np.ndarray] = {}
    for each in segmenter.follow_clicks(frames, clicks):
        found.setdefault(each.object_id, np.zeros(frames.shape[:3], dtype=bool))[each.frame] = each.mask
    return found


def plainly(segmenter: Segmenter, frames: np.ndarray, clicks: PredictedTracks) -> dict[int, np.ndarray]:
    """The same with the whole video in a session of transformers, one object after the other, nothing shared
    or dropped.
    """
    processor, model = segmenter.processor, segmenter.model
    session = processor.init_video_session(video=frames, inference_device=model.device, dtype=model.dtype)
    found = {}
    for object_id in np.unique(clicks.object_id).tolist():
        session.reset_tracking_data()
        masks = found[object_id] = np.zeros(frames.shape[:3], dtype=bool)
        own = clicks.object_id == object_id
        clicked = np.unique(clicks.frame[own]).tolist()
        for number in clicked:
            xy = clicks.xy[own & (clicks.frame == number)].tolist()
            processor.add_inputs_to_inference_session(
                session, frame_idx=number, obj_ids=1, input_points=[[xy]], input_labels=[[[1] * len(xy)]]
            )
            with torch.inference_mode():
                model(inference_session=session, frame_idx=number)
        for reverse in (False, True):
            for step in model.propagate_in_video_iterator(
                session, start_frame_idx=clicked[0], reverse=reverse
            ):
                masks[step.frame_idx] = processor.post_process_masks(
                    [step.pred_masks], original_sizes=[list(frames.shape[1:3])]
                )[0][0, 0]
    return found


def test_a_mask_per_object_and_frame(segmenter, shapes):
    points = tracks(
        (2, 7, *shapes.centres[0, 2]),
        (4, 7, *shapes.centres[0, 4]),
        (3, 9, *shapes.centres[1, 3]),
        (99, 5, 1, 1),
    )
    found = drawn(segmenter, shapes.frames, points)
    assert sorted(found) == [7, 9], "a point after the end is no object"
    alone = drawn(segmenter, shapes.frames, tracks((3, 9, *shapes.centres[1, 3])))
    assert np.array_equal(alone[9], found[9]), "objects do not disturb each other"
    assert drawn(segmenter, shapes.frames, tracks()) == {}


def test_masks_come_from_the_clicks_and_reach_every_frame(segmenter, shapes):
    left, right = (drawn(segmenter, shapes.frames, tracks((3, 1, x, 30)))[1] for x in (5, 90))
    assert all(not np.array_equal(left[number], right[number]) for number in range(6)), (
        "before the click and after it"
    )


def test_sharing_and_forgetting_change_nothing():
    """A short reach, so that frames are forgotten on the way; clicks in the middle, so that both directions
    are long.
    """
    model = tiny_sam2()
    model.config.num_maskmem = model.num_maskmem = 3
    model.config.max_object_pointers_in_encoder = 3
    segmenter = Segmenter(model, tiny_sam2_processor())
    frames = moving_shapes.make(np.random.default_rng(1), 3, seconds=2).frames
    clicks = tracks((6, 1, 20, 10), (8, 1, 24, 10), (0, 2, 30, 30), (11, 3, 60, 50), (6, 3, 50, 50))
    found, expected = drawn(segmenter, frames, clicks), plainly(segmenter, frames, clicks)
    assert sorted(found) == sorted(expected) == [1, 2, 3]
    for object_id, masks in expected.items():
        assert np.array_equal(found[object_id], masks), f"object {object_id}"
    assert len({masks.tobytes() for masks in expected.values()}) == 3


def test_a_frame_is_looked_at_once_per_direction(segmenter, shapes, monkeypatch):
    looked = []
    encode = segmenter.model.get_image_features
    monkeypatch.setattr(
        segmenter.model, "get_image_features", lambda *args, **kw: looked.append(1) or encode(*args, **kw)
    )
    list(segmenter.follow_clicks(shapes.frames, tracks((0, 1, 9, 9), (0, 2, 50, 50), (0, 3, 70, 20))))
    assert len(looked) == 6, "six frames forwards, none backwards, for three objects"


def test_what_is_held_does_not_grow_with_the_clip(segmenter, monkeypatch):
    frames = moving_shapes.make(np.random.default_rng(1), 1, seconds=5).frames
    sessions = []
    start = segmenter.processor.init_video_session
    monkeypatch.setattr(
        segmenter.processor, "init_video_session", lambda **kw: sessions.append(start(**kw)) or sessions[-1]
    )
    reach = segmenter.model.config.num_maskmem
    monkeypatch.setattr(segmenter.model.config, "max_object_pointers_in_encoder", reach)
    for _ in follow_objects(segmenter.model, segmenter.processor, frames, tracks((15, 1, 9, 9))):
        held = sessions[0].output_dict_per_obj[0]["non_cond_frame_outputs"]
        assert len(held) <= 3 * reach + 1 < len(frames) and not any(
            "high_res_masks" in outputs for outputs in held.values()
        )


def test_masks_of_a_clip_by_object_and_time(segmenter, shapes):
    found = segmenter.follow(
        shapes.frames, points((9, float(TIMES[3]), 60, 50), (7, float(TIMES[2]), 20, 20)), timestamps=TIMES
    )
    assert (
        found.is_video
        and found.object_id.tolist() == [7] * 6 + [9] * 6
        and np.array_equal(found.group, [*TIMES, *TIMES])
    )
    assert ((found.score >= 0) & (found.score <= 1)).all()
    expected = drawn(segmenter, shapes.frames, tracks((3, 9, 60, 50), (2, 7, 20, 20)))
    for object_id, masks in expected.items():
        assert np.array_equal([each.mask for each in found.of_object(object_id)], masks)
    assert len(found.draw()) == 6 and found.at(TIMES[2]).union().shape == (64, 96)


def test_a_file_is_the_frames_in_it(segmenter, shapes, tmp_path):
    moving_shapes.write_video(tmp_path / "clip.mp4", shapes.frames)
    source = ClipFrames(tmp_path / "clip.mp4", TIMES)
    decoded = np.stack([source[number] for number in range(6)])
    given = points((1, float(TIMES[4]), 20, 20))
    of_file = segmenter.follow(tmp_path / "clip.mp4", given, timestamps=TIMES)
    assert of_file.to_rle() == segmenter.follow(decoded, given, timestamps=TIMES).to_rle()
    assert len(segmenter.follow(str(tmp_path / "clip.mp4"), given)) == 1, (
        "by default the moments of the points"
    )
    later = points((1, float(TIMES[2]), 20, 20))
    part = segmenter.follow(tmp_path / "clip.mp4", later, fps=moving_shapes.FPS, start=TIMES[2], end=TIMES[5])
    assert np.allclose(part.group, TIMES[:3]) and len(part) == 3, "times count from the start of the part"
    assert part.to_rle() == segmenter.follow(decoded[2:5], later, timestamps=TIMES[:3]).to_rle()
    assert len(segmenter.follow(tmp_path / "clip.mp4", Points.empty(video=True))) == 0


def test_frames_of_a_file_are_read_a_few_at_a_time(tmp_path):
    frames = moving_shapes.make(np.random.default_rng(0), 2, seconds=4).frames
    moving_shapes.write_video(tmp_path / "clip.mp4", frames)
    source = ClipFrames(tmp_path / "clip.mp4", np.arange(24) / moving_shapes.FPS)
    forwards = [source[number].mean() for number in range(24)]
    backwards = [source[number].mean() for number in range(23, -1, -1)]
    assert forwards == backwards[::-1] and source._window[1].shape[0] <= 8
    np.testing.assert_allclose(forwards, frames.mean(axis=(1, 2, 3)), atol=3)


@pytest.mark.parametrize(
    ("seconds", "frame"), [(0.0, 0), (0.24, 0), (0.25, 0), (0.26, 1), (0.5, 1), (0.99, 2), (9.0, 2)]
)
def test_the_nearest_frame(seconds, frame):
    source = ClipFrames(np.zeros((3, 4, 4, 3), np.uint8), [0.0, 0.5, 1.0])
    assert source.nearest(np.array([seconds])).tolist() == [frame]
    assert ClipFrames(np.zeros((1, 4, 4, 3), np.uint8), [0.0]).nearest(np.array([seconds])).tolist() == [0]


def test_negative_clicks_in_clips(segmenter, shapes):
    two = points((1, 0.0, 20, 20), (2, 0.0, 60, 50))
    plain = segmenter.follow(shapes.frames, two, timestamps=TIMES)
    assert (
        segmenter.follow(shapes.frames, two, timestamps=TIMES, negative_others=True).to_rle()
        != plain.to_rle()
    )


def test_clips_and_points_that_do_not_fit(segmenter, shapes):
    with pytest.raises(GroundingError, match="use `segment`"):
        segmenter.follow(shapes.frames, points((1, 0, 5, 5)), timestamps=TIMES)
    with pytest.raises(GroundingError, match="within their picture"):
        segmenter.follow(shapes.frames, points((1, 0.0, 5, 500)), timestamps=TIMES)
    with pytest.raises(ProcessingError, match="timestamps with frames"):
        segmenter.follow(shapes.frames, points((1, 0.0, 5, 5)))
    with pytest.raises(ProcessingError, match="got both"):
        segmenter.follow("clip.mp4", points((1, 0.0, 5, 5)), timestamps=TIMES, fps=2)
    with pytest.raises(ProcessingError, match="go backwards"):
        segmenter.follow(shapes.frames, points((1, 0.0, 5, 5)), timestamps=TIMES[::-1])
    with pytest.raises(ProcessingError, match="frame 1; bring"):
        segmenter.follow(
            [shapes.frames[0], shapes.frames[1, :-1]], points((1, 0.0, 5, 5)), timestamps=TIMES[:2]
        )
    with pytest.raises(ProcessingError, match="a time per frame"):
        segmenter.follow(shapes.frames, points((1, 0.0, 5, 5)), timestamps=TIMES[:3])
    with pytest.raises(ProcessingError, match="video"):
        segmenter.follow("missing.mp4", points((1, 0.0, 5, 5)))


def test_masks_of_tracks(segmenter, shapes, tmp_path):
    times = TIMES[[1, 3, 3, 4]]
    tracks = Tracks(
        np.array([1, 1, 2, 2]),
        times,
        np.array([20.0, 30, 60, 64]),
        np.array([20.0, 20, 50, 50]),
        np.array([1, 1, 1, 0], bool),
    )
    found = tracks.masks(segmenter, shapes.frames, timestamps=TIMES)
    assert found.object_id.tolist() == [1] * 6 + [2] * 6
    seen = points((1, float(TIMES[1]), 20, 20), (1, float(TIMES[3]), 30, 20), (2, float(TIMES[3]), 60, 50))
    assert found.to_rle() == segmenter.follow(shapes.frames, seen, timestamps=TIMES).to_rle(), (
        "a place that is inferred is no click"
    )
    moving_shapes.write_video(tmp_path / "clip.mp4", shapes.frames)
    of_file = tracks.masks(segmenter, tmp_path / "clip.mp4")
    assert of_file.of_object(1).group.tolist() == tracks.moments.tolist()
    every_frame = tracks.masks(segmenter, tmp_path / "clip.mp4", fps=moving_shapes.FPS)
    np.testing.assert_allclose(every_frame.of_object(2).group, TIMES, atol=1e-3)
    assert len(Tracks.empty(moments=TIMES).masks(segmenter, shapes.frames)) == 0
    with pytest.raises(GroundingError, match="load_segmenter"):
        tracks.masks("facebook/sam2.1-hiera-large", shapes.frames)
