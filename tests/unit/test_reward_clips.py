"""Folders of frames as clips of reward models: which frames, when, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_reward import FAMILIES, reward_processor
from toy_processor import noise, picture

from molmopoint.data.preferences import (
    PreferenceRecord,
    parse_preferences,
    preference_fields,
    read_preferences,
)
from molmopoint.errors import ProcessingError
from molmopoint.processing.rows import Row
from molmopoint.reward import RewardSettings, RowBuilder
from molmopoint.reward.clips import as_clip
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.reward.finetune import budget_of
from molmopoint.training.reward.prepare import Budget, PreferencePreparer
from molmopoint.video import Clip

ANSWERS = ("A cup falls.", "Nothing.")
PAIR = {"prompt": "What happens?", "responses": list(ANSWERS), "rankings": [1, 2]}


def folder_of(path: Path, count: int) -> Path:
    path.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(noise(70, 80, number)).save(path / f"f_{number}.png")
    return path


@pytest.mark.parametrize(
    ("count", "options", "kept"),
    [
        (1, {}, [0]),
        (6, {}, [0, 1, 2, 3, 4, 5]),
        (16, {}, list(range(16))),
        (40, {}, [0, 3, 5, 8, 10, 13, 16, 18, 21, 23, 26, 29, 31, 34, 36, 39]),
        (40, {"num_frames": 2}, [0, 39]),
        (5, {"num_frames": 3}, [0, 2, 4]),
        (5, {"num_frames": 1}, [0]),
        (5, {"sampling_interval": 0.5}, [0, 1, 2, 3, 4]),
    ],
)
def test_frames_of_a_folder_are_four_seconds_apart_and_sixteen_at_most(
    count: int, options: dict[str, Any], kept: list[int], tmp_path: Path
):
    clip = as_clip(folder_of(tmp_path / "clip", count), **options)
    assert [path.name for path in clip.frames] == [f"f_{number}.png" for number in kept]
    assert clip.timestamps.tolist() == [number * options.get("sampling_interval", 4.0) for number in kept]


def test_what_is_no_folder_stays_as_it_is(tmp_path: Path):
    for video in ("clip.mp4", tmp_path / "clip.mp4", Clip([], []), "x" * 5000, "a\0b", None):
        assert as_clip(video) is video


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling_interval": 0}, "expected seconds above 0 as sampling_interval, got 0"),
        ({"sampling_interval": float("nan")}, "expected seconds above 0 as sampling_interval, got nan"),
        ({"sampling_interval": "4"}, "expected seconds above 0 as sampling_interval, got '4'"),
        ({"sampling_interval": True}, "expected seconds above 0 as sampling_interval, got True"),
        ({"num_frames": 0}, "expected num_frames of 1 or more, got 0"),
        ({"num_frames": 2.5}, "expected num_frames of 1 or more, got 2.5"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str, tmp_path: Path):
    folder = folder_of(tmp_path / "clip", 2)
    with pytest.raises(ProcessingError, match=message):
        as_clip(str(folder), **options)
    builder = RowBuilder(reward_processor("molmo2"), RewardSettings())
    with pytest.raises(ProcessingError, match=message):
        builder.prompt("What?", videos=str(folder), **options)


def test_a_folder_without_pictures_is_refused(tmp_path: Path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "notes.txt").write_text("none")
    with pytest.raises(ProcessingError, match="expected pictures in the folder"):
        as_clip(tmp_path / "clip")
    with pytest.raises(ProcessingError, match="row 1, video: expected a folder with pictures"):
        read_preferences([{**PAIR, "video": str(tmp_path / "clip")}])


# Rows of data


@pytest.mark.parametrize(
    "columns",
    [
        {"image": ""},
        {"image": "  "},
        {"video": ""},
        {"image": "", "video": ""},
        {"images": []},
        {"image": "", "video": None},
        {},
    ],
)
def test_a_blank_picture_or_clip_is_none(columns: dict[str, Any]):
    record = parse_preferences({**PAIR, **columns}, 1)
    assert record.images == () and record.video is None


def test_a_blank_column_stands_beside_the_one_that_is_meant():
    assert parse_preferences({**PAIR, "image": "", "video": "a.mp4"}, 1).video == "a.mp4"
    assert parse_preferences({**PAIR, "image": "a.png", "video": " "}, 1).images == ("a.png",)


def test_a_sampling_interval_is_kept_and_checked():
    record = parse_preferences({**PAIR, "video": "frames", "sampling_interval": 2}, 1)
    assert record.sampling_interval == 2.0
    assert parse_preferences(preference_fields(record), 1) == record
    for columns, message in (
        ({"video": "a", "sampling_interval": 0}, "sampling_interval: expected seconds above 0"),
        ({"video": "a", "sampling_interval": "4"}, "row 1, sampling_interval: expected a finite number"),
        ({"image": "a", "sampling_interval": 4}, "sampling_interval: expected a video beside it"),
        ({"video": "a", "fps": 4.0}, "row 1.*fps"),
    ):
        with pytest.raises(ProcessingError, match=message):
            parse_preferences({**PAIR, **columns}, 1)


# Training and inference


def assert_equal_rows(ours: Row, theirs: Row):
    for name in Row.__dataclass_fields__:
        one, other = getattr(ours, name), getattr(theirs, name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["assistant", "user"])
def test_training_and_inference_see_the_same_row(family: Any, layout: Any, tmp_path: Path):
    """Text, a picture, several, a folder of frames with and without an interval, and a file."""
    picture(90, 130).save(tmp_path / "a.png")
    picture(70, 70, 1).save(tmp_path / "b.png")
    folder_of(tmp_path / "frames", 5)
    builder = RowBuilder(reward_processor(family), RewardSettings(layout=layout))
    records = [
        PreferenceRecord(1, "Two and two?", ANSWERS, (1, 2)),
        PreferenceRecord(2, "What?", ANSWERS, (1, 2), images=("a.png",)),
        PreferenceRecord(3, "What?", ANSWERS, (1, 2), images=("a.png", "b.png")),
        PreferenceRecord(4, "What?", ANSWERS, (1, 2), video="frames"),
        PreferenceRecord(5, "What?", ANSWERS, (1, 2), video="frames", sampling_interval=0.5),
    ]
    preparer = PreferencePreparer(records, tmp_path, builder, Budget(4096, 2000, 0, (4,), 8))
    for record in records:
        trained = builder.row(preparer.prompt(record), record.responses)
        pictures = [tmp_path / str(name) for name in record.images] or None
        clip = None if record.video is None else str(tmp_path / record.video)
        asked = builder.prompt(record.prompt, pictures, clip, sampling_interval=record.sampling_interval)
        assert_equal_rows(trained, builder.row(asked, record.responses))


def test_clips_get_fewer_frames_until_they_fit(tmp_path: Path):
    folder_of(tmp_path / "frames", 9)
    builder = RowBuilder(reward_processor("molmo2"), RewardSettings())
    rows, columns = builder.processor.video_processor.grid
    record = PreferenceRecord(1, "What?", ANSWERS, (1, 2), video="frames")

    def frames_of(vision: int, folder_frames: int = 16) -> int:
        budget = Budget(4096, vision, 0, (4,), 384, folder_frames)
        pixels: Any = PreferencePreparer([record], tmp_path, builder, budget).prompt(record).pixel_values
        return len(pixels)

    per_frame = rows * columns + 2
    assert [
        frames_of(9 * per_frame),
        frames_of(9 * per_frame - 1),
        frames_of(4 * per_frame),
        frames_of(2000, 5),
    ] == [9, 8, 4, 5]


def test_the_published_recipe_names_its_caps():
    budget = budget_of(load_recipe("reward", []))
    assert (budget.frames, budget.folder_frames, budget.crops) == (384, 16, (8, 4, 2, 1))
    section: Any = load_recipe("reward", []).reward
    assert (section.layout, section.opening, section.separator) == ("assistant", "visual", "base")
    nano: Any = load_recipe("nano-reward", []).reward
    assert (nano.opening, nano.separator) == ("always", "mean")


def test_frame_times_are_whole_numbers_of_intervals(tmp_path: Path):
    clip = as_clip(folder_of(tmp_path / "clip", 30), sampling_interval=1 / 3)
    np.testing.assert_allclose(clip.timestamps * 3, (clip.timestamps * 3).round(), atol=1e-9)
