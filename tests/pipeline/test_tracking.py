"""Tracking as people use it, on a toy model that likes to point."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_pointer import toy_pointer
from toy_processor import frames, picture
from typer.testing import CliRunner

from molmopoint.backends.media import DisplayedMedia
from molmopoint.cli import app
from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.pipeline import TrackingResult
from molmopoint.pipeline.tracking import TrackOptions
from molmopoint.pipeline.video_writing import write_video
from molmopoint.tracks import Tracks
from molmopoint.video import Clip, open_video

LIMIT = {"max_new_tokens": 40}
TIMES = [0.0, 0.5, 1.0, 1.5, 2.0]


@pytest.fixture(scope="module")
def pointer():
    pointer = toy_pointer()
    pointer.processor.video_processor.num_frames = 32
    return pointer


@pytest.fixture
def short(pointer):
    """The same pointer, with a model that takes five frames."""
    settings = pointer.processor.video_processor
    before, settings.num_frames = settings.num_frames, 5
    yield pointer
    settings.num_frames = before


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Four seconds, ten frames a second, with odd sides before writing."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_video([Image.fromarray(frame) for frame in frames(40, 51, 71)], 10, path)
    return path


def rows(tracks):
    return [(p.object_id, p.time, p.x, p.y) for track in tracks for p in track]


def test_a_clip_in_memory_is_asked_as_point_video_asks(pointer):
    clip = frames(5, 50, 70)
    result = pointer.track(clip, "the cats", timestamps=TIMES, **LIMIT)
    same = pointer.point_video(clip, "the cats", timestamps=TIMES, template="Track {}", **LIMIT)
    assert result.prompt == "Track the cats" and len(result.answers) == 1 and result.raw_text == same.raw_text
    assert result.tracks == Tracks.from_points(same.points, moments=TIMES) and result.tracks.size == (70, 50)
    assert rows(pointer.track(Clip(list(clip), TIMES), "the cats", **LIMIT).tracks) == rows(result.tracks)
    assert json.loads(json.dumps(result.to_dict()))["windows"] == 1 and "Track the cats" in repr(result)


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ({}, "Track the cats"),
        ({"fps": 1}, "Track the cats at 1 FPS"),
        ({"fps": 5}, "Track the cats at 5 FPS"),
        ({"template": "Follow {} closely", "fps": 2}, "Follow the cats closely"),
        (
            {"ground": "start_end"},
            "video_point_ground_start_end: Find the first and last visible position of the cats in the "
            "video.",
        ),
        (
            {"point": (35.5, 10), "time": 0.6},
            'video_single_point_track_per_frame: Track <points coords="0.5 1 507 200">the cats</points>',
        ),
    ],
)
def test_what_is_sent(options, prompt):
    settings = TrackOptions.of(**options)
    assert settings.request("the cats", (70, 50), 0.5) == prompt
    if settings.point is None and settings.ground is None and settings.answer.template is None:
        assert settings.request("Track the cats in 2 FPS.", (70, 50), 0.5) == "Track the cats in 2 FPS."


def test_a_file_is_seen_as_often_as_it_is_asked_for(pointer, video):
    usual = pointer.track(video, "the cats", **LIMIT)
    assert (
        usual.answers[0].metadata.timestamps.tolist() == np.linspace(0, 4, 9).tolist()
        and usual.tracks.fps == 10
    )
    assert usual.raw_text == pointer.point_video(video, "the cats", template="Track {}", **LIMIT).raw_text
    often = pointer.track(video, "the cats", fps=5, interpolate=10, max_gap=1, **LIMIT)
    assert (
        len(often.answers[0].metadata.timestamps) == 21
        and often.prompt.endswith("at 5 FPS")
        and often.tracks.fps == 10
    )
    rare = pointer.track(video, "the cats", fps=1, **LIMIT)  # sees two frames a second, is asked about one
    assert len(rare.answers[0].metadata.timestamps) == 9 and {0.0, 1.0, 2.0, 3.0, 4.0} <= set(
        rare.tracks.moments.tolist()
    )


def test_a_given_point_begins_its_track(pointer, video):
    result = pointer.track(video, "the cat", point=(30, 20), time=0.9, **LIMIT)
    first = next(point for track in result.tracks for point in track if point.time == 1.0)
    assert (first.x, first.y) == (30, 20) and 'coords="1.0 1 417 385"' in result.prompt  # the file is 72 x 52


def test_long_clips_are_seen_in_windows(short, video):
    result = short.track(video, "the cats", **LIMIT)
    assert len(result.answers) == 3 and all(answer.prompt == "Track the cats" for answer in result.answers)
    assert all(
        answer.metadata.timestamps[0] == 0.0 and len(answer.metadata.timestamps) <= 5
        for answer in result.answers
    )
    assert result.tracks.moments.tolist() == np.linspace(0, 4, 9).tolist() and result.tracks.time.max() <= 4.0
    frames_of_file = open_video(video).frames_at(np.linspace(0, 4, 9))
    in_memory = short.track(frames_of_file, "the cats", timestamps=np.linspace(0, 4, 9), **LIMIT)
    assert rows(in_memory.tracks) == rows(result.tracks) and in_memory.raw_text == result.raw_text
    for options in ({"point": (3, 3)}, {"ground": "start_end"}):
        with pytest.raises(ProcessingError, match="as a whole"):
            short.track(video, "the cats", **options, **LIMIT)


SUBTITLES = [(0.0, 0.8, "Hello"), (1.2, 1.9, "a cat"), (3.4, 3.9, "Bye")]


@pytest.mark.parametrize(
    "part",
    [
        {"start": 1.0, "end": 3.0},
        {"start": 2.5},
        {"end": 1.0, "max_fps": 5},
        {"start": 1.0, "subtitles": SUBTITLES},
    ],
)
def test_a_part_of_a_file(pointer, video, part):
    result = pointer.track(video, "the cats", **part, **LIMIT)
    same = pointer.point_video(video, "the cats", template="Track {}", **part, **LIMIT)
    length, rate = part.get("end", 4.0) - part.get("start", 0.0), part.get("max_fps", 2)
    assert result.tracks.moments.tolist() == pytest.approx(np.linspace(0, length, round(length * rate) + 1))
    assert result.raw_text == same.raw_text and rows(result.tracks) == rows(Tracks.from_points(same.points))


def test_a_part_in_windows(short, video, tmp_path):
    """Times count from the start of the part, and each window reads its own subtitles, from a file as from
    memory.
    """
    part = {"start": 0.5, "subtitles": SUBTITLES}
    result = short.track(video, "the cats", **part, **LIMIT)
    assert len(result.answers) == 3 and result.tracks.moments.tolist() == pytest.approx(
        np.linspace(0, 3.5, 8)
    )
    clip = Clip(open_video(video).frames_at(np.linspace(0, 4, 9)), np.linspace(0, 4, 9))
    in_memory = short.track(clip, "the cats", **part, **LIMIT)
    assert in_memory.raw_text == result.raw_text and rows(in_memory.tracks) == rows(result.tracks)
    assert short.track(clip, "the cats", start=0.5, **LIMIT).raw_text != result.raw_text
    (again,) = short.track_batch([video], "the cats", **part, **LIMIT)
    assert rows(again.tracks) == rows(result.tracks)
    cut = short.track(video, "the cats", start=1.0, end=2.5, **LIMIT)
    cut.draw(tmp_path / "part.mp4")
    assert open_video(tmp_path / "part.mp4").duration == pytest.approx(1.5, abs=0.11)


def test_a_folder_of_pictures(pointer, tmp_path):
    for i, frame in enumerate(frames(11, 40, 40)):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    for part in ({}, {"start": 0.5}, {"max_fps": 5}):
        result = pointer.track(tmp_path, "the cats", frame_rate=10, **part, **LIMIT)
        same = pointer.point_video(tmp_path, "the cats", template="Track {}", frame_rate=10, **part, **LIMIT)
        assert (
            result.raw_text == same.raw_text
            and result.tracks.moments.tolist() == same.metadata.timestamps.tolist()
        )
    times = np.arange(11) / 10
    result = pointer.track(tmp_path, "the cats", timestamps=times, end=0.4, **LIMIT)
    assert result.tracks.moments.tolist() == times[:5].tolist() and result.contact_sheet().width
    for options, message in (
        ({}, "frame_rate="),
        ({"timestamps": times, "frame_rate": 10}, "no frame_rate"),
        ({"frame_rate": 0}, "frame_rate"),
    ):
        with pytest.raises(ProcessingError, match=message):
            pointer.track(tmp_path, "the cats", **options)


def test_a_batch_is_its_clips(short, video, tmp_path):
    clips = [video, Clip(frames(5, 50, 70), TIMES), tmp_path / "gone.mp4", Clip(frames(3, 40, 40), TIMES[:3])]
    prompts = ["the cats", "a dog", "a dog", "a dog on a chair"]
    batch = list(short.track_batch(clips, prompts, batch_size=4, on_error="yield", **LIMIT))
    assert isinstance(batch[2], ProcessingError) and "gone.mp4" in str(batch[2])
    for i in (0, 1, 3):
        alone = short.track(clips[i], prompts[i], **LIMIT)
        assert rows(batch[i].tracks) == [
            (n, t, pytest.approx(x), pytest.approx(y)) for n, t, x, y in rows(alone.tracks)
        ]
    with pytest.raises(ProcessingError, match=r"gone\.mp4"):
        list(short.track_batch(clips[2:], "a dog", **LIMIT))
    with pytest.raises(ProcessingError, match="several"):
        short.track_batch(video, "a dog")


def test_drawings(tmp_path):
    """Object 1 goes to the right, object 2 is looked for at 0.5 s and not found."""
    grey = np.full((11, 64, 96, 3), 128, dtype=np.uint8)
    write_video([Image.fromarray(frame) for frame in grey], 10, tmp_path / "grey.mp4")
    columns = {
        "object_id": [1, 1, 1, 2, 2],
        "time": [0, 0.5, 1, 0, 1],
        "x": [10, 40, 70, 20, 20],
        "y": [20, 20, 20, 50, 50],
    }
    arrays: dict[str, Any] = {name: np.array(column) for name, column in columns.items()}
    tracks = Tracks(**arrays)
    displayed = DisplayedMedia(clip=tmp_path / "grey.mp4", timestamps=np.array([0.0, 0.5, 1.0]))
    result = TrackingResult(tracks, "", "", "Track it", False, 0, (96, 64), (), displayed)
    result.draw(tmp_path / "new" / "tracked.mp4")
    drawn = open_video(tmp_path / "new" / "tracked.mp4")
    assert drawn.size == (96, 64) and drawn.duration == pytest.approx(1.1)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tracked.mp4"]
    start, middle, end = np.abs(drawn.frames_at(np.array([0.0, 0.5, 1.0])).astype(int) - 128).max(axis=3) > 30
    assert start[20, 10] and start[50, 20] and not start[20, 40] and middle[20, 40] and end[20, 70]
    assert middle[20, 25] and not middle[20, 60]  # the trail lies behind the marker
    assert 0 < middle[40:60, 5:35].sum() < 0.7 * start[40:60, 5:35].sum()  # out of sight: a smaller marker
    assert not np.abs(drawn.frames_at(np.array([0.0]))[0].astype(int) - 128)[:, 80:].max() > 12
    result.draw(tmp_path / "gap.mp4", max_gap=0.6, numbers=False, trail=0)
    gap = (
        np.abs(open_video(tmp_path / "gap.mp4").frames_at(np.array([0.5]))[0].astype(int) - 128).max(axis=2)
        > 30
    )
    assert not gap[40:60].any() and gap[20, 40] and not gap[20, 25]
    sheet = result.contact_sheet(cells=2, columns=3, width=120)
    assert sheet.size == (2 * 130 + 10, 34 + 80 + 22 + 10 + 10)


def test_drawings_of_frames_in_memory(pointer, tmp_path):
    result = pointer.track(frames(5, 51, 70), "the cats", timestamps=TIMES, **LIMIT)
    result.draw(tmp_path / "memory.avi")
    drawn = open_video(tmp_path / "memory.avi")
    assert drawn.size == (70, 52) and drawn.frame_rate == pytest.approx(2.0)
    for wrong, message in (
        ({"path": tmp_path / "a.txt"}, "ends in"),
        ({"path": tmp_path / "a.mp4", "trail": -1}, "trail"),
    ):
        with pytest.raises(ProcessingError, match=message):
            result.draw(**wrong)
    with pytest.raises(ProcessingError, match="cells"):
        result.contact_sheet(cells=0)
    with pytest.raises(ProcessingError, match="one frame"):
        write_video([], 10, tmp_path / "none.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["memory.avi"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "fps"),
        ({"fps": 1.5}, "fps"),
        ({"fps": True}, "fps"),
        ({"fps": 11}, "at most 10"),
        ({"ground": "middle"}, "start_end"),
        ({"ground": "start_end", "fps": 2}, "ground alone"),
        ({"interpolate": 0}, "interpolate"),
        ({"interpolate": 5, "max_gap": -1}, "max_gap"),
        ({"max_gap": 1}, "interpolate together"),
        ({"time": 1}, "point together"),
        ({"point": (3, 3), "time": -1}, "time to be 0"),
        ({"point": (3, 3), "time": 9}, "within the clip"),
        ({"point": (300, 3)}, "inside the video"),
        ({"point": 3}, r"\(x, y\)"),
        ({"single": True}, "single"),
        ({"max_crops": 2}, "max_crops"),
        ({"timestamps": [1.0]}, "no timestamps"),
        ({"frame_rate": 10}, "no frame_rate"),
        ({"start": 9}, "within 0..4"),
        ({"start": 2, "end": 1}, "end after it"),
        ({"max_fps": 0}, "max_fps"),
        ({"max_fps": 1, "fps": 2}, "max_fps=1"),
        ({"start": 3, "point": (3, 3), "time": 2}, "within the clip"),
    ],
)
def test_options_that_do_not_fit(pointer, video, options, message):
    with pytest.raises(MolmoPointError, match=message):
        pointer.track(video, "the cats", **options)


@pytest.mark.parametrize("media", ["cat.png", picture(20, 20), np.zeros((4, 4, 3)), None, [picture(20, 20)]])
def test_what_is_no_video(pointer, media, tmp_path):
    with pytest.raises(ProcessingError, match="expected a video"):
        pointer.track(media, "the cats")
    picture(20, 20).save(tmp_path / "cat.png")
    with pytest.raises(ProcessingError, match="picture"):
        pointer.track(tmp_path / "cat.png", "the cats")
    with pytest.raises(ProcessingError, match="one ascending time in seconds"):
        pointer.track(frames(2, 20, 20), "the cats", timestamps=[0.0])
    with pytest.raises(ProcessingError, match="prompt"):
        pointer.track(frames(1, 20, 20), "", timestamps=[0.0])


def test_the_command(toy_folder, video, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(app, ["track", *map(str, arguments)])

    out = {name: tmp_path / name for name in ("a.mp4", "a.csv", "a.txt", "a.json", "a.png")}
    common = (video, "the cats", "--model", toy_folder, "--max-new-tokens", 40)
    done = run(
        *common,
        "--out",
        out["a.mp4"],
        "--csv",
        out["a.csv"],
        "--mot",
        out["a.txt"],
        "--coco",
        out["a.json"],
        "--sheet",
        out["a.png"],
        "--json",
    )
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    tracks = Tracks.from_dict(document["tracks"])
    assert len(document["written"]) == 5 and all(path.is_file() for path in out.values())
    in_table = replace(tracks, x=tracks.x.round(2), y=tracks.y.round(2))
    assert rows(Tracks.load(out["a.csv"])) == rows(in_table) and Tracks.load(out["a.json"]) == tracks
    for wrong, message in (
        (["--max-gap", 1], "interpolate"),
        (["--out", "a.txt"], "ends in"),
        (["--sheet", "a.doc"], "sheet"),
    ):
        done = run(video, "cats", "--model", "no-such-model", *wrong)
        assert done.exit_code == 2 and message in done.stderr
    assert run(tmp_path / "gone.mp4", "cats", "--model", toy_folder).exit_code == 1
