"""Video files as people have them, by both decoders: rates that vary, turned pictures, late starts, damage,
animations.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from films import COUNT, FPS, SIZE, cut, greys, picture_of, turned, write_animation, write_film, write_sound
from PIL import Image

from molmopoint.errors import InputWarning, ProcessingError
from molmopoint.video import (
    MAX_CLIP_PIXELS,
    MAX_FRAMES,
    Clip,
    VideoReader,
    loading,
    open_video,
    read_frames,
    read_video,
    torchcodec_reader,
)
from molmopoint.video.av_reader import AvReader
from molmopoint.video.torchcodec_reader import TorchcodecReader, torchcodec_decoder

VARYING = [0, 100, 150, 400, 900, 905, 1500, 1600, 1700, 1800]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def films(folder) -> dict[str, Path]:
    plain = write_film(folder / "plain.mp4", g="12")
    return {
        "plain": plain,
        "varying": write_film(folder / "varying.mkv", milliseconds=VARYING),
        "late": write_film(folder / "late.mkv", milliseconds=[5000 + 100 * i for i in range(COUNT)]),
        "stream": write_film(folder / "stream.ts", g="12"),
        "webm": write_film(folder / "small.webm", "libvpx", noisy=True),
        "old": write_film(folder / "old.avi", "mpeg4", noisy=True),
        "odd": write_film(folder / "odd.mp4", "mpeg4", size=(62, 46)),
        "one": write_film(folder / "one.mp4", count=1),
        "whole": write_film(
            folder / "whole.mp4", g="12", noisy=True, container_options={"movflags": "faststart"}
        ),
    } | {f"turned {degrees}": turned(plain, degrees) for degrees in (90, 180, 270)}


@pytest.fixture(params=["torchcodec", "av", "torchcodec alone"])
def decoder(request, films, monkeypatch) -> str:
    """What is installed; torchcodec only where its libraries are found."""
    if request.param == "av":
        monkeypatch.setattr(loading, "torchcodec_decoder", lambda path: None)
    elif torchcodec_decoder(films["plain"]) is None:
        pytest.skip("torchcodec cannot be loaded here")
    elif request.param == "torchcodec alone":
        monkeypatch.setattr(loading, "import_av", lambda: None)
    return request.param


def all_frames(reader: VideoReader) -> np.ndarray:
    return reader.frames_at(np.arange(round(reader.duration * 100)) / 100)


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "varying",
        "late",
        "stream",
        "webm",
        "old",
        "odd",
        "one",
        "turned 90",
        "turned 180",
        "turned 270",
    ],
)
def test_both_decoders_see_the_same(films, name):
    if (decoder := torchcodec_decoder(films[name])) is None:
        pytest.skip("torchcodec cannot be loaded here")
    by_av = AvReader(films[name])
    by_torchcodec = TorchcodecReader(films[name], decoder, lambda: by_av if name == "stream" else None)
    assert (by_av.size, by_av.notes, by_torchcodec.notes) == (by_torchcodec.size, (), ())
    assert by_av.duration == pytest.approx(by_torchcodec.duration, abs=1e-6)
    assert by_av.frame_rate == pytest.approx(by_torchcodec.frame_rate, abs=0.011)
    first, second = all_frames(by_av), all_frames(by_torchcodec)
    assert first.shape == second.shape and np.abs(first.astype(int) - second).max() <= 2
    if name in ("plain", "odd", "one", "late"):
        assert np.abs(first[0].astype(int) - picture_of(0, by_av.size)).mean() < 8


def test_rates_that_vary(decoder, films):
    reader = open_video(films["varying"])
    assert reader.duration == pytest.approx(1.9)
    moments = [0.0, 0.099, 0.1, 0.149, 0.15, 0.399, 0.4, 0.899, 0.904, 0.906, 1.499, 1.5, 1.85, 1.9]
    assert greys(reader.frames_at(np.array(moments))) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 9, 9]


def test_a_late_start_is_second_0(decoder, films):
    clip = read_video(films["late"], start=1.0, end=2.0)
    assert clip.timestamps.tolist() == [0, 0.5, 1]
    assert greys(clip.frames) == [10, 15, 20]


@pytest.mark.parametrize(("degrees", "corner"), [(90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_turned_videos_are_upright(decoder, films, degrees, corner):
    reader = open_video(films[f"turned {degrees}"])
    width, height = SIZE if degrees == 180 else SIZE[::-1]
    assert reader.size == (width, height)
    (frame,) = reader.frames_at(np.array([1.0]))
    assert frame.shape == (height, width, 3)
    quarters = {
        (i, j): int(frame[4 if i == 0 else -5, 4 if j == 0 else -5].mean()) for i in (0, -1) for j in (0, -1)
    }
    assert quarters.pop(corner) > 250 and all(value < 90 for value in quarters.values()), quarters


def test_frames_in_any_steps(films):
    """The decoder by PyAV goes on where it stands; whatever is asked for next is found."""
    rng = np.random.default_rng(0)
    reader = AvReader(films["plain"])
    for _ in range(30):
        wanted = np.sort(rng.integers(0, COUNT, rng.integers(1, 5)))
        assert greys(reader.frames_at(wanted / FPS)) == wanted.tolist()


@pytest.mark.parametrize("zeros", [False, True])
def test_the_good_part_of_a_damaged_file(decoder, films, zeros):
    damaged = cut(films["whole"], 0.7, zeros=zeros)
    with pytest.warns(
        InputWarning, match=r"cut_whole.mp4' is damaged or cut off: the first .* of 3.50 seconds can be read"
    ):
        clip = read_video(damaged, max_frames=64, max_fps=None)
    assert 1.0 < clip.timestamps[-1] < 3.0
    assert (
        greys(clip.frames) == sorted(greys(clip.frames))
        and greys(clip.frames)[-1] == round(clip.timestamps[-1] * FPS) - 1
    )
    assert greys(read_frames(damaged, np.array([0.0, 1.0]))) == [0, 10]


@pytest.mark.parametrize("name", ["webm", "old"])
def test_files_that_end_early(films, name):
    """What is there can be decoded, and only the header tells that there should be more."""
    with pytest.warns(InputWarning, match="damaged or cut off"):
        clip = read_video(cut(films[name], 0.5))
    assert len(clip.frames) >= 1


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_nothing_of_a_file_can_be_read(decoder, films, share):
    data = films["whole"].read_bytes()
    damaged = films["whole"].with_name("beyond.mp4")
    damaged.write_bytes(
        data[: int(len(data) * share)] if share < 0.1 else data[: data.index(b"mdat") + 8] + bytes(len(data))
    )
    with pytest.raises(ProcessingError, match=r"beyond\.mp4"):
        read_video(damaged)


def test_no_video_in_the_file(decoder, films, folder):
    with pytest.raises(ProcessingError, match=r"sound\.wav"):
        read_video(write_sound(folder / "sound.wav"))
    (folder / "words.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nwords\n")
    with pytest.raises(ProcessingError, match=r"words\.srt"):
        read_video(folder / "words.srt")


@pytest.mark.parametrize(
    ("ending", "times"),
    [("gif", [100, 200, 50, 300]), ("webp", [100, 200, 50, 300]), ("png", [100, 200, 50, 300])],
)
def test_animated_pictures_are_videos(folder, ending, times):
    film = write_animation(folder / f"animation.{ending}", times)
    reader = open_video(film)
    assert (reader.size, reader.notes) == (SIZE, ())
    assert reader.duration == pytest.approx(0.65)
    assert greys(reader.frames_at(np.array([0.0, 0.099, 0.1, 0.299, 0.3, 0.349, 0.35, 0.64, 0.65, 9.0]))) == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
        3,
        3,
    ]
    renamed = film.with_name(f"renamed_{ending}.mp4")
    renamed.write_bytes(film.read_bytes())
    assert open_video(renamed).duration == reader.duration, "the name does not matter"


def test_animations_without_durations_run_as_in_browsers(folder):
    assert open_video(write_animation(folder / "quick.gif", [0, 10, 20])).duration == pytest.approx(0.22)


def test_transparent_animations_lie_on_white(folder):
    pictures = [Image.new("RGBA", (8, 8), (200, 0, 0, 0)), Image.new("RGBA", (8, 8), (0, 200, 0, 255))]
    pictures[0].save(
        folder / "clear.webp", save_all=True, append_images=pictures[1:], duration=100, lossless=True
    )
    first, second = open_video(folder / "clear.webp").frames_at(np.array([0.0, 0.1]))
    assert (first == 255).all() and second[0, 0].tolist() == [0, 200, 0]


def test_the_good_part_of_a_damaged_animation(folder):
    film = cut(write_animation(folder / "broken.gif", [100] * 6))
    with pytest.warns(InputWarning, match="broken.gif' is damaged"):
        clip = read_video(film)
    assert greys(clip.frames)[0] == 0 and clip.timestamps[-1] < 0.6


@pytest.mark.parametrize("name", ["still.png", "still.jpg", "still.gif", "still.mp4"])
def test_a_picture_is_no_video(folder, name):
    Image.fromarray(picture_of(1)).save(folder / name, format="PNG" if name.endswith("4") else None)
    with pytest.raises(ProcessingError, match=r"got a still picture .*ask about it as a picture"):
        open_video(folder / name)


@pytest.mark.parametrize(
    "address", ["https://a.b/c.mp4", "rtsp://a.b/c", "data:video/mp4;base64,AAAA", Path("http://a.b/c.mp4")]
)
def test_addresses_are_refused(address):
    with pytest.raises(ProcessingError, match="nothing is downloaded here"):
        open_video(address)


def test_limits(films, folder, monkeypatch):
    with pytest.raises(ProcessingError, match=f"at most {MAX_FRAMES} frames, got {MAX_FRAMES + 1}"):
        read_video(films["plain"], max_frames=MAX_FRAMES + 1)
    monkeypatch.setattr(loading, "MAX_CLIP_PIXELS", 5 * 64 * 48)
    with pytest.raises(
        ProcessingError, match=r"at most 15,360 pixels over all frames, got 24,576 in 8 frames of 64 x 48"
    ):
        read_video(films["plain"])
    assert MAX_CLIP_PIXELS > 384 * 1920 * 1080, "what the model can see of a usual video"
    monkeypatch.setattr("molmopoint.video.reader.MAX_FRAME_PIXELS", 64 * 48 - 1)
    for reader in (open_video, AvReader):
        with pytest.raises(ProcessingError, match=r"frames of 1 to 3,071 pixels .* got 64 x 48"):
            reader(films["plain"])
    with pytest.raises(ProcessingError, match=r"frames of 1 to 3,071 pixels"):
        open_video(write_animation(folder / "large.gif", [100, 100]))


def test_an_old_torchcodec_is_left_alone(films, monkeypatch):
    """Before 0.11 it did not turn videos."""
    if (decoder := torchcodec_decoder(films["plain"])) is None:
        pytest.skip("torchcodec cannot be loaded here")
    fields = {
        name: getattr(decoder.metadata, name)
        for name in ("num_frames", "begin_stream_seconds", "end_stream_seconds")
    }
    monkeypatch.setattr(torchcodec_reader, "hasattr", lambda thing, name: False, raising=False)
    assert fields["num_frames"] == COUNT and torchcodec_decoder(films["plain"]) is None
    assert isinstance(open_video(films["plain"]), AvReader)


def test_intact_files_are_read_without_a_word(decoder, films):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("plain", "late", "varying", "one"):
            assert isinstance(read_video(films[name]), Clip)
