"""Files that lead elsewhere, lie mirrored, have wide pixels, foreign titles, no times or no decoder; both
readers where there are two.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import (
    COUNT,
    FPS,
    MATRICES,
    SIZE,
    greys,
    laid,
    picture_of,
    write_animation,
    write_changing,
    write_film,
    write_stream,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from molmopoint.errors import InputWarning, ProcessingError
from molmopoint.pipeline.video_writing import check_video_path, write_video
from molmopoint.video import (
    RatedFile,
    VideoReader,
    as_cues,
    open_video,
    read_frames,
    read_video,
    torchcodec_reader,
)
from molmopoint.video.av_reader import AvReader
from molmopoint.video.containers import recognised
from molmopoint.video.display import Display, read_matrix
from molmopoint.video.torchcodec_reader import TorchcodecReader, torchcodec_decoder

WORDS = "1\n00:00:00,000 --> 00:00:02,000\nthe password is swordfish\n\n"

LISTS = {
    "ffconcat": "ffconcat version 1.0\nfile secret.mp4\n",
    "ffconcat, absolute": "ffconcat version 1.0\noption safe 0\nfile {folder}/secret.mp4\n",
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:3.5,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    "HLS, absolute": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:3.5,\nfile://{folder}/secret.ts\n#EXT-X-ENDLIST\n",
    "DASH": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'profiles="urn:mpeg:dash:profile:isoff-main:2011">'
    "<Period><AdaptationSet><Representation "
    "id='1'><BaseURL>secret.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "smooth streaming": "<SmoothStreamingMedia MajorVersion='2'></SmoothStreamingMedia>",
    "playlist": "[playlist]\nFile1=secret.mp4\nNumberOfEntries=1\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a film and words that nobody asked for."""
    folder = tmp_path_factory.mktemp("formats")
    write_film(folder / "secret.mp4", g="12")
    write_film(folder / "secret.ts", g="12")
    (folder / "secret.srt").write_text(WORDS)
    return folder


@pytest.fixture(scope="module")
def film(folder) -> Path:
    return folder / "secret.mp4"


def readers_of(path: Path) -> list[VideoReader]:
    """By PyAV, and by torchcodec where it can be loaded."""
    decoder = torchcodec_decoder(path) if recognised(path) else None
    return [AvReader(path), *([] if decoder is None else [TorchcodecReader(path, decoder)])]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.ts", "clip", "clip.m3u8", "clip.mpd"])
@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_other_files_are_not_followed(folder, monkeypatch, kind, name):
    monkeypatch.chdir(folder)
    path = folder / name
    path.write_text(LISTS[kind].format(folder=folder))
    assert recognised(path) is None
    for opened in (open_video, AvReader, torchcodec_reader.torchcodec_decoder):
        try:
            assert opened(path) is None, "torchcodec cannot be loaded here"
        except ProcessingError as error:
            assert name in str(error)
    words = folder / "talk.srt"
    words.write_text(LISTS[kind].replace("secret.mp4", "secret.srt").format(folder=folder))
    with pytest.raises(ProcessingError, match=r"talk\.srt"):
        as_cues(words)


def test_a_list_hidden_in_a_container_is_not_followed(folder):
    hidden = folder / "hidden.mkv"
    hidden.write_bytes(b"\x1a\x45\xdf\xa3\x9f" + LISTS["DASH"].encode() * 3)
    assert recognised(hidden) is None
    with pytest.raises(ProcessingError):
        open_video(hidden)


@pytest.mark.parametrize(
    "name",
    [
        "concat:secret.mp4|secret.mp4",
        "subfile,,start,0,end,0,,:secret.mp4",
        "pipe:0",
        "clip%d.png",
        "50%.mp4",
        "tee:a.mp4",
    ],
)
def test_names_that_look_like_something_else_are_names(folder, film, monkeypatch, name):
    monkeypatch.chdir(folder)
    (folder / "clip0.png").write_bytes(b"no picture")
    Path(name).write_bytes(film.read_bytes())
    for path in (Path(name), folder / name):
        reader = open_video(path)
        assert (reader.size, reader.duration) == (SIZE, COUNT / FPS)
        for each in [AvReader(path)] if "%" in name else readers_of(path):
            assert greys(each.frames_at(np.array([0.0, 1.0]))) == [0, 10]


@pytest.mark.parametrize(
    "content", ["hello, this is no video\n" * 20, "", "\x1b[31mcolours\x1b[0m " * 50, "\0" * 4000]
)
@pytest.mark.parametrize("name", ["clip.mp4", "notes.png", "notes.txt", "clip.gif", "a.h264"])
def test_a_text_is_no_video(folder, name, content):
    path = folder / name
    path.write_text(content)
    with pytest.raises(ProcessingError) as caught:
        read_video(path, max_frames=3)
    assert (
        name in str(caught.value) and "smaller" not in str(caught.value) and "0 x 0" not in str(caught.value)
    )


@pytest.mark.parametrize("path", ["https://host/clip.mp4", "tcp:out.mp4", "concat:a|b.mp4"])
def test_writing_stays_in_the_folder(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    write_video([Image.fromarray(picture_of(i)) for i in range(3)], FPS, check_video_path(path))
    assert [file.suffix for file in tmp_path.rglob("*") if file.is_file()] == [".mp4"]
    assert AvReader(next(tmp_path.rglob("*.mp4"))).duration == pytest.approx(0.3)


@pytest.mark.parametrize("way", MATRICES)
def test_frames_are_shown_as_players_show_them(film, monkeypatch, way):
    """The white quarter of the upper left is where the matrix puts it."""
    path = laid(film, way)
    a, b, c, d = MATRICES[way]
    width, height = SIZE if a else SIZE[::-1]
    right, below = a + c < 0, b + d < 0
    readers = readers_of(path)
    if len(readers) > 1:  # once more as if PyAV were not there
        monkeypatch.setattr(torchcodec_reader, "import_av", lambda: None)
        readers += readers_of(path)[1:]
    for reader in readers:
        assert reader.size == (width, height) and reader.notes == ()
        frame = reader.frames_at(np.array([1.0]))[0]
        assert frame.shape == (height, width, 3)
        corners = {(i, j): frame[i, j].mean() for i in (4, -5) for j in (4, -5)}
        white = [place for place, value in corners.items() if value > 240]
        assert white == [(-5 if below else 4, -5 if right else 4)], type(reader).__name__
    matrix: Any = read_matrix(path)
    assert matrix[:5:4] == [a << 16, d << 16]


@settings(derandomize=True)
@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=9, max_size=9))
def test_any_matrix_is_one_of_the_eight(matrix):
    display = Display.of((6, 4), matrix)
    frame = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    shown = display.show(frame)
    assert shown.shape == (display.size[1], display.size[0], 3) and sorted(shown.ravel()) == sorted(
        frame.ravel()
    )


@settings(derandomize=True, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2**20))
def test_broken_boxes_have_no_matrix(tmp_path_factory, garbage, at):
    path = tmp_path_factory.getbasetemp() / "boxes.mp4"
    path.write_bytes(b"\0\0\0\x20moov\0\0\0\x18trak" + garbage)
    assert read_matrix(path) is None


@pytest.mark.parametrize(
    ("aspect", "size"),
    [(Fraction(2, 1), (128, 48)), (Fraction(1, 2), (32, 48)), (Fraction(12, 11), (70, 48))],
)
def test_pixels_that_are_not_square(tmp_path, aspect, size):
    path = _wide(tmp_path / "wide.mp4", aspect)
    for reader in readers_of(path):
        assert reader.size == size
        frame = reader.frames_at(np.array([1.0]))[0]
        assert frame.shape == (size[1], size[0], 3)
        assert frame[4, size[0] // 2 - 4].mean() > 240 > frame[4, size[0] // 2 + 4].mean(), (
            "the white quarter is stretched with the rest"
        )
        (note,) = reader.notes
        assert "not square" in note and f"{size[0]} x {size[1]}" in note and "64 x 48" in note
    turned = laid(path, "turned 90")
    assert open_video(turned).size == size[::-1]
    assert open_video(turned).frames_at(np.array([1.0])).shape == (1, size[0], size[1], 3)


def _wide(path: Path, aspect: Fraction) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for i in range(COUNT):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_of(i), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("ending", "codec"), [("avi", "mpeg4"), ("mp4", "libx264"), ("mkv", "libx264")])
def test_titles_in_other_encodings(tmp_path, ending, codec):
    av = pytest.importorskip("av")
    path = tmp_path / f"clip.{ending}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLEXX"
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.metadata["language"] = "LNG"
        for i in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_of(i), format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert b"TITLEXX" in data
    path.write_bytes(data.replace(b"TITLEXX", "Дворик!".encode("cp1251")))
    for reader in (open_video(path), *readers_of(path)):
        assert greys(reader.frames_at(np.array([0.0, 0.3]))) == [0, 3]


def test_a_stream_without_decoder(tmp_path):
    path = write_film(tmp_path / "clip.avi", "mpeg4")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"ZZZZ"))
    with pytest.raises(ProcessingError, match=r"clip\.avi"):
        open_video(path)
    with pytest.raises(ProcessingError, match=r"clip\.avi' that can be decoded, got an unknown codec"):
        AvReader(path)


def test_frames_that_change_their_size(tmp_path):
    path = write_changing(tmp_path / "changing.ts", [SIZE, (96, 80), (32, 32)])
    for reader in (open_video(path), AvReader(path)):
        assert reader.size == SIZE and reader.notes == ()
        frames = reader.frames_at(np.arange(30) / FPS)
        assert frames.shape == (30, SIZE[1], SIZE[0], 3) and greys(frames) == list(range(30))
        assert len(reader.notes) == 1 and "several sizes" in reader.notes[0]
    with pytest.warns(InputWarning, match="several sizes"):
        assert len(read_video(path).frames) == 7


@pytest.mark.parametrize(("codec", "form"), [("libx264", "h264"), ("libx265", "hevc"), ("mjpeg", "mjpeg")])
def test_streams_without_times(tmp_path, codec, form):
    path = write_stream(tmp_path / f"clip.{form}", codec, form)
    # H.264 and H.265 may say how many frames a second they have, JPEG never.
    stated = 10 if form != "mjpeg" else 25
    reader = open_video(path)
    assert (reader.duration, reader.frame_rate) == (COUNT / stated, stated)
    assert greys(reader.frames_at(np.array([0.0, 5 / stated, 30 / stated]))) == [0, 5, 30]
    assert greys(reader.frames_at(np.array([2 / stated, 34 / stated]))) == [2, 34], (
        "it starts anew where it must"
    )
    assert len(reader.notes) == (form == "mjpeg") and all(
        "25 frames a second" in note for note in reader.notes
    )
    rated = open_video(path, frame_rate=5.0)
    assert (rated.duration, rated.frame_rate, rated.notes) == (7.0, 5.0, ())
    clip = read_video(path, frame_rate=5.0)
    assert clip.timestamps[-1] == 7.0 and greys(clip.frames)[:3] == [0, 2, 5]
    assert greys(read_frames(RatedFile(path, 5.0), np.array([2.0]))) == [10]


def test_no_rate_for_a_file_that_has_times(film, folder):
    with pytest.raises(ProcessingError, match=r"no frame_rate with .*secret\.mp4"):
        open_video(film, frame_rate=5.0)
    with pytest.raises(ProcessingError, match=r"no frame_rate with .*moving\.gif"):
        open_video(write_animation(folder / "moving.gif", [100, 100]), frame_rate=5.0)


def test_formats_are_recognised(tmp_path):
    written = {
        "mov": "a.mp4",
        "matroska": "a.mkv",
        "avi": "a.avi",
        "flv": "a.flv",
        "mpegts": "a.ts",
        "mpeg": "a.mpg",
    }
    codecs = {"avi": "mpeg4", "flv": "flv1", "mpeg": "mpeg2video"}
    for name, file in written.items():
        codec = codecs.get(name, "libx264")
        path = tmp_path / file
        if codec == "mpeg2video":
            path.write_bytes(b"\0\0\1\xba" + bytes(100))
        else:
            write_film(path, codec)
        assert recognised(path) == name
    assert recognised(write_film(tmp_path / "a.webm", "libvpx")) == "matroska"
    for file in (tmp_path / "empty.mp4", tmp_path / "text.mp4"):
        file.write_text("" if file.stem == "empty" else "words " * 1000)
        assert recognised(file) is None
