"""Masks around points of pictures, with a SAM 2 of toy size."""

from __future__ import annotations

from itertools import starmap

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sam2 import points, tiny_sam2, tiny_sam2_processor
from transformers import Sam2VideoProcessor

from molmopoint.errors import CheckpointError, GroundingError, ProcessingError
from molmopoint.points import Points
from molmopoint.segmentation import Segmenter, sam2
from molmopoint.segmentation.sam2 import MOST_NEGATIVES, NEGATIVE, POSITIVE, prompt_of


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(tiny_sam2(), tiny_sam2_processor())


def noise(width: int = 80, height: int = 48, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


THREE = points((1, 0, 3, 4), (2, 0, 40, 20), (3, 0, 70, 44))


def test_a_mask_per_point_in_the_displayed_size(segmenter):
    found = segmenter.segment(noise(), THREE)
    assert len(found) == 3 and found.object_id.tolist() == [1, 2, 3] and not found.is_video
    assert all(each.mask.shape == (48, 80) and each.mask.dtype == bool for each in found)
    assert np.isfinite(found.score).all() and found.image_sizes == ((80, 48),)
    assert len({each.mask.tobytes() for each in found}) == 3, "each point has its own mask"


@pytest.mark.parametrize("per_call", [1, 2, 64])
def test_points_together_are_points_one_by_one(segmenter, monkeypatch, per_call):
    alone = [segmenter.segment(noise(), THREE[[i]])[0] for i in range(3)]
    monkeypatch.setattr(sam2, "_PROMPTS_PER_CALL", per_call)
    together = segmenter.segment(noise(), THREE)
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(alone, together, strict=True))
    np.testing.assert_allclose(together.score, [each.score for each in alone], atol=1e-6)


def test_masks_are_the_models_own(segmenter):
    """The plain way with the classes of transformers: picture and points in one call, best mask by expected
    overlap.
    """
    processor: Sam2VideoProcessor = segmenter.processor
    inputs = processor(
        images=noise(), input_points=[[[[40.0, 20.0]]]], input_labels=[[[1]]], return_tensors="pt"
    )
    with torch.no_grad():
        output = segmenter._still_model(
            pixel_values=inputs["pixel_values"],
            input_points=inputs["input_points"],
            input_labels=inputs["input_labels"],
        )
    whole = processor.post_process_masks(output.pred_masks, inputs["original_sizes"])[0][0]
    found = segmenter.segment(noise(), THREE[[1]])[0]
    best = output.iou_scores[0, 0].argmax()
    assert np.array_equal(found.mask, whole[best].numpy()) and found.score == pytest.approx(
        output.iou_scores[0, 0, best].item()
    )
    assert not np.array_equal(whole[0], whole[1]), "there is something to choose from"


def test_resizing_in_parts_changes_nothing(segmenter, monkeypatch):
    whole = segmenter.segment(noise(), THREE)
    monkeypatch.setattr(sam2, "_PIXELS_PER_RESIZE", 1)
    assert segmenter.segment(noise(), THREE).to_rle() == whole.to_rle()


def test_rows_follow_the_points_across_pictures(segmenter):
    several = [noise(), noise(33, 57, seed=1), noise(seed=2)]
    mixed = points((1, 2, 5, 5), (2, 0, 40, 20), (3, 2, 60, 30), (4, 0, 3, 4))
    found = segmenter.segment(several, mixed)
    assert found.object_id.tolist() == [1, 2, 3, 4] and found.group.tolist() == [2, 0, 2, 0]
    assert found.image_sizes == ((80, 48), (33, 57), (80, 48))
    for row, picture in enumerate([2, 0, 2, 0]):
        one = points((1, 0, mixed.x[row], mixed.y[row]))
        assert np.array_equal(found[row].mask, segmenter.segment(several[picture], one)[0].mask)
    assert [picture.size for picture in found.draw()] == [(80, 48), (33, 57), (80, 48)]


def test_only_pictures_with_points_are_looked_at(segmenter, monkeypatch):
    looked = []
    encode = segmenter._still_model.get_image_embeddings
    monkeypatch.setattr(
        segmenter._still_model,
        "get_image_embeddings",
        lambda pixels: looked.append(len(pixels)) or encode(pixels),
    )
    segmenter.segment([noise(), noise(seed=1), noise(seed=2)], points(*((i, 1, i, i) for i in range(1, 9))))
    assert looked == [1], "one picture once, whatever the number of points"


def test_negative_clicks_of_the_nearest_others():
    others = np.array([[50.0, 0], [1, 0], [5, 0]])
    prompt = prompt_of(np.zeros((1, 2)), others)
    assert prompt.xy[:, 0].tolist() == [0, 1, 5, 50] and prompt.labels.tolist() == [POSITIVE] + [NEGATIVE] * 3
    assert (
        prompt_of(np.zeros((2, 2)), others[:0]).labels.tolist()
        == prompt_of(np.zeros((2, 2))).labels.tolist()
        == [POSITIVE] * 2
    )
    many = prompt_of(np.zeros((1, 2)), np.random.default_rng(0).random((30, 2)))
    assert len(many.labels) == len(many.xy) == 1 + MOST_NEGATIVES


def test_others_and_single_masks_change_the_answer(segmenter):
    plain = segmenter.segment(noise(), THREE)
    assert segmenter.segment(noise(), THREE, negative_others=True).to_rle() != plain.to_rle()
    alone = segmenter.segment(noise(), THREE[[0]], negative_others=True)
    assert alone.to_rle() == plain.to_rle()[:1], "without others there is nothing to click away"
    single = segmenter.segment(noise(), THREE, multimask=False)
    assert len(single) == 3 and np.isfinite(single.score).all()


def test_points_of_one_object_do_not_deny_each_other(segmenter):
    """And what a point gets does not depend on how many clicks the others have."""
    pair = points((1, 0, 3, 4), (1, 0, 40, 20))
    assert (
        segmenter.segment(noise(), pair, negative_others=True).to_rle()
        == segmenter.segment(noise(), pair).to_rle()
    )
    mixed = points((1, 0, 3, 4), (2, 0, 70, 44), (1, 0, 40, 20), (3, 0, 10, 40))
    found = segmenter.segment(noise(), mixed, negative_others=True)
    for row, others in ((0, [1, 3]), (1, [0, 2, 3]), (2, [1, 3]), (3, [0, 1, 2])):
        alone = segmenter.segment(noise(), mixed[[row, *others]], negative_others=True)
        assert np.array_equal(found[row].mask, alone[0].mask)
    assert found.object_id.tolist() == [1, 2, 1, 3]


def test_no_points_no_masks(segmenter):
    for nothing in (Points.empty(), Points.empty(video=True)):
        found = segmenter.segment(noise(), nothing)
        assert len(found) == 0 and found.to_rle() == [] and found.boxes.shape == (0, 4) and list(found) == []
        assert found.draw().size == (80, 48), "the picture as it is"


BAD = {
    "outside": (points((1, 0, 81, 5)), "within their picture"),
    "left of it": (points((1, 0, 5, 5), (2, 0, -1, 5)), "point 1"),
    "no such picture": (points((1, 1, 5, 5)), "a picture for every group"),
    "of a clip": (points((1, 0.5, 5, 5)), "use `follow`"),
}


@pytest.mark.parametrize(("given", "message"), BAD.values(), ids=BAD)
def test_points_that_do_not_fit_are_named(segmenter, given, message):
    with pytest.raises(GroundingError, match=message):
        segmenter.segment(noise(), given)


def test_points_on_the_far_edge_are_inside(segmenter):
    assert len(segmenter.segment(noise(), points((1, 0, 80, 48)))) == 1


def test_pictures_and_models_that_are_none(segmenter):
    with pytest.raises(ProcessingError, match="picture"):
        segmenter.segment("missing.png", THREE)
    with pytest.raises(CheckpointError, match="Sam2VideoModel"):
        Segmenter(torch.nn.Linear(1, 1), None)


def test_a_model_for_pictures_does_pictures_only(segmenter):
    still = Segmenter(segmenter._still_model, segmenter.processor)
    assert still.segment(noise(), THREE).to_rle() == segmenter.segment(noise(), THREE).to_rle()
    with pytest.raises(CheckpointError, match="for pictures"):
        still.follow(np.zeros((2, 48, 80, 3), np.uint8), points((1, 0.0, 5, 5)), timestamps=[0, 1])


def test_one_set_of_weights_serves_both(segmenter):
    own = dict(segmenter.model.named_parameters())
    assert all(parameter is own[name] for name, parameter in segmenter._still_model.named_parameters())
    assert not any(starmap(lambda _, buffer: buffer.is_meta, segmenter._still_model.named_buffers()))
