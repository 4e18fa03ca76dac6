"""What people and files may say of a clip, however odd: it is understood, or refused by an error of the
library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from toy_processor import toy_processor

from molmopoint.backends.clips import ClipOptions, check_budget, choose_frames, is_clip
from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.pipeline.clip_plans import ClipPlanner
from molmopoint.video import Clip, as_cues, subtitle_text

ODD_NUMBERS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 40), st.floats(), st.sampled_from([10**400, -(10**400), 5e-324, 1e300, 1e9]),
    st.sampled_from(["2", b"2", [], {}, np.float32(0.5), np.int64(2), np.nan, complex(1)]),
)  # fmt: skip
WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["\ud800", "a\0b", "{\\an8}", "<POINT_3><|image|>", 3, None, b"words"]),
)
TIMES = st.one_of(
    ODD_NUMBERS,
    st.lists(ODD_NUMBERS, min_size=5, max_size=7),
    st.lists(st.floats(0, 9), min_size=6, max_size=6).map(sorted),
)
FRAMES = np.zeros((6, 8, 8, 3), dtype=np.uint8)


def some_of(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Some options with any values."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, ODD_NUMBERS))


@pytest.fixture(scope="module")
def processor() -> Any:
    return toy_processor()


@settings(derandomize=True, deadline=None, max_examples=300)
@given(some_of("frame_rate", "start", "end", "max_frames", "max_fps"), st.one_of(st.none(), TIMES))
def test_options_of_a_clip(processor, part, times):
    try:
        options = ClipOptions(**part, timestamps=times)
        clip = choose_frames(processor, FRAMES, options)
        check_budget(processor, clip, 2048)
    except MolmoPointError as error:
        assert str(error)
        return
    seconds = np.array(clip.metadata.timestamps)
    assert (
        1 <= clip.count <= 6
        and np.isfinite(seconds).all()
        and (seconds >= 0).all()
        and (np.diff(seconds) >= 0).all()
    )


@settings(derandomize=True, deadline=None, max_examples=200)
@given(some_of("frame_rate", "start", "end", "max_fps"), st.one_of(st.none(), TIMES))
def test_windows_of_a_clip(processor, part, times):
    video = FRAMES if times is None else Clip(FRAMES, times)
    try:
        plan = ClipPlanner(processor, 2048).plan(video, ClipOptions(**part))
    except MolmoPointError as error:
        assert str(error)
        return
    assert len(plan.windows) >= 1 and np.isfinite(plan.times).all() and plan.size == (8, 8)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.lists(
        st.one_of(st.tuples(ODD_NUMBERS, ODD_NUMBERS, WORDS), ODD_NUMBERS, st.text(max_size=3)), max_size=4
    )
)
def test_subtitles_in_memory(cues):
    try:
        known = as_cues(cues)
    except ProcessingError as error:
        assert "subtitle" in str(error)
        return
    text = subtitle_text(known, [0.0, 1.0])
    text.encode("utf-8")
    assert len(text) < 1000


@pytest.mark.parametrize(
    "cue",
    [
        (10**400, 10**400, "a"),
        (0, 1e300, "a"),
        (float("nan"), 1, "a"),
        (2, 1, "a"),
        ("0", "1", "a"),
        (True, 2, "a"),
        (0, 1, "\ud800"),
    ],
)
def test_subtitles_that_are_refused(cue):
    with pytest.raises(ProcessingError, match="subtitle"):
        as_cues([(0.0, 1.0, "good"), cue])


CUE = b"1\n00:00:01,000 --> 00:00:02,500\nwords\n\n"


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        (
            "russian.srt",
            CUE + "2\n00:00:03,000 --> 00:00:04,000\nЖЩЯ\n\n".encode("cp1251"),
            "UTF-8 in .*russian.* 0xc6 in line 7",
        ),
        ("huge.srt", b"1\n" + b"9" * 400 + b":00:00,000 --> 99:00:00,000\nwords\n\n", "huge"),
        ("far.srt", b"1\n99999:00:00,000 --> 99999:00:01,000\nwords\n\n", "up to 1e"),
        (
            "backwards.srt",
            b"1\n00:00:05,000 --> 00:00:01,000\nwords\n\n",
            r"start before end, .* got \(5.0, 1.0, 'words'\) in .*backwards",
        ),
        ("wide.srt", CUE.decode().encode("utf-16"), "UTF-8 in .*wide.* 0xff in line 1"),
        ("empty.srt", b"", "empty"),
        ("words.srt", b"no subtitles at all\n" * 30, "words"),
        ("zeros.vtt", bytes(5000), "zeros"),
    ],
)
def test_files_with_odd_subtitles(tmp_path, name, data, error):
    pytest.importorskip("av")
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ProcessingError, match=error):
        as_cues(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_encodings_that_are_read(tmp_path, encoding):
    pytest.importorskip("av")
    path = tmp_path / "words.srt"
    path.write_bytes("1\n00:00:01,000 --> 00:00:02,500\nЖЩЯ\n\n".encode(encoding))
    assert as_cues(path) == [(1.0, 2.5, "ЖЩЯ")]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    st.binary(max_size=60),
    st.sampled_from(["a.srt", "a.vtt", "a.ass", "a.mp4", "a"]),
    st.integers(0, len(CUE)),
)
def test_garbled_files_of_subtitles(tmp_path_factory, garbage, name, at):
    pytest.importorskip("av")
    path: Path = tmp_path_factory.getbasetemp() / name
    head = b"WEBVTT\n\n" if name.endswith("vtt") else b""
    path.write_bytes(head + CUE[:at] + garbage + CUE[at:])
    try:
        cues = as_cues(path)
    except ProcessingError as error:
        assert name in str(error) or "subtitle" in str(error)
        return
    assert all(np.isfinite([cue.start, cue.end]).all() for cue in cues)


def test_a_picture_that_moves_is_a_clip(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(tmp_path / "still.gif")
    (tmp_path / "broken.gif").write_bytes(b"GIF89a")
    assert is_clip(tmp_path / "moving.gif") and is_clip(str(tmp_path / "moving.gif"))
    for name in ("still.gif", "broken.gif", "missing.gif"):
        assert not is_clip(tmp_path / name)
