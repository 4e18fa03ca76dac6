"""Clips of a pointer: files, parts of them, folders, frames, subtitles, and what does not fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from films import cut, picture_of, write_animation, write_film
from PIL import Image
from toy_pointer import STEPS, toy_pointer
from toy_processor import frames

from molmopoint.backends.clips import ClipOptions, check_budget, choose_frames
from molmopoint.errors import InputWarning, ProcessingError
from molmopoint.processing.clips import FRAMES_AT_ONCE, PIXELS_AT_ONCE, SampledClip
from molmopoint.video import Clip, read_video


@pytest.fixture(scope="module")
def pointer():
    return toy_pointer()


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return write_film(
        tmp_path_factory.mktemp("film") / "film.mp4",
        noisy=True,
        g="12",
        container_options={"movflags": "faststart"},
    )


def times(result) -> list[float]:
    return result.metadata.timestamps.tolist()


def look(pointer, video, **options):
    return pointer.point_video(video, "the cats", **{"max_new_tokens": STEPS, **options})


def watch(pointer, video, **options):
    return pointer._builder.process_video(video, ClipOptions(**options))


def test_a_part_of_a_file(pointer, film):
    result = look(pointer, film, start=1.0, end=2.0)
    assert times(result) == [0, 0.5, 1.0] and result.image_sizes == ((64, 48),) and result.notes == ()
    clip = read_video(film, start=1.0, end=2.0)
    same = look(pointer, clip.frames, timestamps=[0.0, 0.5, 1.0])
    assert np.allclose(same.points.xy, result.points.xy) and same.text == result.text
    assert len(result.draw()) == len(set(result.points.group.tolist()))
    shown = result.displayed.with_groups(
        dataclasses.replace(result.points, group=np.full(len(result.points), 0.5))
    )
    assert len(shown) == 1 and np.array_equal(np.asarray(shown[0][1]), clip.frames[1]), (
        "drawn on the frames of the part"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]),
        ({"max_frames": 3}, [0, 1.75, 3.5]),
        ({"max_fps": 1.0}, [0, 1, 2, 3, 3.5]),
        ({"start": 3.0}, [0, 0.5]),
        ({"end": 0.6}, [0, 0.5, 0.6]),
        ({"start": 1.0, "end": 99.0, "max_frames": 2}, [0, 2.5]),
    ],
)
def test_which_frames_of_a_file(pointer, film, options, expected):
    clip = choose_frames(pointer.processor, film, ClipOptions(**options))
    assert np.allclose(clip.metadata.timestamps, expected) and clip.count == len(expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"max_frames": 2}, [0, 4]),
        ({"max_frames": 3}, [0, 2, 4]),
        ({"max_fps": 1.0}, [0, 2, 4]),
        ({"start": 0.5}, [1, 2, 3, 4]),
        ({"start": 0.6, "end": 1.6}, [2, 3]),
    ],
)
@pytest.mark.parametrize("form", ["array", "list", "clip"])
def test_which_of_given_frames(pointer, options, expected, form):
    given, seconds = frames(5), [0.0, 0.5, 1.0, 1.5, 2.0]
    video = {"array": given, "list": list(given), "clip": Clip(given, seconds)}[form]
    clip = choose_frames(
        pointer.processor, video, ClipOptions(None if form == "clip" else seconds, **options)
    )
    assert np.allclose(clip.metadata.timestamps, [seconds[i] - options.get("start", 0.0) for i in expected])
    assert np.array_equal(clip.read(0, clip.count).permute(0, 2, 3, 1).numpy(), given[expected])
    assert all(np.array_equal(clip.shown[k], given[i]) for k, i in enumerate(expected))


def test_folders(pointer, tmp_path):
    for i in range(12):
        Image.fromarray(picture_of(i)).save(tmp_path / f"frame{i}.png")
    clip = choose_frames(pointer.processor, tmp_path, ClipOptions(frame_rate=4.0))
    assert clip.metadata.timestamps == [0, 0.5, 1, 1.5, 2, 2.5, 2.75]
    assert [path.name for path in clip.shown] == [f"frame{i}.png" for i in (0, 2, 4, 6, 8, 10, 11)]
    part = choose_frames(pointer.processor, tmp_path, ClipOptions(frame_rate=4.0, start=1.0, end=2.0))
    assert part.metadata.timestamps == [0, 0.5, 1.0] and [path.name for path in part.shown] == [
        f"frame{i}.png" for i in (4, 6, 8)
    ]
    assert choose_frames(pointer.processor, tmp_path, ClipOptions(timestamps=list(range(12)))).count == 12
    assert times(look(pointer, str(tmp_path), frame_rate=4.0, max_frames=2)) == [0, 2.75]


def test_animations(pointer, tmp_path):
    result = look(pointer, write_animation(tmp_path / "animation.gif", [400, 400, 400]))
    assert np.allclose(times(result), [0, 0.5, 1.0, 1.2])


def test_a_damaged_file_says_so(pointer, film):
    damaged = cut(film, 0.6)
    with pytest.warns(InputWarning, match="damaged or cut off"):
        result = look(pointer, damaged)
    assert (
        len(result.notes) == 1
        and "cut_film.mp4" in result.notes[0]
        and result.to_dict()["notes"] == list(result.notes)
    )
    assert times(result)[-1] < 3.0
    everywhere = dataclasses.replace(result.points[:0], group=np.zeros(0))
    assert result.displayed.with_groups(everywhere) == []


def test_a_clip_that_does_not_fit_is_refused_before_any_frame_is_read(pointer, film, monkeypatch):
    monkeypatch.setattr(SampledClip, "chunks", lambda self: pytest.fail("a frame was read"))
    limit = pointer.model.config.text_config.max_position_embeddings
    with pytest.raises(
        ProcessingError,
        match=rf"fewer than {limit} tokens.* got 2000 frames of about \d+, \d+ tokens; pass max_frames=\d+",
    ) as caught:
        look(pointer, np.zeros((2000, 8, 8, 3), np.uint8), timestamps=(np.arange(2000) / 10).tolist())
    fits = int(str(caught.value).split("max_frames=")[1].split()[0])
    clip = choose_frames(
        pointer.processor, np.zeros((fits, 8, 8, 3), np.uint8), ClipOptions((np.arange(fits) / 10).tolist())
    )
    check_budget(pointer.processor, clip, limit)
    rows, cols = pointer.processor.video_processor.grid
    names = sum(name.startswith("<POINT_") for name in pointer.processor.tokenizer.get_added_vocab())
    many = names // (rows * cols) + 1
    clip = choose_frames(
        pointer.processor, np.zeros((many, 8, 8, 3), np.uint8), ClipOptions((np.arange(many) / 10).tolist())
    )
    with pytest.raises(
        ProcessingError, match=f"at most {names} places, as many as the tokenizer has names for"
    ):
        check_budget(pointer.processor, clip, 10**9)


def test_the_budget_counts_what_the_row_has(pointer, film):
    visual = watch(pointer, film)
    rows, cols = pointer.processor.video_processor.grid
    assert visual.metadata.num_patches == 8 * rows * cols


def test_subtitles_follow_the_frames(pointer, film, tmp_path):
    cues = [(0.2, 0.9, "far <|image|> away"), (1.2, 1.8, "a  cat\nruns"), (2.9, 3.4, "gone")]
    plain, told = (
        watch(pointer, film, start=1.0, end=2.0),
        watch(pointer, film, start=1.0, end=2.0, subtitles=cues),
    )
    (span,), (told_span,) = plain.spans, told.spans
    assert told_span.startswith(span)
    expected = "subtitle\n0.2 - 0.8 a cat runs\n1.9 - 2.4 gone\n"
    assert told_span[len(span) :] == expected, (
        "those within a second of a frame, counted from the start of the part"
    )
    (tmp_path / "words.srt").write_text(
        "1\n00:00:01,200 --> 00:00:01,800\n<i>a cat</i>\nruns\n\n2\n00:00:02,900 --> 00:00:03,400\ngone\n"
    )
    assert watch(pointer, film, start=1.0, end=2.0, subtitles=tmp_path / "words.srt").spans == told.spans
    request = pointer._builder.build_request(told, "Where?")
    text = pointer.processor.tokenizer.decode(request.input_ids)
    assert expected in text and text.index(expected) > text.rindex("<frame_end>")
    literal = pointer._builder.build_request(
        watch(pointer, film, subtitles=[(0.0, 1.0, "<|image|> <POINT_3>")]), "Where?"
    )
    assert "<|image|> <POINT_3>" in pointer.processor.tokenizer.decode(literal.input_ids), "words stay words"
    assert (
        len(literal.input_ids)
        > len(pointer._builder.build_request(watch(pointer, film), "Where?").input_ids) + 10
    )


@pytest.mark.parametrize(
    ("video", "options", "message"),
    [
        ("frames", {}, "timestamps=.*or frame_rate="),
        ("frames", {"timestamps": [0.0, 1.0]}, "one ascending time in seconds, from 0, for each of 5 frames"),
        ("frames", {"timestamps": [0.0, 2.0, 1.0, 3.0, 4.0]}, "one ascending time"),
        ("frames", {"timestamps": [0.0, float("nan"), 1.0, 3.0, 4.0]}, "one ascending time"),
        ("frames", {"timestamps": range(5), "frame_rate": 2.0}, "timestamps or a frame_rate, got both"),
        ("frames", {"timestamps": range(5), "start": 4.5}, r"a part within 0\.\.4 seconds"),
        ("frames", {"frame_rate": 2.0, "start": 4.5}, r"a part within 0\.\.2.5 seconds"),
        ("frames", {"frame_rate": 0.0}, "frame_rate to be a number above 0"),
        ("unequal", {"frame_rate": 2.0}, "frames of one size"),
        ("film", {"timestamps": [0.0]}, "no timestamps with a video file"),
        ("film", {"start": 3.5}, r"a part of .* within 0\.\.3\.5 seconds"),
        ("film", {"start": 2.0, "end": 1.0}, "end after it"),
        ("film", {"max_frames": 0}, "max_frames to be a whole number of 1 or more"),
        ("film", {"max_fps": -1.0}, "max_fps to be a number above 0"),
        ("film", {"max_crops": 4}, "no max_crops for a clip"),
        ("film", {"subtitles": [(1.0, 2.0)]}, r"a subtitle as \(start, end, text\)"),
        ("film", {"subtitles": [(2.0, 1.0, "x")]}, "start before end"),
        ("film", {"subtitles": "none.srt"}, r"a file with subtitles at 'none\.srt'"),
        ("film", {"subtitles": 3}, "subtitles as a file or a list"),
        ("empty", {"frame_rate": 2.0}, "expected pictures in the folder"),
        ("nothing.mp4", {}, "found nothing there"),
        ("https://a.b/c.mp4", {}, "nothing is downloaded here"),
    ],
)
def test_bad_input(pointer, film, tmp_path, video, options, message):
    (tmp_path / "empty").mkdir()
    unequal = [Image.fromarray(picture_of(i, (32 + 2 * i, 32))) for i in range(3)]
    known = {"frames": frames(5), "film": film, "empty": tmp_path / "empty", "unequal": unequal}
    with pytest.raises(ProcessingError, match=message):
        look(pointer, known.get(video, video), **options)


def test_subtitles_need_a_readable_file(pointer, film, tmp_path):
    (tmp_path / "latin.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,500\nÜber\n".encode("latin-1"))
    for file in (film, tmp_path / "latin.srt"):
        with pytest.raises(ProcessingError, match="expected subtitles in"):
            watch(pointer, film, subtitles=file)


def test_large_frames_come_in_small_chunks(pointer):
    for width, at_once in ((8, FRAMES_AT_ONCE), (PIXELS_AT_ONCE // 4 // 8, 4), (PIXELS_AT_ONCE, 1)):
        clip = choose_frames(
            pointer.processor, np.zeros((20, 8, 8, 3), np.uint8), ClipOptions(timestamps=list(range(20)))
        )
        clip.metadata.width = width
        assert next(len(chunk) for _, chunk in clip.chunks()) == at_once
