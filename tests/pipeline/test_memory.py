"""What many and large pictures hold in memory."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from toy_pointer import toy_pointer
from toy_processor import SIZE, noise

from molmopoint.backends.media import ShownPictures
from molmopoint.pipeline.batching import run_in_batches
from molmopoint.processing import MolmoPointImageProcessor, image_processor
from molmopoint.processing.pictures import load_picture, load_with_file, picture_to_tensor


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A photograph of 5 megapixels, and its file."""
    path = tmp_path_factory.mktemp("large") / "large.jpg"
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    coarse.resize((2500, 2000)).save(path, quality=60)
    return path


class Thing:
    """A picture, what was prepared of it, or what came of it."""


@pytest.mark.parametrize("on_error", ["raise", "yield"])
def test_two_batches_are_alive_at_most(on_error):
    alive: weakref.WeakSet[Thing] = weakref.WeakSet()
    most = 0

    def thing(_: object) -> Thing:
        made = Thing()
        alive.add(made)
        return made

    def answer(prepared):
        return [thing(item) for item in prepared]

    results = run_in_batches(map(thing, range(40)), thing, answer, batch_size=4, on_error=on_error)
    given = 0
    for _ in results:
        gc.collect(0)
        most = max(most, len(alive))
        given += 1
    assert given == 40
    # Results of this batch, what is prepared of the next, and while it is prepared its items too.
    assert most <= 3 * 4 + 1


def test_a_generator_of_pictures_is_not_gathered():
    pointer = toy_pointer()
    size = (47, 61)  # of nothing else

    def alive() -> int:
        pictures = [each for each in gc.get_objects() if issubclass(type(each), Image.Image)]
        return sum(each.size == size for each in pictures)

    pictures = (Image.fromarray(noise(size[1], size[0], i)) for i in range(12))
    answers = pointer.point_batch(pictures, "the cup", batch_size=2, max_new_tokens=1)
    counts = [alive() for _ in answers]
    assert len(counts) == 12
    # Of two batches the given pictures and those that are shown.
    assert max(counts) <= 2 * 2 * 2 + 1


def test_large_pictures_wait_as_their_files(large, tmp_path):
    copied = tmp_path / "copy.jpg"
    copied.write_bytes(large.read_bytes())
    picture, file = load_with_file(copied)
    assert file == large.read_bytes()
    copied.unlink()
    shown = ShownPictures([(picture, file), (Image.new("RGB", (4, 3)), None)])
    assert [each.size for each in shown] == [(2500, 2000), (4, 3)] and len(shown[:1]) == 1
    assert np.array_equal(np.asarray(shown[0]), np.asarray(picture))
    for source in (picture, np.asarray(picture), Image.new("RGB", (40, 30))):
        assert load_with_file(source)[1] is None
    flat = tmp_path / "flat.bmp"
    picture.save(flat)
    assert load_with_file(flat)[1] is None, "the file is as large as its pixels"


def test_a_large_picture_is_drawn_though_its_file_is_gone(large, tmp_path, monkeypatch):
    copied = tmp_path / "copy.jpg"
    copied.write_bytes(large.read_bytes())
    pointer = toy_pointer()
    pointer = type(pointer)(pointer.model, pointer.processor, max_pixels=5_000_000)
    result = pointer.point(copied, "the cup", max_new_tokens=4)
    copied.unlink()
    monkeypatch.setenv("MOLMOPOINT_MAX_PIXELS", "1000")  # it was allowed when it was asked about
    drawn = result.draw()
    assert isinstance(drawn, Image.Image) and drawn.size == (2500, 2000)


def test_planes_one_after_the_other_give_the_same_bytes(large, monkeypatch):
    picture = load_picture(large)
    assert torch.equal(picture_to_tensor(picture).permute(1, 2, 0), torch.from_numpy(np.array(picture)))
    processor = MolmoPointImageProcessor(size=SIZE, overlap_margins=[1, 1], max_crops=6)
    apart = processor(picture, return_tensors="pt")["pixel_values"]
    monkeypatch.setattr(image_processor, "_LARGE_PLANE", 10**9)
    assert torch.equal(apart, processor(picture, return_tensors="pt")["pixel_values"])
