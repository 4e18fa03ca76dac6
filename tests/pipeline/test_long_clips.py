"""Long clips: what is told of those that are looked at in part, and pointing in windows."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from films import FPS, write_film
from toy_pointer import STEPS, toy_pointer
from typer.testing import CliRunner

import molmopoint
from molmopoint.backends.clips import ClipOptions
from molmopoint.cli import app
from molmopoint.errors import GroundingError, ProcessingError
from molmopoint.pipeline.clip_answers import joined
from molmopoint.pipeline.clip_plans import ClipPlanner
from molmopoint.points import Points


@pytest.fixture(scope="module")
def pointer():
    return toy_pointer()


@pytest.fixture(scope="module")
def nano():
    return molmopoint.load("nano")


def circle(count: int, places=((160, 120),)) -> np.ndarray:
    """(count, 240, 320, 3) frames with red circles."""
    rows, columns = np.mgrid[:240, :320]
    frame = np.full((240, 320, 3), (236, 236, 228), dtype=np.uint8)
    for x, y in places:
        frame[(columns - x) ** 2 + (rows - y) ** 2 < 40**2] = (220, 40, 40)
    return np.broadcast_to(frame, (count, *frame.shape))


def test_a_clip_that_is_looked_at_less_often_says_so(pointer):
    clip = np.zeros((60, 16, 16, 3), np.uint8)
    sparse = pointer.point_video(clip, "the cats", frame_rate=2.0, max_frames=6, max_new_tokens=STEPS)
    (note,) = sparse.notes
    assert "6 frames of 29.5 s" in note and "one every 5.9 s" in note and "windows=True" in note
    for options in (
        {"frame_rate": 2.0, "end": 2.0},
        {"frame_rate": 0.2, "end": 20.0},
        {"frame_rate": 2.0, "max_fps": 0.5, "end": 8.0},
    ):
        assert pointer.point_video(clip, "the cats", max_new_tokens=STEPS, **options).notes == (), options


def test_a_circle_in_all_windows(nano):
    seen = []
    frames = circle(72)
    result = nano.point_video(
        frames, "the red circle", frame_rate=2.0, windows=True, progress=lambda *done: seen.append(done)
    )
    count = len(result.answers)
    assert count > 2 and seen == [(i + 1, count) for i in range(count)]
    assert (
        len(result.metadata.timestamps) == 72
        and result.image_sizes == ((320, 240),)
        and result.points.image_sizes == ((320, 240),)
    )
    steady = result.points[result.points.object_id == 1]
    assert len(steady) >= 2 and steady.group.max() > result.answers[1].displayed.timestamps[0] + 10, (
        "one number in several windows"
    )
    assert (np.hypot(*(result.points.xy - [160, 120]).T) < 20).all()
    assert (np.diff(result.points.group) >= 0).all() and np.isin(
        result.points.group, result.metadata.timestamps
    ).all()
    assert "windows" in result.notes[-1] and len(result.draw()) == len(set(result.points.group.tolist()))
    with pytest.raises(GroundingError, match=r"result\.answers\[k\]\.heatmap"):
        result.heatmap(0)
    assert result.answers[0].heatmap(0).shape == (240, 320)
    with pytest.raises(ProcessingError, match=r"one of `result\.answers`"):
        nano.point_video(frames, "the red circle", frame_rate=2.0, end=2.0, history=[result])


def test_a_short_clip_is_one_window(nano):
    frames = circle(6)
    plain = nano.point_video(frames, "the red circle", frame_rate=2.0)
    windowed = nano.point_video(frames, "the red circle", frame_rate=2.0, windows=True)
    assert np.array_equal(windowed.points.xy, plain.points.xy)
    assert windowed.points.group.tolist() == plain.points.group.tolist() and len(windowed.answers) == 1
    assert windowed.heatmap(0).shape == (240, 320)


def test_times_of_a_part(nano, tmp_path):
    frames = circle(40)
    for windows in (False, True):
        part = nano.point_video(frames, "the red circle", frame_rate=2.0, start=5.0, windows=windows)
        whole = nano.point_video(
            frames, "the red circle", frame_rate=2.0, start=5.0, windows=windows, absolute=True
        )
        assert (
            whole.points.group.tolist() == (part.points.group + 5.0).tolist()
            and whole.points.group.min() >= 5.0
        )
        assert len(whole.draw()) == len(part.draw()) > 0
        assert whole.answers or np.array_equal(whole.heatmap(0), part.heatmap(0))
    film = write_film(tmp_path / "film.mp4")
    toy = toy_pointer()
    part = toy.point_video(film, "the cats", start=1.0, max_new_tokens=96)
    whole = toy.point_video(film, "the cats", start=1.0, absolute=True, max_new_tokens=96)
    assert len(part.points) and whole.points.group.tolist() == (part.points.group + 1.0).tolist()
    shown = [pictures.displayed.with_groups(pictures.points) for pictures in (part, whole)]
    assert [np.asarray(frame).tolist() for _, frame in shown[0]] == [
        np.asarray(frame).tolist() for _, frame in shown[1]
    ]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_frames": 4}, "no max_frames"),
        ({"history": []}, "no history"),
        ({"max_crops": 2}, "no max_crops"),
    ],
)
def test_options_that_windows_do_not_have(pointer, options, error):
    with pytest.raises(ProcessingError, match=error):
        pointer.point_video(
            np.zeros((60, 16, 16, 3), np.uint8), "the cats", frame_rate=2.0, windows=True, **options
        )


def test_windows_of_a_file(pointer, tmp_path):
    film = write_film(tmp_path / "film.mp4")
    result = pointer.point_video(film, "the cats", windows=True, max_fps=float(FPS), max_new_tokens=96)
    assert (
        len(result.answers) > 1
        and result.metadata.timestamps[-1] == pytest.approx(3.5)
        and len(result.metadata.timestamps) == 36
    )
    assert len(result.points) and np.isin(result.points.group, result.metadata.timestamps).all()
    assert len(result.draw()) == len(set(result.points.group.tolist()))
    starts = [answer.displayed.start for answer in result.answers]
    assert starts == sorted(starts) and starts[0] == 0


def test_objects_of_windows_are_linked_by_place(pointer):
    """Object 1 stays, object 2 of the second window is new in the shared part, object 3 comes after it."""
    plan = ClipPlanner(pointer.processor, 2048).plan(
        np.zeros((300, 100, 100, 3), np.uint8), ClipOptions(frame_rate=2.0)
    )
    assert len(plan.windows) > 1
    plan = dataclasses.replace(plan, windows=plan.windows[:2])
    answer = pointer.point_video(
        np.zeros((3, 100, 100, 3), np.uint8), "the cats", frame_rate=2.0, max_new_tokens=1
    )

    def said(object_id, group, x, y, times):
        points = Points(object_id, np.array(group, dtype=float), x, y, image_sizes=[(100, 100)])
        metadata = dataclasses.replace(answer.metadata, timestamps=np.array(times, dtype=float))
        return dataclasses.replace(answer, points=points, metadata=metadata, distributions=None)

    start = plan.windows[1].start
    end = start + 1.0
    first = said([1, 1], [0.0, start], [10, 12], [10, 10], [0.0, start, end])
    second = said([1, 2, 3, 1], [0.0, 0.5, 5.0, 6.0], [80, 13, 12, 81], [80, 10, 10, 80], [0.0, 0.5, 6.0])
    points = joined(plan, [first, second]).points
    rows = sorted(
        zip(points.object_id.tolist(), (points.group - start).tolist(), points.x.tolist(), strict=True)
    )
    assert rows == [(1, -start, 10), (1, 0, 12), (1, 0.5, 13), (2, 0, 80), (2, 6, 81), (3, 5, 12)]


def test_the_command_points_in_a_clip(tmp_path):
    film = write_film(tmp_path / "film.mp4")
    run = CliRunner().invoke
    said = run(
        app,
        [
            "point",
            str(film),
            "the white square",
            "--start",
            "1",
            "--windows",
            "--json",
            "--out",
            str(tmp_path / "frames"),
        ],
    )
    assert said.exit_code == 0, said.output
    document = json.loads(said.stdout)
    times = [point["group"] for point in document["points"]["points"]]
    assert (
        document["windows"] == 1 and times and min(times) >= 1.0 and len(document["drawn"]) == len(set(times))
    )
    for words, error in (
        ([str(film), "a.png", "it"], "one video alone"),
        (["a.png", "it", "--windows"], "a video with --windows"),
    ):
        refused = run(app, ["point", *words])
        assert refused.exit_code == 2 and error in " ".join(refused.output.split())
