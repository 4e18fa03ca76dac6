"""Geometry: published test vectors, there and back for any tiling, borders, and tables that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmopoint.errors import GroundingError
from molmopoint.geometry import (
    PointingMetadata,
    cell_width,
    image_patch_map,
    points_to_triples,
    triples_to_points,
    valid_triples,
)


def picture_tables(tiling, crop=27, margin=4, window=2, first_vit_patch=0):
    """Slow reference: pooling rows of the global view and the canvas, and the patch map, of one tiled
    picture.
    """
    (down, across), stride = tiling, crop - 2 * margin
    rows, cols = stride * down + 2 * margin, stride * across + 2 * margin

    def tile_of(place, tiles):
        return min(max((place - margin) // stride, 0), tiles - 1)

    patch_map = np.zeros((rows, cols), dtype=np.int64)
    for r in range(rows):
        for c in range(cols):
            i, j = tile_of(r, down), tile_of(c, across)
            inside = crop * (r - stride * i) + (c - stride * j)
            patch_map[r, c] = first_vit_patch + crop * crop * (1 + i * across + j) + inside
    whole = first_vit_patch + np.arange(crop * crop).reshape(crop, crop)
    return pool(whole, window), pool(patch_map, window), patch_map


def pool(patch_map, window):
    """Slow reference: pooling rows of windows over a patch map; padding is split, the smaller half first."""
    grid = [-(-side // window) for side in patch_map.shape]
    top, left = ((g * window - side) // 2 for g, side in zip(grid, patch_map.shape, strict=True))
    padded = np.full((grid[0] * window, grid[1] * window), -1)
    padded[top : top + patch_map.shape[0], left : left + patch_map.shape[1]] = patch_map
    return np.array(
        [
            [padded[r * window + a, c * window + b] for a in range(window) for b in range(window)]
            for r in range(grid[0])
            for c in range(grid[1])
        ]
    )


def pictures(sizes, tilings, **kwargs):
    """Metadata of several pictures, numbered over the sample."""
    location_grid, tables, indexable, maps, start = kwargs.pop("location_grid", 3), [], [], [], 0
    for tiling in tilings:
        whole, canvas, patch_map = picture_tables(tiling, first_vit_patch=start, **kwargs)
        tables += [whole, canvas]
        indexable += [False] * len(whole) + [True] * len(canvas)
        maps.append(patch_map)
        start += (1 + tiling[0] * tiling[1]) * kwargs.get("crop", 27) ** 2
    return PointingMetadata(
        np.concatenate(tables), np.array(indexable), maps, sizes, location_grid=location_grid
    )


def clip(timestamps, size, crop=5, window=3, location_grid=3):
    """Metadata of a clip whose frames are one crop each."""
    maps = [crop * crop * t + np.arange(crop * crop).reshape(crop, crop) for t in range(len(timestamps))]
    pooling = np.concatenate([pool(m, window) for m in maps])
    return PointingMetadata(
        pooling, np.ones(len(pooling), dtype=bool), maps, [size], timestamps, location_grid
    )


PUBLISHED = [  # (width, height), (canvas rows, cols), P, three point numbers, (x, y): public traces, P + 1 + slot, P + 5 + location
    ((954, 616), (46, 84), 1162, (662, 1163, 1172), (96.478929, 305.656522)),
    ((1200, 953), (84, 103), 2380, (1662, 2381, 2391), (242.621359, 637.205298)),
    ((256, 192), (27, 27), 392, (283, 395, 399), (58.453333, 98.311111)),
    ((256, 192), (27, 27), 392, (351, 393, 405), (26.785185, 162.311111)),
    ((414, 328), (27, 46), 518, (460, 521, 524), (199.485000, 285.420741)),
    ((2500, 1667), (84, 122), 2758, (1792, 2761, 2763), (413.217213, 1055.072083)),
    ((735, 1102), (84, 65), 1582, (766, 1585, 1593), (212.867308, 461.331310)),
    ((800, 360), (27, 65), 658, (246, 659, 669), (428.615385, 28.866667)),
]


@pytest.mark.parametrize(("size", "canvas", "num_patches", "numbers", "xy"), PUBLISHED)
def test_published_traces(size, canvas, num_patches, numbers, xy):
    metadata = pictures([size], [tuple((side - 8) // 19 for side in canvas)])
    assert metadata.patch_maps[0].shape == canvas
    assert metadata.num_patches == num_patches
    triple = (numbers[0], numbers[1] - num_patches - 1, numbers[2] - num_patches - 5)
    group, ours = triples_to_points([triple], metadata)
    assert group.tolist() == [0]
    np.testing.assert_allclose(ours, [xy], atol=1e-6)
    assert points_to_triples(group, ours, metadata).tolist() == [list(triple)]


def test_worked_example_of_the_middle_of_a_picture():
    metadata = pictures([(640, 480)], [(2, 2)])
    assert points_to_triples([0], [[320, 240]], metadata).tolist() == [[460, 3, 0]]
    np.testing.assert_allclose(
        triples_to_points([[460, 3, 0]], metadata)[1], [[322.295652, 241.721739]], atol=1e-6
    )


def test_cell_width_is_a_quirk_of_three_cells_only():
    assert [cell_width(n) for n in (1, 2, 3, 4)] == [1.0, 0.5, 0.33, 0.25]


small = st.integers(1, 3)
tilings = st.lists(st.tuples(small, small), min_size=1, max_size=3)


@given(tilings, st.integers(0, 4), st.integers(1, 3), st.data())
def test_there_and_back_stays_in_the_cell(tilings, grid, window, data):
    side = st.integers(1, 3000)
    sizes = [data.draw(st.tuples(side, side)) for _ in tilings]
    metadata = pictures(sizes, tilings, crop=5, margin=1, window=window, location_grid=grid)
    count = data.draw(st.integers(1, 8))
    group = np.array(data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=count, max_size=count)))
    unit = np.array(
        data.draw(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=count, max_size=count))
    )
    xy = unit * np.array(sizes)[group]
    triples = points_to_triples(group, xy, metadata)
    back_group, back = triples_to_points(triples, metadata)
    assert (back_group == group).all()
    assert (points_to_triples(back_group, back, metadata) == triples).all()
    cells = grid or 1
    canvas = np.array([metadata.patch_maps[g].shape[::-1] for g in group])
    half_cell = np.array(sizes)[group] / canvas * (0.5 / cells)
    slack = 0.01 * np.array(sizes)[group] / canvas  # 0.33 is up to 0.01 of a ViT patch short of a third
    assert (np.abs(back - xy) <= half_cell + slack + 1e-9).all()


@given(st.tuples(small, small), st.integers(0, 3), st.integers(1, 3))
def test_every_valid_triple_is_a_place_of_its_own(tiling, grid, window):
    metadata = pictures([(97, 31)], [tiling], crop=5, margin=1, window=window, location_grid=grid)
    p, k, location = np.meshgrid(
        np.arange(metadata.num_patches),
        np.arange(metadata.num_slots),
        np.arange(grid**2) if grid else [-1],
        indexing="ij",
    )
    triples = np.stack([p.ravel(), k.ravel(), location.ravel()], axis=1)
    triples = triples[valid_triples(triples, metadata)]
    assert len(triples) == metadata.patch_maps[0].size * max(grid**2, 1)
    group, xy = triples_to_points(triples, metadata)
    assert len(np.unique(xy.round(9), axis=0)) == len(triples)
    assert (points_to_triples(group, xy, metadata) == triples).all()


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("tiling", [(1, 1), (2, 3)])
def test_patch_map_is_rebuilt_from_the_pooling_table(tiling, window):
    _, canvas_rows, patch_map = picture_tables(tiling, crop=5, margin=1, window=window)
    grid = tuple(-(-side // window) for side in patch_map.shape)
    np.testing.assert_array_equal(
        image_patch_map(canvas_rows, grid, (window, window), patch_map.shape), patch_map
    )


def test_patch_map_refuses_sizes_that_do_not_fit():
    _, canvas_rows, patch_map = picture_tables((1, 1), crop=5, margin=1)
    with pytest.raises(GroundingError, match="without the global view"):
        image_patch_map(canvas_rows, (3, 3), (2, 2), (4, 5))
    with pytest.raises(GroundingError, match="without the global view"):
        image_patch_map(canvas_rows[:-1], (3, 3), (2, 2), patch_map.shape)
    with pytest.raises(GroundingError, match="every place"):
        image_patch_map(canvas_rows, (3, 3), (2, 2), (6, 6))


def test_borders_belong_to_the_right_and_lower_neighbour():
    metadata = pictures(
        [(40, 40)], [(1, 1)], crop=4, margin=1
    )  # 4 by 4 ViT patches of 10 pixels, cells of 3.33
    triples = points_to_triples([0, 0, 0, 0], [[10, 0], [0, 10], [20, 20], [40, 40]], metadata)
    np.testing.assert_array_equal(triples - [4, 0, 0], [[0, 1, 0], [0, 2, 0], [3, 0, 0], [3, 3, 8]])


def test_locations_run_column_by_column():
    metadata = pictures([(12, 12)], [(1, 1)], crop=4, margin=1)  # ViT patches of 3 pixels, cells of 1
    xy = [[x + 0.5, y + 0.5] for x in range(3) for y in range(3)]
    assert points_to_triples([0] * 9, xy, metadata)[:, 2].tolist() == list(range(9))


@pytest.mark.parametrize("xy", [(-0.1, 5), (5, -1e-9), (40.001, 5), (5, 1e9), (np.nan, 5), (5, np.inf)])
def test_points_outside_are_named_or_moved_to_the_edge(xy):
    metadata = pictures([(40, 40)], [(1, 1)], crop=4, margin=1)
    with pytest.raises(GroundingError, match="point 1 at"):
        points_to_triples([0, 0], [[5, 5], xy], metadata)
    if np.isfinite(xy).all():
        _, moved = triples_to_points(points_to_triples([0], [xy], metadata, clip=True), metadata)
        assert np.abs(moved - np.clip(xy, 0, 40)).max() < 10 / 3
    else:
        with pytest.raises(GroundingError, match="point 0 at"):
            points_to_triples([0], [xy], metadata, clip=True)


def test_clips_group_by_seconds_and_take_the_nearest_frame():
    metadata = clip([0.0, 0.5, 1.25], (120, 80))
    assert metadata.is_video
    triples = points_to_triples([0.25, 0.26, 99.0, -1.0], [[60, 40]] * 4, metadata)
    assert (triples[:, 0] // 4).tolist() == [0, 1, 2, 0]  # the earlier frame on a tie
    group, xy = triples_to_points(triples, metadata)
    assert group.tolist() == [0.0, 0.5, 1.25, 0.0]
    assert group.dtype == np.float64
    assert np.abs(xy - [60, 40]).max() < 8
    with pytest.raises(GroundingError, match="seconds"):
        points_to_triples([np.nan], [[1, 1]], metadata)


@pytest.mark.parametrize(
    "triple",
    [
        (0, 0, 0),  # global view
        (11, 1, 0),  # an empty slot at the right border of the canvas
        (9, 0, 9),  # no such cell
        (9, 0, -1),  # no cell although the model has a location head
        (9, 4, 0),  # no such slot
        (9, -1, 0),
        (99, 0, 0),  # no such image token
        (-1, 0, 0),
    ],
)
def test_triples_that_name_no_place(triple):
    metadata = pictures([(50, 50)], [(1, 1)], crop=5, margin=1)
    good = (9, 0, 0)
    assert valid_triples([good, triple], metadata).tolist() == [True, False]
    with pytest.raises(GroundingError, match="triple 1"):
        triples_to_points([good, triple], metadata)


def test_no_location_head_means_the_centre_of_the_vit_patch():
    metadata = pictures([(40, 40)], [(1, 1)], crop=4, margin=1, location_grid=0)
    assert metadata.num_locations == 0
    assert points_to_triples([0], [[1, 1]], metadata).tolist() == [[4, 0, -1]]
    assert triples_to_points([[4, 0, -1]], metadata)[1].tolist() == [[5.0, 5.0]]
    assert not valid_triples([[4, 0, 0]], metadata).any()


def test_samples_without_pictures_and_requests_without_points():
    nothing = PointingMetadata(np.empty((0, 4)), np.empty(0), [], [])
    assert (nothing.num_patches, nothing.num_slots, nothing.is_video) == (0, 4, False)
    assert not valid_triples([[0, 0, 0]], nothing).any()
    with pytest.raises(GroundingError, match="one of 0 pictures"):
        points_to_triples([0], [[0, 0]], nothing)
    metadata = pictures([(40, 40)], [(1, 1)], crop=4, margin=1)
    assert points_to_triples([], [], metadata).shape == (0, 3)
    group, xy = triples_to_points([], metadata)
    assert (group.dtype, xy.shape) == (np.int64, (0, 2))


@pytest.mark.parametrize("group", [1, -1, 0.5, np.nan])
def test_groups_must_be_pictures(group):
    with pytest.raises(GroundingError, match="one of 1 pictures"):
        points_to_triples([group], [[1, 1]], pictures([(40, 40)], [(1, 1)], crop=4, margin=1))


def tables(**changes):
    good = {
        "pooling": [[0, 1], [2, 3]],
        "indexable": [False, True],
        "patch_maps": [[[2, 3]]],
        "image_sizes": [(4, 2)],
    }
    return good | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indexable": [True]}, "indexable mask"),
        ({"pooling": [0, 1]}, "pooling table"),
        ({"patch_maps": [[2, 3]]}, "patch maps"),
        ({"patch_maps": [[[2, 2]]]}, "each ViT patch once in the patch maps"),
        ({"patch_maps": [[[1, 3]]]}, "none for ViT patch 1"),
        ({"patch_maps": [[[2, 7]]]}, "none for ViT patch 7"),
        ({"patch_maps": [[[2, -1]]]}, "smaller number"),
        ({"pooling": [[0, 1], [2, -2]], "patch_maps": [[[2]]]}, "smaller number"),
        ({"pooling": [[0, 1], [2, 2]], "patch_maps": [[[2]]]}, "each ViT patch once in the indexable rows"),
        ({"image_sizes": []}, "for 1 pictures"),
        ({"image_sizes": [(None, None)]}, "width, height"),
        ({"image_sizes": [(0, 5)]}, "at least one pixel"),
        ({"timestamps": [0.0, 1.0]}, "one finite timestamp per frame"),
        ({"timestamps": [np.nan]}, "one finite timestamp per frame"),
        ({"location_grid": -1}, "location grid"),
    ],
)
def test_tables_that_do_not_fit_are_refused(changes, message):
    PointingMetadata(**tables())
    with pytest.raises(GroundingError, match=message):
        PointingMetadata(**tables(**changes))
