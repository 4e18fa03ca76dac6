"""The image processor against the native one, and against itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_processor import SIZE, noise, picture
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor

from molmopoint.errors import ProcessingError
from molmopoint.geometry import image_patch_map
from molmopoint.processing import MolmoPointImageProcessor

TOY: dict[str, Any] = {"size": SIZE, "overlap_margins": [1, 1], "max_crops": 6}
HALF = [0.5, 0.5, 0.5]
SIZES = st.tuples(st.integers(1, 400), st.integers(1, 400))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_defaults_are_the_released_values() -> None:
    ours = MolmoPointImageProcessor()
    assert (list(ours.image_mean), list(ours.image_std), ours.max_crops, ours.patch_size) == (
        HALF,
        HALF,
        8,
        14,
    )
    out = ours(picture(480, 640), return_tensors="pt")
    assert out["image_grids"].tolist() == [[14, 14, 23, 23]]
    assert out["image_num_crops"].tolist() == [5]
    assert out["pixel_values"].shape == (5, 729, 588)
    assert out["image_token_pooling"].shape == (725, 4)
    assert set(out) == {"pixel_values", "image_token_pooling", "image_grids", "image_num_crops"}


@settings(max_examples=40)
@given(SIZES)
def test_equals_the_native_processor(hw: tuple[int, int]) -> None:
    native = Molmo2ImageProcessor(**TOY, image_mean=HALF, image_std=HALF)(picture(*hw), return_tensors="pt")
    ours = MolmoPointImageProcessor(**TOY)(picture(*hw), return_tensors="pt")
    for name in ("image_token_pooling", "image_grids", "image_num_crops"):
        assert torch.equal(ours[name], native[name].long()), name
    off = (ours["pixel_values"] - native["pixel_values"].view(ours["pixel_values"].shape)).abs()
    # on one thread PyTorch rounds the native resize differently, by one byte level on a few values
    assert off.max() <= 2 / 255 + 1e-6
    assert (off > 1e-5).float().mean() <= 0.02


def test_the_number_of_threads_changes_nothing(threads: None) -> None:
    outputs = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        outputs.append(
            MolmoPointImageProcessor(**TOY)(picture(101, 143), return_tensors="pt")["pixel_values"]
        )
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@settings(max_examples=40)
@given(SIZES, st.sampled_from([[1, 1], [0, 1], [2, 0]]), st.sampled_from([[2, 2], [3, 3], [1, 2]]))
def test_patch_map_and_pooling_table_agree(
    hw: tuple[int, int], margins: list[int], window: list[int]
) -> None:
    ours = MolmoPointImageProcessor(size=SIZE, overlap_margins=margins, pooling_size=window, max_crops=6)
    out = ours(picture(*hw), return_tensors="np", return_pointing_metadata=True)
    patch_map, (low_rows, low_cols, rows, cols) = out["patch_maps"][0], out["image_grids"][0]
    assert out["image_sizes"] == [(hw[1], hw[0])]
    assert len(np.unique(patch_map)) == patch_map.size
    assert patch_map.min() >= 25, "a place of the canvas belongs to the global crop"
    rebuilt = image_patch_map(
        out["image_token_pooling"][low_rows * low_cols :],
        (rows, cols),
        (window[0], window[1]),
        patch_map.shape,
    )
    assert np.array_equal(rebuilt, patch_map)


def test_the_owner_of_a_place_shows_its_pixels() -> None:
    """Patches put back where the patch map says make the stretched picture again."""
    ours = MolmoPointImageProcessor(**TOY)
    out = ours(picture(100, 140), return_tensors="pt", return_pointing_metadata=True)
    patches = out["pixel_values"].view(-1, 14, 14, 3)[torch.tensor(out["patch_maps"][0])]
    canvas = patches.permute(0, 2, 1, 3, 4).reshape(14 * patches.shape[0], 14 * patches.shape[1], 3)
    expected = torch.nn.functional.interpolate(
        torch.tensor(noise(100, 140)).permute(2, 0, 1)[None].float(), canvas.shape[:2], mode="bilinear"
    )
    off = (canvas * 127.5 + 127.5 - expected[0].permute(1, 2, 0).round()).abs()
    assert off.max() <= 1.001
    assert (off > 0.01).float().mean() < 0.02


def test_several_pictures_are_each_alone() -> None:
    pictures = [picture(100, 140), picture(30, 20), picture(100, 140, seed=1), picture(60, 300)]
    ours = MolmoPointImageProcessor(**TOY)
    together = ours([pictures[:1], pictures[1:]], return_tensors="pt", return_pointing_metadata=True)
    first_crop, first_row = 0, 0
    for i, one in enumerate(pictures):
        alone = ours(one, return_tensors="pt", return_pointing_metadata=True)
        crops, rows = len(alone["pixel_values"]), len(alone["image_token_pooling"])
        assert torch.equal(together["pixel_values"][first_crop : first_crop + crops], alone["pixel_values"])
        table = alone["image_token_pooling"]
        expected = torch.where(table >= 0, table + 25 * first_crop, -1)
        assert torch.equal(together["image_token_pooling"][first_row : first_row + rows], expected)
        assert np.array_equal(together["patch_maps"][i], alone["patch_maps"][0] + 25 * first_crop)
        first_crop, first_row = first_crop + crops, first_row + rows
    assert first_crop == len(together["pixel_values"])


def test_max_crops_of_one_call() -> None:
    ours = MolmoPointImageProcessor(size=SIZE, overlap_margins=[1, 1], max_crops=2)
    counts = [
        int(ours(picture(300, 400), max_crops=n, return_tensors="pt")["image_num_crops"]) for n in (1, 8, 64)
    ]
    assert counts[0] == 2 < counts[1] < counts[2] <= 65
    assert ours.max_crops == 2


def test_settings_survive_saving(tmp_path) -> None:
    MolmoPointImageProcessor(**TOY).save_pretrained(tmp_path)
    again = MolmoPointImageProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == MolmoPointImageProcessor(**TOY).to_dict()


def test_without_normalisation_bytes_come_out() -> None:
    out = MolmoPointImageProcessor(**TOY, do_rescale=False, do_normalize=False)(
        picture(70, 70), return_tensors="pt"
    )
    assert out["pixel_values"].max() > 250
    assert torch.equal(out["pixel_values"], out["pixel_values"].round())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": {"height": 70, "width": 84}}, "expected a square size"),
        ({"size": {"height": 71, "width": 71}}, "multiple of patch_size 14"),
        ({"overlap_margins": [3, 2]}, "overlap margins that leave a part"),
        ({"overlap_margins": [-1, 1]}, "overlap margins that leave a part"),
        ({"max_crops": 0}, "max_crops in 1..1024, got 0"),
        ({"max_crops": 10**6}, "max_crops in 1..1024, got 1000000"),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProcessingError, match=message):
        MolmoPointImageProcessor(**{**TOY, **changes})(picture(50, 50))


def test_no_pictures() -> None:
    with pytest.raises(ProcessingError, match="at least one picture"):
        MolmoPointImageProcessor(**TOY)([])
