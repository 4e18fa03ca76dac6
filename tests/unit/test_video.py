"""Which frames are looked at, and reading them: the rules as tables, both decoders on a film made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from films import COUNT, FPS, greys, write_film, write_sound
from hypothesis import assume, given
from hypothesis import strategies as st

from molmopoint.errors import ProcessingError
from molmopoint.video import Clip, loading, open_video, read_video, sample_indices, sample_times
from molmopoint.video.torchcodec_reader import torchcodec_decoder


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((10.0, 384), [*np.arange(20) / 2, 10.0]),  # two a second, then the last moment
        ((1.6, 384), [0, 0.5, 1, 1.5, 1.6]),  # the last moment may be close
        ((2.0, 5), [0, 0.5, 1, 1.5, 2]),  # (M - 1) / F is not below D
        ((2.1, 5), np.linspace(0, 2.1, 5)),  # more than fits: evenly spaced
        ((100.0, 3), [0, 50, 100]),
        ((3.0, 1), [0]),
        ((0.0, 8), [0]),
        ((0.3, 8), [0, 0.3]),
        ((3.0, 8, None), np.linspace(0, 3, 8)),  # no limit on the rate
    ],
)
def test_times(arguments, expected):
    assert np.allclose(sample_times(*arguments), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((300, 30, 384), [*range(0, 300, 15), 299]),
        ((12, 6, 384), [0, 3, 6, 9, 11]),
        ((3000, 25, 384), [*(int(np.rint(12.5 * k)) for k in range(240)), 2999]),  # half to even
        ((1, 30, 384), [0]),
        ((2, 30, 384), [0, 1]),
        ((2, 30, 1), [0]),
        ((100, 10, 4), [0, 33, 66, 99]),
        ((7, 1, 384), [0, 1, 2, 3, 4, 5, 6]),  # slower than two a second: every frame once
        ((5, 2, 8), [0, 1, 2, 3, 4]),
    ],
)
def test_indices(arguments, expected):
    assert sample_indices(*arguments).tolist() == expected


@pytest.mark.parametrize(
    ("duration", "max_frames", "rate", "base", "expected_rate"),
    [
        (10.0, 384, 30, 2, 6),  # 2 and 6 divide 30, 10 lies beyond the limit
        (100.0, 384, 30, 2, 2),  # 384 frames at 6 a second end before 100 seconds
        (500.0, 384, 30, 2, 2),  # even the base rate does not reach the end
        (10.0, 384, 25, 1, 5),
        (10.0, 384, 24.9, 1, 8),  # the whole part counts
    ],
)
def test_mode_fps(duration, max_frames, rate, base, expected_rate):
    times = sample_times(duration, max_frames, mode="fps", frame_rate=rate, sampling_fps=base)
    assert np.allclose(times, np.arange(len(times)) / expected_rate)
    assert len(times) == min(max_frames, int(np.ceil(duration * expected_rate)))
    indices = sample_indices(int(duration * rate), rate, max_frames, mode="fps", sampling_fps=base)
    assert np.allclose(indices / rate, times[: len(indices)], atol=0.5 / rate + 1e-9)


@given(st.floats(0, 1e4), st.integers(1, 500), st.floats(0.1, 60))
def test_times_are_few_ascending_and_reach_the_end(duration, max_frames, max_fps):
    times = sample_times(duration, max_frames, max_fps)
    assert times[0] == 0
    assert len(times) <= max(max_frames, 2)
    assert (np.diff(times) > 0).all()
    assert times[-1] == duration or max_frames == 1


@given(st.integers(1, 5000), st.floats(0.5, 120), st.integers(1, 500), st.floats(0.1, 60))
def test_indices_are_few_ascending_and_reach_the_end(num_frames, fps, max_frames, max_fps):
    assume(max_frames > 1)
    indices = sample_indices(num_frames, fps, max_frames, max_fps)
    assert indices[0] == 0
    assert indices[-1] == num_frames - 1
    assert len(indices) <= max_frames + 1
    assert (np.diff(indices) > 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_times(-1.0, 8), "zero or more seconds, got -1"),
        (lambda: sample_times(float("nan"), 8), "got nan"),
        (lambda: sample_times(1.0, 0), "at least one frame, got max_frames 0"),
        (lambda: sample_times(1.0, 8, 0.0), "max_fps above 0"),
        (lambda: sample_times(1.0, 8, mode=cast(Any, "all")), "uniform_last_frame, fps, got 'all'"),
        (
            lambda: sample_times(1.0, 8, mode="fps", frame_rate=25, sampling_fps=2),
            "multiple of sampling_fps 2 .* got 25",
        ),
        (lambda: sample_times(1.0, 8, mode="fps"), "got None"),
        (lambda: sample_indices(0, 30, 8), "at least one frame, got none"),
        (lambda: sample_indices(5, 0, 8), "positive number of frames a second, got 0"),
    ],
)
def test_rules_refuse(call, message):
    with pytest.raises(ProcessingError, match=message):
        call()


@pytest.fixture(scope="module", params=["mpeg4", "libx264"])
def film(request, tmp_path_factory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / f"{request.param}.mp4", request.param)


@pytest.fixture(params=["torchcodec", "av"])
def decoder(request, film, monkeypatch) -> str:
    """Reads with one of the two decoders; torchcodec only where its libraries are found."""
    if request.param == "av":
        monkeypatch.setattr(loading, "torchcodec_decoder", lambda path: None)
    elif torchcodec_decoder(film) is None:
        pytest.skip("torchcodec cannot be loaded here")
    return request.param


def test_the_frame_on_screen(decoder, film):
    reader = open_video(film)
    assert reader.size == (64, 48)
    assert reader.duration == pytest.approx(3.5)
    assert reader.frame_rate == pytest.approx(FPS)
    assert greys(reader.frames_at(np.arange(COUNT) / FPS)) == list(range(COUNT))
    assert greys(reader.frames_at(np.array([0.0, 0.09, 0.1, 0.11, 1.999, 3.49, 3.5, 99.0]))) == [
        0,
        0,
        1,
        1,
        19,
        34,
        34,
        34,
    ]


def test_reading(decoder, film):
    frames, timestamps = read_video(film)
    assert timestamps.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    assert frames.shape == (8, 48, 64, 3)
    assert frames.dtype == np.uint8
    assert greys(frames) == [0, 5, 10, 15, 20, 25, 30, 34]


def test_reading_a_part(decoder, film):
    clip = read_video(film, max_frames=3, start=1.0, end=2.0)
    assert isinstance(clip, Clip)
    assert clip.timestamps.tolist() == [0, 0.5, 1], "times count from the start of the part"
    assert greys(clip.frames) == [10, 15, 20]


def test_reading_at_a_rate_that_divides(decoder, film):
    clip = read_video(film, mode="fps", sampling_fps=1)
    assert greys(clip.frames) == list(range(0, COUNT, 2))


@pytest.mark.parametrize(
    ("start", "end"), [(-1.0, None), (3.5, None), (2.0, 2.0), (2.0, 1.0), (float("nan"), None)]
)
def test_parts_outside(film, start, end):
    with pytest.raises(ProcessingError, match=r"expected a part of "):
        read_video(film, start=start, end=end)


def test_what_is_no_video(decoder, film, tmp_path):
    (tmp_path / "words.mp4").write_text("no film")
    (tmp_path / "empty.mp4").touch()
    write_sound(tmp_path / "sound.wav")
    (tmp_path / "cut.mp4").write_bytes(film.read_bytes()[:400])
    for name in ("words.mp4", "empty.mp4", "sound.wav", "cut.mp4"):
        with pytest.raises(ProcessingError, match=name):
            read_video(tmp_path / name)
    with pytest.raises(ProcessingError, match=r"expected a video file at .*missing.mp4"):
        read_video(tmp_path / "missing.mp4")


def test_without_a_decoder_the_extra_is_named(film, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchcodec.decoders", None)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ProcessingError, match=r'pip install "molmopoint\[video\]"'):
        read_video(film)
